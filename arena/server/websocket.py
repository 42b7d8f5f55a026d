"""The WebSocket endpoint: the protocol's messages, many sessions on one connection.

Written against ASGI itself, and past it where uvicorn allows that: a step crosses this code twice, so it does nothing
but decode, hand on and send. Replies leave in the order in which they are ready; `id` pairs them.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import msgspec
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

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
_MOST_HELD_BYTES = 16 * 2**20
"""Of a connection's requests that are not answered: beyond it nothing more is read."""
_TEXT, _BINARY = 0x81, 0x82
_HEAD_16, _HEAD_64 = struct.Struct(">BBH"), struct.Struct(">BBQ")
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
        connection = _Connection(self._hub, caller, send, _Wire.behind(receive))
        try:
            await connection.serve(receive)
        finally:
            caller.gone = True
            self._hub.release(caller)
            self._hub.metrics.disconnected("websocket")


class _Connection:
    """One connection: what it asks is handed on, what is answered is sent.

    Behind uvicorn's own protocol both go past ASGI, see `_Wire`. Behind anything else, and while the client reads too
    slowly, replies wait for a writer.
    """

    def __init__(self, hub: Hub, caller: Caller, send: Send, wire: _Wire | None) -> None:
        self._hub, self._caller, self._send, self._wire = hub, caller, send, wire
        self._loop = asyncio.get_running_loop()
        self._ready: list[bytes] = []
        self._out: deque[tuple[bytes, Format]] = deque()
        self._unsent_bytes = 0
        self._in_flight = self._held_bytes = 0
        self._news = asyncio.Event()
        self._closed = False

    async def serve(self, receive: Receive) -> None:
        """Read to the end; replies that are not ready by then are dropped, and wait in the journal."""
        if self._wire is not None:
            self._wire.listen(self._take)
        writer = asyncio.create_task(self._write())
        try:
            while not writer.done():
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                text = message.get("text")
                if text is None:
                    self._take(message["bytes"], MSGPACK)
                else:
                    self._take(text.encode("utf-8", "surrogatepass"), JSON)
        finally:
            self._closed = True
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _take(self, body: bytes, format: Format) -> None:
        self._hub.metrics.received(len(body))
        try:
            request = _decode_json(body) if format == JSON else _decode_msgpack(body)
        except (msgspec.DecodeError, UsageError, UnicodeDecodeError, RecursionError, ValueError) as error:
            self._put(_error(_id_of(body, format), UsageError(f"not a valid request: {error}"), format), format)
            return
        if self._in_flight >= _MOST_IN_FLIGHT:
            busy = CapacityError(f"more than {_MOST_IN_FLIGHT} requests in flight", retry_after_s=0.5)
            self._put(_error(request.id, busy, format), format)
            return
        self._hold(len(body))

        def deliver(reply: bytes, code: str | None) -> None:
            self._let_go(len(body))
            self._put(reply, format)

        self._hub.submit(request, self._caller, deliver, body=body, body_format=format, reply_format=format)

    def _hold(self, size_bytes: int) -> None:
        self._in_flight += 1
        self._held_bytes += size_bytes
        if self._held_bytes > _MOST_HELD_BYTES and self._wire is not None:
            self._wire.pause()

    def _let_go(self, size_bytes: int) -> None:
        self._in_flight -= 1
        self._held_bytes -= size_bytes
        if self._held_bytes <= _MOST_HELD_BYTES and self._wire is not None:
            self._wire.resume()

    def _put(self, reply: bytes, format: Format) -> None:
        if self._closed:
            return
        if self._unsent_bytes or self._wire is None or not self._wire.writable:
            self._queue(reply, format)
            return
        self._ready.append(_framed(reply, format))
        if not self._in_flight:
            self._flush()
        elif len(self._ready) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what has been answered in this turn of the event loop."""
        ready, self._ready = self._ready, []
        if ready and self._wire is not None:
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            self._hub.metrics.sent(len(data))
            self._wire.write(data)

    def _queue(self, reply: bytes, format: Format) -> None:
        self._flush()
        self._out.append((reply, format))
        self._unsent_bytes += len(reply)
        self._news.set()
        if self._unsent_bytes > _MOST_UNSENT_BYTES and self._wire is not None:
            self._wire.abort()

    async def _write(self) -> None:
        """Send what is queued; a client that does not read is cut off, and can come back."""
        out, news, send, metrics = self._out, self._news, self._send, self._hub.metrics
        while True:
            await news.wait()
            news.clear()
            while out:
                if self._unsent_bytes > _MOST_UNSENT_BYTES:
                    await send({"type": "websocket.close", "code": 1013, "reason": "replies are not being read"})
                    return
                reply, format = out.popleft()
                metrics.sent(len(reply))
                if format == JSON:
                    await send({"type": "websocket.send", "text": reply.decode()})
                else:
                    await send({"type": "websocket.send", "bytes": reply})
                self._unsent_bytes -= len(reply)


class _Wire:
    """A connection of uvicorn's, without ASGI's queue and two task switches for each message.

    uvicorn still reads and parses frames, answers pings and closes; only whole messages pass here.

    Args:
        protocol: An accepted connection without extensions.
    """

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol
        self._take: Callable[[bytes, Format], None] | None = None
        self._paused = False

    @classmethod
    def behind(cls, receive: Receive) -> _Wire | None:
        """Return the connection whose `receive` this is; None where it is not uvicorn's, or frames are compressed."""
        protocol = getattr(receive, "__self__", None)
        if isinstance(protocol, WebSocketsSansIOProtocol) and not protocol.conn.extensions:
            return cls(protocol)
        return None

    def listen(self, take: Callable[[bytes, Format], None]) -> None:
        """From now on hand every message to `take`."""
        self._take = take
        self._protocol.send_receive_event_to_app = self._received  # type: ignore[method-assign]

    @property
    def writable(self) -> bool:
        """Whether the client keeps up with reading."""
        return self._protocol.writable.is_set()

    def write(self, data: bytes) -> None:
        """Send whole frames."""
        protocol = self._protocol
        if not protocol.close_sent and not protocol.transport.is_closing():
            protocol.transport.write(data)

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused:
            self._paused = True
            self._protocol.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading, where that was paused."""
        if self._paused:
            self._paused = False
            self._protocol.transport.resume_reading()

    def abort(self) -> None:
        """End the connection at once."""
        self._protocol.transport.abort()

    def _received(self) -> None:
        """Take the message that uvicorn has put together."""
        protocol = self._protocol
        frames, protocol.frames = protocol.frames, []
        if protocol.close_sent or self._take is None:
            return
        body = frames[0] if len(frames) == 1 else b"".join(frames)
        if protocol.curr_msg_data_type == "bytes":
            self._take(body, MSGPACK)
        elif body.isascii() or _is_utf8(body):
            self._take(body, JSON)
        else:
            protocol.conn.send_close(CloseCode.INVALID_DATA)
            protocol.handle_parser_exception()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _framed(message: bytes, format: Format) -> bytes:
    """Return a message as a WebSocket frame from a server (RFC 6455, 5.2)."""
    opcode = _TEXT if format == JSON else _BINARY
    size = len(message)
    if size < 126:
        return bytes((opcode, size)) + message
    if size < 2**16:
        return _HEAD_16.pack(opcode, 126, size) + message
    return _HEAD_64.pack(opcode, 127, size) + message


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
