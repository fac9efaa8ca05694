"""All families of operations, as attributes of a client."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

from api.client.call import Call, Operation, Resource, SenderT, given
from api.client.files import Files
from api.client.jobs import Jobs, Spec, body
from api.client.serving import Comparisons, Conversations, Deployments, Models
from api.queue_views import PoolList, QueueView
from api.views import QueuedJobs
from service.spec.catalogue import LossCatalogue
from service.spec.curves import Curves
from service.spec.form import JobSchema
from service.spec.snippets import Snippets

if TYPE_CHECKING:
    from api.client.admin import Audit, Keys, Members, Projects, SessionResource
    from api.client.evaluations import Evaluations, Gates
    from api.client.pairs import Pairs
    from api.client.sweeps import Sweeps
    from api.client.webhooks import Webhooks


def _losses() -> Call[LossCatalogue]:
    """Every loss that a job may name, with its options."""
    return Call("GET", "/v1/losses", LossCatalogue, repeatable=True)


def _curves(losses: Sequence[Mapping[str, Any]], *, margins: Sequence[float] | None = None) -> Call[Curves]:
    """Loss and gradient against the log-ratio margin, of terms as a job has them."""
    asked = given(losses=[dict(term) for term in losses], margins=list(margins) if margins else None)
    return Call("POST", "/v1/losses/curves", Curves, json=asked, repeatable=True)


def _job_schema() -> Call[JobSchema]:
    """Every field of a job, and the groups in which a form asks for them."""
    return Call("GET", "/v1/schema/job", JobSchema, repeatable=True)


def _snippets(spec: Spec) -> Call[Snippets]:
    """The job as a curl command, as Python and as YAML."""
    return Call("POST", "/v1/schema/job/snippets", Snippets, json=body(spec), repeatable=True)


def _queue() -> Call[QueueView]:
    """What the queue decides by, and how good its forecasts are."""
    return Call("GET", "/v1/queue", QueueView, repeatable=True)


def _queued_jobs() -> Call[QueuedJobs]:
    """Your next jobs, in the order in which they are let go, each with why it waits."""
    return Call("GET", "/v1/queue/jobs", QueuedJobs, repeatable=True)


def _pools() -> Call[PoolList]:
    """What the cluster has for each kind of work, and which jobs hold it."""
    return Call("GET", "/v1/pools", PoolList, repeatable=True)


class Losses(Resource[SenderT]):
    list = Operation(_losses)
    curves = Operation(_curves)


class Schema(Resource[SenderT]):
    job = Operation(_job_schema)
    snippets = Operation(_snippets)


class Queue(Resource[SenderT]):
    get = Operation(_queue)
    jobs = Operation(_queued_jobs)
    pools = Operation(_pools)


class Resources(Generic[SenderT]):
    """Those that not every script needs are imported at their first use: their answers are declared beside the routes,
    which bring the server's libraries with them."""

    def __init__(self, sender: SenderT) -> None:
        self._sender = sender
        self.jobs: Jobs[SenderT] = Jobs(sender)
        self.files: Files[SenderT] = Files(sender)
        self.deployments: Deployments[SenderT] = Deployments(sender)
        self.models: Models[SenderT] = Models(sender)
        self.comparisons: Comparisons[SenderT] = Comparisons(sender)
        self.conversations: Conversations[SenderT] = Conversations(sender)
        self.losses: Losses[SenderT] = Losses(sender)
        self.queue: Queue[SenderT] = Queue(sender)
        self.schema: Schema[SenderT] = Schema(sender)

    @cached_property
    def sweeps(self) -> "Sweeps[SenderT]":
        from api.client.sweeps import Sweeps

        return Sweeps(self._sender)

    @cached_property
    def evaluations(self) -> "Evaluations[SenderT]":
        from api.client.evaluations import Evaluations

        return Evaluations(self._sender)

    @cached_property
    def gates(self) -> "Gates[SenderT]":
        from api.client.evaluations import Gates

        return Gates(self._sender)

    @cached_property
    def pairs(self) -> "Pairs[SenderT]":
        from api.client.pairs import Pairs

        return Pairs(self._sender)

    @cached_property
    def webhooks(self) -> "Webhooks[SenderT]":
        from api.client.webhooks import Webhooks

        return Webhooks(self._sender)

    @cached_property
    def session(self) -> "SessionResource[SenderT]":
        from api.client.admin import SessionResource

        return SessionResource(self._sender)

    @cached_property
    def projects(self) -> "Projects[SenderT]":
        from api.client.admin import Projects

        return Projects(self._sender)

    @cached_property
    def keys(self) -> "Keys[SenderT]":
        from api.client.admin import Keys

        return Keys(self._sender)

    @cached_property
    def members(self) -> "Members[SenderT]":
        from api.client.admin import Members

        return Members(self._sender)

    @cached_property
    def audit(self) -> "Audit[SenderT]":
        from api.client.admin import Audit

        return Audit(self._sender)
