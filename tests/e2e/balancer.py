"""What a Service is on Kubernetes: one address, whose connections go to whichever replicas take them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import cycle

_CHUNK = 65536


@contextmanager
def balanced(port: int, replicas: tuple[int, ...]) -> Iterator[None]:
    """Listen on `port` of 127.0.0.1 and pass each connection on to the next port of `replicas` that takes it."""
    loop = asyncio.new_event_loop()
    turns = cycle(replicas)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            for _ in replicas:
                with suppress(OSError):  # that replica is away
                    their_reader, their_writer = await asyncio.open_connection("127.0.0.1", next(turns))
                    break
            else:
                return
            with closing(their_writer):
                directions = [_pass_on(reader, their_writer), _pass_on(their_reader, writer)]
                passing = [asyncio.ensure_future(direction) for direction in directions]
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
                for one in passing:
                    one.cancel()

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one of them has ended."""
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
