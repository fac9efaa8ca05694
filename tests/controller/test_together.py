"""Several calls at one time: all are made, and a failure neither hides nor cuts off what is under way."""

import asyncio

import pytest

from service.controller.together import together


async def test_each_item_is_worked_on_once_and_no_more_than_sixteen_at_one_time() -> None:
    done: list[int] = []
    under_way, most = 0, 0

    async def work(item: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        done.append(item)

    await together(work, range(100))
    assert sorted(done) == list(range(100))
    assert most == 16


async def test_after_a_failure_nothing_is_begun_and_what_is_under_way_comes_to_its_end() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        if item == 3:
            raise LookupError("the cluster is away")
        for _ in range(5):
            await asyncio.sleep(0)
        done.append(item)

    with pytest.raises(LookupError, match="away"):
        await together(work, range(100))
    assert sorted(done) == [item for item in range(16) if item != 3]


async def test_who_is_cancelled_leaves_nothing_running() -> None:
    begun = asyncio.Event()
    ended = 0

    async def work(_item: int) -> None:
        nonlocal ended
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    task = asyncio.create_task(together(work, range(100)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == 16
