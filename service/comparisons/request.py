"""What a client may ask both models."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=200_000)


class ComparisonRequest(BaseModel):
    """One prompt or conversation, and how to sample; both models get the same."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"job_id": "job-019316f0a6b2f3c1d4e5a", "prompt": "Can you help me move?"}]},
    )

    job_id: str = Field(
        max_length=1000,
        description="A job whose models are deployed; `ID@STEP` for an exported checkpoint of it, or the name that a "
        "model was promoted to.",
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=200_000,
        description="One user message; for a model without a chat template, the text to go on from.",
    )
    messages: list[ChatMessage] | None = Field(
        None, min_length=1, max_length=200, description="A conversation; instead of `prompt`."
    )
    max_tokens: int = Field(256, ge=1, le=4096, description="Longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 takes the likeliest token every time.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of the sampling, for both models alike.")

    @model_validator(mode="after")
    def _one_question(self) -> "ComparisonRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")
        return self

    def openai(self, *, chat: bool) -> dict[str, Any]:
        """The body of an OpenAI-style streaming request, but for the model's name.

        chat: for /v1/chat/completions; otherwise for /v1/completions, which takes a prompt only.
        """
        sampling: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not chat:
            return {"prompt": self.prompt} | sampling
        if self.messages is not None:
            return {"messages": [message.model_dump() for message in self.messages]} | sampling
        return {"messages": [{"role": "user", "content": self.prompt}]} | sampling
