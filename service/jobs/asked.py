"""What a submission asks the database before anything is checked: one statement, since each costs as much to send as a
job's row does to write."""

from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam, exists, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import ClusterView, File, Job
from service.db.tenant_tables import Project
from service.db.webhook_tables import Webhook
from service.jobs.admission import Known, uploads_of
from service.projects.quota import Quota
from service.queue.observation import ROW
from service.spec import AlignmentJob

MAX_UPLOADS = 2  # training and validation


@dataclass(frozen=True)
class Answered:
    """made_before: whether a job has the key. has_webhooks: whether somebody may have to be told of a new job."""

    made_before: bool
    known: Known
    quota: Quota
    has_webhooks: bool


_jobs, _files, _projects = Job.__table__.c, File.__table__.c, Project.__table__.c
_webhooks, _view = Webhook.__table__.c, ClusterView.__table__.c
_project_id: BindParameter[str] = bindparam("project_id")
_ONE_ROW = select(literal(1).label("one")).subquery()
_ASK = select(
    exists().where(_jobs.project_id == _project_id, _jobs.idempotency_key == bindparam("key")).label("made_before"),
    exists().where(_webhooks.project_id == _project_id, _webhooks.disabled_at.is_(None)).label("has_webhooks"),
    select(_projects.quota).where(_projects.id == _project_id).scalar_subquery().label("quota"),
    *(
        select(_files.filename)
        .where(_files.id == bindparam(f"upload_{place}"), _files.project_id == _project_id, _files.deleted_at.is_(None))
        .scalar_subquery()
        .label(f"name_{place}")
        for place in range(MAX_UPLOADS)
    ),
    _view.nodes,
    _view.observed_at,
    _view.tried_at,
    _view.trouble,
).select_from(_ONE_ROW.outerjoin(ClusterView.__table__, _view.id == ROW))


async def ask(session: AsyncSession, project_id: str, spec: AlignmentJob, key: str | None) -> Answered:
    """key: the Idempotency-Key."""
    uploads = uploads_of(spec)
    named = {f"upload_{place}": name for place, name in enumerate(uploads + [""] * (MAX_UPLOADS - len(uploads)))}
    row = (await session.execute(_ASK, {"project_id": project_id, "key": key, **named})).one()
    names = {id: name for id, name in zip(uploads, (row.name_0, row.name_1), strict=False) if name is not None}
    view = None
    if row.tried_at is not None:
        view = ClusterView(
            id=ROW, nodes=row.nodes, observed_at=row.observed_at, tried_at=row.tried_at, trouble=row.trouble
        )
    quota = Quota.model_validate(row.quota) if row.quota else Quota()
    return Answered(row.made_before, Known(names, view), quota, row.has_webhooks)
