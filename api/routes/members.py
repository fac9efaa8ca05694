"""Who works in a project, and as what."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.deps import AdministeredDep, DatabaseDep, PageCursor, PageLimit
from api.problems import problems
from service.db.tenant_tables import Membership, User
from service.errors import Forbidden, InvalidRequest, InvalidState, NotFound
from service.keys.roles import MemberRole, Role
from service.projects import service as projects

router = APIRouter(prefix="/members", tags=["projects"])


class MemberView(BaseModel):
    id: str = Field(description="The user's ID.")
    object: Literal["member"] = "member"
    user: str
    role: Role
    created_at: datetime

    @classmethod
    def of(cls, user: User, membership: Membership) -> "MemberView":
        return cls(id=user.id, user=user.name, role=membership.role, created_at=membership.created_at)


class MemberList(BaseModel):
    data: list[MemberView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class NewMember(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, StringConstraints(pattern=f"^{projects.USER_NAME}$")] = Field(
        description="A short name or an e-mail address; a user that is not there yet is made.",
        examples=["ada@example.org"],
    )
    role: MemberRole


class MemberRemoved(BaseModel):
    id: str
    object: Literal["member"] = "member"
    removed: Literal[True] = True


@router.get("", responses=problems(Forbidden, NotFound, InvalidRequest))
async def list_members(
    project_id: AdministeredDep, database: DatabaseDep, limit: PageLimit = 100, cursor: PageCursor = None
) -> MemberList:
    """For admins: everyone who works in the project, by name."""
    async with database.reading() as session:
        await projects.get(session, project_id)
        found, next_cursor = await projects.members_page(session, project_id, limit=limit, cursor=cursor)
    views = [MemberView.of(user, membership) for user, membership in found]
    return MemberList(data=views, next_cursor=next_cursor)


@router.post("", responses=problems(Forbidden, NotFound, InvalidState))
async def set_member(new: NewMember, project_id: AdministeredDep, database: DatabaseDep) -> MemberView:
    """For admins: let a user be a member with this role. For one that is a member already it changes the role, and what
    the user's keys may do."""
    async with database.transaction() as session:
        user = await projects.find_or_make_user(session, new.user)
        return MemberView.of(user, await projects.set_member(session, project_id, user, new.role))


@router.delete("/{user_id}", responses=problems(Forbidden, NotFound, InvalidState))
async def remove_member(user_id: str, project_id: AdministeredDep, database: DatabaseDep) -> MemberRemoved:
    """For admins: the user's keys in this project are refused from the next request on."""
    async with database.transaction() as session:
        await projects.remove_member(session, project_id, user_id)
    return MemberRemoved(id=user_id)
