"""Rate limits: a token bucket for each key, in the memory of one replica.

Behind n replicas a key may so send up to n times the limit: what is guarded is a replica's time, and no request waits
for a database to be counted.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """What a key has left. remaining: requests now. full_in_s: until it has all of them again, in whole seconds.

    retry_after_s: None if this request is taken, else until the next one will be, in whole seconds.
    """

    limit: int
    remaining: int
    full_in_s: int
    retry_after_s: int | None


class RateLimiter:
    """per_minute: the rate in the long run, and how many may come at once after a minute of silence."""

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._per_s = per_minute / 60
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when that was so
        self._next_sweep = 0.0

    def take(self, key_id: str, now: float) -> Allowance:
        """Count one request. now: a monotonic clock, in seconds."""
        self._sweep(now)
        tokens, at = self._buckets.get(key_id, (float(self._limit), now))
        tokens = min(self._limit, tokens + max(now - at, 0) * self._per_s)
        taken = tokens >= 1
        tokens -= taken
        self._buckets[key_id] = tokens, now
        return Allowance(
            limit=self._limit,
            remaining=int(tokens),
            full_in_s=math.ceil((self._limit - tokens) / self._per_s),
            retry_after_s=None if taken else max(1, math.ceil((1 - tokens) / self._per_s)),
        )

    def _sweep(self, now: float) -> None:
        """Forget keys that have been silent for a minute: theirs are full again."""
        if now >= self._next_sweep:
            self._buckets = {key: (tokens, at) for key, (tokens, at) in self._buckets.items() if now - at < 60}
            self._next_sweep = now + 60
