import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.cli.processes import answers, end, free_port, port_is_free, spawn, sweep

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def _read_pid(path: Path) -> int:
    deadline = time.monotonic() + 10
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


def test_ports_that_are_listened_on_are_seen() -> None:
    port = free_port()
    assert port_is_free("127.0.0.1", port)
    assert not answers("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free("127.0.0.1", port)
        assert answers("127.0.0.1", port)


def test_what_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 600 & echo $! > pid; wait; wait"
    process = spawn(["sh", "-c", f"cd {tmp_path}; {script}"], env=dict(os.environ), log=tmp_path / "log")
    child = _read_pid(tmp_path / "pid")
    end([process], grace_s=0.5)
    assert process.returncode is not None
    assert _gone(child)


@linux_only
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys, time; from api.cli.processes import spawn; here = pathlib.Path(sys.argv[1]);"
        "child = spawn(['sleep', '600'], env=dict(os.environ), log=here / 'log');"
        "(here / 'pid').write_text(str(child.pid)); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    child = _read_pid(tmp_path / "pid")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert _gone(child)


@linux_only
def test_sweeping_finds_what_has_left_the_group(tmp_path: Path) -> None:
    mark = f"PLUMBLINE_TEST={tmp_path}"
    name, _, value = mark.partition("=")
    command = ["sh", "-c", f"setsid sleep 600 & echo $! > {tmp_path}/pid"]
    process = spawn(command, env=dict(os.environ) | {name: value}, log=tmp_path / "log")
    stray = _read_pid(tmp_path / "pid")
    end([process], grace_s=5)
    sweep(mark)
    assert _gone(stray)


@linux_only
def test_sweeping_finds_what_has_written_over_its_environment(tmp_path: Path) -> None:
    command = ["sh", "-c", f"set -m; env -i sleep 600 & echo $! > {tmp_path}/pid"]  # another group, the same session
    process = spawn(command, env=dict(os.environ), log=tmp_path / "log")
    stray = _read_pid(tmp_path / "pid")
    end([process], grace_s=5)
    sweep("PLUMBLINE_TEST=nothing", [process.pid])
    assert _gone(stray)
