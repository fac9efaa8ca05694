"""The catalogue of losses: what a person needs to choose one, read off the declarations."""

from functools import cache
from typing import Any

from pydantic import BaseModel, Field

from service.spec.curves import MARGINS, SETTING, Curve, curve
from service.spec.losses import DECLARATIONS, LossKind
from service.spec.shapes import DataShape

NOTATION = (
    "s is the sigmoid. C = log p(chosen) - log q(chosen) with p the policy and q the reference, R the same of the "
    "rejected answer, d = C - R; all are sums over the answer's tokens, of which there are n_w and n_l. "
    "a_w = log p(chosen) / n_w, a_l = log p(rejected) / n_l. e is label_smoothing. "
    "Of unpaired rows, A is the log-ratio of the answer. "
    "The loss is the mean over the rows of an optimizer step, weighted by their `weight`. Where a row has a `margin` "
    "m, losses of a margin see d - m/beta. "
    "With reference_free, C and R are log p; with an f_divergence, f' of the log-ratios."
)


class Parameter(BaseModel):
    name: str
    description: str
    type: str = Field(description="`number`, `boolean` or `choice`.")
    default: float | bool | str | None
    choices: list[str] | None = Field(None, description="Of a choice: all values it can have.")
    range: str | None = Field(None, description="Of a number: the interval, as (0, 100].", examples=["(0, 100]"])


class LossEntry(BaseModel):
    type: LossKind
    title: str
    formula: str = Field(description="In the catalogue's `notation`.")
    paper: str | None
    when_to_use: str
    data_shape: DataShape = Field(
        description="`pairs`: a chosen and a rejected answer. `ranked`: answers, best first, or pairs. `unpaired`: one "
        "answer and a label, or pairs, which make two. `answers`: a prompt and one answer suffice."
    )
    needs_reference: bool = Field(description="Whether it reads the reference model, with its default options.")
    parameters: list[Parameter]
    curve: Curve = Field(description="With default options; POST /v1/losses/curves has it with others.")


class LossCatalogue(BaseModel):
    notation: str = NOTATION
    curve_setting: str = SETTING
    margins: list[float] = Field(
        list(MARGINS), description="The log-ratio margins d that each `curve` has a value for."
    )
    data: list[LossEntry]


@cache
def catalogue() -> LossCatalogue:
    """Every loss that a job may name, in the order of LossKind."""
    return LossCatalogue(data=[_entry(kind) for kind in LossKind])


def _entry(kind: LossKind) -> LossEntry:
    declared = DECLARATIONS[kind]
    about = declared.about
    return LossEntry(
        type=kind,
        title=about.title,
        formula=about.formula,
        paper=about.paper,
        when_to_use=about.when_to_use,
        data_shape=kind.data_shape,
        needs_reference=declared().needs_reference,
        parameters=parameters(kind),
        curve=curve(declared()),  # type: ignore[arg-type] # each is a Loss
    )


def parameters(kind: LossKind) -> list[Parameter]:
    """What can be set of a loss beside its type; the weight, which all have, comes last."""
    schema = DECLARATIONS[kind].model_json_schema()
    definitions = schema.get("$defs", {})
    found = [
        _parameter(name, declared, definitions) for name, declared in schema["properties"].items() if name != "type"
    ]
    return sorted(found, key=lambda parameter: parameter.name == "weight")


def _parameter(name: str, declared: dict[str, Any], definitions: dict[str, Any]) -> Parameter:
    shape = declared | next(iter(declared.get("anyOf", ())), {})  # of `float | None`, the float
    if reference := shape.get("$ref"):
        shape = definitions[reference.rpartition("/")[2]] | {"default": shape["default"]}
    choices = shape.get("enum") or ([shape["const"]] if "const" in shape else None)
    return Parameter(
        name=name,
        description=declared["description"],
        type="choice" if choices else shape["type"],
        default=shape["default"],
        choices=choices,
        range=_range(shape) if shape["type"] == "number" else None,
    )


def _range(shape: dict[str, Any]) -> str:
    low = f"({shape['exclusiveMinimum']:g}" if "exclusiveMinimum" in shape else f"[{shape['minimum']:g}"
    high = f"{shape['exclusiveMaximum']:g})" if "exclusiveMaximum" in shape else f"{shape['maximum']:g}]"
    return f"{low}, {high}"
