"""Requests that are meant to confuse: JSON that readers take differently, headers sent twice, hosts, origins, paths."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.dashboard_files import DASHBOARD
from service.db.session import Database
from service.settings import Settings
from tests.api.conftest import PAIR, problem
from tests.service.conftest import add_job, make_model

AS_JSON = {"Content-Type": "application/json"}


def nested(levels: int) -> bytes:
    return b'{"plumbline": ' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/comparisons", "/v1/fine_tuning/jobs"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"name": "a", "name": "b"}', "'name' twice"),
        (b'{"data": {"train": "a", "train": "b"}}', "'train' twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' twice"),
        (b'{"training": {"learning_rate": NaN}}', "NaN"),
        (b'{"training": {"learning_rate": -Infinity}}', "-Infinity"),
        (nested(100), "nested deeper than 64"),
        (nested(5000), "nested"),
    ],
)
async def test_json_that_readers_take_differently_is_refused(
    client: httpx.AsyncClient, path: str, content: bytes, said: str
) -> None:
    answer = await client.post(path, content=content, headers=AS_JSON)
    assert answer.status_code in (400, 422), answer.text
    assert said in answer.text


@pytest.mark.parametrize("number", ["1e400", "9" * 4000, "-" + "9" * 400])
async def test_a_number_beyond_every_range_is_refused_and_not_stored(
    client: httpx.AsyncClient, body: dict[str, Any], number: str
) -> None:
    for field in ("batch_size", "seed", "learning_rate", "checkpoint_every", "max_grad_norm"):
        content = json.dumps(body | {"training": {field: 0}}).replace(f'"{field}": 0', f'"{field}": {number}')
        problem(await client.post("/v1/jobs", content=content, headers=AS_JSON), 422, "invalid_request")
    assert (await client.get("/v1/jobs")).json()["data"] == []


async def test_every_number_of_a_job_has_bounds(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    open_ended: list[str] = []

    def look(schema: dict[str, Any], where: str, seen: frozenset[str]) -> None:
        reference = schema.get("$ref", "").rpartition("/")[2]
        if reference and reference not in seen:
            look(schemas[reference], where, seen | {reference})
        if schema.get("type") in ("integer", "number"):
            below = {"minimum", "exclusiveMinimum"} & schema.keys()
            above = {"maximum", "exclusiveMaximum"} & schema.keys()
            if not (below and above):
                open_ended.append(where)
        for member in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            look(member, where, seen)
        if "items" in schema:
            look(schema["items"], where + "[]", seen)
        for name, member in schema.get("properties", {}).items():
            look(member, f"{where}.{name}", seen)

    look(schemas["AlignmentJob"], "", frozenset())
    assert open_ended == []


async def test_two_idempotency_keys_are_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    twice = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    problem(await client.post("/v1/jobs", json=body, headers=twice), 422, "invalid_request")
    training = {"model": body["model"], "training_file": body["data"]["train"]}
    answer = await client.post("/v1/fine_tuning/jobs", json=training, headers=twice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    sweep = {"base": body, "changes": [{"priority": 1}]}
    problem(await client.post("/v1/sweeps", json=sweep, headers=twice), 422, "invalid_request")
    assert (await client.get("/v1/jobs")).json()["data"] == []

    job = (await client.post("/v1/jobs", json=body)).json()
    problem(await client.post(f"/v1/jobs/{job['id']}/clone", json={}, headers=twice), 422, "invalid_request")
    assert len((await client.get("/v1/jobs")).json()["data"]) == 1


@pytest.mark.parametrize("key", ["", "a" * 256, "caf\xe9", "a\tb", "a\x7fb", " "])
async def test_an_odd_idempotency_key_is_refused_or_taken_as_it_is(
    client: httpx.AsyncClient, body: dict[str, Any], key: str
) -> None:
    answers = [
        await client.post("/v1/jobs", json=body, headers={b"Idempotency-Key": key.encode("latin-1")}) for _ in range(2)
    ]
    if answers[0].is_success:
        assert answers[1].json()["id"] == answers[0].json()["id"]
    else:
        problem(answers[0], 422, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/files/", "/vendor", "//evil.example/x", "/docs/", "/internal/"])
async def test_nobody_is_sent_to_the_host_that_a_request_named(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert "evil.example" not in answer.text.replace(path, "")


async def test_a_page_of_another_origin_may_ask_for_nothing(client: httpx.AsyncClient) -> None:
    """There are no cookies, so nothing to forge with; and no origin is told that it may send a key."""
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        await client.options("/v1/jobs", headers=origin | {"Access-Control-Request-Headers": "authorization"}),
        await client.get("/v1/jobs", headers=origin),
        await client.get("/", headers=origin),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/app.js", "/v1/jobs", "/v1/nothing", "/openapi.json", "/docs", "/healthz"])
async def test_every_answer_tells_a_browser_what_it_may_not_do(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert ("unsafe-inline" in policy) == (path == "/docs")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_dashboard_needs_no_inline_script_and_writes_no_markup_from_strings() -> None:
    page = (DASHBOARD / "index.html").read_text()
    scripts = page.count("<script") - page.count('<script type="importmap">')  # which is allowed by its hash
    assert scripts == page.count('src="')  # each is a file
    for script in set(DASHBOARD.rglob("*.js")) - set(DASHBOARD.glob("vendor/**/*")):
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySetInnerHTML", "eval("):
            assert way not in script.read_text(), script


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "..\\..\\boot.ini", "/etc/passwd", "a\0b", "\r\nSet-Cookie: a=b", "\u202etxt.exe", "..", "",
     "x" * 5000, '";filename="b', "\udcff"],
)  # fmt: skip
async def test_a_files_name_is_never_a_path_and_breaks_no_header(
    client: httpx.AsyncClient, settings: Settings, name: str
) -> None:
    content = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--b--\r\n' % (
        name.replace("\r\n", "").encode(errors="surrogateescape"),
        PAIR,
    )
    sent = await client.post("/v1/files", content=content, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert sent.status_code in (201, 400, 422), sent.text
    stored = [path for path in settings.storage_root.rglob("*") if path.is_file()]
    if sent.status_code != 201:
        assert stored == []
        return
    file = sent.json()
    assert stored == [settings.storage_root / "files" / file["id"]]
    assert not set(file["filename"]) & set("/\\\0\r\n")
    assert 0 < len(file["filename"]) <= 255
    got = await client.get(f"/v1/files/{file['id']}/content")
    assert got.content == PAIR
    assert got.headers["Content-Disposition"].startswith("attachment; ")
    assert "set-cookie" not in got.headers


@pytest.mark.parametrize(
    "train",
    ["/etc/passwd", "/data/../../etc/passwd", "/proc/self/environ", "//etc/passwd", "/data/\u2024\u2024/x",
     "file:///etc/passwd", "https://127.0.0.1/x", "https://0x7f.1/x", "https://2130706433/x", "https://[::1]/x",
     "https://[::ffff:169.254.169.254]/x", "https://169.254.169.254/latest", "https://0177.0.0.1/x",
     "https://127.1./x", "https://user@10.0.0.1/x", "https://a\\@127.0.0.1/x"],
)  # fmt: skip
async def test_data_from_where_no_job_may_read_is_refused_at_once(
    client: httpx.AsyncClient, body: dict[str, Any], train: str
) -> None:
    answer = await client.post("/v1/jobs", json=body | {"data": {"train": train}})
    assert (answer.status_code, answer.json()["code"]) in [(422, "dataset_invalid"), (422, "invalid_request")]
    assert "root:" not in answer.text


@pytest.mark.parametrize("model", ["/etc", "/proc/self", "hf:../../x", "job:../x", "/models/../etc", "hf:a/b@../../x"])
async def test_a_model_from_where_no_job_may_read_is_refused_at_once(
    client: httpx.AsyncClient, body: dict[str, Any], model: str
) -> None:
    assert (await client.post("/v1/jobs", json=body | {"model": model})).status_code == 422


async def test_a_link_out_of_the_model_roots_is_not_followed(
    client: httpx.AsyncClient, body: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    outside = make_model(tmp_path / "outside")
    link = settings.storage_root / "models" / "link"
    link.symlink_to(outside)
    problem(await client.post("/v1/jobs", json=body | {"model": str(link)}), 422, "model_not_found")


async def test_a_job_whose_options_this_version_does_not_take_hides_no_other(
    client: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        await session.flush()
        old = await add_job(session)
        old.spec = {"model": {"source": "/models/old"}, "data": {"train": "/data/old.jsonl"}, "loss": "dpo"}
    page = (await client.get("/v1/jobs")).json()["data"]
    assert {one["id"] for one in page} == {job.id, old.id}
    page = (await client.get("/v1/fine_tuning/jobs")).json()["data"]
    assert {(one["id"], one["model"]) for one in page} == {(job.id, "/models/tiny"), (old.id, "/models/old")}
    assert (await client.get(f"/v1/jobs/{old.id}")).json()["name"] is None
    assert (await client.get(f"/v1/fine_tuning/jobs/{old.id}")).json()["spec"]["loss"] == "dpo"
    assert (await client.post(f"/v1/jobs/{old.id}/cancel")).json()["state"] == "cancelled"
