"""All families of operations, as attributes of a client."""

from typing import Generic

from api.client.call import Call, Operation, Resource, SenderT
from api.client.files import Files
from api.client.jobs import Jobs
from api.client.serving import Comparisons, Deployments
from service.spec.catalogue import LossCatalogue


def _losses() -> Call[LossCatalogue]:
    """Every loss that a job may name, with its options."""
    return Call("GET", "/v1/losses", LossCatalogue, repeatable=True)


class Losses(Resource[SenderT]):
    list = Operation(_losses)


class Resources(Generic[SenderT]):
    def __init__(self, sender: SenderT) -> None:
        self.jobs: Jobs[SenderT] = Jobs(sender)
        self.files: Files[SenderT] = Files(sender)
        self.deployments: Deployments[SenderT] = Deployments(sender)
        self.comparisons: Comparisons[SenderT] = Comparisons(sender)
        self.losses: Losses[SenderT] = Losses(sender)
