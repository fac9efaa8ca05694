"""The base every part of a specification shares."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_NUMBERS = (int, float, int | None, float | None)


class SpecModel(BaseModel):
    """Immutable, and closed: an unknown field is an error, never ignored, and a wrong type is never converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_conversions(cls, value: Any) -> Any:
        """Catch what pydantic would convert; what it refuses itself it tells better. Its strict mode is no way out: it
        refuses the strings that name an enum's members too."""
        for name, given in value.items() if isinstance(value, dict) else ():
            annotation = cls.model_fields[name].annotation if name in cls.model_fields else None
            if annotation in _NUMBERS and (isinstance(given, bool) or _spells_a_number(given)):
                raise ValueError(f"`{name}` must be a number, not {given!r:.40}")
            if annotation is bool and not isinstance(given, bool):
                raise ValueError(f"`{name}` must be true or false, not {given!r:.40}")
        return value


def _spells_a_number(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True
