"""Projects, their members and keys, and the audit log. `project`: another one than the key's own, for operators."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from api.client.call import Call, Operation, Resource, SenderT, given
from api.routes.audit_log import AuditPage
from api.routes.keys import KeyCreated, KeyList, KeyView
from api.routes.members import MemberList, MemberRemoved, MemberView
from api.routes.projects import ProjectDetail, ProjectList, ProjectView
from api.routes.session import SessionView
from service.keys.roles import MemberRole, Role


def _session() -> Call[SessionView]:
    """Who the key belongs to, and what it may do."""
    return Call("GET", "/v1/session", SessionView, repeatable=True)


def _list_projects(*, limit: int = 100, cursor: str | None = None) -> Call[ProjectList]:
    """Your key's project; for an operator all of them."""
    return Call("GET", "/v1/projects", ProjectList, params=given(limit=limit, cursor=cursor), repeatable=True)


def _create_project(project_id: str, *, quota: Mapping[str, Any] | None = None) -> Call[ProjectView]:
    """For operators."""
    return Call("POST", "/v1/projects", ProjectView, json={"id": project_id} | given(quota=quota))


def _get_project(project_id: str) -> Call[ProjectDetail]:
    """The project, its quota and what it uses."""
    return Call("GET", f"/v1/projects/{project_id}", ProjectDetail, repeatable=True)


def _set_quota(project_id: str, quota: Mapping[str, Any]) -> Call[ProjectView]:
    """For operators. null lifts a limit; what is left out stays."""
    return Call("PATCH", f"/v1/projects/{project_id}", ProjectView, json={"quota": dict(quota)}, repeatable=True)


def _set_retention(project_id: str, retention: Mapping[str, Any]) -> Call[ProjectView]:
    """For admins: days that things are kept, such as `{"checkpoints_days": 7}`. null is as the operator has it for all;
    what is left out stays."""
    change = {"retention": dict(retention)}
    return Call("PATCH", f"/v1/projects/{project_id}", ProjectView, json=change, repeatable=True)


def _list_keys(*, limit: int = 100, cursor: str | None = None, project: str | None = None) -> Call[KeyList]:
    """For admins: revoked ones too."""
    params = given(limit=limit, cursor=cursor, project=project)
    return Call("GET", "/v1/keys", KeyList, params=params, repeatable=True)


def _create_key(
    *,
    name: str = "",
    user: str | None = None,
    role: Role | str = Role.MEMBER,
    expires_at: datetime | None = None,
    project: str | None = None,
) -> Call[KeyCreated]:
    """For admins. `key` of the answer is the only time that the key can be had."""
    new = given(name=name, user=user, role=role, expires_at=expires_at and expires_at.isoformat())
    return Call("POST", "/v1/keys", KeyCreated, params=given(project=project), json=new)


def _revoke_key(key_id: str, *, project: str | None = None) -> Call[KeyView]:
    """For admins: the key is refused from the next request on."""
    return Call("DELETE", f"/v1/keys/{key_id}", KeyView, params=given(project=project), repeatable=True)


def _list_members(*, limit: int = 100, cursor: str | None = None, project: str | None = None) -> Call[MemberList]:
    params = given(limit=limit, cursor=cursor, project=project)
    return Call("GET", "/v1/members", MemberList, params=params, repeatable=True)


def _set_member(user: str, role: MemberRole | str, *, project: str | None = None) -> Call[MemberView]:
    """For admins: let the user be a member with this role, or change the role."""
    params, new = given(project=project), {"user": user, "role": role}
    return Call("POST", "/v1/members", MemberView, params=params, json=new, repeatable=True)


def _remove_member(user_id: str, *, project: str | None = None) -> Call[MemberRemoved]:
    """For admins: the user's keys in the project are refused from the next request on."""
    return Call("DELETE", f"/v1/members/{user_id}", MemberRemoved, params=given(project=project))


def _list_audit(*, limit: int = 100, cursor: str | None = None, project: str | None = None) -> Call[AuditPage]:
    """For admins: who did what, newest first."""
    params = given(limit=limit, cursor=cursor, project=project)
    return Call("GET", "/v1/audit", AuditPage, params=params, repeatable=True)


class SessionResource(Resource[SenderT]):
    get = Operation(_session)


class Projects(Resource[SenderT]):
    list = Operation(_list_projects)
    create = Operation(_create_project)
    get = Operation(_get_project)
    set_quota = Operation(_set_quota)
    set_retention = Operation(_set_retention)


class Keys(Resource[SenderT]):
    list = Operation(_list_keys)
    create = Operation(_create_key)
    revoke = Operation(_revoke_key)


class Members(Resource[SenderT]):
    list = Operation(_list_members)
    set = Operation(_set_member)
    remove = Operation(_remove_member)


class Audit(Resource[SenderT]):
    list = Operation(_list_audit)
