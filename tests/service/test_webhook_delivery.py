import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook as Verifier

from service.cluster.http import connect
from service.controller.context import Controller, make_controller
from service.controller.deliver import Deliver
from service.db.session import Database
from service.db.tables import Event
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.jobs.repository import append_event
from service.settings import Settings
from service.webhooks import send
from service.webhooks import service as webhooks
from service.webhooks.delivery import claim_next, wait
from service.webhooks.request import WebhookCreate
from service.webhooks.signing import signing_secret
from service.webhooks.states import DeliveryState
from tests.service.conftest import add_job
from tests.service.receiver import Receiver, receiving

HERE = ["127.0.0.1/32", "::1/128"]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        secret="a secret",
        allow_private_urls=HERE,
        webhook_retry_base_s=0.001,
    )


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving(tmp_path, monkeypatch) as receiver:
        yield receiver


async def webhook(database: Database, settings: Settings, url: str) -> Webhook:
    return await webhooks.create(database, settings, "ada", WebhookCreate(url=url, event_types=["*"]))


async def events(database: Database, *types: str) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        for type in types:
            await append_event(session, job, type, "")


async def log(database: Database) -> list[WebhookDelivery]:
    async with database.reading() as session:
        return list((await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.event_number))).all())


async def look(database: Database) -> Webhook:
    async with database.reading() as session:
        return (await session.scalars(select(Webhook))).one()


async def run_until(database: Database, settings: Settings, holds: Callable[[], bool], controllers: int = 1) -> None:
    """Let so many controllers deliver."""
    client = connect(settings)

    async def deliver(controller: Controller) -> None:
        async with Deliver() as deliver:
            while not holds():
                await deliver.reconcile(controller)
                await asyncio.sleep(0.005)
            await asyncio.gather(*deliver._sending.values())

    try:
        async with asyncio.timeout(30):
            await asyncio.gather(*(deliver(make_controller(settings, database, client)) for _ in range(controllers)))
    finally:
        await client.aclose()


async def test_two_controllers_deliver_each_event_once_and_signed(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    hook = await webhook(database, settings, receiver.url)
    for _ in range(5):
        await events(database, "job.queued", "job.starting", "job.running")
    await run_until(database, settings, lambda: len(receiver.requests) >= 15, controllers=2)

    delivered = await log(database)
    assert sorted(receiver.ids) == sorted(one.id for one in delivered)
    assert {(one.state, one.attempts, one.response_status, one.response_excerpt) for one in delivered} == {
        (DeliveryState.SUCCEEDED, 1, 200, "thank you")
    }
    for request in receiver.requests:
        assert request.path == "/hook?for=ada"
        assert request.headers["host"] == receiver.url.split("/")[2]
        assert request.headers["content-type"] == "application/json"
        Verifier(signing_secret(settings, hook)).verify(request.body, request.headers)


async def test_one_controller_keeps_the_order_of_a_jobs_events(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    await webhook(database, settings, receiver.url)
    await events(database, *["checkpoint.saved"] * 10)
    await run_until(database, settings, lambda: len(receiver.requests) >= 10)
    assert receiver.ids == [one.id for one in await log(database)]


async def test_a_delivery_that_fails_is_sent_again_the_same_until_it_gets_through(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    receiver.answers = [500, 429]
    await webhook(database, settings, receiver.url)
    await events(database, "job.queued")
    await run_until(database, settings, lambda: len(receiver.requests) >= 3)
    (delivery,) = await log(database)
    assert receiver.ids == [delivery.id] * 3
    assert len({request.body for request in receiver.requests}) == 1
    assert (delivery.state, delivery.attempts, delivery.error) == (DeliveryState.SUCCEEDED, 3, None)
    assert (await look(database)).failing_since is None


async def test_a_delivery_is_given_up_after_its_attempts_and_can_be_asked_for_again(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    settings = settings.model_copy(update={"webhook_max_attempts": 3})
    receiver.answers, receiver.content = [500] * 3, b"\0\xff" + b"x" * 10_000
    hook = await webhook(database, settings, receiver.url)
    await events(database, "job.queued")
    await run_until(database, settings, lambda: len(receiver.requests) >= 3)
    (delivery,) = await log(database)
    assert (delivery.state, delivery.attempts, delivery.next_attempt_at) == (DeliveryState.FAILED, 3, None)
    assert (delivery.response_status, delivery.error) == (500, "The receiver answered 500.")
    assert delivery.response_excerpt == "\N{REPLACEMENT CHARACTER}" * 2 + "x" * 498
    assert (await look(database)).failing_since is not None

    async with database.transaction() as session:
        await webhooks.redeliver(session, "ada", hook.id, delivery.id)
    await run_until(database, settings, lambda: len(receiver.requests) >= 4)
    (delivery,) = await log(database)
    assert (delivery.state, delivery.attempts) == (DeliveryState.SUCCEEDED, 4)
    assert set(receiver.ids) == {delivery.id}


async def test_what_a_controller_was_sending_when_it_died_is_sent_again_when_its_lease_is_over(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    hook = await webhook(database, settings, receiver.url)
    await events(database, "job.queued")
    claim = await claim_next(database, settings, hook)
    assert claim is not None
    assert await claim_next(database, settings, hook) is None  # another controller leaves it alone
    async with database.transaction() as session:
        await session.execute(update(WebhookDelivery).values(next_attempt_at=claim.delivery.created_at))
    await run_until(database, settings, lambda: len(receiver.requests) >= 1)
    (delivery,) = await log(database)
    assert (receiver.ids, delivery.state, delivery.attempts) == ([claim.delivery.id], DeliveryState.SUCCEEDED, 2)


async def test_a_webhook_that_nothing_reaches_for_long_is_disabled_with_the_reason(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    settings = settings.model_copy(update={"webhook_disable_after_s": 0.001})
    receiver.answers = [503] * 100
    await webhook(database, settings, receiver.url)
    await events(database, "job.queued")
    await run_until(database, settings, lambda: len(receiver.requests) >= 2)
    hook = await look(database)
    assert hook.disabled_at is not None
    assert "503" in (hook.disabled_reason or "")
    assert [one.state for one in await log(database)] == [DeliveryState.PENDING]  # kept for when it is enabled


async def test_a_receiver_that_says_gone_is_left_alone(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    receiver.answers = [410]
    await webhook(database, settings, receiver.url)
    await events(database, "job.queued")
    await run_until(database, settings, lambda: len(receiver.requests) >= 1)
    assert "410" in ((await look(database)).disabled_reason or "")


async def test_a_slow_receiver_keeps_no_other_waiting(
    database: Database, settings: Settings, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"webhook_timeout_s": 100})
    others_are_done = threading.Event()

    def done() -> bool:
        if len(receiver.requests) < 5:
            return False
        others_are_done.set()
        return True

    with receiving(tmp_path, monkeypatch, plain=True) as slow:
        slow.before_answer = lambda: _wait(others_are_done)
        await webhook(database, settings, slow.url)
        await webhook(database, settings, receiver.url)
        await events(database, *["checkpoint.saved"] * 5)
        await run_until(database, settings, done)


async def test_an_event_that_was_removed_fails_its_delivery_and_says_why(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    await webhook(database, settings, receiver.url)
    await events(database, "job.queued", "job.starting")
    async with database.transaction() as session:
        await session.execute(Event.__table__.delete().where(Event.number == 1))  # type: ignore[attr-defined]
    await run_until(database, settings, lambda: len(receiver.requests) >= 1)
    removed, sent = await log(database)
    assert (removed.state, sent.state) == (DeliveryState.FAILED, DeliveryState.SUCCEEDED)
    assert "has been removed" in (removed.error or "")


def _wait(event: threading.Event) -> None:
    event.wait(60)


async def outcome(url: str, allowed: list[str], timeout_s: float = 20) -> send.Outcome:
    networks = Settings(allow_private_urls=allowed).allow_private_urls
    async with send.client() as client:
        return await send.post(client, url, {}, b"{}", networks, timeout_s)


async def test_a_private_address_is_not_called_whatever_name_it_has(receiver: Receiver) -> None:
    for url in (receiver.url, receiver.url.replace("localhost", "2130706433"), "https://0x7f.1/"):
        found = await outcome(url, [])
        assert "PLUMBLINE_ALLOW_PRIVATE_URLS" in (found.error or "")
    assert receiver.requests == []


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answers, receiver.headers = [302], {"Location": receiver.url}
    found = await outcome(receiver.url, HERE)
    assert (found.status, found.error) == (302, "The receiver answered 302. Redirects are not followed.")
    assert len(receiver.requests) == 1


async def test_a_certificate_for_another_name_is_not_trusted(receiver: Receiver) -> None:
    found = await outcome(receiver.url.replace("localhost", "127.0.0.1"), HERE)
    assert "certificate" in (found.error or "").lower()
    assert receiver.requests == []


async def test_a_receiver_that_does_not_answer_is_not_waited_for_long(receiver: Receiver) -> None:
    given_up = threading.Event()
    receiver.before_answer = lambda: _wait(given_up)
    found = await outcome(receiver.url, HERE, timeout_s=0.1)
    given_up.set()
    assert found.error == "No answer within 0.1 s."


async def test_http_goes_to_private_networks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(tmp_path, monkeypatch, plain=True) as plain:
        assert (await outcome(plain.url, HERE)).status == 200
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _public)
    assert "http:// is for private networks" in ((await outcome("http://example.com/", HERE)).error or "")


async def _public(*_: object, **__: object) -> list[tuple[object, ...]]:
    return [(2, 1, 6, "", ("8.8.8.8", 80))]


def test_waits_grow_up_to_a_limit_and_differ(settings: Settings) -> None:
    settings = settings.model_copy(update={"webhook_retry_base_s": 5, "webhook_max_wait_s": 3600})
    for failures, longest in [(1, 5), (2, 20), (3, 80), (10, 3600), (1000, 3600)]:
        waits = [wait(settings, failures).total_seconds() for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
