"""Several calls to the cluster under way at one time: one after the other, they take as long as the cluster is big."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_AT_ONCE = 16

Item = TypeVar("Item")


async def together(work: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
    """`work` for each of the items, begun in their order. After a failure nothing more is begun, what is under way
    comes to its end, and the failure is raised: the next pass sees what is left."""
    waiting = deque(items)

    async def take_turns() -> None:
        while waiting:
            await work(waiting.popleft())

    if not waiting:
        return
    tasks = [asyncio.create_task(take_turns()) for _ in range(min(_AT_ONCE, len(waiting)))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        waiting.clear()
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    failures = [failure for task in tasks if (failure := task.exception()) is not None]
    if failures:
        raise failures[0]
