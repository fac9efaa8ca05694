"""The states of a delivery."""

from enum import StrEnum


class DeliveryState(StrEnum):
    PENDING = "pending"  # to be sent, or sent again, at `next_attempt_at`
    SUCCEEDED = "succeeded"  # answered with a 2xx status
    FAILED = "failed"  # given up after `settings.webhook_max_attempts`; `redeliver` starts over
