"""API and controller: each alone in a process, or both in a thread of one."""

import asyncio
import gc
import signal
import threading
import time

import httpx
import uvicorn

from api.app import create_app
from api.cli.errors import CliError
from api.cli.processes import port_is_free
from api.http_server import GRACEFUL_SHUTDOWN_S, http_server
from service.controller.loop import run
from service.db.session import Database
from service.settings import Settings
from service.telemetry.exposition import served

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
_GRACEFUL_SHUTDOWN_S = 3  # where somebody has pressed Ctrl-C and waits


def require_free_port(settings: Settings) -> None:
    """Raises CliError if something listens where the API is to."""
    if not port_is_free(settings.host, settings.port):
        raise CliError(
            f"Port {settings.port} on {settings.host} is in use. Stop what listens there, or choose another port "
            "with PLUMBLINE_PORT."
        )


def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT."""
    require_free_port(settings)
    server = _server(settings)
    _collect_seldom()
    server.run()


def run_controller(settings: Settings) -> None:
    """Reconcile until SIGTERM or SIGINT."""
    if settings.secret is None:
        raise CliError("PLUMBLINE_SECRET is not set: it must be the same for API and controller.")
    asyncio.run(_controller_until_signal(settings))


class ControlPlane:
    """API and controller in a thread of this process. If one of them ends, so does the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server = _server(settings, _GRACEFUL_SHUTDOWN_S)
        self._thread = threading.Thread(target=self._run, name="control-plane", daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        """Return when the API answers. Raises CliError if it does not."""
        _collect_seldom()
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self._settings.public_url):
            self.check()
            if time.monotonic() > deadline:
                raise CliError(f"The API did not answer at {self._settings.public_url} within {_START_TIMEOUT_S} s.")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises what ended the thread, if it has ended."""
        if self._thread.ident is not None and not self._thread.is_alive():
            raise CliError("API and controller have ended unexpectedly.") from self._error

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
            raise

    async def _serve(self) -> None:
        stop = asyncio.Event()
        database = Database(self._settings.sqlalchemy_url)
        try:
            async with asyncio.TaskGroup() as group:
                controller = group.create_task(run(self._settings, database, stop))
                controller.add_done_callback(lambda _: setattr(self._server, "should_exit", True))
                await self._server.serve()
                stop.set()
        finally:
            await database.close()


def _collect_seldom() -> None:
    """What is there now stays: the garbage collector need not look through it again and again, while requests wait."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)


def _server(settings: Settings, graceful_shutdown_s: int = GRACEFUL_SHUTDOWN_S) -> uvicorn.Server:
    app = create_app(settings)
    return http_server(
        app,
        host=settings.host,
        port=settings.port,
        leaving=app.state.leaving,
        graceful_shutdown_s=graceful_shutdown_s,
    )


async def _controller_until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = Database(settings.sqlalchemy_url)
    try:
        with served(settings):
            await run(settings, database, stop)
    finally:
        await database.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
