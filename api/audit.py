"""The audit trail of requests: whoever may have changed something leaves an entry.

Services write the entry in the transaction of the change (`service.audit`). Here is what they leave: requests that were
refused, and those that changed nothing in the database. The entry is there before the answer is. A POST that only reads
(`ReadProjectDep`), such as a question to a model, leaves one if it is refused.
"""

import logging

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deps import READING
from service import audit
from service.db.session import Database
from service.db.trouble import does_not_answer
from service.ids import new_id

log = logging.getLogger(__name__)


class AuditTrail:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        act = audit.Act(action=scope["method"], request_id=state.setdefault("request_id", new_id("req")))

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start" and act.key_id is not None:
                refused = message["status"] >= 400
                if refused or not (act.recorded or act.only_reads):
                    outcome = state.get("problem_code", str(message["status"])) if refused else audit.OK
                    await _record(scope["app"].state.database, act, outcome)
            await send(message)

        with audit.begin(act):
            await self._app(scope, receive, send_recorded)


async def _record(database: Database, act: audit.Act, outcome: str) -> None:
    try:
        async with database.transaction() as session:
            await audit.record(session, act.target, outcome=outcome)
    except (DBAPIError, PoolTimeout) as error:
        if not does_not_answer(error):
            raise
        log.warning("the audit log has no entry of %s by %s (%s): the database does not answer", *_told(act, outcome))


def _told(act: audit.Act, outcome: str) -> tuple[str, str | None, str]:
    return act.action, act.key_id, outcome
