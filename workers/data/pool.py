"""A function over a stream of rows on all cores: in order, with a bounded number of chunks on the way."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from service.spec.reports import Fault
from workers.errors import AttemptError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK_ITEMS = 128
_CHUNK_SIZE = 4 * 2**20
_HEAD = 8  # chunks that are worked off here: starting processes takes longer than a small file
_MAX_PROCESSES = 32  # more would wait for this process, which reads and writes alone
_WAITING = 3  # chunks on the way for each process

_function: Callable[..., object]  # of a pool's process


def map_chunks(
    function: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    processes: int,
    size: Callable[[Item], int],
) -> Iterator[Result]:
    """The results of `function` on chunks of `items`, in the order of the items.

    function: sent to each process once, so it must survive pickling. With one process it runs here.
    size: about how many bytes an item has; a chunk has at most 128 items and, beyond its first, 4 MiB.
    Raises AttemptError `prepare_workers_lost` when a process died; what `function` raises comes through.
    """
    chunks = _chunks(items, size)
    head = list(islice(chunks, _HEAD)) if processes > 1 else []
    if processes == 1 or len(head) < _HEAD:
        for chunk in chain(head, chunks):
            yield from function(chunk)
        return
    context = multiprocessing.get_context("spawn")  # this process has threads, which a fork would break
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(function,))
    waiting: deque[Future[list[Result]]] = deque()
    try:
        for chunk in chain(head, chunks):
            waiting.append(pool.submit(_call, chunk))
            if len(waiting) >= _WAITING * processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise AttemptError(
            "prepare_workers_lost",
            f"A process that tokenised rows died, perhaps for lack of memory ({processes} of them ran): {error}",
            Fault.SYSTEM,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cpus() -> int:
    """Cores that this process may keep busy: its affinity, or less where its container has a quota; at most 32."""
    cpus = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, _, period = quota.read_text().partition(" ")
        if limit != "max":
            cpus = min(cpus, int(limit) // int(period))
    return max(1, min(cpus, _MAX_PROCESSES))


def _start(function: Callable[..., object]) -> None:
    global _function
    _function = function
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process waits for work for ever, even if its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(chunk: list[Item]) -> list[Result]:
    results: list[Result] = _function(chunk)  # type: ignore[assignment] # what map_chunks was given
    return results


def _chunks(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    total = 0
    for item in items:
        bytes_ = size(item)
        if chunk and (len(chunk) == _CHUNK_ITEMS or total + bytes_ > _CHUNK_SIZE):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += bytes_
    if chunk:
        yield chunk
