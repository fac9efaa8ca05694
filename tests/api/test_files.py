import asyncio
import hashlib
import os
import socket
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.api.conftest import PAIR, Server, problem, until

BOUNDARY = "b0undary"


def part(content: bytes, name: str = "file", filename: str | None = "pairs.jsonl") -> bytes:
    shown = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def stored(settings: Settings) -> list[Path]:
    directory = settings.storage_root / "files"
    return sorted(directory.iterdir()) if directory.is_dir() else []


async def nothing_left(client: httpx.AsyncClient, settings: Settings) -> None:
    assert stored(settings) == []
    assert (await client.get("/v1/files")).json()["data"] == []


async def test_an_upload_is_stored_as_it_is_and_found_again(client: httpx.AsyncClient, settings: Settings) -> None:
    content = os.urandom(90_000)  # holds line ends, and what looks like half a boundary
    content += b"\r\n--" + BOUNDARY[:4].encode()
    answer = await client.post("/v1/files", content=part(content) + END, headers=MULTIPART)
    file = answer.json()

    assert answer.status_code == 201
    assert (file["object"], file["filename"], file["bytes"]) == ("file", "pairs.jsonl", len(content))
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert [path.read_bytes() for path in stored(settings)] == [content]
    assert (await client.get(f"/v1/files/{file['id']}")).json() == file
    assert (await client.get("/v1/files")).json()["data"] == [file]
    assert file["created_at"].endswith("Z")
    back = await client.get(f"/v1/files/{file['id']}/content")
    assert (back.content, back.headers["content-length"]) == (content, str(len(content)))


async def test_another_owners_file_is_not_there(client: httpx.AsyncClient, bob: dict[str, str]) -> None:
    file = (await client.post("/v1/files", files={"file": ("a", PAIR)})).json()
    problem(await client.get(f"/v1/files/{file['id']}", headers=bob), 404, "not_found")
    assert (await client.get("/v1/files", headers=bob)).json()["data"] == []


@pytest.mark.parametrize(
    "params", [{"limit": "10001"}, {"cursor": "x"}, {"order": "up"}, {"after": "file-" + "0" * 21, "cursor": "y"}]
)
async def test_a_page_that_cannot_be_is_refused(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    problem(await client.get("/v1/files", params=params), 422, "invalid_request")


async def test_a_file_name_that_would_climb_stays_where_it_is(client: httpx.AsyncClient, settings: Settings) -> None:
    file = (await client.post("/v1/files", files={"file": ("../../../escape", PAIR)})).json()
    assert file["filename"] == "escape"
    assert [path.name for path in stored(settings)] == [file["id"]]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "upload_incomplete"),
        (END, 422, "invalid_request"),
        (b"no form at all", 400, "upload_incomplete"),
        (part(PAIR), 400, "upload_incomplete"),  # no closing boundary
        (part(PAIR)[:-20], 400, "upload_incomplete"),
        (part(PAIR, name="data") + END, 422, "invalid_request"),
        (part(PAIR) + part(PAIR, name="data") + END, 422, "invalid_request"),
        (part(PAIR) + part(PAIR) + END, 422, "invalid_request"),
        (part(b"x" * 100_001) + END, 413, "too_large"),
    ],
)
async def test_a_form_that_is_not_one_whole_file_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings, content: bytes, status: int, code: str
) -> None:
    problem(await client.post("/v1/files", content=content, headers=MULTIPART), status, code)
    await nothing_left(client, settings)


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", f"multipart/form-data; boundary={'x' * 999}"]
)
async def test_a_body_that_is_no_form_says_how_to_send_one(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.post("/v1/files", content=PAIR, headers={"Content-Type": kind})
    assert "curl -F file=@pairs.jsonl" in problem(answer, 400, "upload_incomplete")["detail"]


async def test_an_upload_that_breaks_off_leaves_nothing(
    server: Server, settings: Settings, client: httpx.AsyncClient, ada: dict[str, str]
) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: test\r\nAuthorization: {ada['Authorization']}\r\n"
        f"Content-Type: {MULTIPART['Content-Type']}\r\nContent-Length: 90000\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head.encode() + part(b"x" * 50_000))
    await writer.drain()
    await until(lambda: bool(stored(settings)))  # the server is in the middle of it
    writer.close()
    await until(lambda: not stored(settings))
    await nothing_left(client, settings)
    await reader.read()


@pytest.mark.parametrize("announced", [True, False])
async def test_an_upload_over_the_limit_is_refused_over_a_socket(
    server: Server, settings: Settings, client: httpx.AsyncClient, ada: dict[str, str], announced: bool
) -> None:
    content = part(b"x" * 150_000) + END

    async def pieces() -> object:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    async with httpx.AsyncClient(base_url=server.url, headers=ada | MULTIPART) as remote:
        answer = await remote.post("/v1/files", content=content if announced else pieces())
    assert "100000 bytes" in problem(answer, 413, "too_large")["detail"]
    await nothing_left(client, settings)


async def test_a_json_body_over_the_limit_is_refused_announced_or_not(server: Server, ada: dict[str, str]) -> None:
    content = b'{"name": "' + b"x" * 30_000 + b'"}'

    async def pieces() -> object:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    async with httpx.AsyncClient(base_url=server.url, headers=ada) as remote:
        for sent in (content, pieces()):
            answer = await remote.post("/v1/jobs", content=sent, headers={"Content-Type": "application/json"})
            assert "20000 bytes" in problem(answer, 413, "too_large")["detail"]


async def test_a_json_body_that_breaks_off_leaves_no_job(
    server: Server, client: httpx.AsyncClient, ada: dict[str, str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: test\r\nAuthorization: {ada['Authorization']}\r\n"
        raw.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{{".encode())
    async with httpx.AsyncClient(base_url=server.url, headers=ada) as remote:
        assert (await remote.get("/v1/jobs")).json()["data"] == []
