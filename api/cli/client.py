"""The HTTP API as a Python object, synchronous: for the commands, the demo, the benchmarks and the tests."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from api.cli.errors import ApiError, CliError, Unreachable
from api.cli.sse import Frame, parse_frames

Json = dict[str, Any]

# An upload is checked and a comparison generated before the answer: minutes; nothing at all for an hour is a fault.
_TIMEOUT = httpx.Timeout(600, connect=10)
_SILENCE_S = 45  # three keep-alive comments of a stream
_RETRY_S = 1


class Client:
    """Raises `Unreachable` when nothing answers, `ApiError` for the API's problems."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            trust_env=httpx.URL(self.url).host not in {"127.0.0.1", "localhost", "::1"},  # proxies are for elsewhere
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(self, path: Path, filename: str | None = None) -> Json:
        """POST /v1/files; returns the File."""
        with path.open("rb") as file:
            return self._json("POST", "/v1/files", files={"file": (filename or path.name, file)})

    def find_file(self, sha256: str) -> Json | None:
        """The oldest of the project's files that has these bytes, if there is one."""
        found = self._json("GET", "/v1/files", params={"sha256": sha256, "order": "asc", "limit": 1})["data"]
        return found[0] if found else None

    def delete_file(self, file_id: str) -> Json:
        return self._json("DELETE", f"/v1/files/{file_id}")

    def submit(self, spec: Json, idempotency_key: str | None = None) -> Json:
        """POST /v1/jobs; returns the Job. With a key, sending it again returns the same job."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/v1/jobs", json=spec, headers=headers)

    def job(self, job_id: str) -> Json:
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, limit: int = 20, cursor: str | None = None, state: str | None = None) -> Json:
        """One page: `data`, newest first, and `next_cursor`."""
        asked = {"limit": limit, "cursor": cursor, "state": state}
        return self._json("GET", "/v1/jobs", params={name: value for name, value in asked.items() if value is not None})

    def cancel(self, job_id: str) -> Json:
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def event_page(self, job_id: str, *, after: int = 0, limit: int = 100) -> Json:
        """Stored events: `data`, and `next_after` while there are more."""
        return self._json("GET", f"/v1/jobs/{job_id}/events", params={"after": after, "limit": limit})

    def metric_page(self, job_id: str, *, after: int = 0, limit: int = 1000, split: str | None = None) -> Json:
        """Stored metrics: `data`, and `next_after` while there are more."""
        split_param = {"split": split} if split else {}
        return self._json("GET", f"/v1/jobs/{job_id}/metrics", params={"after": after, "limit": limit} | split_param)

    def events(self, job_id: str, *, after: int = 0, patience_s: float = 60) -> Iterator[Frame]:
        """Follow a job: `event` frames with the numbered events after `after`, `job` frames whenever the job changes,
        and `end` last of all. Reconnects by itself, losing and repeating no event.

        patience_s: how long the API may be away at a stretch before `Unreachable` is raised.
        """
        return self._follow(f"/v1/jobs/{job_id}/events", after, patience_s)

    def metrics(self, job_id: str, *, after: int = 0, patience_s: float = 60) -> Iterator[Frame]:
        """Like `events`, with `metric` frames."""
        return self._follow(f"/v1/jobs/{job_id}/metrics", after, patience_s)

    def deploy(self, job_id: str) -> Json:
        """Ask for the job's models to be served; returns the Deployment, seldom ready yet."""
        return self._json("POST", f"/v1/jobs/{job_id}/deployment")

    def deployment(self, job_id: str) -> Json:
        return self._json("GET", f"/v1/jobs/{job_id}/deployment")

    def undeploy(self, job_id: str) -> Json:
        return self._json("DELETE", f"/v1/jobs/{job_id}/deployment")

    def compare(self, job_id: str, prompt: str | list[Json], **options: Any) -> Json:
        """Ask base and aligned model the same; returns `base`, `aligned` (each `text`, `finish_reason`, `usage`) and
        `seed`. prompt: a string or messages. options: max_tokens, temperature, seed."""
        return self._json("POST", "/v1/comparisons", json=_comparison(job_id, prompt, options))

    def compare_stream(self, job_id: str, prompt: str | list[Json], **options: Any) -> Iterator[Frame]:
        """Like `compare`, as the tokens come: `delta`, `done` and `error` frames of either side."""
        with self._stream("POST", "/v1/comparisons", json=_comparison(job_id, prompt, options)) as frames:
            for frame in frames:
                if frame.event == "end":
                    return
                yield frame

    def _json(self, method: str, path: str, **kwargs: Any) -> Json:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        _check(response)
        answer: Json = response.json()
        return answer

    def _follow(self, path: str, after: int, patience_s: float) -> Iterator[Frame]:
        last, silent_since = after, time.monotonic()
        while True:
            try:
                with self._stream("GET", path, params={"after": last}) as frames:
                    for frame in frames:
                        silent_since = time.monotonic()
                        if frame.event == "reconnect":
                            break
                        last = frame.id if frame.id is not None else last
                        yield frame
                        if frame.event == "end":
                            return
            except Unreachable:
                if time.monotonic() - silent_since > patience_s:
                    raise
            except ApiError as error:
                if error.status < 500 or time.monotonic() - silent_since > patience_s:
                    raise
            time.sleep(_RETRY_S)

    def _stream(self, method: str, path: str, **kwargs: Any) -> "_Stream":
        return _Stream(self, method, path, kwargs)

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(
            f"No answer from Plumbline at {self.url} ({reason}). Start it with `plumbline up`, or name another "
            "address with --url or PLUMBLINE_URL."
        )


class _Stream:
    """An open event stream; a break in it is `Unreachable` like any other."""

    def __init__(self, client: Client, method: str, path: str, kwargs: Json) -> None:
        headers = {"Accept": "text/event-stream"}
        timeout = httpx.Timeout(_SILENCE_S, connect=10)
        request = client._http.build_request(method, path, headers=headers, timeout=timeout, **kwargs)
        self._client = client
        self._request = request
        self._response: httpx.Response | None = None

    def __enter__(self) -> Iterator[Frame]:
        try:
            self._response = self._client._http.send(self._request, stream=True)
            if self._response.is_error:
                self._response.read()
        except httpx.TransportError as error:
            raise self._client._unreachable(error) from error
        _check(self._response)
        return self._frames(self._response)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            self._response.close()

    def _frames(self, response: httpx.Response) -> Iterator[Frame]:
        try:
            yield from parse_frames(response.iter_lines())
        except httpx.TransportError as error:
            raise self._client._unreachable(error) from error


def _comparison(job_id: str, prompt: str | list[Json], options: Json) -> Json:
    asked: Json = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
    return {"job_id": job_id, **asked, **options}


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        raise ApiError(response.status_code, response.json())
    raise CliError(f"{response.request.url} answered {response.status_code} without saying why: is it Plumbline?")
