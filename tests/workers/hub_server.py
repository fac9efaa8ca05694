"""The few endpoints of the Hugging Face Hub that fetching a dataset takes, served from memory: a stand-in for the real
hub, which tests do not reach. The client is the real one, pointed here with HF_ENDPOINT."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """One dataset, `team/pairs`, whose `main` is COMMIT. `downloads` counts the files that were sent."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.downloads: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    server = Hub(files)
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
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        match parts:
            case ["api", "datasets", "team", "pairs"] | ["api", "datasets", "team", "pairs", "revision", "main"]:
                self._json({"id": "team/pairs", "sha": COMMIT, "siblings": []})
            case ["api", "datasets", "team", "pairs", "revision", revision] if revision == COMMIT:
                self._json({"id": "team/pairs", "sha": COMMIT, "siblings": []})
            case ["api", "datasets", "team", "pairs", "tree", revision, *directory] if revision == COMMIT:
                self._json(self._tree("/".join(directory)))
            case ["datasets", "team", "pairs", "resolve", revision, *path] if revision == COMMIT:
                self._file("/".join(path))
            case _:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _tree(self, directory: str) -> list[dict[str, object]]:
        under = [path for path in self.server.files if path.startswith(f"{directory}/" if directory else "")]
        return [
            {"type": "file", "path": path, "size": len(self.server.files[path]), "oid": _etag(self.server.files[path])}
            for path in under
        ]

    def _file(self, path: str) -> None:
        if path not in self.server.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.server.downloads.append(path)
        content = self.server.files[path]
        self._send(200, content, {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT})

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


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
