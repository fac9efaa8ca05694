from collections import Counter

import httpx

from service.db.session import Database
from service.jobs.repository import JobRepository, append_event
from service.spec import Stage
from service.spec.data_report import DataReport, Overlap, RowSet
from tests.api.conftest import problem
from tests.service.conftest import add_job
from workers.data.lengths import summarise


def a_report(used: int) -> DataReport:
    return DataReport(
        unit="tokens",
        file_rows=used,
        rows=used,
        used=used,
        bad=0,
        reasons=[],
        problems=[],
        truncated=0,
        truncated_share=0,
        prompt_tokens=1,
        answer_tokens=2,
        longest=3,
        prompt_lengths=summarise(Counter([1, 2])),
        answer_lengths=None,
        duplicates=RowSet(count=1, rows=[2]),
        equal_answers=RowSet(),
        contradictions=RowSet(),
        overlap=Overlap(held_out=0, shared=RowSet()),
        special_tokens=None,
        length_bias=None,
        warnings=[],
    )


async def prepared(database: Database, job_id: str, data: dict[str, object]) -> None:
    async with database.transaction() as session:
        job = await JobRepository(session).get(job_id)
        await append_event(session, job, "data.prepared", "ready", stage=Stage.PREPARE, data=data)


async def test_the_report_is_there_once_the_rows_are_prepared(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        job_id = (await add_job(session)).id
    path = f"/v1/jobs/{job_id}/data-report"
    missing = problem(await client.get(path), 404, "data_report_missing")
    assert "data.prepared" in missing["detail"]

    await prepared(database, job_id, a_report(2).model_dump(mode="json"))
    await prepared(database, job_id, a_report(3).model_dump(mode="json"))  # of a second attempt
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.json() == a_report(3).model_dump(mode="json")


async def test_the_report_of_an_earlier_version_is_said_to_be_one(
    client: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as session:
        job_id = (await add_job(session)).id
    await prepared(database, job_id, {"rows": 3, "used": 3})
    missing = problem(await client.get(f"/v1/jobs/{job_id}/data-report"), 404, "data_report_missing")
    assert "earlier version" in missing["detail"]


async def test_another_owners_report_is_not_there(
    client: httpx.AsyncClient, database: Database, bob: dict[str, str]
) -> None:
    async with database.transaction() as session:
        job_id = (await add_job(session)).id
    await prepared(database, job_id, a_report(2).model_dump(mode="json"))
    problem(await client.get(f"/v1/jobs/{job_id}/data-report", headers=bob), 404, "not_found")
