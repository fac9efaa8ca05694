"""Attempt tokens: what lets an attempt speak about its own job. Derived from the secret, so nothing is stored.

A token carries no time of its own to expire at: an attempt may train for weeks, and a token that runs out under it
would lose the job. It is good for exactly as long as its attempt is the job's newest and has not ended; from then on
whatever it says is refused (`service.jobs.reports`). Another `settings.secret` makes all tokens void.
"""

import hashlib
import hmac

from service.settings import Settings


def attempt_token(settings: Settings, attempt_id: str) -> str:
    """64 hexadecimal digits: HMAC-SHA256 of the attempt's ID under `settings.secret`.

    Raises ValueError if the secret is not set.
    """
    if settings.secret is None:
        raise ValueError("PLUMBLINE_SECRET is not set: attempts on the cluster could not prove who they are")
    return hmac.new(settings.secret.get_secret_value().encode(), attempt_id.encode(), hashlib.sha256).hexdigest()


def is_token_of(settings: Settings, attempt_id: str, token: str) -> bool:
    """Whether `token` was made for this attempt; takes as long for a near miss as for a far one."""
    return hmac.compare_digest(attempt_token(settings, attempt_id).encode(), token.encode(errors="replace"))
