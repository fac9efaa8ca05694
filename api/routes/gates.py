"""Gates: what an evaluation must show before a model may be promoted."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from api.deps import AdminDep, DatabaseDep, ProjectDep
from api.problems import problems
from api.views import View
from service.db.evaluation_tables import Gate
from service.errors import InvalidRequest, NotFound
from service.evaluations import gates
from service.evaluations.gate import NAME_PATTERN, Rule
from service.spec.base import SpecModel

router = APIRouter(prefix="/gates", tags=["evaluations"])

ModelName = Annotated[
    str,
    Path(max_length=200, description="The name that models are promoted to; `*` for all without a gate of their own."),
]


class GateRequest(SpecModel):
    model_name: str = Field(
        pattern=NAME_PATTERN,
        description="The name that models are promoted to; `*` for all names without a gate of their own.",
    )
    rule: Rule


class GateView(View):
    model_name: str
    rule: Rule
    updated_at: datetime

    @classmethod
    def of(cls, gate: Gate) -> "GateView":
        return cls(model_name=gate.model_name, rule=Rule.model_validate(gate.rule), updated_at=gate.updated_at)


class GateList(View):
    data: list[GateView]


@router.get("")
async def list_gates(project_id: ProjectDep, database: DatabaseDep) -> GateList:
    """Your project's gates."""
    async with database.reading() as session:
        return GateList(data=[GateView.of(gate) for gate in await gates.all_of(session, project_id)])


@router.get("/{model_name}", responses=problems(NotFound))
async def get_gate(model_name: ModelName, project_id: ProjectDep, database: DatabaseDep) -> GateView:
    async with database.reading() as session:
        return GateView.of(await gates.get(session, project_id, model_name))


@router.put("", responses=problems(InvalidRequest))
async def put_gate(request: GateRequest, caller: AdminDep, database: DatabaseDep) -> GateView:
    """Make or replace a gate. For admins."""
    async with database.transaction() as session:
        return GateView.of(await gates.put(session, caller.project_id, request.model_name, request.rule))


@router.delete("/{model_name}", status_code=204, responses=problems(NotFound))
async def delete_gate(model_name: ModelName, caller: AdminDep, database: DatabaseDep) -> None:
    """For admins."""
    async with database.transaction() as session:
        await gates.delete(session, caller.project_id, model_name)
