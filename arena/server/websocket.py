"""The WebSocket endpoint: the protocol's messages, many sessions on one connection.

Written against ASGI itself: a step crosses this code twice, so it does nothing but decode, hand on and send. Replies
leave in the order in which they are ready; `id` pairs them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import msgspec

from arena.errors import ArenaError, CapacityError, UsageError
from arena.protocol import ErrorReply, Request
from arena.server.access import Caller
from arena.server.frames import JSON, MSGPACK, Format
from arena.server.hub import Hub
from arena.types import encode_json, encode_msgpack

__all__ = ["WebSocketEndpoint"]

_log = logging.getLogger(__name__)
_MOST_UNSENT_BYTES = 64 * 2**20
_MOST_IN_FLIGHT = 20_000
_decode_json = msgspec.json.Decoder(Request).decode
_decode_msgpack = msgspec.msgpack.Decoder(Request).decode

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class WebSocketEndpoint:
    """Serves ``/v1/ws``.

    Args:
        hub: Answers the requests.
        identify: Says who a connection is, from its ASGI scope; raises where its credentials are wrong.
    """

    def __init__(self, hub: Hub, identify: Callable[[Message], Caller]) -> None:
        self._hub, self._identify = hub, identify

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection to its end."""
        await receive()
        try:
            caller = self._identify(scope)
        except ArenaError as error:
            await _refuse(scope, send, error)
            return
        await send({"type": "websocket.accept"})
        self._hub.metrics.connected("websocket")
        connection = _Connection(self._hub, caller, send)
        try:
            await connection.serve(receive)
        finally:
            self._hub.release(caller)
            self._hub.metrics.disconnected("websocket")


class _Connection:
    """One connection: a reader that hands requests on, a writer that sends what is ready."""

    def __init__(self, hub: Hub, caller: Caller, send: Send) -> None:
        self._hub, self._caller, self._send = hub, caller, send
        self._out: deque[tuple[bytes, Format]] = deque()
        self._unsent_bytes = 0
        self._in_flight = 0
        self._news = asyncio.Event()
        self._closed = False

    async def serve(self, receive: Receive) -> None:
        """Read to the end; replies that are not ready by then are dropped, and wait in the journal."""
        writer = asyncio.create_task(self._write())
        try:
            while not writer.done():
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                self._take(message)
        finally:
            self._closed = True
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _take(self, message: Message) -> None:
        text = message.get("text")
        format = MSGPACK if text is None else JSON
        body: bytes = message["bytes"] if text is None else text.encode("utf-8", "surrogatepass")
        self._hub.metrics.received(len(body))
        try:
            request = _decode_msgpack(body) if text is None else _decode_json(body)
        except (msgspec.DecodeError, UsageError, UnicodeDecodeError, RecursionError, ValueError) as error:
            self._put(_error(_id_of(body, format), UsageError(f"not a valid request: {error}"), format), format)
            return
        if self._in_flight >= _MOST_IN_FLIGHT:
            busy = CapacityError(f"more than {_MOST_IN_FLIGHT} requests in flight", retry_after_s=0.5)
            self._put(_error(request.id, busy, format), format)
            return
        self._in_flight += 1

        def deliver(reply: bytes, code: str | None) -> None:
            self._in_flight -= 1
            self._put(reply, format)

        self._hub.submit(request, self._caller, deliver, body=body, body_format=format, reply_format=format)

    def _put(self, reply: bytes, format: Format) -> None:
        if self._closed:
            return
        self._out.append((reply, format))
        self._unsent_bytes += len(reply)
        self._news.set()

    async def _write(self) -> None:
        """Send what is ready; a client that does not read is cut off, and can come back."""
        out, news, send, metrics = self._out, self._news, self._send, self._hub.metrics
        while True:
            await news.wait()
            news.clear()
            while out:
                if self._unsent_bytes > _MOST_UNSENT_BYTES:
                    await send({"type": "websocket.close", "code": 1013, "reason": "replies are not being read"})
                    return
                reply, format = out.popleft()
                self._unsent_bytes -= len(reply)
                metrics.sent(len(reply))
                if format == JSON:
                    await send({"type": "websocket.send", "text": reply.decode()})
                else:
                    await send({"type": "websocket.send", "bytes": reply})


class _Id(msgspec.Struct):
    id: int | str | None = None


def _id_of(body: bytes, format: Format) -> int | str | None:
    """Return the id of a request that is otherwise wrong, where it can be read."""
    try:
        found = msgspec.json.decode(body, type=_Id) if format == JSON else msgspec.msgpack.decode(body, type=_Id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.id if not isinstance(found.id, str) or len(found.id) <= 200 else None


def _error(id: int | str | None, error: ArenaError, format: Format) -> bytes:
    reply = ErrorReply(id=id, error=error.record())
    return encode_json(reply) if format == JSON else encode_msgpack(reply)


async def _refuse(scope: Message, send: Send, error: ArenaError) -> None:
    """Answer a handshake with an HTTP error, where the server can."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    status = 401 if error.code == "UNAUTHORIZED" else 403
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": _error(None, error, JSON)})
