"""The base every part of a specification shares."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_NUMBERS = (int, float, int | None, float | None)


_SPELT = {"gpu": "GPU", "gpus": "GPUs", "cpus": "CPUs", "kl": "KL", "dora": "DoRA", "rslora": "rsLoRA", "wpo": "WPO"}


def title_of(name: str) -> str:
    """A field's name for people: `start_timeout_s` is "Start timeout"; its unit is told apart."""
    words = [_SPELT.get(word, word) for word in name.removesuffix("_s").split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:] if words[0] != "rsLoRA" else words[0], *words[1:]])


class SpecModel(BaseModel):
    """Immutable, and closed: an unknown field is an error, never ignored, and a wrong type is never converted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, field_title_generator=lambda name, _: title_of(name)
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_conversions(cls, value: Any) -> Any:
        """Catch what pydantic would convert; what it refuses itself it tells better. Its strict mode is no way out: it
        refuses the strings that name an enum's members too."""
        if not isinstance(value, dict):
            return value
        numbers, booleans = _fields_that_convert(cls)
        for name, given in value.items():
            if name in numbers and (isinstance(given, bool) or _spells_a_number(given)):
                raise ValueError(f"`{name}` must be a number, not {given!r:.40}")
            if name in booleans and not isinstance(given, bool):
                raise ValueError(f"`{name}` must be true or false, not {given!r:.40}")
        return value


@cache
def _fields_that_convert(kind: type[SpecModel]) -> tuple[frozenset[str], frozenset[str]]:
    """Names of numbers and of booleans. Made once for each model: it took half of a job's validation."""
    annotations = {name: field.annotation for name, field in kind.model_fields.items()}
    numbers = frozenset(name for name, annotation in annotations.items() if annotation in _NUMBERS)
    return numbers, frozenset(name for name, annotation in annotations.items() if annotation is bool)


def _spells_a_number(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True
