"""What a client may say about a webhook."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.text import storable
from service.webhooks.event_types import check_filter


def _text(value: str) -> str:
    if storable(value) != value:
        raise ValueError("has a NUL character or half of a surrogate pair, which are not text")
    return value


Name = Annotated[str, Field(max_length=200, description="For people to recognise."), AfterValidator(_text)]
Url = Annotated[
    str,
    Field(
        max_length=2000,
        description="https://, or http:// to a network of PLUMBLINE_ALLOW_PRIVATE_URLS.",
        examples=["https://hooks.example.com/plumbline"],
    ),
]
EventTypes = Annotated[
    list[Annotated[str, Field(max_length=60), AfterValidator(check_filter)]],
    Field(
        min_length=1,
        max_length=50,
        description="Names of events, groups such as `job.*`, or `*`; also OpenAI's `fine_tuning.job.succeeded`, "
        "`.failed` and `.cancelled`, which are told in OpenAI's form.",
        examples=[["job.succeeded", "job.failed"]],
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebhookCreate(_Request):
    url: Url
    name: Name = ""
    event_types: EventTypes = ["job.succeeded", "job.failed", "job.cancelled"]


class WebhookUpdate(_Request):
    """Only what is given changes."""

    url: Url | None = None
    name: Name | None = None
    event_types: EventTypes | None = None
    enabled: bool | None = Field(None, description="`true` after a webhook was disabled: what waits is sent.")


class SecretRotation(_Request):
    overlap_s: int = Field(
        86_400, ge=0, le=7 * 86_400, description="For how many seconds the secrets before go on signing as well."
    )
