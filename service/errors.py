"""Errors a client can cause or meet, as RFC 9457 problem details. The API turns them into responses."""

from typing import Any, ClassVar


class ServiceError(Exception):
    """`status` is the HTTP status, `code` a stable identifier, the message says what to do.

    `extra` holds further members of the problem object, such as `field`, `rows` or `errors`.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class InvalidRequest(ServiceError):
    status = 422
    code = "invalid_request"
    title = "The request is not valid"


class UnknownLoss(InvalidRequest):
    code = "unknown_loss"
    title = "There is no such loss"


class ModelNotFound(InvalidRequest):
    code = "model_not_found"
    title = "The model is not there"


class ModelUnusable(InvalidRequest):
    code = "model_unusable"
    title = "The model cannot be used as it is"


class SpecUnreadable(InvalidRequest):
    """Of a job or an evaluation that another version accepted."""

    code = "spec_unreadable"
    title = "This version does not take the options that were accepted"


class PoolMissing(InvalidRequest):
    """`extra["pools"]`: those that no node is labelled for."""

    code = "pool_missing"
    title = "The cluster has no node for this"


class PoolTooSmall(InvalidRequest):
    code = "pool_too_small"
    title = "The cluster is too small for this"


class DoesNotFitMemory(InvalidRequest):
    """`extra`: `needed_gib` at least, and `gpu_gib` of the pool's largest GPU."""

    code = "does_not_fit_memory"
    title = "The model does not fit the GPUs"


class DatasetInvalid(InvalidRequest):
    """`extra["rows"]`: at most 20 of `{row, code, message, field}`; `extra["bad_rows"]`: how many there are."""

    code = "dataset_invalid"
    title = "The dataset cannot be used as it is"


class PreviewFailed(InvalidRequest):
    """`extra["reason"]`: the code that a job's attempt would fail with, or `preview_too_large`."""

    code = "preview_failed"
    title = "The rows cannot be looked at as they are"


class Unauthorized(ServiceError):
    status = 401
    code = "unauthorized"
    title = "A valid API key is required"

    def __init__(self) -> None:
        # One text for a missing, malformed, unknown and revoked key alike: no hint which.
        super().__init__(
            "Send a good API key as 'Authorization: Bearer KEY': there is none, or it is unknown, revoked or expired."
        )


class Forbidden(ServiceError):
    status = 403
    code = "forbidden"
    title = "The API key's role does not allow this"


class CrossSite(ServiceError):
    status = 403
    code = "cross_site"
    title = "The request does not come from the dashboard"

    def __init__(self) -> None:
        super().__init__(
            "With a browser's session a request must come from this origin, and one that changes something have the "
            "header 'X-Plumbline-Session: 1'. A program sends its key as 'Authorization: Bearer KEY' instead."
        )


class QuotaExceeded(ServiceError):
    """`extra`: `quota` (its name), `used`, `asked` and `limit`, in the quota's unit."""

    status = 403
    code = "quota_exceeded"
    title = "The project's quota does not allow this"


class RateLimited(ServiceError):
    """`extra["retry_after_s"]`: when the key's next request will be taken."""

    status = 429
    code = "rate_limited"
    title = "Too many requests with this API key"


class NotFound(ServiceError):
    """Also the answer for what belongs to somebody else."""

    status = 404
    code = "not_found"
    title = "There is no such thing here"


class DataReportMissing(NotFound):
    code = "data_report_missing"
    title = "The job has no data report yet"


class PairsMissing(NotFound):
    code = "pairs_missing"
    title = "There is no measure of the job's pairs"


class IdempotencyConflict(ServiceError):
    status = 409
    code = "idempotency_conflict"
    title = "This Idempotency-Key was used with another body"


class InvalidState(ServiceError):
    status = 409
    code = "invalid_state"
    title = "Not possible in the present state"


class ModelNotDeployed(ServiceError):
    """`extra["job_id"]`: of the job to deploy."""

    status = 409
    code = "model_not_deployed"
    title = "The model must be deployed before it is asked"


class GateNotPassed(ServiceError):
    """`extra`: `rule`, and `checks` of what it asks for: `{what, required, found, passed}`."""

    status = 409
    code = "gate_not_passed"
    title = "The model has not passed the gate of its name"


class AttemptSuperseded(ServiceError):
    status = 409
    code = "attempt_superseded"
    title = "This attempt no longer speaks for its job"


class ReportGap(ServiceError):
    """`extra["expected_seq"]`: the number to go on from."""

    status = 409
    code = "report_gap"
    title = "Reports are missing before this batch"


class TooLarge(ServiceError):
    status = 413
    code = "too_large"
    title = "The body is over the limit"


class TooSlow(ServiceError):
    status = 408
    code = "too_slow"
    title = "The body did not come in time"


class TooManyStreams(ServiceError):
    status = 429
    code = "too_many_streams"
    title = "Too many event streams are open"


class UploadIncomplete(ServiceError):
    status = 400
    code = "upload_incomplete"
    title = "The upload broke off or is not multipart form data"


class ServingUnavailable(ServiceError):
    status = 503
    code = "serving_unavailable"
    title = "The models are not being served right now"


class ModelWaking(ServingUnavailable):
    """`extra["retry_after_s"]`: when it may be there."""

    code = "model_waking"
    title = "The model was asleep and is waking"


class Unavailable(ServiceError):
    """Something the control plane itself needs does not answer; the same request may work in a moment."""

    status = 503
    code = "unavailable"
    title = "Not possible right now"


class PreviewUnavailable(Unavailable):
    code = "preview_unavailable"
    title = "Rows cannot be looked at right now"


class BudgetSpent(InvalidState):
    """`extra`: `gpu_hours` that the job has used, of `max_gpu_hours`."""

    code = "budget_spent"
    title = "The job's budget of GPU-hours is spent"
