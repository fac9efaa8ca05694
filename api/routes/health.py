"""Whether this process lives, and whether it can work."""

from fastapi import APIRouter

from api.deps import DatabaseDep
from api.problems import problems
from service.db.migrate import is_current
from service.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses=problems(Unavailable))
async def readyz(database: DatabaseDep) -> dict[str, str]:
    """The database answers and has the schema of this version."""
    if not await is_current(database):
        raise Unavailable("The database has another schema than this version needs: run `plumbline db upgrade`.")
    return {"status": "ready"}
