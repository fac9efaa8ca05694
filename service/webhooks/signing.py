"""Signatures of Standard Webhooks (standardwebhooks.com, symmetric `v1`) and the secrets that make them.

A secret is derived from `settings.secret`, the webhook's ID and a version number, so nothing of it is stored: a copy of
the database signs nothing. Whoever changes `settings.secret` must rotate the secrets of all webhooks.
"""

import base64
import hashlib
import hmac
from datetime import datetime

from service.db.webhook_tables import Webhook
from service.settings import Settings


def signing_secret(settings: Settings, webhook: Webhook, version: int | None = None) -> str:
    """`whsec_` and the base64 of 32 bytes; by default the newest version.

    Raises ValueError if `settings.secret` is not set.
    """
    key = _key(settings, webhook.id, version or webhook.secret_version)
    return f"whsec_{base64.b64encode(key).decode()}"


def signed_headers(settings: Settings, webhook: Webhook, message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks: signed with every secret that is valid at `now`, newest first."""
    timestamp = str(int(now.timestamp()))
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = []
    for version in range(webhook.secret_version, oldest_valid(webhook, now) - 1, -1):
        digest = hmac.new(_key(settings, webhook.id, version), content, hashlib.sha256).digest()
        signatures.append(f"v1,{base64.b64encode(digest).decode()}")
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def oldest_valid(webhook: Webhook, now: datetime) -> int:
    """The oldest version of the secret that still signs."""
    overlapping = webhook.oldest_until is not None and now < webhook.oldest_until
    return webhook.oldest_version if overlapping else webhook.secret_version


def _key(settings: Settings, webhook_id: str, version: int) -> bytes:
    if settings.secret is None:
        raise ValueError("PLUMBLINE_SECRET is not set: webhooks could not be signed")
    # What attempt tokens are made of never has a slash, so neither can stand for the other
    label = f"webhook/{webhook_id}/{version}"
    return hmac.new(settings.secret.get_secret_value().encode(), label.encode(), hashlib.sha256).digest()
