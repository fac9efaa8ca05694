"""The load of `control_plane.py`, in a process of its own: reads what to do as JSON, prints what it saw as JSON.

Every load is bounded in count and time. Latencies of an open load count from when a request was due, not from when it
could be sent. HTTP is spoken here by hand: it takes a tenth of a client library's time, and the cores are shared with
the server that is measured.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any, Self
from urllib.parse import urlsplit

_IDS = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_JOB = re.compile(rb'^{"id":"(job-[0-9a-f]{21})"')
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_SENT = b'"sent":'
_CHUNK = b"\0" * 2**20
_CONNECTIONS = 64


class Connection:
    """One that is kept alive, for one request after the other."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError and EOFError where the connection breaks."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._address.hostname, self._address.port, limit=2**22)
        reader, writer = self._streams
        writer.write(_head(method, path, headers | {"Content-Length": str(len(body))}) + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(answer)
        assert length is not None, answer
        return int(answer[9:12]), await reader.readexactly(int(length[1]))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def spread(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(values)
    at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
    return {name: round(1000 * value, 1) for name, value in at.items()}


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


async def post(url: str, headers: dict[str, str], *, body: dict[str, Any], rate: int, seconds: int) -> dict[str, Any]:
    """POST jobs at a fixed rate, every twentieth twice at once with the same key."""
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    jobs: dict[str, set[bytes]] = {}
    content = json.dumps(body).encode()
    idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(_CONNECTIONS):
        idle.put_nowait(Connection(url))

    async def one(number: int, due: float) -> None:
        key = f"bench-{number}"
        connection = await idle.get()
        try:
            async with asyncio.timeout(60):
                status, answer = await connection.request(
                    "POST", "/v1/jobs", headers | {"Idempotency-Key": key}, content
                )
        except (OSError, EOFError, TimeoutError) as error:
            statuses[type(error).__name__] += 1
            connection.close()
            return
        finally:
            idle.put_nowait(connection)
        latencies.append(time.perf_counter() - due)
        statuses[str(status)] += 1
        if status == 201 and (job := _JOB.match(answer)):
            jobs.setdefault(key, set()).add(job[1])

    started = time.perf_counter()
    async with asyncio.TaskGroup() as requests:
        for number in range(rate * seconds):
            due = started + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            for _ in range(2 if number % 20 == 0 else 1):
                requests.create_task(one(number, due))
    took = time.perf_counter() - started
    return {
        "statuses": statuses,
        "latency_ms": spread(latencies),
        "keys": len(jobs),
        "jobs": len(set().union(*jobs.values())),
        "keys_with_two_jobs": sum(len(ids) > 1 for ids in jobs.values()),
        "seconds": round(took, 1),
    }


async def get(url: str, headers: dict[str, str], *, paths: dict[str, list[str]], count: int) -> dict[str, Any]:
    """GET each path `count` times, one request after the other."""
    found: dict[str, Any] = {}
    async with Connection(url) as connection:
        for name, places in paths.items():
            latencies = []
            for number in range(count):
                began = time.perf_counter()
                status, answer = await connection.request("GET", places[number % len(places)], headers)
                latencies.append(time.perf_counter() - began)
                assert status == 200, answer
            found[name] = spread(latencies) | {"bytes": len(answer)}
    return found


async def streams(
    url: str,
    headers: dict[str, str],
    *,
    jobs: list[str],
    attempts: dict[str, dict[str, str]],
    per_job: int,
    rate: int,
    seconds: int,
) -> dict[str, Any]:
    """Open `per_job` streams of each job, feed `rate` events a second to all jobs together, and time what arrives."""
    address = urlsplit(url)
    lags: list[float] = []
    received: list[int] = []
    disordered = 0
    opened = asyncio.Semaphore(50)
    ready = asyncio.Event()
    num_ready = 0

    async def follow(job: str) -> None:
        nonlocal disordered, num_ready
        async with opened:
            reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**22)
            writer.write(_head("GET", f"/v1/jobs/{job}/events", headers | {"Accept": "text/event-stream"}))
            rest = await reader.readuntil(b"\n\n")
        num_ready += 1
        if num_ready == len(jobs) * per_job:
            ready.set()
        last = count = 0
        while chunk := await reader.read(2**20):
            frames, end, rest = (rest + chunk).rpartition(b"\n\n")
            now = time.time()
            for found in _IDS.findall(frames):  # the chunked encoding puts its lengths between frames
                disordered += int(found) != last + 1
                last = int(found)
            if sent := frames.count(_SENT):
                count += sent
                lags.extend((now - _sent_at(frames, frames.find(_SENT)), now - _sent_at(frames, frames.rfind(_SENT))))
            if not end or b"event: end" in frames[-200:] + end:
                break
        received.append(count)
        writer.close()

    async def feed(job: str, due_every_s: float, each: int, first_s: float) -> int:
        path = f"/internal/attempts/{attempts[job]['id']}/reports"
        token = {"Authorization": f"Bearer {attempts[job]['token']}"}
        sent = 0
        started = time.perf_counter() + first_s
        async with Connection(url) as connection:
            while (due := started + sent / each * due_every_s) < began + seconds:
                await asyncio.sleep(max(0, due - time.perf_counter()))
                data = {"sent": round(time.time(), 4)}
                events = [{"kind": "event", "type": "bench.event", "message": "x" * 60, "data": data}] * each
                await _report(connection, path, token, sent + 1, events)
                sent += each
            await _report(connection, path, token, sent + 1, [{"kind": "outcome", "result": "succeeded"}])
        return sent

    async with asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for job in jobs:
            for _ in range(per_job):
                group.create_task(follow(job))
        await ready.wait()
        opening = time.perf_counter() - began
        print(json.dumps({"open": num_ready}), flush=True)  # the parent looks at the server's memory now
        await asyncio.sleep(3)
        began = time.perf_counter()
        each = 20 if len(jobs) == 1 else 10  # events of one report
        every_s = each * len(jobs) / rate
        feeding = [
            group.create_task(feed(job, every_s, each, every_s * place / len(jobs))) for place, job in enumerate(jobs)
        ]
    fed = sum(task.result() for task in feeding)
    return {
        "streams": len(jobs) * per_job,
        "opening_s": round(opening, 1),
        "fed": fed,
        "due": fed * per_job,
        "received": sum(received),
        "out_of_order": disordered,
        "lag_ms": spread(lags),
        "fewest_and_most": [min(received), max(received)],
        "seconds": round(time.perf_counter() - began, 1),
    }


def _sent_at(frames: bytes, place: int) -> float:
    return float(frames[place + len(_SENT) : frames.index(b"}", place)])


async def _report(
    connection: Connection, path: str, token: dict[str, str], first: int, reports: list[dict[str, Any]]
) -> None:
    body = json.dumps({"first_seq": first, "reports": reports}).encode()
    status, answer = await connection.request("POST", path, token, body)
    assert status == 200, answer


async def upload(url: str, headers: dict[str, str], *, mebibytes: int, break_after: int | None) -> dict[str, Any]:
    """Upload so many MiB of zeros; hang up after `break_after` of them."""
    address = urlsplit(url)
    head = (
        b'--bench\r\nContent-Disposition: form-data; name="file"; filename="zeros.jsonl"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n"
    )
    tail = b"\r\n--bench--\r\n"
    length = len(head) + mebibytes * len(_CHUNK) + len(tail)
    asked = ["POST /v1/files HTTP/1.1", "Host: bench", f"Content-Length: {length}"]
    asked += ["Content-Type: multipart/form-data; boundary=bench", "Connection: close"]
    asked += [f"{name}: {value}" for name, value in headers.items()]
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    began = time.perf_counter()
    writer.write(("\r\n".join(asked) + "\r\n\r\n").encode() + head)
    for _ in range(mebibytes if break_after is None else break_after):
        writer.write(_CHUNK)
        await writer.drain()
    if break_after is not None:
        writer.transport.abort()
        return {"broken_after_mib": break_after}
    writer.write(tail)
    answer = await reader.read()
    status = int(answer.split(b" ", 2)[1])
    took = time.perf_counter() - began
    return {"status": status, "seconds": round(took, 1), "mib_per_s": round(mebibytes / took)}


def main() -> None:
    order = json.load(sys.stdin)
    kind = {"post": post, "get": get, "streams": streams, "upload": upload}[order.pop("kind")]
    print(json.dumps(asyncio.run(kind(order.pop("url"), order.pop("headers"), **order))), flush=True)


if __name__ == "__main__":
    main()
