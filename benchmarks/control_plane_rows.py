"""Fills a database for `control_plane.py`: many jobs, and the metrics of all their steps, made in SQL."""

from sqlalchemy import insert, text

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job, JobLabel
from service.ids import new_id
from service.jobs.states import JobState
from service.spec import AlignmentJob

_AT_ONCE = 2000
_STATES = (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

_METRICS = """
INSERT INTO metrics (job_id, number, attempt, split, step, "values", created_at)
SELECT jobs.id, steps.step, 1, 'train', steps.step,
    {json}('{{"loss": ' || (0.1 + 1.0 / steps.step) || ', "rewards/margins": ' || (steps.step / 1000.0)
    || ', "rewards/accuracies": 0.75, "logps/chosen": -81.5, "logps/rejected": -97.25, "grad_norm": 1.5}}'),
    jobs.created_at
FROM jobs CROSS JOIN steps WHERE jobs.project_id = :project_id AND jobs.id >= :first AND jobs.id <= :last
"""
_STEPS = """
WITH RECURSIVE steps(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < :num_steps)
"""


async def add_jobs(database: Database, project_id: str, count: int) -> list[str]:
    """Ended jobs, every hundredth labelled; returns their IDs, sorted."""
    spec = AlignmentJob.model_validate({"model": "/models/tiny", "data": {"train": "file-" + "0" * 21}})
    labelled = spec.model_dump(mode="json") | {"metadata": {"team": "blue"}}
    plain = spec.model_dump(mode="json")
    ids = sorted({new_id("job") for _ in range(count)})
    for place in range(0, count, _AT_ONCE):
        now = utc_now()
        rows = [
            {
                "id": job_id,
                "project_id": project_id,
                "body_sha256": "0" * 64,
                "spec": labelled if number % 100 == 0 else plain,
                "state": _STATES[number % len(_STATES)],
                "progress": {},
                "num_attempts": 1,
                "last_event": 0,
                "last_metric": 0,
                "created_at": now,
                "finished_at": now,
            }
            for number, job_id in enumerate(ids[place : place + _AT_ONCE], place)
        ]
        labels = [
            {"job_id": row["id"], "project_id": project_id, "name": "team", "value": "blue"}
            for row in rows
            if row["spec"] is labelled
        ]
        async with database.transaction() as session:
            await session.execute(insert(Job), rows)
            await session.execute(insert(JobLabel), labels)
    return ids


async def add_metrics(database: Database, project_id: str, job_ids: list[str], num_steps: int) -> None:
    """`num_steps` steps of six values for each of the jobs, whose IDs are sorted and without a gap."""
    cast = "" if database.is_sqlite else "CAST"
    statement = _METRICS.format(json=cast)
    if cast:  # PostgreSQL's column is JSON, and text is not taken for it
        statement = statement.replace("1.5}')", "1.5}' AS JSON)")
    per_transaction = max(1, 200_000 // num_steps)
    for place in range(0, len(job_ids), per_transaction):
        some = job_ids[place : place + per_transaction]
        values = {"project_id": project_id, "first": some[0], "last": some[-1], "num_steps": num_steps}
        async with database.transaction() as session:
            await session.execute(text(_STEPS + statement), values)


async def settle(database: Database) -> None:
    """What a database does by itself in time: its statistics."""
    async with database.transaction() as session:
        await session.execute(text("ANALYZE"))
