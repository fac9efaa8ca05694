"""The catalogue of losses."""

from fastapi import APIRouter

from api.deps import ProjectDep
from service.spec.catalogue import LossCatalogue, catalogue

router = APIRouter(prefix="/losses", tags=["losses"])


@router.get("")
async def list_losses(_project: ProjectDep) -> LossCatalogue:
    """Every loss that a job may name: formula, options, paper, when to use it, and points for a plot."""
    return catalogue()
