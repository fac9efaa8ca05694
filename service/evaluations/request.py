"""What a client may ask to be evaluated: models, prompts, sampling and judges."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from service.evaluations.judge_prompt import PROMPTS, check_prompt
from service.spec.base import SpecModel

MAX_ITEMS = 2000
MAX_ANSWERS = 20_000
MAX_VERDICTS = 100_000
MAX_TEXT = 200_000

Name = Annotated[str, Field(min_length=1, max_length=100)]


class Endpoint(SpecModel):
    """Any server that speaks OpenAI's chat completions."""

    url: str = Field(
        max_length=2000,
        description="Up to the `/chat/completions`, such as https://api.example.com/v1. Its origin must be one that "
        "PLUMBLINE_EVALUATION_ORIGINS lists.",
    )
    model: str = Field(min_length=1, max_length=500, description="The name that the server knows it by.")
    secret: str | None = Field(
        None,
        max_length=100,
        description="Name of the key to send, which the operator has set in PLUMBLINE_EVALUATION_KEYS. The key itself "
        "is never part of a request or an answer.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # ValueError if it is none
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("may have no user name, password, query or fragment: a key is named by `secret`")
        return url.rstrip("/")


class Asked(SpecModel):
    """Somebody who answers: one of `model` and `endpoint`."""

    model: str | None = Field(
        None,
        min_length=1,
        max_length=300,
        description="A model of this service, as GET /v1/models names it: `job:ID`, or `job:ID:base` for what it "
        "started from. It is deployed if it is not.",
        examples=["job:job-019316f0a6b2f3c1d4e5a"],
    )
    endpoint: Endpoint | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Asked":
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("give one of `model` and `endpoint`")
        return self


class Candidate(Asked):
    """A model that is evaluated."""

    name: Name = Field(description="How results call it.", examples=["aligned"])


class Message(SpecModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(max_length=MAX_TEXT)


class InlinePrompt(SpecModel):
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=200)] | None = None
    category: str | None = Field(None, max_length=200, description="Results have a table by category.")

    @model_validator(mode="after")
    def _one_question(self) -> "InlinePrompt":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")
        return self

    @property
    def question(self) -> str | list[dict[str, Any]]:
        return [one.model_dump() for one in self.messages] if self.messages is not None else self.prompt or ""


class HeldOut(SpecModel):
    """The prompts that a job kept out of its training."""

    type: Literal["held_out"]
    job_id: str = Field(max_length=100, description="The job.")
    max: int = Field(200, ge=1, le=MAX_ITEMS, description="At most so many, the first ones.")


class FilePrompts(SpecModel):
    """A file of rows in any of the formats of training files, or of objects with `prompt` or `messages`."""

    type: Literal["file"]
    file_id: str = Field(max_length=100, description="An uploaded file.")
    max: int = Field(200, ge=1, le=MAX_ITEMS, description="At most so many, the first ones.")


class Inline(SpecModel):
    """Prompts in the request itself."""

    type: Literal["inline"]
    items: list[InlinePrompt] = Field(min_length=1, max_length=MAX_ITEMS)


Prompts = Annotated[HeldOut | FilePrompts | Inline, Field(discriminator="type")]


class Sampling(SpecModel):
    """The same for every model. Prompt number i, counted from 0, is sampled with `seed` + i."""

    max_tokens: int = Field(256, ge=1, le=8192, description="Longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 takes the likeliest token every time.")
    top_p: float = Field(1.0, gt=0, le=1, description="Share of the likeliest tokens that are drawn from.")
    seed: int = Field(0, ge=0, le=2**31 - 1 - MAX_ITEMS)

    def of_item(self, position: int) -> dict[str, Any]:
        """As an OpenAI-style request has it."""
        return self.model_dump() | {"seed": self.seed + position}


class HumanJudge(SpecModel):
    """People, who vote without knowing whose answer is whose (POST /v1/evaluations/{id}/deals)."""

    type: Literal["human"]
    name: Name = "people"


class LlmJudge(Asked):
    """A model that compares two answers, each pair in both orders."""

    type: Literal["llm"]
    name: Name = "judge"
    prompt: str = Field(
        "pairwise-v2",
        max_length=20_000,
        description="Name of a prompt that GET /v1/evaluations/judge-prompts lists, or a text with {prompt}, "
        "{answer_a} and {answer_b} in it that asks for a last line `Verdict: A`, `Verdict: B` or `Verdict: tie`.",
    )
    max_tokens: int = Field(1024, ge=1, le=8192, description="Longest reply, in tokens.")
    temperature: float = Field(0.0, ge=0, le=2)

    @field_validator("prompt")
    @classmethod
    def _can_be_filled_in(cls, prompt: str) -> str:
        return prompt if prompt in PROMPTS else check_prompt(prompt)


class ImplicitReward(SpecModel):
    """How often the model of a job prefers the chosen answer of a held-out pair: its reward, beta times the log-ratio
    to the reference, is higher (Rafailov et al. 2023, arXiv 2305.18290). Measured by the job itself at its end."""

    type: Literal["implicit_reward"]
    name: Name = "implicit reward"


class MetricJudge(SpecModel):
    """A Python function that an installed package offers as an entry point of the group `plumbline.metrics`."""

    type: Literal["metric"]
    name: Name
    metric: str = Field(min_length=1, max_length=200, description="The entry point's name.")


Judge = Annotated[HumanJudge | LlmJudge | ImplicitReward | MetricJudge, Field(discriminator="type")]


class EvaluationRequest(SpecModel):
    name: str | None = Field(None, max_length=200, description="A name for people; need not be unique.")
    models: list[Candidate] = Field(
        min_length=1,
        max_length=8,
        description="Each is compared with those before it: put the baseline first.",
        examples=[
            [
                {"name": "base", "model": "job:job-019316f0a6b2f3c1d4e5a:base"},
                {"name": "aligned", "model": "job:job-019316f0a6b2f3c1d4e5a"},
            ]
        ],
    )
    prompts: Prompts
    judges: list[Judge] = Field(min_length=1, max_length=8)
    sampling: Sampling = Sampling()
    compare: Literal["all", "first"] = Field(
        "all", description="Of more than two models: every pair, or each with the first alone."
    )
    chat: bool | None = Field(
        None,
        description="Whether prompts that are texts are put to models of this service as a user's message. By default "
        "they are where the model has a chat template; else the model goes on from the text.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationRequest":
        for what, names in (("models", [one.name for one in self.models]), ("judges", [j.name for j in self.judges])):
            if len(set(names)) < len(names):
                raise ValueError(f"two of `{what}` have the same name")
        compares = any(isinstance(judge, HumanJudge | LlmJudge) for judge in self.judges)
        if compares and len(self.models) < 2:
            raise ValueError("a human or llm judge compares models: name two or more in `models`")
        return self

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(model, baseline), by position in `models`."""
        if self.compare == "first":
            return [(model, 0) for model in range(1, len(self.models))]
        return [(model, baseline) for model in range(len(self.models)) for baseline in range(model)]

    def places(self, kind: type[Any]) -> Sequence[int]:
        """Positions in `judges` of those of one kind."""
        return [place for place, judge in enumerate(self.judges) if isinstance(judge, kind)]
