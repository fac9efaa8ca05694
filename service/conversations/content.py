"""What a conversation with several models consists of."""

from typing import Any

from pydantic import Field, model_validator

from service.spec.base import SpecModel

MAX_TURNS = 500


class Sampling(SpecModel):
    """The same for all models."""

    max_tokens: int = Field(ge=1, description="Longest answer, in tokens.")
    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(1, gt=0, le=1)
    seed: int = Field(ge=0, le=2**31 - 1)


class Said(SpecModel):
    """One model's answer, or the problem in its place."""

    text: str = Field(max_length=1_000_000)
    finish: str | None = Field(None, max_length=100, description="Why it ended, as `finish_reason`.")
    tokens: int | None = Field(None, ge=0)
    problem: dict[str, Any] | None = Field(None, description="The problem details that the model's request met.")


class Turn(SpecModel):
    prompt: str = Field(min_length=1, max_length=200_000)
    answers: list[Said] = Field(min_length=1, max_length=8, description="One for each model, in their order.")


class Content(SpecModel):
    models: list[str] = Field(min_length=1, max_length=8, description="Their names, as GET /v1/models has them.")
    sampling: Sampling
    batch: bool = Field(False, description="Whether the turns are questions on their own, not one conversation.")
    turns: list[Turn] = Field(min_length=1, max_length=MAX_TURNS)

    @model_validator(mode="after")
    def _each_model_answered(self) -> "Content":
        for number, turn in enumerate(self.turns):
            if len(turn.answers) != len(self.models):
                raise ValueError(f"turn {number} has {len(turn.answers)} answers of {len(self.models)} models")
        return self
