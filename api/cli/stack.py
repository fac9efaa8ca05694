"""The whole product on this machine: a private Ray, API and controller, for as long as a `with` block lasts.

Used by `plumbline up`, the demo, the benchmarks and the end-to-end tests.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from pydantic import SecretStr

from api.cli import home
from api.cli.control_plane import ControlPlane, require_free_port
from api.cli.local_key import local_key
from api.cli.local_ray import LocalRay
from service.db.migrate import upgrade
from service.settings import Settings
from service.spec.model_config import has_cpu_engine
from service.spec.pools import CONTROL_SERVING, SHARED, Pool

ONE_NODE = (SHARED,)
TWO_POOLS = (CONTROL_SERVING, Pool.REFERENCE.value, Pool.POLICY.value)  # scorers and trainers each have a node


@dataclass(frozen=True)
class Stack:
    """`settings` are those that API and controller run with; `key` is the local user's."""

    url: str
    key: str
    settings: Settings
    ray: LocalRay
    control_plane: ControlPlane

    def wait(self) -> None:
        """Block until interrupted. Raises CliError when a part ends by itself."""
        while True:
            self.control_plane.check()
            self.ray.check()
            time.sleep(1)


@contextmanager
def running_stack(
    settings: Settings, pools: Sequence[str] = ONE_NODE, say: Callable[[str], None] = lambda _: None
) -> Iterator[Stack]:
    """Start everything, yield when jobs can be submitted, stop everything. First use makes the home.

    pools: the node label of each Ray node, the head's first. say: told what is going on, in a few words.
    SIGTERM ends the block like Ctrl-C, as KeyboardInterrupt. Raises CliError with the way out if the home or the port
    is taken, or if a part does not start.
    """
    settings = home.prepare(settings)
    with home.exclusive(settings.home), _interruptible() as shield:
        require_free_port(settings)
        upgrade(settings.sqlalchemy_url)
        key = local_key(settings)
        ray = LocalRay(settings.home)
        settings = _with_local_ray(settings, ray)
        control_plane = ControlPlane(settings)
        url_file = home.url_file(settings.home)
        try:
            say("starting Ray")
            ray.start(pools)
            say("starting API and controller")
            control_plane.start()
            say("waiting for Ray")
            ray.wait_until_ready()
            url_file.write_text(settings.public_url)
            yield Stack(settings.public_url, key, settings, ray, control_plane)
        finally:
            shield()
            say("stopping")
            url_file.unlink(missing_ok=True)
            control_plane.stop()
            ray.stop()


def _with_local_ray(settings: Settings, ray: LocalRay) -> Settings:
    return settings.model_copy(
        update={
            "ray_url": ray.url,
            "ray_token": SecretStr(ray.token),
            "serve_url": f"http://127.0.0.1:{ray.serve_port}",
            "serve_host": "127.0.0.1",
            "serving_device": settings.serving_device or ("cpu" if has_cpu_engine() else None),
        }
    )


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """SIGTERM raises KeyboardInterrupt, until the function that is yielded has been called: from then on neither it
    nor Ctrl-C disturbs the stopping. Only the main thread gets signals; in others nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def shield() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield shield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
