"""The tables of who may do what: projects, users, memberships, sessions, and the audit log. Keys are in
`service.db.tables`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base
from service.keys.roles import Role


class Project(Base):
    """Owns jobs, files, models and keys; they name it by its ID. Its row is what those lock that count its usage."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    quota: Mapped[dict[str, Any]]  # service.projects.quota.Quota; {} is without limits
    retention: Mapped[dict[str, Any] | None]  # service.retention.policy.Retention; what it lacks is as the settings say
    created_at: Mapped[datetime]


class User(Base):
    """A person or a machine. There are no passwords: keys are made for a user by an admin."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)  # a short name or an e-mail address
    created_at: Mapped[datetime]


class Membership(Base):
    """What a user may do in a project. A user's key there may do no more than this says now."""

    __tablename__ = "memberships"

    project_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    role: Mapped[Role]
    created_at: Mapped[datetime]


class BrowserSession(Base):
    """A browser that has signed in with a key (service.keys.sessions)."""

    __tablename__ = "browser_sessions"
    __table_args__ = (Index("ix_browser_sessions_expires_at", "expires_at"),)

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the cookie's token
    key_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class AuditEntry(Base):
    """Who did what (service.audit). Append-only."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))  # whose things it was about
    key_id: Mapped[str | None] = mapped_column(String(40))  # none: a command at the database
    user_id: Mapped[str | None] = mapped_column(String(40))
    action: Mapped[str] = mapped_column(String(200))  # "POST /v1/jobs/{job_id}/cancel", "plumbline keys create"
    target: Mapped[str | None] = mapped_column(String(200))  # ID of what was made, changed or asked for
    outcome: Mapped[str] = mapped_column(String(60))  # "ok", or the code of the problem
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
