import asyncio
import json
from datetime import timedelta

import pytest
from openai import OpenAI
from pydantic import ValidationError
from sqlalchemy import select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Event
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.errors import InvalidRequest, InvalidState, NotFound
from service.jobs import attempts, reports
from service.jobs.repository import JobRepository, append_event
from service.jobs.service import cancel
from service.projects import service as projects
from service.settings import Settings
from service.spec.reports import EventReport, ReportBatch
from service.webhooks import service as webhooks
from service.webhooks.event_types import told_as
from service.webhooks.message import MAX_DATA_BYTES, body_of
from service.webhooks.repository import DeliveryRepository
from service.webhooks.request import SecretRotation, WebhookCreate, WebhookUpdate
from service.webhooks.signing import signed_headers, signing_secret
from service.webhooks.states import DeliveryState
from tests.service.conftest import add_job

URL = "https://hooks.example.com/plumbline"


async def webhook(database: Database, settings: Settings, *event_types: str, project_id: str = "ada") -> Webhook:
    request = WebhookCreate(url=URL, event_types=list(event_types) or ["job.*"])
    return await webhooks.create(database, settings, project_id, request)


async def deliveries(database: Database) -> list[WebhookDelivery]:
    async with database.reading() as session:
        return list((await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))).all())


async def test_each_event_that_a_webhook_asks_for_becomes_one_delivery(database: Database, settings: Settings) -> None:
    await webhook(database, settings, "job.*", "data.prepared", "fine_tuning.job.cancelled")
    await webhook(database, settings, project_id="bob")
    async with database.transaction() as session:
        job = await add_job(session)
        attempt = await attempts.start_attempt(session, job)
    batch = ReportBatch(
        first_seq=1,
        reports=[EventReport(type="data.prepared", message="3 pairs"), EventReport(type="train.started", message="")],
    )
    for _ in range(2):  # a batch that is sent again
        async with database.transaction() as session:
            await reports.take_batch(session, attempt.id, batch, settings)
    await cancel(database, "ada", job.id)
    async with database.transaction() as session:
        job = await JobRepository(session).get(job.id, lock=True)
        await attempts.finish_leaving(session, job, "Cancelled.")

    async with database.reading() as session:
        events = (await session.scalars(select(Event).order_by(Event.number))).all()
    told = [(one.event_number, one.type) for one in await deliveries(database)]
    wanted = [(event.number, event.type) for event in events if event.type != "train.started"]
    assert sorted(told) == sorted([*wanted, (events[-1].number, "fine_tuning.job.cancelled")])


async def test_an_event_that_is_rolled_back_is_not_delivered(database: Database, settings: Settings) -> None:
    await webhook(database, settings)

    async def dies() -> None:
        async with database.transaction() as session:
            await append_event(session, await add_job(session), "job.queued", "")
            raise RuntimeError("before the commit")

    with pytest.raises(RuntimeError):
        await dies()
    assert await deliveries(database) == []


@pytest.mark.parametrize(
    ("filters", "type", "names"),
    [
        (["*"], "checkpoint.saved", ["checkpoint.saved"]),
        (["job.*"], "job.failed", ["job.failed"]),
        (["job.*"], "deployment.failed", []),
        (["job.succeeded"], "job.failed", []),
        (["job.failed", "job.*", "*"], "job.failed", ["job.failed"]),
        (["fine_tuning.job.failed"], "job.failed", ["fine_tuning.job.failed"]),
        (["*", "fine_tuning.job.failed"], "job.failed", ["job.failed", "fine_tuning.job.failed"]),
    ],
)
def test_what_a_filter_lets_through(filters: list[str], type: str, names: list[str]) -> None:
    assert told_as(filters, type) == names


@pytest.mark.parametrize("name", ["job.success", "jobs.*", "job", "job.", "", "*.*", "fine_tuning.job.queued", "data."])
def test_a_filter_that_nothing_could_match_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"there (is|are) no event|is not the name"):
        WebhookCreate(url=URL, event_types=[name])


async def test_receivers_libraries_take_the_signature_and_read_the_event(
    database: Database, settings: Settings
) -> None:
    hook = await webhook(database, settings, "job.succeeded", "fine_tuning.job.succeeded")
    async with database.transaction() as session:
        job = await add_job(session)
        await append_event(session, job, "job.succeeded", "The model is published.", data={"attempt": 1})
        ours, openais = [(one, await body_of(session, one)) for one in await deliveries_in(session, hook)]
    secret = signing_secret(settings, hook)

    delivery, body = ours
    headers = signed_headers(settings, hook, delivery.id, body, utc_now())
    told = Verifier(secret).verify(body, headers)
    assert (told["type"], told["data"]["job_id"], told["data"]["data"]) == ("job.succeeded", job.id, {"attempt": 1})
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(body + b" ", headers)

    delivery, body = openais
    headers = signed_headers(settings, hook, delivery.id, body, utc_now())
    event = OpenAI(api_key="none").webhooks.unwrap(body, headers, secret=secret)
    assert event.type == "fine_tuning.job.succeeded"
    assert (event.id, event.data.id) == (delivery.id, job.id)


async def deliveries_in(session: object, hook: Webhook) -> list[WebhookDelivery]:
    page, _ = await DeliveryRepository(session, hook).page(limit=10, cursor=None, state=None)  # type: ignore[arg-type]
    return sorted(page, key=lambda one: one.type, reverse=True)


async def test_the_body_of_a_large_event_is_shortened_and_says_so(database: Database, settings: Settings) -> None:
    await webhook(database, settings, "*")
    async with database.transaction() as session:
        job = await add_job(session)
        await append_event(session, job, "data.prepared", "m" * 5000, data={"rows": ["x" * MAX_DATA_BYTES]})
    async with database.reading() as session:
        body = await body_of(session, (await deliveries(database))[0])
    told = json.loads(body)["data"]
    assert len(body) < MAX_DATA_BYTES
    assert (told["shortened"], told["data"], told["number"]) == (True, {}, 1)


async def test_a_rotated_secret_overlaps_with_the_ones_before_and_then_stands_alone(
    database: Database, settings: Settings
) -> None:
    hook = await webhook(database, settings)
    secrets = [signing_secret(settings, hook)]
    for _ in range(2):  # the second, because the answer to the first was lost
        async with database.transaction() as session:
            hook = await webhooks.rotate_secret(session, "ada", hook.id, SecretRotation(overlap_s=60))
        secrets.append(signing_secret(settings, hook))
    assert len(set(secrets)) == 3

    def accepted(after: timedelta) -> list[bool]:
        headers = signed_headers(settings, hook, "msg-1", b"{}", utc_now() + after)
        return [_verifies(secret, headers) for secret in secrets]

    assert accepted(timedelta(0)) == [True, True, True]
    assert accepted(timedelta(seconds=61)) == [False, False, True]
    async with database.transaction() as session:
        hook = await webhooks.rotate_secret(session, "ada", hook.id, SecretRotation(overlap_s=0))
    assert accepted(timedelta(0)) == [False, False, False]


def _verifies(secret: str, headers: dict[str, str]) -> bool:
    try:
        Verifier(secret).verify(b"{}", headers)
    except WebhookVerificationError:
        return False
    return True


async def test_only_so_many_secrets_are_valid_at_once(database: Database, settings: Settings) -> None:
    hook = await webhook(database, settings)
    async with database.transaction() as session:
        for _ in range(webhooks.MAX_SECRETS - 1):
            await webhooks.rotate_secret(session, "ada", hook.id, SecretRotation())
        with pytest.raises(InvalidState, match="overlap_s"):
            await webhooks.rotate_secret(session, "ada", hook.id, SecretRotation())
        await webhooks.rotate_secret(session, "ada", hook.id, SecretRotation(overlap_s=0))


@pytest.mark.parametrize(
    "url",
    ["http://hooks.example.com/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "ftp://x/",
     "https:///path", "https://ada:pw@example.com/", "https://example.com/#here", "https://example.com/a b",
     "https://example.com:port/", "https://exämple.com/", "https://127.0.0.1:8700/v1/jobs", "https://[oops/"],
)  # fmt: skip
async def test_an_address_that_is_not_to_be_called_is_refused(database: Database, settings: Settings, url: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        await webhooks.create(database, settings, "ada", WebhookCreate(url=url))
    assert error.value.extra["field"] == "url"


async def test_a_private_network_that_is_allowed_may_be_called_by_http_too(
    database: Database, settings: Settings
) -> None:
    settings = Settings(home=settings.home, secret="s", allow_private_urls=["10.20.0.0/16"])
    for url in ("http://10.20.1.2/", "https://10.20.1.2/", "http://hooks.internal/"):
        await webhooks.create(database, settings, "ada", WebhookCreate(url=url))
    for url in ("http://10.30.1.2/", "http://8.8.8.8/"):
        with pytest.raises(InvalidRequest):
            await webhooks.create(database, settings, "ada", WebhookCreate(url=url))


async def test_the_same_address_twice_is_refused_in_one_project_only(database: Database, settings: Settings) -> None:
    await webhook(database, settings)
    await webhook(database, settings, project_id="bob")
    with pytest.raises(InvalidState, match="rotate the secret"):
        await webhook(database, settings)


async def test_a_project_has_only_so_many_webhooks_however_many_are_made_at_once(
    database: Database, settings: Settings
) -> None:
    async with database.transaction() as session:
        await projects.ensure(session, "ada")
    asked = [WebhookCreate(url=f"{URL}/{number}") for number in range(webhooks.MAX_WEBHOOKS + 12)]
    outcomes = await asyncio.gather(
        *(webhooks.create(database, settings, "ada", one) for one in asked), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, InvalidState) and "delete one" in one.detail]
    assert (len(outcomes) - len(refused), len(refused)) == (webhooks.MAX_WEBHOOKS, 12)


async def test_a_disabled_webhook_keeps_what_waits_and_hears_of_nothing_new(
    database: Database, settings: Settings
) -> None:
    hook = await webhook(database, settings)
    async with database.transaction() as session:
        job = await add_job(session)
        await append_event(session, job, "job.queued", "")
    hook = await webhooks.update(database, settings, "ada", hook.id, WebhookUpdate(enabled=False))
    assert hook.disabled_reason is not None
    async with database.transaction() as session:
        await append_event(session, job, "job.starting", "")
    assert [(one.type, one.state) for one in await deliveries(database)] == [("job.queued", DeliveryState.PENDING)]
    async with database.transaction() as session:
        with pytest.raises(InvalidState, match="disabled"):
            await webhooks.send_test(session, "ada", hook.id)


async def test_a_deleted_webhook_takes_its_log_with_it(database: Database, settings: Settings) -> None:
    hook = await webhook(database, settings)
    async with database.transaction() as session:
        await append_event(session, await add_job(session), "job.queued", "")
        with pytest.raises(NotFound):
            await webhooks.delete(session, "bob", hook.id)
        await webhooks.delete(session, "ada", hook.id)
    assert await deliveries(database) == []
