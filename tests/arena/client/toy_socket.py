"""The toy server behind a real socket, with the faults of a network and of a server that restarts."""

import asyncio
import http
import random
import threading
from contextlib import asynccontextmanager, contextmanager

import websockets

from .toy import Toy


class ToySocket:
    """Serves a `Toy` on loopback.

    Attributes:
        toy: What is served.
        connections: Connections that were made so far.
        headers: Of the last handshake.
        refuse: HTTP status with which handshakes are refused, or None.
        mute: Frames are read and not answered.
        echo: Each reply is sent so many times.
        cut_after: Connections end without a goodbye after so many frames, where given.
    """

    def __init__(self, toy=None, seed=0):
        self.toy = toy or Toy()
        self.connections, self.headers, self.paths = 0, None, []
        self.refuse, self.mute, self.echo, self.cut_after = None, False, 1, None
        self.garbage, self.close_with = None, None
        self._random = random.Random(seed)
        self._server, self._port = None, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    async def start(self):
        self._server = await websockets.serve(
            self._serve, "127.0.0.1", self._port, process_request=self._admit, compression=None, max_size=10_000,
            close_timeout=0.2,
        )  # fmt: skip
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self, code=1012):
        self._server.close(code=code)
        await self._server.wait_closed()

    def _admit(self, connection, request):
        self.headers = request.headers
        self.paths.append(request.path)
        if self.refuse is not None:
            return connection.respond(http.HTTPStatus(self.refuse), "refused\n")
        return None

    async def _serve(self, socket):
        self.connections += 1
        granted, left = set(), self.cut_after and self._random.randint(1, self.cut_after)
        try:
            async for frame in socket:
                if self.close_with:
                    code, self.close_with = self.close_with, None
                    await socket.close(code)
                    return
                await self._answer(socket, frame, granted)
                if left is not None:
                    left -= 1
                    if left <= 0:
                        socket.transport.abort()
                        return
        except websockets.ConnectionClosed:
            return

    async def _answer(self, socket, frame, granted):
        if self.garbage is not None:
            garbage, self.garbage = self.garbage, None
            await socket.send(garbage)
            return
        reply = self.toy.answer(frame, granted)
        for _ in range(0 if self.mute else self.echo):
            await socket.send(reply)


@asynccontextmanager
async def serving(**settings):
    """Serve on this event loop."""
    server = ToySocket()
    vars(server).update(settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextmanager
def serving_in_thread(**settings):
    """Serve on an event loop of its own; `call` runs a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ToySocket()
    vars(server).update(settings)
    server.call = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(10)
    server.call(server.start())
    try:
        yield server
    finally:
        server.call(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
