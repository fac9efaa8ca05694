"""What `plumbline doctor` runs on the cluster; tests/e2e/test_doctor has it on a real one."""

import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from api.cli.processes import free_port
from tests.s3_server import keys
from workers import probe


def told(root: Path, monkeypatch: pytest.MonkeyPatch, *urls: str, api: str | None = None) -> dict[str, Any]:
    (root / ".doctor-t-asked").write_text("t")
    monkeypatch.setenv("PLUMBLINE_STORAGE", str(root))
    monkeypatch.setenv("PLUMBLINE_API_URL", api or f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("PLUMBLINE_DOCTOR_BUCKETS", json.dumps(urls))
    probe.main("t")
    answer: dict[str, Any] = json.loads((root / ".doctor-t-answered").read_text())
    return answer


def test_each_bucket_is_written_read_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_bucket: str
) -> None:
    urls = (empty_bucket, f"{empty_bucket}/models/", "s3://nobody-made-this/files")
    said = told(tmp_path, monkeypatch, *urls)
    assert "refused" in said["api"]
    usable, below, absent = (said["buckets"][url] for url in urls)
    assert (usable, below) == (None, None)
    assert "bucket does not exist" in absent
    assert keys() == []


def test_a_store_that_the_cluster_does_not_reach_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_bucket: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "Could not connect to the endpoint" in told(tmp_path, monkeypatch, empty_bucket)["buckets"][empty_bucket]


class _AnHourBehind(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() - 3600, usegmt=True)

    def log_message(self, *args: object) -> None:
        pass


def test_a_clock_that_differs_from_the_apis_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), _AnHourBehind)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    said = told(tmp_path, monkeypatch, api=f"http://127.0.0.1:{server.server_port}/")
    thread.join()
    server.server_close()
    assert (said["api"], round(said["skew_s"] / 60)) == (None, 60)


def test_another_file_than_was_written_is_no_shared_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".doctor-t-asked").write_text("of somebody else")
    monkeypatch.setenv("PLUMBLINE_STORAGE", str(tmp_path))
    with pytest.raises(OSError, match="another file than the control plane wrote"):
        probe.main("t")
