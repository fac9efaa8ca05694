"""Made-up bodies for what reads them by hand: multipart uploads, and the reports of attempts."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.db.session import Database
from service.jobs import attempts
from service.jobs.tokens import attempt_token
from service.settings import Settings
from service.spec.stages import Stage
from tests.api.conftest import PAIR, Server
from tests.service.conftest import add_job

BOUNDARY = b"--b"
few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def uploads(server: Server, ada: dict[str, str]) -> Iterator[httpx.Client]:
    headers = ada | {"Content-Type": "multipart/form-data; boundary=b"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20) as client:
        yield client


_WHOLE = [
    BOUNDARY + b'\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n',
    BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + PAIR + b"\r\n",
    BOUNDARY + b"--\r\n",
]
_PIECES = st.one_of(
    st.sampled_from(
        [*_WHOLE, BOUNDARY, b"\r\n", b"\n", b"--", b"\0", b"Content-Disposition: form-data\r\n\r\n", b'name="file"',
         b'Content-Disposition: form-data; name="other"\r\n\r\nx\r\n', b"Content-Transfer-Encoding: base64\r\n",
         b"Content-Disposition: form-data; name*=utf-8''file; filename*=utf-8''..%2f..%2fx\r\n\r\n"]
    ),
    st.binary(max_size=40),
)  # fmt: skip


@few
@given(pieces=st.lists(_PIECES, max_size=8), cut=st.integers(0, 400))
def test_a_form_is_a_whole_file_or_nothing_at_all(
    uploads: httpx.Client, settings_of: Settings, pieces: list[bytes], cut: int
) -> None:
    before = _stored(settings_of)
    answer = uploads.post("/v1/files", content=b"".join(pieces)[:cut] if cut < 200 else b"".join(pieces))
    new = _stored(settings_of) - before
    assert answer.status_code in (201, 400, 422), answer.text
    assert {path.name for path in new} == ({answer.json()["id"]} if answer.status_code == 201 else set())


@few
@given(kind=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(str.strip))
def test_any_content_type_is_answered(uploads: httpx.Client, kind: str) -> None:
    answer = uploads.post("/v1/files", content=b"".join(_WHOLE), headers={"Content-Type": kind})
    assert answer.status_code in (201, 400, 422), answer.text


@pytest.fixture
def settings_of(settings: Settings) -> Settings:
    """By another name: hypothesis has the word too."""
    return settings


def _stored(settings: Settings) -> set[Path]:
    return {path for path in settings.storage_root.rglob("*") if path.is_file()}


@pytest.fixture
async def reports(server: Server, ada: dict[str, str], database: Database, settings_of: Settings) -> "Reports":
    async with database.transaction() as session:
        attempt = await attempts.start_attempt(session, await add_job(session))
    token = attempt_token(settings_of, attempt.id)
    return Reports(server.url, attempt.id, token, attempt.job_id, ada)


class Reports:
    def __init__(self, url: str, attempt_id: str, token: str, job_id: str, key: dict[str, str]) -> None:
        self.job_id = job_id
        self._url = f"/internal/attempts/{attempt_id}/reports"
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        self._key = key
        self._taken = 0

    def send(self, content: bytes) -> httpx.Response:
        return self._client.post(self._url, content=content, headers={"Content-Type": "application/json"})

    def shown(self, path: str) -> httpx.Response:
        """What the job's owner sees there."""
        return self._client.get(path, headers=self._key)

    def send_reports(self, *reports: Any) -> httpx.Response:
        batch = {"first_seq": self._taken + 1, "reports": reports}
        answer = self.send(json.dumps(batch).encode())
        if answer.is_success:
            self._taken = answer.json()["last_seq"]
        return answer


_NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.just(-(10**4000)), st.just(math.nan))
_ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.text(), st.sampled_from(["\0", "\ud800", "x" * 5000])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=12,
)
_KINDS = st.sampled_from(["event", "metrics", "progress", "outcome", "other"])
_REPORTS = st.fixed_dictionaries(
    {"kind": _KINDS},
    optional={
        "type": st.one_of(st.sampled_from(["reference.scored", "data.prepared", "job.queued", "a.b" * 30]), _ANY),
        "message": st.one_of(st.text(), _ANY),
        "data": st.one_of(st.dictionaries(st.text(max_size=9), _ANY, max_size=4), _ANY),
        "stage": st.one_of(st.sampled_from(list(Stage)), _ANY),
        "step": _NUMBERS,
        "split": st.sampled_from(["train", "held_out", "else"]),
        "values": st.dictionaries(st.text(max_size=9), st.one_of(_NUMBERS, st.none()), max_size=4),
        "done": _NUMBERS,
        "total": _NUMBERS,
        "unit": st.one_of(st.text(), st.just("x" * 9000)),
    },
)
_WELL_FORMED = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("event"), "type": st.sampled_from(["data.prepared", "a.b"]), "message": st.text()},
        optional={
            "data": st.dictionaries(st.text(max_size=9), _ANY, max_size=4),
            "stage": st.sampled_from(list(Stage)),
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("metrics"), "step": st.integers(0, 2**31 - 1)}
        | {"values": st.dictionaries(st.text(max_size=9), st.one_of(st.floats(), st.none()), max_size=4)}
    ),
    st.fixed_dictionaries(
        {"kind": st.just("progress"), "stage": st.sampled_from(list(Stage)), "unit": st.text(max_size=9)}
        | {"done": st.integers(0, 2**53), "total": st.integers(0, 2**53)}
    ),
)


@few
@given(batch=st.lists(st.one_of(_WELL_FORMED, _REPORTS), max_size=3))
def test_what_an_attempt_reports_is_taken_and_shown_or_refused(reports: Reports, batch: list[Any]) -> None:
    answer = reports.send_reports(*batch)
    assert answer.status_code in (200, 422), answer.text
    for path in ("", "/events?limit=1000", "/metrics", "/data-report"):
        shown = reports.shown(f"/v1/jobs/{reports.job_id}{path}")
        assert shown.status_code == 200 or path == "/data-report", shown.text
        assert shown.status_code < 500
        shown.json()
    assert reports.shown(f"/v1/fine_tuning/jobs/{reports.job_id}/events").is_success
    assert reports.shown("/v1/fine_tuning/jobs").is_success


@few
@given(content=st.one_of(st.binary(max_size=200), _ANY.map(lambda value: json.dumps(value).encode())))
def test_a_body_that_is_no_batch_is_refused(reports: Reports, content: bytes) -> None:
    assert reports.send(content).status_code == 422


@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'{"first_seq": 1, "reports": ['])
def test_a_batch_nested_ten_thousand_deep_is_refused(reports: Reports, opened: bytes) -> None:
    assert reports.send(opened * 10_000).status_code == 422
