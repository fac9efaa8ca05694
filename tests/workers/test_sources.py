"""Fetching training files: from servers that speak S3 and GCS, an HTTPS server with its own certificate, and a
stand-in for the Hugging Face Hub (tests.workers.hub_server)."""

import gzip
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import trustme
from gcp_storage_emulator.server import create_server

from api.cli.processes import free_port
from service.spec import AlignmentJob
from service.spec.reports import AttemptBrief, EventReport
from service.spec.rows import Row, RowNeeds, read_rows
from service.spec.shapes import DataShape
from service.spec.sources import HubSource
from tests.s3_server import credentials
from tests.workers.hub_server import COMMIT, Contents, Repository, hub
from workers.data.remote.https import Limits
from workers.data.remote.hub import choose_files
from workers.data.sources import fetch, training_file
from workers.errors import AttemptError
from workers.reporting import Reporter

ROWS = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3
PACKED = gzip.compress(ROWS, mtime=0)
HERE = [ip_network("127.0.0.1/32")]


def error_of(train: str, directory: Path, allowed: list = HERE) -> AttemptError:  # type: ignore[type-arg]
    with pytest.raises(AttemptError) as error:
        fetch(train, directory, allowed)
    assert not list(directory.parent.glob("*fetched*"))  # nothing half is left
    return error.value


class _Pages(BaseHTTPRequestHandler):
    requests: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers["Host"]))
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {
            "/rows.jsonl.gz": (200, {}, PACKED),
            "/moved": (302, {"Location": "/rows.jsonl.gz"}, b""),
            "/to-mapped": (302, {"Location": "https://[::ffff:a00:1]/rows.jsonl"}, b""),
            "/to-decimal": (302, {"Location": "https://2130706434/rows.jsonl"}, b""),
            "/to-user": (302, {"Location": "https://example.com@10.0.0.1/rows.jsonl"}, b""),
            "/to-other-slashes": (302, {"Location": "//169.254.169.254/latest"}, b""),
            "/circle": (302, {"Location": "/circle"}, b""),
            "/to-metadata": (302, {"Location": "https://169.254.169.254/latest/meta-data/"}, b""),
            "/to-plain": (302, {"Location": f"http://localhost:{self.server.server_port}/rows.jsonl.gz"}, b""),  # type: ignore[attr-defined]
            "/busy": (503, {}, b""),
            "/no-length": (200, {"Content-Length": ""}, PACKED),
            "/cut": (200, {"Content-Length": "1000"}, ROWS),
        }
        status, headers, content = answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an HTTPS server on 127.0.0.1, whose certificate is for `localhost` and is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    _Pages.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("page", "limits", "code", "setting"),
    [
        ("rows.jsonl.gz", Limits(len(PACKED) - 1, 60), "source_too_large", "PLUMBLINE_MAX_DOWNLOAD_BYTES"),
        ("no-length", Limits(len(PACKED) - 1, 60), "source_too_large", "PLUMBLINE_MAX_DOWNLOAD_BYTES"),
        ("moved", Limits(len(PACKED), -1), "source_too_slow", "PLUMBLINE_DOWNLOAD_TIMEOUT_S"),
    ],
)
def test_a_download_over_a_limit_ends_and_names_the_setting(
    tmp_path: Path, site: str, page: str, limits: Limits, code: str, setting: str
) -> None:
    with pytest.raises(AttemptError, match=setting) as error:
        fetch(f"{site}/{page}", tmp_path / "fetched", HERE, limits=limits)
    assert (error.value.code, error.value.fault) == (code, "user")
    assert not list(tmp_path.glob("*fetched*"))
    fetch(f"{site}/{page}", tmp_path / "fetched", HERE, limits=Limits(len(PACKED), 60))


@pytest.mark.parametrize("page", ["rows.jsonl.gz", "moved"])
def test_a_file_over_https_is_kept_as_it_is_stored(tmp_path: Path, site: str, page: str) -> None:
    path, fetched = fetch(f"{site}/{page}", tmp_path / "fetched", HERE)
    assert path.read_bytes() == PACKED
    assert fetched.files[0].sha256 == hashlib.sha256(PACKED).hexdigest()
    assert fetched.bytes == len(PACKED)
    assert all(isinstance(row, Row) for row in read_rows(path, RowNeeds(DataShape.PAIRS)))
    assert {host for _, host in _Pages.requests} == {site.removeprefix("https://")}


def test_a_second_attempt_reads_what_the_first_fetched(tmp_path: Path, site: str) -> None:
    first = fetch(f"{site}/rows.jsonl.gz", tmp_path / "fetched", HERE)
    assert fetch(f"{site}/rows.jsonl.gz", tmp_path / "fetched", []) == first
    assert len(_Pages.requests) == 1


def test_what_a_killed_attempt_left_half_done_is_cleared_away(tmp_path: Path, site: str) -> None:
    (tmp_path / ".fetched.1" / "rows").mkdir(parents=True)
    fetch(f"{site}/rows.jsonl.gz", tmp_path / "fetched", HERE)
    assert not (tmp_path / ".fetched.1").exists()


def test_a_private_address_is_refused_and_never_asked(tmp_path: Path, site: str) -> None:
    error = error_of(f"{site}/rows.jsonl.gz", tmp_path / "fetched", [])
    assert error.code == "source_refused"
    assert "127.0.0.1" in error.message or "::1" in error.message
    assert _Pages.requests == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "10.1.2.3", "0.0.0.0",
     "[64:ff9b::a00:1]", "[fd00::1]", "224.0.0.1"],
)  # fmt: skip
def test_no_spelling_of_a_private_address_gets_through(tmp_path: Path, host: str) -> None:
    assert error_of(f"https://{host}/rows.jsonl", tmp_path / "fetched", []).code == "source_refused"


@pytest.mark.parametrize(
    ("page", "code", "said"),
    [
        ("to-metadata", "source_refused", "169.254.169.254"),
        ("to-mapped", "source_refused", "10.0.0.1"),
        ("to-decimal", "source_refused", "127.0.0.2"),
        ("to-user", "source_refused", "10.0.0.1"),
        ("to-other-slashes", "source_refused", "169.254.169.254"),
        ("to-plain", "source_refused", "not https"),
        ("circle", "source_refused", "redirected more than"),
        ("nowhere", "source_not_found", "404"),
        ("busy", "source_unreachable", "503"),
        ("cut", "source_unreachable", ""),
    ],
)
def test_what_cannot_be_fetched_over_https_says_why(tmp_path: Path, site: str, page: str, code: str, said: str) -> None:
    error = error_of(f"{site}/{page}", tmp_path / "fetched")
    assert error.code == code
    assert said in error.message


def test_a_redirect_must_match_the_patterns_too(tmp_path: Path, site: str) -> None:
    for page, patterns in [("to-metadata", ["https://localhost"]), ("rows.jsonl.gz", ["https://elsewhere"])]:
        with pytest.raises(AttemptError, match="PLUMBLINE_ALLOWED_URLS"):
            fetch(f"{site}/{page}", tmp_path / "fetched", [*HERE, ip_network("169.254.0.0/16")], patterns)
    fetch(f"{site}/moved", tmp_path / "fetched", HERE, ["https://local*"])


def test_a_name_that_means_another_address_a_moment_later_is_connected_to_the_one_that_was_checked(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name is asked for once, and the connection goes to what it said then."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "localhost":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "192.0.2.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    path, _ = fetch(f"{site}/rows.jsonl.gz", tmp_path / "fetched", HERE)
    assert path.read_bytes() == PACKED
    assert asked == ["localhost"]


def test_one_private_address_among_the_public_ones_of_a_name_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
    assert "10.0.0.1" in error_of("https://example.com/rows.jsonl", tmp_path / "fetched", []).message


def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path, site: str) -> None:
    error = error_of(f"{site.replace('localhost', '127.0.0.1')}/rows.jsonl.gz", tmp_path / "fetched")
    assert error.code == "source_unreachable"
    assert "certificate" in error.message.lower()


def test_a_file_on_the_storage_is_where_the_brief_says(tmp_path: Path) -> None:
    file_id = "file-" + "0" * 21
    path, named = training_file(brief(file_id, tmp_path, f"files/{file_id}"), tmp_path, silent())
    assert path == tmp_path / "files" / file_id
    assert named == file_id


def test_a_file_under_a_data_root_is_read_where_its_path_leads(tmp_path: Path) -> None:
    rows = tmp_path / "roots" / "team" / "rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(ROWS)
    link = tmp_path / "roots" / "link.jsonl"
    link.symlink_to(rows)
    path, named = training_file(brief(str(link), tmp_path / "storage", str(link)), tmp_path, silent())
    assert (path, named) == (rows.resolve(), str(link))


@pytest.mark.parametrize("elsewhere", ["outside/rows.jsonl", "storage/files/rows.jsonl", "roots/nothing"])
def test_a_link_that_was_put_in_a_files_place_is_not_followed(tmp_path: Path, elsewhere: str) -> None:
    """After the job was accepted: out of the roots, or to what another project uploaded."""
    for name in ("outside", "storage/files", "roots"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("outside", "storage/files"):
        (tmp_path / name / "rows.jsonl").write_bytes(ROWS)
    link = tmp_path / "roots" / "rows.jsonl"
    link.symlink_to(tmp_path / elsewhere)
    with pytest.raises(AttemptError) as error:
        training_file(brief(str(link), tmp_path / "storage", str(link)), tmp_path, silent())
    assert error.value.code == "source_refused"


def test_what_an_attempt_fetches_is_in_its_events(tmp_path: Path, site: str) -> None:
    reporter = silent()
    path, named = training_file(brief(f"{site}/rows.jsonl.gz", tmp_path, None), tmp_path / "run", reporter)
    assert named == f"{site}/rows.jsonl.gz"
    assert path.read_bytes() == PACKED
    (event,) = list(reporter._pending)
    assert isinstance(event, EventReport)
    assert event.type == "data.fetched"
    assert event.data["files"] == [
        {"name": "00000", "bytes": len(PACKED), "sha256": hashlib.sha256(PACKED).hexdigest()}
    ]


def brief(train: str, storage: Path, train_file: str | None) -> AttemptBrief:
    return AttemptBrief(
        attempt_id="a",
        attempt_number=1,
        job_id="j",
        spec=AlignmentJob.model_validate({"model": "/m", "data": {"train": train}}),
        storage=str(storage),
        train_file=train_file,
        data_roots=[str(storage.parent / "roots")],
        allow_private_urls=["127.0.0.1/32"],
        heartbeat_every_s=1,
    )


def silent() -> Reporter:
    """A reporter that is not started, so that what it was told can be looked at."""
    return Reporter("http://127.0.0.1:9", "a", "token", on_stop=lambda: None)


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in credentials(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="team")
    client.put_object(Bucket="team", Key="data/rows[1].jsonl.gz", Body=PACKED)
    return "s3://team"


def test_a_file_in_a_bucket(tmp_path: Path, bucket: str) -> None:
    path, fetched = fetch(f"{bucket}/data/rows[1].jsonl.gz", tmp_path / "fetched", [])
    assert path.read_bytes() == PACKED
    assert (fetched.commit, len(fetched.files)) == (None, 1)


@pytest.mark.parametrize(
    "key", ["data/nothing.jsonl", "data", "data/*.gz", "data/rows[1].jsonl.gz::file:///etc/passwd"]
)
def test_what_is_no_file_in_a_bucket_is_not_found(tmp_path: Path, bucket: str, key: str) -> None:
    assert error_of(f"{bucket}/{key}", tmp_path / "fetched").code == "source_not_found"


def test_a_bucket_that_does_not_answer_is_our_trouble(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    error = error_of(f"{bucket}/data/rows[1].jsonl.gz", tmp_path / "fetched")
    assert (error.code, error.fault) == ("source_unreachable", "system")


def test_a_file_in_a_bucket_of_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    with create_server("127.0.0.1", port, in_memory=True, default_bucket="team"):
        upload = f"{endpoint}/upload/storage/v1/b/team/o?uploadType=media&name=data/rows.jsonl.gz"
        httpx.post(upload, content=PACKED, headers={"Content-Type": "application/octet-stream"}).raise_for_status()
        path, _ = fetch("gs://team/data/rows.jsonl.gz", tmp_path / "one" / "fetched", [])
        assert path.read_bytes() == PACKED
        assert error_of("gs://team/data/nothing", tmp_path / "two" / "fetched").code == "source_not_found"


HUB_FILES = {
    "README.md": b"# Pairs",
    "data/train-00000-of-00002.jsonl": ROWS,
    "data/train-00001-of-00002.jsonl": ROWS,
    "data/test-00000-of-00001.jsonl": ROWS,
}
SCRIPT = """
import json, sys
from pathlib import Path
from workers.data.sources import fetch
from workers.errors import AttemptError
try:
    path, fetched = fetch(sys.argv[1], Path(sys.argv[2]), [])
    print(json.dumps([str(path), fetched.pinned, [file.name for file in fetched.files]]))
except AttemptError as error:
    print(json.dumps([error.code]))
"""


def fetch_from(url: str, train: str, directory: Path) -> list:  # type: ignore[type-arg]
    """In a process of its own, since huggingface_hub reads HF_ENDPOINT once, when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(directory.parent / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", SCRIPT, train, str(directory)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    told: list = json.loads(output)  # type: ignore[type-arg]
    return told


def test_a_split_on_the_hub_is_fetched_at_the_commit_that_its_revision_means(tmp_path: Path) -> None:
    names = ["00000-train-00000-of-00002.jsonl", "00001-train-00001-of-00002.jsonl"]
    contents = Contents(datasets={"team/pairs": Repository.of(HUB_FILES)})
    with hub(contents) as server:
        told = fetch_from(server.url, "hf:team/pairs", tmp_path / "fetched")
        assert told == [str(tmp_path / "fetched" / "rows"), f"hf:team/pairs@{COMMIT}", names]
        assert fetch_from(server.url, "hf:team/pairs", tmp_path / "fetched") == told
        assert sorted(contents.downloads) == ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]
        pinned = fetch_from(server.url, f"hf:team/pairs@{COMMIT}:test", tmp_path / "again")
        assert pinned[1] == f"hf:team/pairs@{COMMIT}:test"  # what a card names can be asked for
    rows = list(read_rows(tmp_path / "fetched" / "rows", RowNeeds(DataShape.PAIRS)))
    assert [row.number for row in rows if isinstance(row, Row)] == [1, 2, 3, 4, 5, 6]


def test_what_is_not_on_the_hub_or_cannot_be_reached_there(tmp_path: Path) -> None:
    with hub(Contents(datasets={"team/pairs": Repository.of(HUB_FILES)})) as server:
        assert fetch_from(server.url, "hf:team/other", tmp_path / "fetched") == ["source_not_found"]
        assert fetch_from(server.url, "hf:team/pairs@nowhere", tmp_path / "fetched") == ["source_not_found"]
        assert fetch_from(server.url, "hf:team/pairs:validation", tmp_path / "fetched") == ["source_not_found"]
    assert fetch_from(server.url, "hf:team/pairs", tmp_path / "fetched") == ["source_unreachable"]


@pytest.mark.parametrize(
    ("listed", "path", "split", "chosen"),
    [
        (["a.txt", "train.jsonl", "test.jsonl"], None, None, ["train.jsonl"]),
        (["pairs.csv.gz", "README.md"], None, None, ["pairs.csv.gz"]),
        (["data/train_a-0.parquet", "data/train_b-0.parquet"], None, "train_a", ["data/train_a-0.parquet"]),
        (["harmless/train.jsonl.gz", "helpful/train.jsonl.gz"], "helpful", None, ["helpful/train.jsonl.gz"]),
        (["x/b.json", "x/a.json"], "x", None, ["x/a.json", "x/b.json"]),
        (["odd.bin", "train.jsonl"], "odd.bin", None, ["odd.bin"]),
    ],
)  # fmt: skip
def test_files_of_a_repository(listed: list[str], path: str | None, split: str | None, chosen: list[str]) -> None:
    assert choose_files(listed, HubSource("team/pairs", None, path, split)) == chosen


@pytest.mark.parametrize(
    ("listed", "path", "split", "code"),
    [
        (["README.md"], None, None, "source_not_found"),
        (["data/train_prefs-0.parquet", "data/train_sft-0.parquet"], None, None, "source_not_found"),
        (["train.jsonl"], None, "test", "source_not_found"),
        (["train.jsonl"], "data", None, "source_not_found"),
        (["harmless/train.jsonl", "helpful/train.jsonl"], None, None, "source_unclear"),
        (["train.jsonl", "train.parquet"], None, None, "source_unclear"),
    ],
)
def test_files_of_a_repository_that_could_be_several_things(
    listed: list[str], path: str | None, split: str | None, code: str
) -> None:
    with pytest.raises(AttemptError) as error:
        choose_files(listed, HubSource("team/pairs", None, path, split))
    assert error.value.code == code
