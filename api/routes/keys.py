"""API keys of a project: make, list, revoke."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from api.deps import AdminDep, AdministeredDep, DatabaseDep, PageCursor, PageLimit
from api.problems import problems
from service.db.tables import ApiKey
from service.errors import Forbidden, InvalidRequest, NotFound
from service.keys import service as keys
from service.keys.roles import Role
from service.projects import service as projects

router = APIRouter(prefix="/keys", tags=["projects"])


class KeyView(BaseModel):
    id: str
    object: Literal["key"] = "key"
    project_id: str
    user: str | None = Field(description="Whose key it is; null for one from before there were users.")
    role: Role = Field(description="What it may do, as far as its user may.")
    name: str
    prefix: str | None = Field(description="How the key begins.", examples=["pk-Zk3c0a"])
    created_at: datetime
    last_used_at: datetime | None = Field(description="To the minute.")
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey, user_names: dict[str, str]) -> "KeyView":
        return cls(
            id=key.id,
            project_id=key.project_id,
            user=user_names.get(key.user_id, key.user_id) if key.user_id is not None else None,
            role=key.role,
            name=key.name,
            prefix=key.prefix,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
        )


class KeyCreated(KeyView):
    key: str = Field(description="The key itself. It is shown this once; only its digest is kept.")


class KeyList(BaseModel):
    data: list[KeyView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] = Field(
        "", description="What the key is for."
    )
    user: Annotated[str, StringConstraints(pattern=f"^{projects.USER_NAME}$")] | None = Field(
        None, description="A member of the project; by default the user of the key that asks."
    )
    role: Role = Role.MEMBER
    expires_at: AwareDatetime | None = Field(None, description="From then on it is refused; null is never.")


@router.get("", responses=problems(Forbidden, NotFound, InvalidRequest))
async def list_keys(
    project_id: AdministeredDep, database: DatabaseDep, limit: PageLimit = 100, cursor: PageCursor = None
) -> KeyList:
    """For admins: the project's keys, revoked ones too, oldest first."""
    async with database.reading() as session:
        await projects.get(session, project_id)
        names = await projects.user_names(session, project_id)
        found, next_cursor = await keys.page(session, project_id, limit=limit, cursor=cursor)
    return KeyList(data=[KeyView.of(key, names) for key in found], next_cursor=next_cursor)


@router.post("", status_code=201, responses=problems(Forbidden, NotFound))
async def create_key(new: NewKey, caller: AdminDep, project_id: AdministeredDep, database: DatabaseDep) -> KeyCreated:
    """For admins: a key for a member, with a role up to the member's and your own. The answer is the only time that the
    key can be had."""
    async with database.transaction() as session:
        await projects.get(session, project_id)
        key, plaintext = await keys.create_key_for(
            session,
            caller,
            project_id=project_id,
            user=new.user,
            name=new.name,
            role=new.role,
            expires_at=new.expires_at,
        )
        names = await projects.user_names(session, project_id)
    return KeyCreated(**KeyView.of(key, names).model_dump(), key=plaintext)


@router.delete("/{key_id}", responses=problems(Forbidden, NotFound))
async def revoke_key(key_id: str, caller: AdminDep, project_id: AdministeredDep, database: DatabaseDep) -> KeyView:
    """For admins: refuse the key from the next request on. Asking again is harmless."""
    async with database.transaction() as session:
        key = await keys.revoke_key(session, key_id, caller, project_id)
        return KeyView.of(key, await projects.user_names(session, project_id))
