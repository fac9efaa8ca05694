"""A server that speaks OpenAI's completions, in a thread, whose opinions a test decides."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.body.get("prompt") or self.body["messages"][-1]["content"])


@dataclass
class Answer:
    """text: of the completion, with status 200; otherwise of the error."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class OpenAIServer:
    url: str
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/v1")


@contextmanager
def answering(answer: Callable[[Asked], Answer]) -> Iterator[OpenAIServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            server.asked.append(asked)
            said = server.answer(asked)
            content = json.dumps(_completion(asked, said)).encode()
            self.send_response(said.status)
            for name, value in (said.headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = OpenAIServer(f"http://127.0.0.1:{http.server_port}/v1", answer)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield server
    http.shutdown()
    thread.join()
    http.server_close()


def sides(asked: Asked) -> tuple[str, str]:
    """The answers that a judge was shown as A and B."""
    tags = r"<answer_a-(\w+)>\n(.*)\n</answer_a-\1>.*<answer_b-\1>\n(.*)\n</answer_b-\1>"
    found = re.search(tags, asked.text, re.DOTALL)
    assert found is not None
    return found[2], found[3]


def _completion(asked: Asked, said: Answer) -> dict[str, Any]:
    if said.status != 200:
        return {"error": {"message": said.text}}
    usage = {"prompt_tokens": 3, "completion_tokens": len(said.text.split())}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if asked.path.endswith("/chat/completions"):
        choice["message"] = {"role": "assistant", "content": said.text}
    else:
        choice["text"] = said.text
    return {"model": asked.body["model"], "system_fingerprint": "fp-1", "choices": [choice], "usage": usage}
