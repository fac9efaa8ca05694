"""The base every part of a specification shares."""

from pydantic import BaseModel, ConfigDict


class SpecModel(BaseModel):
    """Immutable, and closed: an unknown field is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
