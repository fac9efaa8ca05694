"""What clients do with webhooks."""

from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.errors import InvalidRequest, InvalidState
from service.ids import new_id
from service.projects import service as projects
from service.settings import Settings
from service.spec.addresses import refuse_literal
from service.webhooks.event_types import TEST
from service.webhooks.message import body_of
from service.webhooks.repository import DeliveryRepository, WebhookRepository
from service.webhooks.request import SecretRotation, WebhookCreate, WebhookUpdate
from service.webhooks.signing import oldest_valid
from service.webhooks.states import DeliveryState

MAX_WEBHOOKS = 20  # of a project: each costs every event of its jobs a look
MAX_SECRETS = 5  # that sign at once: their signatures share a header


async def create(database: Database, settings: Settings, project_id: str, request: WebhookCreate) -> Webhook:
    """Raises InvalidRequest for an address that is not to be called, InvalidState for one that is there already."""
    _check_url(request.url, settings)
    webhook = Webhook(
        id=new_id("webhook"),
        project_id=project_id,
        name=request.name,
        url=request.url,
        event_types=request.event_types,
        secret_version=1,
        oldest_version=1,
        created_at=utc_now(),
    )
    try:
        async with database.transaction() as session:
            await projects.hold(session, project_id)
            if await WebhookRepository(session).count(project_id) >= MAX_WEBHOOKS:
                raise InvalidState(f"The project has {MAX_WEBHOOKS} webhooks, and may not have more: delete one.")
            session.add(webhook)
            await session.flush()
            await audit.record(session, webhook.id)
    except IntegrityError as error:
        raise _there_already() from error
    return webhook


async def update(
    database: Database, settings: Settings, project_id: str, webhook_id: str, request: WebhookUpdate
) -> Webhook:
    """Raises as `create` does, and NotFound."""
    if request.url is not None:
        _check_url(request.url, settings)
    try:
        async with database.transaction() as session:
            webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id, lock=True)
            for name, value in request.model_dump(include={"url", "name", "event_types"}, exclude_none=True).items():
                setattr(webhook, name, value)
            if request.enabled is True:
                webhook.disabled_at = webhook.disabled_reason = webhook.failing_since = None
            elif request.enabled is False and webhook.disabled_at is None:
                webhook.disabled_at, webhook.disabled_reason = utc_now(), "Disabled by a client."
            await session.flush()
            await audit.record(session, webhook.id)
    except IntegrityError as error:
        raise _there_already() from error
    return webhook


async def delete(session: AsyncSession, project_id: str, webhook_id: str) -> None:
    """The webhook and its log; what waits is not sent. Raises NotFound."""
    webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id, lock=True)
    await DeliveryRepository(session, webhook).delete_all()
    await session.delete(webhook)
    await audit.record(session, webhook.id)


async def rotate_secret(session: AsyncSession, project_id: str, webhook_id: str, request: SecretRotation) -> Webhook:
    """Make a new secret; all that were valid until now sign beside it for `overlap_s`, so that a receiver never meets
    a signature it cannot check, even if an answer was lost and the rotation repeated.

    Raises NotFound, and InvalidState when too many secrets are valid at once.
    """
    webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id, lock=True)
    now = utc_now()
    oldest = oldest_valid(webhook, now) if request.overlap_s else webhook.secret_version + 1
    if webhook.secret_version + 1 - oldest >= MAX_SECRETS:
        raise InvalidState(
            f"{MAX_SECRETS} secrets of this webhook are valid at once: wait for the oldest to end, or set overlap_s to "
            "0 to end all of them now."
        )
    webhook.secret_version += 1
    webhook.oldest_version = oldest
    webhook.oldest_until = now + timedelta(seconds=request.overlap_s)
    await audit.record(session, webhook.id)
    return webhook


async def send_test(session: AsyncSession, project_id: str, webhook_id: str) -> WebhookDelivery:
    """A delivery of the event `webhook.test`, sent like any other. Raises NotFound, InvalidState when disabled."""
    webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id)
    _check_enabled(webhook)
    now = utc_now()
    delivery = WebhookDelivery(
        id=new_id("msg"),
        webhook_id=webhook.id,
        type=TEST,
        state=DeliveryState.PENDING,
        attempts=0,
        failures=0,
        created_at=now,
        next_attempt_at=now,
    )
    session.add(delivery)
    await audit.record(session, webhook.id)
    return delivery


async def redeliver(session: AsyncSession, project_id: str, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Send it again, with the same `webhook-id`, and with all its attempts; one that waits is sent now.

    Raises NotFound, and InvalidState when the webhook is disabled, or the event has been removed.
    """
    webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id)
    _check_enabled(webhook)
    delivery = await DeliveryRepository(session, webhook).get(delivery_id, lock=True)
    await body_of(session, delivery)
    delivery.failures, delivery.finished_at = 0, None
    delivery.state, delivery.next_attempt_at = DeliveryState.PENDING, utc_now()
    await audit.record(session, delivery.id)
    return delivery


def _check_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        raise InvalidState(f"The webhook is disabled ({webhook.disabled_reason}): enable it first with PATCH.")


def _there_already() -> InvalidState:
    return InvalidState(
        "The project has a webhook for this address already: GET /v1/webhooks lists it. If the answer with its secret "
        "was lost, rotate the secret.",
        field="url",
    )


def _check_url(url: str, settings: Settings) -> None:
    """What can be known without asking for the name; `send` checks the addresses, each time anew."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"'url' is not a URL: {error}.", field="url") from error
    allowed = settings.allow_private_urls
    if parts.scheme not in ("https", "http") or not host:
        problem = "must be an https:// address"
    elif parts.username is not None or parts.password is not None:
        problem = "has a user name or password, which would be stored as they are: leave them out"
    elif parts.fragment or not (url.isascii() and url.isprintable()) or " " in url:
        problem = "has a fragment, or characters that must be percent-encoded"
    elif refuse_literal(host, allowed):
        problem = "is no address on the public internet, and none that PLUMBLINE_ALLOW_PRIVATE_URLS lists"
    elif parts.scheme == "http" and (not allowed or (_is_literal(host) and not refuse_literal(host, ()))):
        problem = "must be https://: http:// is for the private networks that PLUMBLINE_ALLOW_PRIVATE_URLS lists"
    else:
        return
    raise InvalidRequest(f"'url' {problem}.", field="url")


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
