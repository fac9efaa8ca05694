"""A function over a stream on several processes."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from workers.data.pool import map_chunks, usable_cpus
from workers.errors import AttemptError


def tell(chunk: list[int]) -> list[tuple[int, int]]:
    time.sleep(0.001 * (chunk[0] % 3))  # chunks end in another order than they start
    return [(item, os.getpid()) for item in chunk]


def refuse(chunk: list[int]) -> list[int]:
    if 1500 in chunk:
        raise AttemptError("seen", "1500")
    return chunk


def die(chunk: list[int]) -> list[int]:
    if 1500 in chunk:
        os.kill(os.getpid(), signal.SIGKILL)
    return chunk


def unit(_: int) -> int:
    return 1


def test_results_come_in_the_order_of_the_items_from_several_processes() -> None:
    results = list(map_chunks(tell, range(5000), 2, unit))
    assert [item for item, _ in results] == list(range(5000))
    processes = {process for _, process in results}
    assert 1 <= len(processes) <= 2  # one may have done all before the other was there
    assert os.getpid() not in processes


def test_a_small_input_and_a_single_process_stay_here() -> None:
    for items, processes in ((300, 2), (5000, 1)):
        results = list(map_chunks(tell, range(items), processes, unit))
        assert {process for _, process in results} == {os.getpid()}


def test_no_more_is_read_than_is_on_the_way() -> None:
    read = itertools.count()

    def items() -> Iterator[int]:
        for item in range(100_000):
            next(read)
            yield item

    results = map_chunks(tell, items(), 2, unit)
    next(results)
    results.close()  # type: ignore[attr-defined] # it is a generator
    assert next(read) <= 128 * (8 + 2)


def test_large_items_make_small_chunks() -> None:
    sizes: list[int] = []

    def keep(chunk: list[int]) -> list[int]:
        sizes.append(len(chunk))
        return chunk

    assert list(map_chunks(keep, range(9), 1, lambda _: 2**21)) == list(range(9))
    assert sizes == [2, 2, 2, 2, 1]


def test_what_the_function_raises_comes_through() -> None:
    with pytest.raises(AttemptError, match="seen: 1500"):
        list(map_chunks(refuse, range(5000), 2, unit))


def test_a_process_that_dies_is_a_typed_error_of_ours() -> None:
    with pytest.raises(AttemptError) as error:
        list(map_chunks(die, range(5000), 2, unit))
    assert (error.value.code, error.value.fault) == ("prepare_workers_lost", "system")


ENDLESS = """
import itertools
from tests.workers.test_pool import tell, unit
from workers.data.pool import map_chunks
if __name__ == "__main__":
    for item, _ in map_chunks(tell, itertools.count(), 2, unit):
        if item == 5000:
            print("running", flush=True)
"""


def test_processes_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "running\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_at_least_one_core_is_usable() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
