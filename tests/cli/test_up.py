"""`plumbline up` as a process: what it says, what it leaves, and what it refuses."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.cli.processes import free_port
from api.client import Client

PLUMBLINE = Path(sys.executable).parent / "plumbline"


@dataclass
class Up:
    process: "subprocess.Popen[str]"
    home: Path
    environment: dict[str, str]
    said: str

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(PLUMBLINE), *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("up") / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLUMBLINE_")}
    environment |= {"PLUMBLINE_HOME": str(home), "PLUMBLINE_PORT": str(free_port()), "COLUMNS": "200"}
    process = subprocess.Popen(
        [str(PLUMBLINE), "up"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    else:
        pytest.fail(said)
    yield Up(process, home, environment, said)
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def test_it_says_where_the_dashboard_is_with_a_key_that_works(up: Up) -> None:
    found = re.search(r"(http://127\.0\.0\.1:\d+)/#key=(pk-\S+)", up.said)
    assert found is not None
    with Client(found[1], found[2]) as client:
        assert client.jobs.list().data == []
    assert (up.home / "api-key").read_text() == found[2]


def test_the_other_commands_find_it_by_its_home_alone(up: Up) -> None:
    listed = up.run("jobs", PLUMBLINE_PORT="1")
    assert (listed.returncode, listed.stdout) == (0, "No jobs.\n")


def test_a_second_one_on_the_same_home_is_refused(up: Up) -> None:
    second = up.run("up")
    assert second.returncode == 1
    assert f"process {up.process.pid}" in second.stdout + second.stderr


def test_a_second_one_on_the_same_port_is_refused(up: Up, tmp_path: Path) -> None:
    second = up.run("up", PLUMBLINE_HOME=str(tmp_path / "other"))
    assert second.returncode == 1
    assert "PLUMBLINE_PORT" in second.stdout + second.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_sigterm_stops_everything_and_leaves_no_process(up: Up) -> None:
    mine = _descendants(up.process.pid)
    assert len(mine) > 5  # Ray's processes among them
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0
    deadline = time.monotonic() + 10
    while left := [pid for pid in mine if _alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not (up.home / "url").exists()


def _descendants(pid: int) -> set[int]:
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, set()).add(int(entry.name))
    found, new = set(), {pid}
    while new:
        new = set().union(*(children.get(parent, set()) for parent in new))
        found |= new
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
