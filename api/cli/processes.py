"""Child processes that never outlive us, and the addresses they listen on."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_NEVER_EPHEMERAL = range(20_000, 32_768)  # below the ranges that Linux and macOS choose from


def free_port() -> int:
    """A port that nothing listens on right now, and that the system gives to nobody who asks for any: Ray does for all
    its processes, and Serve first listens on its own minutes after it was chosen."""
    candidates = random.SystemRandom().sample(_NEVER_EPHEMERAL, 1000)
    return next(port for port in candidates if port_is_free("127.0.0.1", port))


def port_is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def answers(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def spawn(command: Sequence[str], *, env: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start `command` as the leader of a process group of its own, so that Ctrl-C reaches only us, with its output
    appended to `log`. On Linux it gets SIGTERM when the calling thread ends, however that comes about."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the command is ours
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )


def end(processes: Iterable["subprocess.Popen[bytes]"], *, grace_s: float) -> None:
    """SIGTERM to the leaders; after `grace_s` seconds SIGKILL to what is left of their groups."""
    processes = list(processes)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    for process in processes:
        _signal(lambda process=process: os.killpg(process.pid, signal.SIGKILL))  # type: ignore[misc]
        process.wait()


def sweep(mark: str, sessions: Iterable[int] = ()) -> None:
    """SIGKILL to grandchildren that have left their group: every process of ours with `mark` ("NAME=value") in its
    environment, or in one of these sessions. Does nothing where there is no /proc.

    A process that sets its own title may have written over its environment, so one sign alone would miss some.
    """
    sessions = set(sessions)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark.encode() in (entry / "environ").read_bytes().split(b"\0")
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
        except OSError:  # ended, or another user's
            continue
        if (marked or session in sessions) and int(entry.name) != os.getpid():
            _signal(lambda entry=entry: os.kill(int(entry.name), signal.SIGKILL))  # type: ignore[misc]


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except (ProcessLookupError, PermissionError):  # gone already; a zombie's group answers EPERM on some systems
        return


def _end_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # looked up here: between fork and exec only the call itself is safe

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return set_death_signal
