"""What a hop costs on this machine: WebSocket frames are sent back as they came, and nothing is decoded.

    python -m benchmarks.server_bare one|two

``one`` answers in the server process, ``two`` passes each frame to another process over a socket pair and back, as
every server must that keeps environments out of the process that serves. For one connection at a time: nothing says
whose a frame is. The port is printed once it is bound.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class _Hop(asyncio.Protocol):
    """The way to the other process, and back to the connection."""

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self._answer = answer

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._answer(data)


class _Bare(WebSocketsSansIOProtocol):
    """A connection whose messages go past ASGI."""

    ask: Callable[[bytes], None]
    latest: _Bare

    def send_receive_event_to_app(self) -> None:
        """Hand a message on."""
        frames, self.frames = self.frames, []
        type(self).latest = self
        type(self).ask(frames[0])

    @classmethod
    def answer(cls, message: bytes) -> None:
        """Send a message of 126 to 65,535 bytes as a text frame."""
        cls.latest.transport.write(b"\x81\x7e" + len(message).to_bytes(2, "big") + message)


async def _application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _serve(processes: str) -> None:
    _Bare.ask = staticmethod(_Bare.answer)
    if processes == "two":
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "benchmarks.server_bare", str(theirs.fileno())]
        subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: _Hop(_Bare.answer), sock=ours)
        _Bare.ask = staticmethod(transport.write)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    gc.freeze()
    await uvicorn.Server(uvicorn.Config(_application, ws=_Bare, log_level="error", lifespan="off")).serve([listener])


def _send_back(link: socket.socket) -> None:
    """Be the other process."""
    while data := link.recv(1 << 18):
        link.sendall(data)
    os._exit(0)


def main() -> None:
    """Serve until a signal comes."""
    (given,) = sys.argv[1:]
    if given in ("one", "two"):
        uvloop.run(_serve(given))
    else:
        _send_back(socket.socket(fileno=int(given)))


if __name__ == "__main__":
    main()
