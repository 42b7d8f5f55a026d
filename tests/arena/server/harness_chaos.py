"""A proxy between clients and a server that does what networks do: it loses connections, and repeats and delays frames.

Every frame, in both directions, may be lost together with its connection (before or after it is passed on), passed on
twice, or passed on late, so that others overtake it.
"""

import asyncio
import random
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake


@dataclass
class Chaos:
    """How likely each mishap is, for each frame.

    Attributes:
        kill: The connection is lost, with the frame or right after it.
        duplicate: The frame is passed on twice.
        delay: A copy is late, by up to `delay_s` seconds.
    """

    seed: int
    kill: float = 0.002
    duplicate: float = 0.05
    delay: float = 0.1
    delay_s: float = 0.05


class ChaosProxy:
    """The proxy; ``async with`` it, then connect to `url`.

    Args:
        port: Port of the server on this machine.
        chaos: What goes wrong.

    Attributes:
        killed: Connections that were lost.
        duplicated: Frames that were passed on twice.
        delayed: Frames that were late.
    """

    def __init__(self, port, chaos):
        self._upstream, self._chaos = f"ws://127.0.0.1:{port}/v1/ws", chaos
        self._rng = random.Random(chaos.seed)
        self._late = set()
        self._server = None
        self.killed = self.duplicated = self.delayed = 0

    async def __aenter__(self):
        self._server = await serve(self._handle, "127.0.0.1", 0, max_size=None, compression=None, close_timeout=1)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        self._server.close()
        await self._server.wait_closed()

    async def _handle(self, client):
        try:
            async with connect(self._upstream, max_size=None, compression=None, close_timeout=1) as server:
                pumps = [
                    asyncio.create_task(self._pump(client, server)),
                    asyncio.create_task(self._pump(server, client)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for end in (client, server):
                    end.transport.abort()
                await asyncio.gather(*pumps)
        except (OSError, EOFError, InvalidHandshake):  # the server is down
            client.transport.abort()

    async def _pump(self, source, sink):
        """Pass frames on until one of the ends is lost, or chaos wants it."""
        rng, chaos = self._rng, self._chaos
        try:
            async for frame in source:
                if rng.random() < chaos.kill:
                    self.killed += 1
                    if rng.random() < 0.5:
                        await sink.send(frame)
                    return
                await self._pass_on(sink, frame)
                if rng.random() < chaos.duplicate:
                    self.duplicated += 1
                    await self._pass_on(sink, frame)
        except ConnectionClosed:
            pass

    async def _pass_on(self, sink, frame):
        if self._rng.random() >= self._chaos.delay:
            await sink.send(frame)
            return
        self.delayed += 1
        task = asyncio.create_task(_later(sink, frame, self._rng.uniform(0, self._chaos.delay_s)))
        self._late.add(task)
        task.add_done_callback(self._late.discard)


async def _later(sink, frame, delay_s):
    await asyncio.sleep(delay_s)
    try:
        await sink.send(frame)
    except ConnectionClosed:
        pass
