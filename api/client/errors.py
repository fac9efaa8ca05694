"""What a client raises. `str(error)` is meant for people: what is wrong and the way out."""

from typing import Any


class PlumblineError(Exception):
    """Whatever the client raises."""


class Unreachable(PlumblineError):
    """Nothing answers at the API's address, or it stopped in mid-answer."""


class NotPlumbline(PlumblineError):
    """What answers at the address does not speak as the API does."""


class ApiError(PlumblineError):
    """The API's problem+json (RFC 9457): `code` and `status` are stable, `problem` is the whole of it."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.problem = problem
        super().__init__("\n".join([_headline(problem), *_particulars(problem)]))


def _headline(problem: dict[str, Any]) -> str:
    return f"{problem.get('detail') or problem.get('title') or 'The API gave no reason.'} [{problem.get('code')}]"


def _particulars(problem: dict[str, Any]) -> list[str]:
    fields = [f"  {error.get('field')}: {error.get('message')}" for error in problem.get("errors", [])]
    rows = [f"  row {row.get('row')}: {row.get('message')} [{row.get('code')}]" for row in problem.get("rows", [])]
    return fields + rows
