"""What is asked and written in one statement is what several would ask and write."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from service.clock import utc_now
from service.db.inserts import insert_all, table_of
from service.db.session import Database
from service.db.tables import ClusterView, Job, JobLabel
from service.db.webhook_tables import Webhook
from service.ids import new_id
from service.jobs.admission import read_known
from service.jobs.asked import ask
from service.projects import service as projects
from service.projects.quota import Quota
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_file, add_job

ROW = b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n'


def naming(train: str, validation: str | None = None) -> AlignmentJob:
    return AlignmentJob.model_validate({"model": "/m", "data": {"train": train, "validation": validation}})


async def test_one_question_finds_what_several_do(database: Database, settings: Settings) -> None:
    mine = [await add_file(database, settings, ROW, project_id="ada") for _ in range(2)]
    others = await add_file(database, settings, ROW, project_id="bob")
    async with database.transaction() as session:
        await add_job(session, project_id="ada", idempotency_key="used")
        session.add(ClusterView(id=1, nodes=[], observed_at=None, tried_at=utc_now(), trouble="nobody answers"))
    for spec, found in ((naming(*mine), 2), (naming(others), 0), (naming("/data/rows.jsonl"), 0)):
        async with database.reading() as session:
            answered = await ask(session, "ada", spec, "used")
            known = await read_known(session, "ada", spec)
        assert answered.known.names == known.names
        assert len(known.names) == found
        assert answered.known.cluster is not None
        assert known.cluster is not None
        for name in ("nodes", "observed_at", "tried_at", "trouble"):
            assert getattr(answered.known.cluster, name) == getattr(known.cluster, name)
        assert (answered.made_before, answered.quota, answered.has_webhooks) == (True, Quota(), False)


async def test_limits_webhooks_and_unused_keys_are_told_of_the_project_that_asks(database: Database) -> None:
    async with database.transaction() as session:
        for project_id in ("ada", "bob"):
            await projects.ensure(session, project_id)
        await projects.set_quota(session, "ada", Quota(max_live_jobs=3))
        await add_job(session, project_id="bob", idempotency_key="used")
        session.add(webhook("ada", disabled=False))
        session.add(webhook("bob", disabled=True))
    async with database.reading() as session:
        ada = await ask(session, "ada", naming("/data/rows.jsonl"), "used")
        bob = await ask(session, "bob", naming("/data/rows.jsonl"), None)
    assert (ada.made_before, ada.quota, ada.has_webhooks) == (False, Quota(max_live_jobs=3), True)
    assert (bob.made_before, bob.quota, bob.has_webhooks) == (False, Quota(), False)
    assert ada.known.cluster is None


async def test_rows_of_several_tables_are_written_all_or_none(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
    labels = [
        {"job_id": job_id, "project_id": "ada", "name": name, "value": "x"}
        for job_id, name in ((job.id, "one"), (job.id, "two"), ("job-of-nobody", "three"))
    ]
    table = table_of(JobLabel)
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await insert_all(session, [(table, label) for label in labels])
    async with database.transaction() as session:
        await insert_all(session, [(table, label) for label in labels[:2]])
    async with database.reading() as session:
        assert (await session.scalars(select(JobLabel.name).order_by(JobLabel.name))).all() == ["one", "two"]


@pytest.mark.parametrize("brief", [True, False])
async def test_a_brief_transaction_sees_its_rows_and_takes_them_back(database: Database, brief: bool) -> None:
    async def count() -> int:
        async with database.reading(brief=brief) as session:
            return (await session.scalars(select(func.count()).select_from(Job))).one()

    async def fail() -> None:
        async with database.transaction(brief=brief) as session:
            job = await add_job(session)
            assert (await session.get_one(Job, job.id)).id == job.id
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await count() == 0
    async with database.transaction(brief=brief) as session:
        await add_job(session)
        assert await count() == 0  # another connection sees it when it is committed
    assert await count() == 1


def webhook(project_id: str, *, disabled: bool) -> Webhook:
    return Webhook(
        id=new_id("webhook"),
        project_id=project_id,
        name="",
        url=f"https://{project_id}.example",
        event_types=["*"],
        secret_version=1,
        oldest_version=1,
        created_at=utc_now(),
        disabled_at=utc_now() if disabled else None,
    )
