"""Whether this process lives, and whether it can work."""

from fastapi import APIRouter

from api.deps import DatabaseDep
from api.problems import problems
from service.db.migrate import schema_of
from service.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses=problems(Unavailable))
async def readyz(database: DatabaseDep) -> dict[str, str]:
    """The database answers, and its schema serves this version: its own, or a newer one that says so."""
    if not (schema := await schema_of(database)).serves:
        raise Unavailable(f"The database has {schema.value}. {schema.remedy}")
    return {"status": "ready"}
