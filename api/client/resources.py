"""All families of operations, as attributes of a client."""

from functools import cached_property
from typing import TYPE_CHECKING, Generic

from api.client.call import Call, Operation, Resource, SenderT
from api.client.files import Files
from api.client.jobs import Jobs
from api.client.serving import Comparisons, Deployments
from api.queue_views import QueueView
from service.spec.catalogue import LossCatalogue

if TYPE_CHECKING:
    from api.client.admin import Audit, Keys, Members, Projects
    from api.client.sweeps import Sweeps
    from api.client.webhooks import Webhooks


def _losses() -> Call[LossCatalogue]:
    """Every loss that a job may name, with its options."""
    return Call("GET", "/v1/losses", LossCatalogue, repeatable=True)


def _queue() -> Call[QueueView]:
    """What the queue decides by, and how good its forecasts are."""
    return Call("GET", "/v1/queue", QueueView, repeatable=True)


class Losses(Resource[SenderT]):
    list = Operation(_losses)


class Queue(Resource[SenderT]):
    get = Operation(_queue)


class Resources(Generic[SenderT]):
    """Those that not every script needs are imported at their first use: their answers are declared beside the routes,
    which bring the server's libraries with them."""

    def __init__(self, sender: SenderT) -> None:
        self._sender = sender
        self.jobs: Jobs[SenderT] = Jobs(sender)
        self.files: Files[SenderT] = Files(sender)
        self.deployments: Deployments[SenderT] = Deployments(sender)
        self.comparisons: Comparisons[SenderT] = Comparisons(sender)
        self.losses: Losses[SenderT] = Losses(sender)
        self.queue: Queue[SenderT] = Queue(sender)

    @cached_property
    def sweeps(self) -> "Sweeps[SenderT]":
        from api.client.sweeps import Sweeps

        return Sweeps(self._sender)

    @cached_property
    def webhooks(self) -> "Webhooks[SenderT]":
        from api.client.webhooks import Webhooks

        return Webhooks(self._sender)

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
