"""The load of `control_plane.py`, in a process of its own: reads what to do as JSON, prints what it saw as JSON.

Every load is bounded in count and time. Latencies of an open load count from when a request was due, not from when it
could be sent.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any

import httpx

_IDS = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_SENT = re.compile(rb'"sent":(\d+\.\d+)')
_CHUNK = b"\0" * 2**20


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
    jobs: dict[str, set[str]] = {}
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)

    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False) as client:

        async def one(number: int, due: float) -> None:
            key = f"bench-{number}"
            try:
                answer = await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1
                return
            latencies.append(time.perf_counter() - due)
            statuses[str(answer.status_code)] += 1
            if answer.is_success:
                jobs.setdefault(key, set()).add(answer.json()["id"])

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
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        for name, places in paths.items():
            latencies = []
            for number in range(count):
                began = time.perf_counter()
                answer = await client.get(places[number % len(places)])
                latencies.append(time.perf_counter() - began)
                answer.raise_for_status()
            found[name] = spread(latencies) | {"bytes": len(answer.content)}
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
    address = httpx.URL(url)
    lags: list[float] = []
    received: list[int] = []
    disordered = 0
    opened = asyncio.Semaphore(50)
    ready = asyncio.Event()
    num_ready = 0

    async def follow(job: str) -> None:
        nonlocal disordered, num_ready
        async with opened:
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=2**22)
            asked = [f"GET /v1/jobs/{job}/events HTTP/1.1", "Host: bench", "Accept: text/event-stream"]
            asked += [f"{name}: {value}" for name, value in headers.items()]
            writer.write(("\r\n".join(asked) + "\r\n\r\n").encode())
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
            sent = _SENT.findall(frames)
            count += len(sent)
            lags.extend([now - float(sent[0]), now - float(sent[-1])] if sent else [])
            if not end or b"event: end" in frames[-200:] + end:
                break
        received.append(count)
        writer.close()

    async def feed(job: str, due_every_s: float, each: int, first_s: float) -> int:
        path = f"/internal/attempts/{attempts[job]['id']}/reports"
        token = {"Authorization": f"Bearer {attempts[job]['token']}"}
        sent = 0
        started = time.perf_counter() + first_s
        while (due := started + sent / each * due_every_s) < began + seconds:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            events = [
                {"kind": "event", "type": "bench.event", "message": "x" * 60, "data": {"sent": round(time.time(), 4)}}
            ] * each
            await _report(client, path, token, sent + 1, events)
            sent += each
        await _report(client, path, token, sent + 1, [{"kind": "outcome", "result": "succeeded"}])
        return sent

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client, asyncio.TaskGroup() as group:
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


async def _report(
    client: httpx.AsyncClient, path: str, token: dict[str, str], first: int, reports: list[dict[str, Any]]
) -> None:
    answer = await client.post(path, headers=token, json={"first_seq": first, "reports": reports})
    answer.raise_for_status()


async def upload(url: str, headers: dict[str, str], *, mebibytes: int, break_after: int | None) -> dict[str, Any]:
    """Upload so many MiB of zeros; hang up after `break_after` of them."""
    address = httpx.URL(url)
    head = (
        b'--bench\r\nContent-Disposition: form-data; name="file"; filename="zeros.jsonl"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n"
    )
    tail = b"\r\n--bench--\r\n"
    length = len(head) + mebibytes * len(_CHUNK) + len(tail)
    asked = ["POST /v1/files HTTP/1.1", "Host: bench", f"Content-Length: {length}"]
    asked += ["Content-Type: multipart/form-data; boundary=bench", "Connection: close"]
    asked += [f"{name}: {value}" for name, value in headers.items()]
    reader, writer = await asyncio.open_connection(address.host, address.port)
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
