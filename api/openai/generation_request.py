"""What the package sends to ask a model. Names and meanings are OpenAI's, and beyond them vLLM's.

The engine checks ranges and combinations; here is which options there are, so that none is passed over in silence,
and that no message makes an engine fetch anything.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(_Options):
    include_usage: bool | None = Field(None, description="A last chunk without choices has the usage.")
    continuous_usage_stats: bool | None = Field(None, description="vLLM's: every chunk has it.")


class Generation(_Options):
    """Options of both calls."""

    model: str = Field(
        max_length=1000,
        description="`job:ID` (as `fine_tuned_model` names it), `job:ID:ckpt-step-N` for an exported checkpoint, or a "
        "name that a model was promoted to; with `:base` after an ID, the model that the job started from.",
        examples=["job:job-019316f0a6b2f3c1d4e5a"],
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=128)
    presence_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None

    # vLLM's, by the package's `extra_body`
    add_special_tokens: bool | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    echo: bool | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    prompt_logprobs: int | None = None
    repetition_penalty: float | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    stop_token_ids: list[int] | None = None
    structured_outputs: dict[str, Any] | None = None
    top_k: int | None = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1)

    def body(self, model: str) -> dict[str, Any]:
        """As the engine is sent it, where its name is `model`: what was given, and no defaults of ours."""
        return self.model_dump(mode="json", exclude_unset=True) | {"model": model}


class TextPart(_Options):
    type: Literal["text"] = Field(description="Models here read text alone; nothing is fetched for a message.")
    text: str


class Message(BaseModel):
    """Further members are passed on as they are."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None


class ChatRequest(Generation):
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(Generation):
    prompt: str | list[str] | list[int] | list[list[int]] = Field(
        description="Text or token IDs; several make several."
    )
    logprobs: int | None = None
    suffix: str | None = None
