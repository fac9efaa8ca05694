"""The few endpoints of the Hugging Face Hub that fetching datasets and models takes, served from memory: a stand-in for
the real hub, which tests do not reach. The client is the real one, pointed here with HF_ENDPOINT."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Repository:
    """Files by commit. main: the commit that its default branch is at."""

    commits: dict[str, dict[str, bytes]]
    main: str = COMMIT

    @classmethod
    def of(cls, files: dict[str, bytes]) -> Self:
        return cls({COMMIT: files})

    def push(self, commit: str, files: dict[str, bytes]) -> None:
        self.commits[commit], self.main = files, commit


@dataclass
class Contents:
    """What the hub has, by `owner/name`. `downloads` are the files that were sent. Closed, it answers with 503."""

    datasets: dict[str, Repository] = field(default_factory=dict)
    models: dict[str, Repository] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    is_closed: bool = False


class Hub(ThreadingHTTPServer):
    def __init__(self, contents: Contents) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contents = contents

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub(contents: Contents) -> Iterator[Hub]:
    server = Hub(contents)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        contents = self.server.contents
        if contents.is_closed:
            self._send(503, b"", {})
            return
        match unquote(urlsplit(self.path).path).strip("/").split("/"):
            case ["api", "datasets", owner, name, *asked]:
                self._about(f"{owner}/{name}", contents.datasets.get(f"{owner}/{name}"), asked)
            case ["api", "models", owner, name, *asked]:
                self._about(f"{owner}/{name}", contents.models.get(f"{owner}/{name}"), asked)
            case ["datasets", owner, name, "resolve", commit, *path]:
                self._file(contents.datasets.get(f"{owner}/{name}"), commit, "/".join(path))
            case [owner, name, "resolve", commit, *path]:
                self._file(contents.models.get(f"{owner}/{name}"), commit, "/".join(path))
            case _:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _about(self, name: str, repository: Repository | None, asked: list[str]) -> None:
        if repository is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        match asked:
            case [] | ["revision", "main"]:
                self._json({"id": name, "sha": repository.main, "siblings": []})
            case ["revision", commit] if commit in repository.commits:
                self._json({"id": name, "sha": commit, "siblings": []})
            case ["tree", commit, *directory] if commit in repository.commits:
                self._json(_tree(repository.commits[commit], "/".join(directory)))
            case _:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def _file(self, repository: Repository | None, commit: str, path: str) -> None:
        content = repository.commits.get(commit, {}).get(path) if repository is not None else None
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.server.contents.downloads.append(path)
        self._send(200, content, {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _tree(files: dict[str, bytes], directory: str) -> list[dict[str, object]]:
    under = [path for path in files if path.startswith(f"{directory}/" if directory else "")]
    return [{"type": "file", "path": path, "size": len(files[path]), "oid": _etag(files[path])} for path in under]


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
