"""The log of an attempt on a real Ray, as its project sees it."""

import shlex
from collections.abc import Callable

import pytest

from service.controller import start
from service.controller.context import Controller
from service.db.tables import Job
from service.errors import NotFound, Unavailable
from service.jobs.attempt_log import AttemptLog, read_log
from service.jobs.tokens import attempt_token
from tests.controller.conftest import look, queue, ray_job, until

Make = Callable[..., Controller]

SAYS = r"""
import os
print(os.environ)
print("\x1b[36mcoloured\x1b[0m")
print("10%\r100%")
print("Authorization: Bearer abcdefghijklmnop")
print("x" * endless)
print(*range(100), "the last", sep="\n")
"""


def attempt_that_says(*, endless: int) -> str:
    """endless: the length of one of its lines."""
    return f"python -c {shlex.quote(SAYS.replace('endless', str(endless)))}"


async def ended(controller: Controller, job: Job) -> None:
    await start.reconcile(controller)

    async def over() -> bool:
        found = await ray_job(controller, job)
        return found is not None and found.status.terminal

    await until(over)


async def log_of(controller: Controller, job: Job, *, tail: int = 500, attempt: int | None = None) -> AttemptLog:
    return await read_log(controller.database, controller.settings, job.project_id, job.id, attempt=attempt, tail=tail)


async def test_the_last_lines_are_read_without_secrets_colours_or_lines_of_any_length(make: Make) -> None:
    controller = make(attempt_that_says(endless=1))
    job = await queue(controller)
    before = await log_of(controller, job)
    assert (before.attempt, before.lines, before.live) == (None, [], True)
    await ended(controller, job)

    log = await log_of(controller, job)
    _, attempt = await look(controller, job)
    assert attempt is not None
    assert (log.attempt, log.more, log.live) == (1, False, True)
    assert log.lines[-105:] == ["coloured", "100%", "Authorization: Bearer ***", "x", *map(str, range(100)), "the last"]
    whole = "\n".join(log.lines)
    assert "PLUMBLINE_ATTEMPT_TOKEN" in whole
    assert attempt_token(controller.settings, attempt.id) not in whole

    short = await log_of(controller, job, tail=3)
    assert (short.lines, short.more) == (["98", "99", "the last"], True)


async def test_a_line_without_end_leaves_the_lines_after_it(make: Make) -> None:
    controller = make(attempt_that_says(endless=3_000_000))
    job = await queue(controller)
    await ended(controller, job)
    log = await log_of(controller, job)
    assert log.lines[-1] == "the last"
    assert max(map(len, log.lines)) <= 4000


async def test_another_project_and_an_attempt_that_never_was_are_not_found(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    with pytest.raises(NotFound, match="no such job"):
        await read_log(controller.database, controller.settings, "other", job.id, attempt=None, tail=5)
    with pytest.raises(NotFound, match="no attempt 2"):
        await log_of(controller, job, attempt=2)


async def test_a_cluster_that_does_not_answer_is_said_to_be_away(make: Make) -> None:
    controller = make("python -c pass")
    job = await queue(controller)
    await ended(controller, job)
    away = make("python -c pass", ray_url="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="does not answer"):
        await log_of(away, job)
