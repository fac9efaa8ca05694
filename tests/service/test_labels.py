"""Jobs found by their labels."""

import asyncio
from pathlib import Path

from alembic import command
from sqlalchemy import Connection, select, text
from sqlalchemy.engine import make_url

from service.db.migrate import _config, upgrade
from service.db.session import Database
from service.db.tables import JobLabel
from service.jobs import deletion
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.jobs.transitions import transition
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_job

SPEC = {"model": "/models/tiny", "data": {"train": "file-" + "0" * 21}}


async def labelled(database: Database, number: int, metadata: dict[str, str], project_id: str = "ada") -> str:
    spec = AlignmentJob.model_validate(SPEC | {"metadata": metadata}).model_dump(mode="json")
    async with database.transaction() as session:
        columns = {"project_id": project_id, "body_sha256": "0" * 64, "spec": spec, "gpus": 0.0}
        return (await JobRepository(session).add(id=f"job-{number:021x}", **columns)).id


async def listed(
    database: Database, metadata: dict[str, str], limit: int = 100, cursor: str | None = None
) -> list[str]:
    async with database.reading() as session:
        page, _ = await JobRepository(session).page("ada", limit=limit, cursor=cursor, metadata=metadata)
    return [job.id for job in page]


async def test_jobs_are_found_by_all_of_the_labels_that_are_asked_for(database: Database) -> None:
    blue = [await labelled(database, number, {"team": "blue", "run": str(number % 2)}) for number in range(1, 5)]
    plain = await labelled(database, 5, {})
    await labelled(database, 6, {"team": "red"})
    await labelled(database, 7, {"team": "blue"}, project_id="bob")

    assert await listed(database, {"team": "blue"}) == blue[::-1]
    assert await listed(database, {"team": "blue", "run": "1"}) == [blue[2], blue[0]]
    assert await listed(database, {"team": "green"}) == []
    assert await listed(database, {}) == [plain]
    assert await listed(database, {"team": "blue"}, limit=2) == [blue[3], blue[2]]
    assert await listed(database, {"team": "blue"}, limit=2, cursor=blue[2]) == [blue[1], blue[0]]


async def test_a_deleted_job_leaves_no_labels(database: Database, settings: Settings) -> None:
    gone = await labelled(database, 1, {"team": "blue"})
    async with database.transaction() as session:
        await transition(session, await JobRepository(session).get(gone), JobState.CANCELLED, reason="for this test")
    await deletion.delete(database, settings, "ada", gone)
    assert await listed(database, {"team": "blue"}) == []
    async with database.reading() as session:
        assert (await session.scalars(select(JobLabel))).all() == []


def test_an_upgrade_finds_the_labels_of_the_jobs_that_are_there(empty_url: str) -> None:
    Path(str(make_url(empty_url).database)).parent.mkdir(parents=True, exist_ok=True)

    def before(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")
        specs = ['{"metadata": {"team": "blue", "run \'1\'": "x"}}', '{"metadata": {}}', "{}", '{"metadata": null}']
        for number, spec in enumerate([*specs, '{"metadata": {"team": "gone"}}']):
            connection.execute(
                text(
                    "INSERT INTO jobs (id, project_id, body_sha256, spec, state, progress, num_attempts, num_failures, "
                    "gpu_seconds, last_event, last_metric, created_at, deleted_at) VALUES (:id, 'ada', '', "
                    f"'{spec.replace(chr(39), chr(39) * 2).replace(':', chr(92) + ':')}', 'succeeded', '{{}}', "
                    "1, 0, 0, 0, 0, '2026-01-01 00:00:00', "
                    + ("'2026-01-02 00:00:00')" if number == len(specs) else "NULL)")
                ),
                {"id": f"job-{number}"},
            )

    async def found() -> list[tuple[str, str, str, str]]:
        database = Database(empty_url)
        async with database.reading() as session:
            rows = await session.scalars(select(JobLabel).order_by(JobLabel.name))
            labels = [(row.job_id, row.project_id, row.name, row.value) for row in rows]
        await database.close()
        return labels

    async def prepare() -> None:
        database = Database(empty_url)
        async with database.engine.begin() as connection:
            await connection.run_sync(before)
        await database.close()

    asyncio.run(prepare())
    upgrade(empty_url)
    assert asyncio.run(found()) == [("job-0", "ada", "run '1'", "x"), ("job-0", "ada", "team", "blue")]


async def test_a_job_without_labels_is_found_among_those_that_have_none(database: Database) -> None:
    async with database.transaction() as session:
        bare = await add_job(session)
    await labelled(database, 1, {"team": "blue"})
    assert await listed(database, {}) == [bare.id]
