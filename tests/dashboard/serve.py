"""An OpenAI-style endpoint where the API expects Ray Serve. What vLLM itself says is tested end to end."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Engines:
    """`answers`: the tokens of each model; one without any refuses. Streams wait for `go_on` after a token."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.go_on = threading.Event()
        self.asked: list[dict[str, object]] = []
        engines = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                engines.asked.append(request)
                tokens = engines.answers.get(request["model"])
                self.send_response(200 if tokens else 500)
                self.end_headers()
                if tokens and not request.get("stream"):
                    self._answer("".join(tokens), len(tokens))
                    return
                for index, token in enumerate(tokens or []):
                    last = index + 1 == len(tokens or [])
                    self._send({"choices": [{"text": token, "finish_reason": "stop" if last else None}]})
                    engines.go_on.wait(30)
                if tokens:
                    self._send({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(tokens)}})
                    self.wfile.write(b"data: [DONE]\n\n")

            def _answer(self, text: str, length: int) -> None:
                choice = {"text": text, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 3, "completion_tokens": length}
                self.wfile.write(json.dumps({"choices": [choice], "usage": usage}).encode())

            def _send(self, chunk: dict[str, object]) -> None:
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def listening(self) -> Iterator["Engines"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        self._server.server_close()
        thread.join()
