"""How long a project keeps things: what is set for it, and the settings for all else."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from service.clock import utc_now
from service.db.tenant_tables import Project
from service.errors import Forbidden
from service.settings import Settings

_MAX_DAYS = 36_500

Days = Annotated[float, Field(gt=0, le=_MAX_DAYS)] | Literal["forever"] | None
DaysFrom1 = Annotated[float, Field(ge=1, le=_MAX_DAYS)] | Literal["forever"] | None
DaysFrom7 = Annotated[float, Field(ge=7, le=_MAX_DAYS)] | Literal["forever"] | None


class Kept(StrEnum):
    """What is removed by age. The value is a field of `Retention`, and with `keep_` before it one of the settings."""

    EVENTS = "events_days"
    METRICS = "metrics_days"
    UPLOADS = "uploads_days"
    CHECKPOINTS = "checkpoints_days"


class Retention(BaseModel):
    """Days that a project keeps things; null is what the operator has set for all, `forever` is without an end."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    events_days: DaysFrom7 = Field(None, description="Events of a job, since its end.")
    metrics_days: DaysFrom1 = Field(None, description="Metrics of a job, since its end.")
    uploads_days: DaysFrom1 = Field(None, description="Uploaded files, since the end of the last job on them.")
    checkpoints_days: Days = Field(None, description="Working files of a job, since its end.")

    def days(self, kept: Kept, settings: Settings) -> float:
        """Infinite for what is kept for ever."""
        set_here = getattr(self, kept)
        if set_here == "forever":
            return math.inf
        if set_here is not None:
            return float(set_here)
        by_settings = getattr(settings, f"keep_{kept}")
        return math.inf if by_settings is None else float(by_settings)

    def in_force(self, settings: Settings) -> "Retention":
        """With what the settings say for what is null."""
        days = {kept: self.days(kept, settings) for kept in Kept}
        return Retention.model_validate({kept: "forever" if math.isinf(one) else one for kept, one in days.items()})


def of_project(project: Project) -> Retention:
    return Retention.model_validate(project.retention or {})


def require_shorter(changed: Retention, settings: Settings) -> None:
    """For who is no operator. Raises Forbidden for what would be kept for longer than the settings say."""
    for kept in changed.model_fields_set:
        allowed = Retention().days(Kept(kept), settings)
        if changed.days(Kept(kept), settings) > allowed:
            raise Forbidden(f"The operator has things removed after {allowed:g} days: {kept} may be less, not more.")


@dataclass(frozen=True)
class Scope:
    """Projects that a sweep is for: one, or all without some."""

    only: str | None = None
    without: frozenset[str] = frozenset()

    def holds(self, project_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        if self.only is not None:
            return project_id == self.only
        return project_id.not_in(self.without) if self.without else true()


EVERY_PROJECT = Scope()


async def scopes(session: AsyncSession, settings: Settings, kept: Kept) -> list[tuple[Scope, datetime]]:
    """Which projects' things go, and what of them is older than when; none for what is kept for ever."""
    found = await session.scalars(select(Project).where(Project.retention.is_not(None)))
    own = {one.id: of_project(one) for one in found}
    own = {project_id: retention for project_id, retention in own.items() if getattr(retention, kept) is not None}
    days = {Scope(without=frozenset(own)): Retention().days(kept, settings)}
    days |= {Scope(only=project_id): retention.days(kept, settings) for project_id, retention in own.items()}
    now = utc_now()
    return [(scope, now - timedelta(days=one)) for scope, one in days.items() if not math.isinf(one)]
