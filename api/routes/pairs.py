"""What training did to a job's pairs: browse, flag, and export the corrected rows."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.deps import CallerDep, DatabaseDep, ProjectDep, SettingsDep
from api.problems import problems
from api.views import FileView, View
from service.db.pair_tables import PairFlag
from service.errors import DatasetInvalid, InvalidRequest, InvalidState, NotFound, PairsMissing, QuotaExceeded, TooLarge
from service.pairs import export, service
from service.pairs.actions import FlagAction
from service.pairs.artifact import MAX_CHARACTERS, MAX_TOKENS, Pair, PairDetail
from service.spec.base import SpecModel
from service.spec.pairs import PairsAbout, PairSort

router = APIRouter(prefix="/jobs/{job_id}/pairs", tags=["pairs"])

_SAME: dict[int | str, dict[str, Any]] = {
    200: {"model": FileView, "description": "The file that an earlier request with the same flags made."}
}
RowDep = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the row in the training file.")]


class FlagRequest(SpecModel):
    action: FlagAction = Field(description="`swap` where the rejected answer is the better one, else `drop`.")
    note: str = Field("", max_length=2000, description="Why, for others.")


class FlagView(View):
    row: int
    action: FlagAction
    note: str
    user_id: str | None
    key_id: str
    created_at: datetime


class PairView(View):
    """Sums and margins of log-probs, natural logarithms. Null: not a finite number."""

    row: int = Field(description="Number of the row in the training file.")
    digest: str = Field(description="SHA-256 of its token ids and masks, as in the reference store.")
    num_answers: int = Field(description="More than 2 of a ranking, whose best and worst answers are the pair.")
    prompt_end: str
    chosen_start: str
    rejected_start: str
    chosen_tokens: int = Field(description="Tokens that count in the loss.")
    rejected_tokens: int
    chosen_before: float | None = Field(description="Sum over the counted tokens of the answer.")
    chosen_after: float | None
    rejected_before: float | None
    rejected_after: float | None
    margin_before: float | None = Field(description="`chosen_before - rejected_before`.")
    margin_after: float | None
    margin_change: float | None = Field(description="With a reference, the implicit reward margin over beta.")
    margin_per_token: float | None = Field(
        description="After training, mean log-prob of a chosen token less that of a rejected one: what `most_wrong` "
        "sorts by."
    )
    flag: FlagView | None = None

    @classmethod
    def of(cls, pair: Pair, flag: PairFlag | None) -> "PairView":
        view = cls.model_validate(pair)
        return view if flag is None else view.model_copy(update={"flag": FlagView.model_validate(flag)})


class TokenView(View):
    id: int
    text: str = Field(description="Empty where the character goes on in the next token.")
    before: float | None = Field(description="Log-prob; null where the token does not count in the loss.")
    after: float | None
    change: float | None = Field(description="`after - before`: above 0 where training made the token likelier.")


class PairDetailView(PairView):
    prompt: str
    chosen: list[TokenView]
    rejected: list[TokenView]
    cut: bool = Field(
        description=f"Only the last {MAX_CHARACTERS} characters of the prompt or the first {MAX_TOKENS} tokens of an "
        "answer are here."
    )

    @classmethod
    def of_detail(cls, found: PairDetail, flag: PairFlag | None) -> "PairDetailView":
        return cls(
            **PairView.of(found.pair, flag).model_dump(),
            prompt=found.prompt,
            chosen=[TokenView.model_validate(token) for token in found.chosen],
            rejected=[TokenView.model_validate(token) for token in found.rejected],
            cut=found.cut,
        )


class FlagCounts(View):
    swap: int
    drop: int


class PairPage(View):
    about: PairsAbout
    flags: FlagCounts = Field(description="Of all pairs of the job.")
    data: list[PairView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class Margins(View):
    """Columns of one length: a point each."""

    about: PairsAbout
    row: list[int]
    before: list[float]
    after: list[float]


class FlagRemoved(View):
    row: int
    object: Literal["pair_flag"] = "pair_flag"
    deleted: Literal[True] = True


@router.get("", responses=problems(NotFound, PairsMissing, InvalidRequest))
async def list_pairs(
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    sort: Annotated[PairSort, Query(description="Each from its least value up; what is not finite comes last.")] = (
        PairSort.MOST_WRONG
    ),
    order: Literal["asc", "desc"] = "asc",
    flagged: Annotated[bool, Query(description="Only pairs that are flagged.")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before, in the same order.")] = None,
) -> PairPage:
    """The job's training pairs with their log-probs before and after training, the most wrong first. They are there
    from the end of training on (event `pairs.measured`), until retention removes the job's working files."""
    found = await service.page(
        database,
        settings,
        project_id,
        job_id,
        sort=sort,
        descending=order == "desc",
        flagged=flagged,
        limit=limit,
        cursor=cursor,
    )
    actions = [flag.action for flag in found.flags.values()]
    return PairPage(
        about=found.about,
        flags=FlagCounts(swap=actions.count(FlagAction.SWAP), drop=actions.count(FlagAction.DROP)),
        data=[PairView.of(pair, found.flags.get(pair.row)) for pair in found.pairs],
        next_cursor=found.next_cursor,
    )


@router.get("/margins", responses=problems(NotFound, PairsMissing))
async def get_margins(job_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep) -> Margins:
    """All margins at once, for a plot; of more than 5,000 pairs as many, evenly from the lowest to the highest."""
    about, points = await service.margins(database, settings, project_id, job_id)
    return Margins(
        about=about,
        row=[row for row, _, _ in points],
        before=[before for _, before, _ in points],
        after=[after for _, _, after in points],
    )


@router.post(
    "/export",
    status_code=201,
    responses=_SAME | problems(NotFound, InvalidState, DatasetInvalid, QuotaExceeded, TooLarge),
)
async def export_pairs(
    job_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep, response: Response
) -> FileView:
    """The job's training file, corrected by the flags, as a new file: JSON Lines with the same columns, `swap` rows
    with their answers exchanged, `drop` rows left out, all others as they are. `POST /v1/jobs/{job_id}/clone` with
    `{"data": {"train": ID}}` starts the job that differs in nothing else."""
    file, made = await export.export(database, settings, project_id, job_id)
    response.status_code = 201 if made else 200
    return FileView.of(file, in_seconds=False)


@router.get("/{row}", responses=problems(NotFound, PairsMissing))
async def get_pair(
    job_id: str, row: RowDep, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> PairDetailView:
    """One pair, with each token of its answers and how training changed its log-prob."""
    return PairDetailView.of_detail(*await service.detail(database, settings, project_id, job_id, row))


@router.put("/{row}/flag", responses=problems(NotFound, PairsMissing, InvalidRequest))
async def flag_pair(
    job_id: str,
    row: RowDep,
    body: FlagRequest,
    project_id: ProjectDep,
    caller: CallerDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> FlagView:
    """Say that the pair is mislabelled. A flag of before is replaced; asking again is harmless."""
    flag = await service.set_flag(
        database,
        settings,
        project_id,
        job_id,
        row,
        body.action,
        body.note,
        key_id=caller.key_id,
        user_id=caller.user_id,
    )
    return FlagView.model_validate(flag)


@router.delete("/{row}/flag", responses=problems(NotFound))
async def unflag_pair(job_id: str, row: RowDep, project_id: ProjectDep, database: DatabaseDep) -> FlagRemoved:
    """Take the flag back; asking again is harmless."""
    await service.remove_flag(database, project_id, job_id, row)
    return FlagRemoved(row=row)
