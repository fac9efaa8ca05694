"""What the commands fail with: one readable line and the way out, never a traceback."""

from typing import Any


class CliError(Exception):
    """The message is all that the user gets to see."""


class Unreachable(CliError):
    """Nothing answers at the API's address."""


class ApiError(CliError):
    """The API's problem+json: `code` and `status` are stable, `problem` is the whole of it."""

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
