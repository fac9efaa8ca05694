"""Webhooks and the log of their deliveries."""

from collections.abc import Sequence

from api.client.call import Call, Operation, Resource, SenderT, given
from api.routes.webhooks import DeliveryPage, DeliveryView, WebhookList, WebhookView, WebhookWithSecret


def _list(*, limit: int = 100, cursor: str | None = None) -> Call[WebhookList]:
    return Call("GET", "/v1/webhooks", WebhookList, params=given(limit=limit, cursor=cursor), repeatable=True)


def _create(url: str, *, name: str = "", event_types: Sequence[str] | None = None) -> Call[WebhookWithSecret]:
    """Have an address told of events. `signing_secret` of the answer is not shown again."""
    new = given(url=url, name=name, event_types=list(event_types) if event_types is not None else None)
    return Call("POST", "/v1/webhooks", WebhookWithSecret, json=new)


def _get(webhook_id: str) -> Call[WebhookView]:
    return Call("GET", f"/v1/webhooks/{webhook_id}", WebhookView, repeatable=True)


def _update(
    webhook_id: str,
    *,
    url: str | None = None,
    name: str | None = None,
    event_types: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Call[WebhookView]:
    """Change what is given; `enabled=False` stops it, and `True` starts it again."""
    change = given(
        url=url, name=name, event_types=list(event_types) if event_types is not None else None, enabled=enabled
    )
    return Call("PATCH", f"/v1/webhooks/{webhook_id}", WebhookView, json=change, repeatable=True)


def _delete(webhook_id: str) -> Call[None]:
    """Delete it and its log. What waits to be sent is not sent."""
    return Call("DELETE", f"/v1/webhooks/{webhook_id}", type(None))


def _rotate_secret(webhook_id: str, *, overlap_s: int | None = None) -> Call[WebhookWithSecret]:
    """Make a new secret; the old one signs as well for `overlap_s` seconds, by default a day."""
    body = given(overlap_s=overlap_s)
    return Call("POST", f"/v1/webhooks/{webhook_id}/rotate-secret", WebhookWithSecret, json=body)


def _test(webhook_id: str) -> Call[DeliveryView]:
    """Send a test event."""
    return Call("POST", f"/v1/webhooks/{webhook_id}/test", DeliveryView)


def _deliveries(
    webhook_id: str, *, limit: int = 20, cursor: str | None = None, state: str | None = None
) -> Call[DeliveryPage]:
    params = given(limit=limit, cursor=cursor, state=state)
    return Call("GET", f"/v1/webhooks/{webhook_id}/deliveries", DeliveryPage, params=params, repeatable=True)


def _delivery(webhook_id: str, delivery_id: str) -> Call[DeliveryView]:
    return Call("GET", f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}", DeliveryView, repeatable=True)


def _redeliver(webhook_id: str, delivery_id: str) -> Call[DeliveryView]:
    """Send it again, under the same `webhook-id`."""
    return Call("POST", f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", DeliveryView)


class Webhooks(Resource[SenderT]):
    list = Operation(_list)
    create = Operation(_create)
    get = Operation(_get)
    update = Operation(_update)
    delete = Operation(_delete)
    rotate_secret = Operation(_rotate_secret)
    test = Operation(_test)
    deliveries = Operation(_deliveries)
    delivery = Operation(_delivery)
    redeliver = Operation(_redeliver)
