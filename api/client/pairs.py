"""What training did to a job's pairs."""

from typing import Literal

from api.client.call import Call, Operation, Resource, SenderT, given
from api.routes.pairs import FlagRemoved, FlagView, Margins, PairDetailView, PairPage
from api.views import FileView
from service.pairs.actions import FlagAction
from service.spec.pairs import PairSort


def _list(
    job_id: str,
    *,
    sort: PairSort | str | None = None,
    order: Literal["asc", "desc"] | None = None,
    flagged: bool = False,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[PairPage]:
    """One page of pairs with their log-probs before and after training, the most wrong first."""
    params = given(sort=sort, order=order, flagged="true" if flagged else None, limit=limit, cursor=cursor)
    return Call("GET", f"/v1/jobs/{job_id}/pairs", PairPage, params=params, repeatable=True)


def _margins(job_id: str) -> Call[Margins]:
    """All margins at once, or 5,000 of more."""
    return Call("GET", f"/v1/jobs/{job_id}/pairs/margins", Margins, repeatable=True)


def _get(job_id: str, row: int) -> Call[PairDetailView]:
    """One pair, token by token. row: its number in the training file."""
    return Call("GET", f"/v1/jobs/{job_id}/pairs/{row}", PairDetailView, repeatable=True)


def _flag(job_id: str, row: int, action: FlagAction | str, *, note: str = "") -> Call[FlagView]:
    """Say that the pair is mislabelled: `swap` where the rejected answer is the better one, else `drop`."""
    asked = {"action": action, "note": note}
    return Call("PUT", f"/v1/jobs/{job_id}/pairs/{row}/flag", FlagView, json=asked, repeatable=True)


def _unflag(job_id: str, row: int) -> Call[FlagRemoved]:
    return Call("DELETE", f"/v1/jobs/{job_id}/pairs/{row}/flag", FlagRemoved, repeatable=True)


def _export(job_id: str) -> Call[FileView]:
    """The training file corrected by the flags, as a new file; the same one while the flags stay the same."""
    return Call("POST", f"/v1/jobs/{job_id}/pairs/export", FileView, repeatable=True)


class Pairs(Resource[SenderT]):
    list = Operation(_list)
    margins = Operation(_margins)
    get = Operation(_get)
    flag = Operation(_flag)
    unflag = Operation(_unflag)
    export = Operation(_export)
