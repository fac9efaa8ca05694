"""Creates that OpenAI's package sends again without an Idempotency-Key: it counts in a header, and nothing more."""

from typing import Annotated

from fastapi import Depends, Header, Request

from api.deps import CallerDep
from api.openai.errors import is_package
from api.telemetry import arrived
from service.jobs.calls import Sent

RetryCount = Annotated[int, Header(description="Above 0 the request repeats one that may have been received.", ge=0)]


async def _sent(request: Request, caller: CallerDep, x_stainless_retry_count: RetryCount = 0) -> Sent | None:
    """None for other clients, which say nothing of the kind."""
    if not is_package(request):
        return None
    return Sent(caller.key_id, arrived(request), is_retry=x_stainless_retry_count > 0)


SentDep = Annotated[Sent | None, Depends(_sent)]
