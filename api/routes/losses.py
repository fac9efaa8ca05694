"""The catalogue of losses, and their curves."""

from fastapi import APIRouter

from api.deps import ProjectDep
from api.problems import problems
from service import audit
from service.errors import InvalidRequest, UnknownLoss
from service.spec.catalogue import LossCatalogue, catalogue
from service.spec.curves import Curves, CurvesRequest, curves

router = APIRouter(prefix="/losses", tags=["losses"])


@router.get("")
async def list_losses(_project: ProjectDep) -> LossCatalogue:
    """Every loss that a job may name: formula, options, paper, when to use it, and points for a plot."""
    return catalogue()


@router.post("/curves", responses=problems(InvalidRequest, UnknownLoss))
async def sample_curves(asked: CurvesRequest, _project: ProjectDep) -> Curves:
    """Loss and gradient against the margin of terms with these options and weights, each alone and their sum. Nothing
    is written."""
    audit.reads_only()
    return curves(asked)
