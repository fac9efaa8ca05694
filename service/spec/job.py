"""AlignmentJob: everything a client can ask for, as one object from the POST body to the loss function."""

from typing import Annotated

from pydantic import Field, model_validator

from service.spec.base import SpecModel
from service.spec.data import DataSpec
from service.spec.evaluation import Evaluation
from service.spec.losses import Loss, LossKind, SigmoidLoss
from service.spec.model import ModelRef
from service.spec.resources import PoolRequest, ReferencePlacement, Resources
from service.spec.rows.formats import ScoreUse
from service.spec.shapes import DataShape
from service.spec.training import Lora, Training

# Without quotes and backslashes: what went into a path of JSON where labels were looked for in there.
Label = Annotated[str, Field(min_length=1, max_length=64, pattern=r'^[^"\\]*$')]
MAX_LABELS = 16
Metadata = Annotated[
    dict[Label, Annotated[str, Field(max_length=512)]],
    Field(
        max_length=MAX_LABELS,
        description=f"Labels for people and scripts, at most {MAX_LABELS}; nothing here reads them.",
    ),
]


def _dpo() -> list[Loss]:
    return [SigmoidLoss()]


class AlignmentJob(SpecModel):
    name: str | None = Field(
        None, max_length=200, description="A name for people; need not be unique.", examples=["courteous-v1"]
    )
    model: ModelRef = Field(description="The model to align.")
    reference: ModelRef | None = Field(
        None, description="The model that log-ratios are taken against; by default `model` as it was before training."
    )
    data: DataSpec
    losses: Annotated[list[Loss], Field(min_length=1, max_length=8)] = Field(
        default_factory=_dpo, description="Weighted terms; the total is their weighted sum."
    )
    training: Training = Field(default_factory=Training)
    resources: Resources = Field(default_factory=Resources)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    priority: int = Field(
        0, ge=-100, le=100, description="Among the jobs of your project that wait, a higher one starts first."
    )
    metadata: Metadata = Field(default_factory=dict)
    serve: bool = Field(True, description="Put base and aligned model on vLLM when the job succeeds.")

    @property
    def needs_reference(self) -> bool:
        return any(loss.needs_reference for loss in self.losses)

    @property
    def data_shape(self) -> DataShape:
        """Which rows the job needs: what the preference terms say, since `sft` takes the good answers of any."""
        shapes = self._preference_shapes
        if shapes == {DataShape.PAIRS, DataShape.RANKED}:
            return DataShape.PAIRS  # a pair is a ranking of two
        return next(iter(shapes), DataShape.ANSWERS)

    @property
    def has_pairs(self) -> bool:
        """Whether every row has a better and a worse answer."""
        return self.data_shape in (DataShape.PAIRS, DataShape.RANKED)

    @property
    def _preference_shapes(self) -> set[DataShape]:
        return {loss.type.data_shape for loss in self.losses} - {DataShape.ANSWERS}

    @property
    def continues_adapter(self) -> bool:
        return isinstance(self.training.method, Lora) and self.training.method.continue_adapter

    @property
    def needs_reference_pass(self) -> bool:
        """Whether scores are computed before training; a reference that moves is scored along with the policy."""
        return self.needs_reference and self.training.reference_sync is None

    @property
    def needs_kl_answers(self) -> bool:
        """Whether each row needs another row's answer, to estimate how far the policy is from its reference."""
        return any(loss.type is LossKind.KTO for loss in self.losses)

    @property
    def uses_margin(self) -> bool:
        return any(loss.uses_margin for loss in self.losses)

    @property
    def uses_weight(self) -> bool:
        return all(loss.uses_weight for loss in self.losses)

    @property
    def couples_rows(self) -> bool:
        """Whether a term's loss is no sum over rows, so that the whole optimizer step is needed at once."""
        return any(loss.couples_rows for loss in self.losses)

    @property
    def reference_model(self) -> ModelRef:
        return self.reference or self.model

    @model_validator(mode="after")
    def _consistent(self) -> "AlignmentJob":
        kinds = [loss.type for loss in self.losses]
        alone = [loss.model_copy(update={"weight": 1.0}) for loss in self.losses]
        if any(term in alone[:index] for index, term in enumerate(alone)):
            raise ValueError("`losses` has one term twice: give it once, with the sum of the weights")
        if DataShape.UNPAIRED in self._preference_shapes and len(self._preference_shapes) > 1:
            needs = "; ".join(f"{loss.type}: {loss.type.data_shape}" for loss in self.losses)
            raise ValueError(f"the losses need different rows ({needs}): take those of one kind")
        if self.reference and not self.needs_reference:
            raise ValueError(f"`reference` is used by none of the losses {', '.join(kinds)}: leave it out")
        if self.resources.reference_placement is ReferencePlacement.POLICY:
            if not self.needs_reference_pass:
                raise ValueError("`resources.reference_placement: policy`: the job has no reference pass, leave it out")
            if self.reference:
                raise ValueError("`resources.reference_placement: policy` scores with `model`: leave out `reference`")
            if self.resources.reference != PoolRequest():  # stored jobs have the defaults filled in
                raise ValueError(
                    "`resources.reference_placement: policy` starts no scorers: leave out `resources.reference`"
                )
        if self.evaluation.kl_budget and not self.needs_reference:
            raise ValueError(
                f"`evaluation.kl_budget` is measured against a reference, which none of the losses {', '.join(kinds)} "
                "has: leave it out"
            )
        if self.evaluation.pairs and not self.has_pairs:
            raise ValueError(
                f"`evaluation.pairs` measures pairs, and the losses {', '.join(kinds)} learn from {self.data_shape}: "
                "leave it out"
            )
        if self.training.reference_sync and not self.needs_reference:
            raise ValueError(
                f"`training.reference_sync` moves the reference, which none of the losses {', '.join(kinds)} has: "
                "leave it out"
            )
        if self.data.scores is ScoreUse.MARGIN and not self.uses_margin:
            raise ValueError(f"`data.scores: margin` makes margins, which none of the losses {', '.join(kinds)} uses")
        if self.data.scores is ScoreUse.WEIGHT and not self.uses_weight:
            raise ValueError("`data.scores: weight` makes weights, which not all of the losses can use")
        if self.model.weights == "random" and self.serve:
            raise ValueError("a model with random weights is no base to serve the result beside: set `serve: false`")
        if self.reference_model.weights == "random" and self.needs_reference:
            raise ValueError(
                "a reference with random weights carries no preference: train the model with the `sft` loss first"
            )
        if self.continues_adapter and not self.model.job_id:
            raise ValueError("`training.method.continue_adapter` needs a `model` of the form 'job:ID'")
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, with the documented default filled in."""
        given = self.training.learning_rate
        return given if given is not None else self.default_learning_rate

    @property
    def default_learning_rate(self) -> float:
        full = 2e-5 if self.data_shape is DataShape.ANSWERS else 1e-6
        return full * (10 if self.training.method.type == "lora" else 1)
