"""Projects and their members.

Who decides what: an operator makes projects and sets their quotas; the admins of a project decide over its members and
keys. The first operator and the first admin are made at the database (`plumbline keys create`), so nobody becomes
either over the network without one of them.
"""

import re
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.tables import Base
from service.db.tenant_tables import Membership, Project, User
from service.errors import InvalidRequest, InvalidState, NotFound
from service.ids import is_id, new_id
from service.keys.roles import Role
from service.paging import checked_cursor, cut
from service.projects.quota import Quota
from service.retention.policy import Retention

PROJECT_ID = r"[a-z0-9][a-z0-9._-]{0,62}"
USER_NAME = r"[\w][\w.@+-]{0,199}"


async def ensure(session: AsyncSession, project_id: str) -> Project:
    """The project; made without limits if it is not there."""
    project = await session.get(Project, project_id)
    if project is not None:
        return project
    new = Project(id=checked_id(project_id), quota={}, created_at=utc_now())
    if await _added(session, new):
        await audit.record(session, project_id, project_id=project_id)
        return new
    return await get(session, project_id)


def checked_id(project_id: str, *, field: str = "project") -> str:
    """The ID, if a new project may have it; else raises InvalidRequest."""
    if re.fullmatch(PROJECT_ID, project_id, re.ASCII) is None:
        raise InvalidRequest(
            "A project's ID has 1 to 63 characters: small letters, digits, '.', '_' and '-', and starts with a letter "
            "or a digit.",
            field=field,
        )
    return project_id


async def create(session: AsyncSession, project_id: str, quota: Quota) -> Project:
    """Raises InvalidState if there is such a project."""
    project = Project(id=project_id, quota=quota.model_dump(exclude_none=True), created_at=utc_now())
    if not await _added(session, project):
        raise InvalidState(f"There is a project '{project_id}' already.")
    await audit.record(session, project_id, project_id=project_id)
    return project


async def get(session: AsyncSession, project_id: str, *, lock: bool = False) -> Project:
    """Raises NotFound. lock: others that lock it wait until this transaction ends, and what is read is the newest."""
    found = select(Project).where(Project.id == project_id)
    if lock:
        found = found.with_for_update().execution_options(populate_existing=True)
    project = (await session.scalars(found)).one_or_none() if "\0" not in project_id else None
    if project is None:
        raise NotFound("There is no such project among yours. GET /v1/projects lists them.")
    return project


async def hold(session: AsyncSession, project_id: str) -> None:
    """Others that hold the project wait until this transaction ends, so what is counted in it stays so. (A project from
    before there were any has no row, and holds nobody.)"""
    await session.execute(select(Project.id).where(Project.id == project_id).with_for_update())


async def all_projects(session: AsyncSession) -> Sequence[Project]:
    return (await session.scalars(select(Project).order_by(Project.id))).all()


async def page(session: AsyncSession, *, limit: int, cursor: str | None) -> tuple[Sequence[Project], str | None]:
    """At most `limit` of all projects by ID, from after `cursor`; and the next cursor, None at the end."""
    found = select(Project).order_by(Project.id)
    if cursor is not None:
        found = found.where(Project.id > checked_id(cursor, field="cursor"))
    return cut((await session.scalars(found.limit(limit + 1))).all(), limit, lambda project: project.id)


async def set_quota(session: AsyncSession, project_id: str, changes: Quota) -> Project:
    """Change the limits that are set in `changes`; null lifts one. What runs already goes on."""
    project = await get(session, project_id, lock=True)
    quota = Quota.model_validate(project.quota | changes.model_dump(exclude_unset=True))
    project.quota = quota.model_dump(exclude_none=True)
    await audit.record(session, project_id, project_id=project_id)
    return project


async def set_retention(session: AsyncSession, project_id: str, changes: Retention) -> Project:
    """Change what is set in `changes`; null goes back to the settings. What is removed at the next look follows it."""
    project = await get(session, project_id, lock=True)
    retention = Retention.model_validate((project.retention or {}) | changes.model_dump(exclude_unset=True))
    project.retention = retention.model_dump(exclude_none=True) or None
    await session.flush()
    await audit.record(session, project_id, project_id=project_id)
    return project


async def find_or_make_user(session: AsyncSession, name: str) -> User:
    """Raises InvalidRequest for what is no name."""
    if re.fullmatch(USER_NAME, name) is None:
        raise InvalidRequest(
            "A user is named by 1 to 200 letters, digits and '.', '_', '@', '+', '-', such as an e-mail address.",
            field="user",
        )
    found = select(User).where(User.name == name)
    user = (await session.scalars(found)).one_or_none()
    if user is None:
        user = User(id=new_id("user"), name=name, created_at=utc_now())
        if not await _added(session, user):
            user = (await session.scalars(found)).one()
    return user


async def members(session: AsyncSession, project_id: str) -> Sequence[tuple[User, Membership]]:
    """By name."""
    found = (
        select(User, Membership)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.project_id == project_id)
        .order_by(User.name)
    )
    return [(user, membership) for user, membership in await session.execute(found)]


async def members_page(
    session: AsyncSession, project_id: str, *, limit: int, cursor: str | None
) -> tuple[Sequence[tuple[User, Membership]], str | None]:
    """At most `limit` members by name, from after `cursor`; and the next cursor, None at the end. Raises
    InvalidRequest."""
    found = select(User, Membership).join(Membership, Membership.user_id == User.id)
    found = found.where(Membership.project_id == project_id)
    if cursor is not None:  # a user who is no member any more keeps the name
        last = select(User.name).where(User.id == checked_cursor(cursor, "user")).scalar_subquery()
        found = found.where(User.name > last)
    rows = (await session.execute(found.order_by(User.name).limit(limit + 1))).all()
    return cut([(user, membership) for user, membership in rows], limit, lambda row: row[0].id)


async def user_names(session: AsyncSession, project_id: str) -> dict[str, str]:
    """Names of those who are members, by ID."""
    return {user.id: user.name for user, _ in await members(session, project_id)}


async def all_user_names(session: AsyncSession) -> dict[str, str]:
    """Of every project, by ID."""
    return {user.id: user.name for user in await session.scalars(select(User))}


async def raise_member(session: AsyncSession, project_id: str, user: User, role: Role) -> None:
    """Let the user be a member with this role, or with a higher one that the user has already."""
    membership = await session.get(Membership, (project_id, user.id))
    if membership is None or not membership.role.covers(role):
        await set_member(session, project_id, user, role)


async def set_member(session: AsyncSession, project_id: str, user: User, role: Role) -> Membership:
    """Let the user be a member with this role, whatever the role was. All of the user's keys follow at once.

    Raises InvalidState if the project would be left without an admin.
    """
    assert role is not Role.OPERATOR, "a role of keys"
    project = await get(session, project_id, lock=True)
    membership = await session.get(Membership, (project.id, user.id), populate_existing=True)
    if membership is None:
        membership = Membership(project_id=project.id, user_id=user.id, role=role, created_at=utc_now())
        session.add(membership)
    elif membership.role is not role:
        if role is not Role.ADMIN:
            await _require_other_admin(session, membership)
        membership.role = role
    await session.flush()
    await audit.record(session, user.id, project_id=project.id)
    return membership


async def remove_member(session: AsyncSession, project_id: str, user_id: str) -> None:
    """The user's keys are refused from the next request on. Raises NotFound, and InvalidState for the last admin."""
    project = await get(session, project_id, lock=True)
    membership = await session.get(Membership, (project.id, user_id)) if is_id("user", user_id) else None
    if membership is None:
        raise NotFound("There is no such member. GET /v1/members lists them.")
    await _require_other_admin(session, membership)
    await session.delete(membership)
    await session.flush()
    await audit.record(session, user_id, project_id=project.id)


async def _require_other_admin(session: AsyncSession, membership: Membership) -> None:
    """The project is locked: of two admins who remove each other at once, one stays."""
    if membership.role is not Role.ADMIN:
        return
    others = select(Membership.user_id).where(
        Membership.project_id == membership.project_id,
        Membership.role == Role.ADMIN,
        Membership.user_id != membership.user_id,
    )
    if (await session.scalars(others.limit(1))).one_or_none() is None:
        raise InvalidState("This is the project's only admin: make another member admin first.")


async def _added(session: AsyncSession, row: Base) -> bool:
    """False if another transaction has added it first."""
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True
