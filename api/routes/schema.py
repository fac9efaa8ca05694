"""What a job may say, for forms and for people who write one by hand."""

from fastapi import APIRouter

from api.deps import ProjectDep
from api.problems import problems
from service import audit
from service.errors import InvalidRequest, UnknownLoss
from service.spec import AlignmentJob
from service.spec.form import JobSchema, job_schema
from service.spec.snippets import Snippets, snippets

router = APIRouter(prefix="/schema/job", tags=["jobs"])


@router.get("")
async def get_job_schema(_project: ProjectDep) -> JobSchema:
    """Every field of a job with its description, unit, range and default, and the groups in which a form asks."""
    return job_schema()


@router.post("/snippets", responses=problems(InvalidRequest, UnknownLoss))
async def make_snippets(spec: AlignmentJob, _project: ProjectDep) -> Snippets:
    """A job as a curl command, as Python and as YAML. Only its form is checked, and nothing is written."""
    audit.reads_only()
    return snippets(spec)
