"""What you asked several models side by side, and what they answered: kept for you alone, the newest 100."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.conversation_views import ConversationPage, ConversationSummary, ConversationView
from api.deps import CallerDep, DatabaseDep, IdempotencyKeyDep, PageCursor, ProjectDep
from api.problems import problems
from service.conversations import service as conversations
from service.conversations.content import Content
from service.errors import IdempotencyConflict, InvalidRequest, NotFound

router = APIRouter(prefix="/conversations", tags=["serving"])


@router.get("", responses=problems(InvalidRequest))
async def list_conversations(
    caller: CallerDep,
    _project_id: ProjectDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: PageCursor = None,
) -> ConversationPage:
    """Yours, newest first, without what was said in them."""
    async with database.reading() as session:
        page, next_cursor = await conversations.page(session, caller, limit=limit, cursor=cursor)
    return ConversationPage(data=[ConversationSummary.model_validate(one) for one in page], next_cursor=next_cursor)


@router.post("", status_code=201, responses=problems(IdempotencyConflict, InvalidRequest))
async def keep_conversation(
    content: Content,
    caller: CallerDep,
    _project_id: ProjectDep,
    database: DatabaseDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
) -> ConversationView:
    """Keep a conversation. Of more than 100 the oldest goes."""
    kept, replayed = await conversations.create(database, caller, content, idempotency_key)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return ConversationView.of(kept)


@router.delete("", status_code=204)
async def forget_conversations(caller: CallerDep, _project_id: ProjectDep, database: DatabaseDep) -> None:
    """Forget all of yours."""
    async with database.transaction() as session:
        await conversations.remove_all(session, caller)


@router.get("/{conversation_id}", responses=problems(NotFound))
async def get_conversation(
    conversation_id: str, caller: CallerDep, _project_id: ProjectDep, database: DatabaseDep
) -> ConversationView:
    async with database.reading() as session:
        return ConversationView.of(await conversations.get(session, caller, conversation_id))


@router.put("/{conversation_id}", responses=problems(InvalidRequest, NotFound))
async def replace_conversation(
    conversation_id: str, content: Content, caller: CallerDep, _project_id: ProjectDep, database: DatabaseDep
) -> ConversationView:
    """The conversation has gone on: keep it as it is now."""
    async with database.transaction() as session:
        return ConversationView.of(await conversations.replace(session, caller, conversation_id, content))


@router.delete("/{conversation_id}", status_code=204, responses=problems(NotFound))
async def forget_conversation(
    conversation_id: str, caller: CallerDep, _project_id: ProjectDep, database: DatabaseDep
) -> None:
    """Forget this one."""
    async with database.transaction() as session:
        await conversations.remove(session, caller, conversation_id)
