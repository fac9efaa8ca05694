"""A receiver of webhooks: a real HTTPS server on 127.0.0.1 that checks signatures as a user's would."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """answers: statuses of the next requests; 200 when there are none left."""

    url: str
    requests: list[Request] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b"thank you"
    before_answer: Callable[[], None] = lambda: None

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@contextmanager
def receiving(directory: Path, monkeypatch: pytest.MonkeyPatch, *, plain: bool = False) -> Iterator[Receiver]:
    """Its certificate is for `localhost` and is trusted; plain: http instead."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers["content-length"]))
            receiver.requests.append(Request(self.path, headers, body))
            receiver.before_answer()
            self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
            for name, value in (receiver.headers | {"Content-Length": str(len(receiver.content))}).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # who reads only the beginning hangs up
                self.wfile.write(receiver.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if not plain:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(f"http{'' if plain else 's'}://localhost:{server.server_port}/hook?for=ada")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()
