"""What stands between the network and the application: deadlines, caps, and who may ask from where.

`GuardedHttp` and `GuardedWebSocket` are uvicorn's protocols with bounds on what a connection may hold back or pile up.
`Guard` is an ASGI middleware round the whole application; it reads request bodies before the application is called, so
that nothing behind it ever waits for a slow sender.
"""

from __future__ import annotations

import asyncio
import http
import ipaddress
import math
import re
import socket
import time
from collections.abc import Callable
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from arena.errors import ArenaError, CapacityError, ForbiddenError, TooLargeError, TransportError, UsageError
from arena.protocol import ErrorReply
from arena.server.metrics import Metrics
from arena.server.settings import ServerSettings
from arena.types import encode_json

__all__ = ["Guard", "GuardedHttp", "GuardedWebSocket", "TokenBucket"]

HEADERS_S = 10.0
"""Seconds for a request's complete headers."""
MAX_HEADER_BYTES = 32 * 2**10
"""Of a request line and headers, each header counted with 32 bytes for itself."""
BODY_PAUSE_S, BODY_S = 30.0, 60.0
"""Seconds that a body may pause, and take in all."""
HELD_BYTES, SMALL_BYTES = 256 * 2**20, 64 * 2**10
"""Bodies that are held at once, in all; those below `SMALL_BYTES` are let in even then."""
PEER_S = 120
"""Seconds after which a peer that acknowledges nothing is gone."""
_LINGER_S, _LINGER_BYTES = 2.0, 64 * 2**20
_MAX_FRAGMENTS = 2**16

_SECURITY_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": (
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
"""On every response, unless the application has said otherwise. Inline script is for the API's own documentation page;
the other pages come with a stricter policy."""


class TokenBucket:
    """A limit of a rate, which may be exceeded in bursts.

    Args:
        rate_per_s: What comes back each second; more than 0.
        burst: What can be taken at once; more than 0.
        clock: Monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate_per_s > 0 and burst > 0):
            raise ValueError(f"a bucket needs a rate and a burst above 0, not {rate_per_s} and {burst}")
        self._rate_per_s, self._burst, self._clock = rate_per_s, burst, clock
        self._left, self._at = burst, clock()

    def take(self, count: float = 1.0) -> float:
        """Take `count` and return 0, or take nothing and return the seconds until it could be taken.

        More than a burst is given when the bucket is full, and is paid back before anything else is given.
        """
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate_per_s)
        self._at = now
        missing = min(count, self._burst) - self._left
        if missing > 1e-6:  # what rounding costs must not make an exact wait too short
            return missing / self._rate_per_s
        self._left -= count
        return 0.0


class _Refused(Exception):
    """A request that the application never sees."""

    def __init__(self, status: int, error: ArenaError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error

    @property
    def body(self) -> bytes:
        return encode_json(ErrorReply(error=self.error.record()))

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        wait_s = self.error.details.get("retry_after_s")
        if wait_s is not None:
            headers.append((b"retry-after", b"%d" % math.ceil(wait_s)))
        return [*headers, (b"connection", b"close")]


# -- connections ----------------------------------------------------------------------------------------------------


class GuardedHttp(HttpToolsProtocol):
    """An HTTP connection with a deadline and a cap for headers, and a cap on the number of connections.

    Attributes:
        max_connections: Of both kinds together; see `bounded`.
        metrics: Where HTTP connections are counted; one that becomes a WebSocket is the endpoint's to count.
    """

    max_connections: int = 2**14
    metrics: Metrics | None = None

    @classmethod
    def bounded(cls, max_connections: int, metrics: Metrics | None) -> type[GuardedHttp]:
        """Return the protocol with these attributes."""
        return type(cls.__name__, (cls,), {"max_connections": max_connections, "metrics": metrics})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers, or refuse: the server is full."""
        self._refusal: _Refused | None = None
        self._closing = False
        self._header_bytes = self._unparsed_bytes = 0
        self._begun = False
        self._deadline: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        _notice_dead_peer(transport)
        if self.metrics is not None:
            self.metrics.connected("http")
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)
            error = CapacityError("too many connections; try again later", retry_after_s=1.0)
            self._refuse(_Refused(503, error))
        else:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._stop_waiting()
        self._count_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; nothing may pile up unparsed."""
        if self._closing:
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._closing or self.transport.get_protocol() is not self:
            return
        if self._unparsed_bytes > MAX_HEADER_BYTES:
            self._refuse(_too_large())
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_headers()

    def on_message_begin(self) -> None:
        """Count headers from here."""
        self._header_bytes, self._begun = 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count_headers(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count_headers(len(name) + len(value) + 32)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the deadline: the rest of a request is the middleware's."""
        self._unparsed_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take note that the body goes on."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take note that the next request may begin."""
        self._unparsed_bytes, self._begun = 0, False
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol."""
        self._stop_waiting()
        self._count_end()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or was refused while it was parsed."""
        self._refuse(self._refusal or _Refused(400, UsageError(msg)))

    def _count_end(self) -> None:
        if self.metrics is not None:
            self.metrics.disconnected("http")

    def _count_headers(self, size_bytes: int) -> None:
        self._unparsed_bytes = 0
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refusal = _too_large()
            raise self._refusal  # the parser stops, and uvicorn calls `send_400_response`

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_S, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if self._begun:
            error = TransportError(f"the request's headers did not come within {HEADERS_S:g} s", retryable=True)
            self._refuse(_Refused(408, error))
        else:
            self.transport.close()

    def _refuse(self, refused: _Refused) -> None:
        """Answer and close, after a while: closing upon unread bytes would take the answer from the peer."""
        self._closing = True
        self._stop_waiting()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an earlier request's answer is under way: nothing can be said here
            return
        lines = [f"HTTP/1.1 {refused.status} {http.HTTPStatus(refused.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in [*refused.headers(), *_SECURITY_HEADERS.items()]]
        self.transport.write(b"\r\n".join([*lines, b"", refused.body]))
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_S, self.transport.abort)


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket connection that no message of countless fragments can fill.

    Pings have no deadline of their own: a client that computes for minutes between two steps need not answer them. The
    kernel acknowledges them on its behalf, and where it does not, the peer is gone.
    """

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to the message, or end the connection."""
        if self.close_sent:
            return
        if len(self.frames) >= _MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"more than {_MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)


def _too_large() -> _Refused:
    return _Refused(431, TooLargeError(f"the request's headers are larger than {MAX_HEADER_BYTES} bytes"))


def _notice_dead_peer(transport: asyncio.BaseTransport) -> None:
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": PEER_S // 2,
        "TCP_KEEPINTVL": PEER_S // 12,
        "TCP_KEEPCNT": 6,
        "TCP_USER_TIMEOUT": PEER_S * 1000,
    }.items():
        if hasattr(socket, name):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# -- requests -------------------------------------------------------------------------------------------------------


class Guard:
    """Refuses what the application should never see, and puts security headers on every response.

    Args:
        app: The application.
        settings: The server's settings.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app, self.max_body_bytes = app, settings.max_message_bytes
        self._hosts = None if settings.token_file else {"localhost", "127.0.0.1", "[::1]", _bracketed(settings.host)}
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application answer it."""
        if scope["type"] == "http":
            await self._http(scope, receive, _with_security_headers(send))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_host(scope)
            _check_origin(scope)
        except _Refused as refused:
            await receive()
            headers = [*refused.headers(), *_SECURITY_HEADERS.items()]
            await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": refused.body})
        else:
            await self.app(scope, receive, send)  # as it is: every message of a connection would pay for a wrapper

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(scope, receive)
        try:
            self._check_host(scope)
            if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                _check_origin(scope)
            if body.expected:
                await self._read(body)
            await self.app(scope, body.receive, send)
        except _Refused as refused:
            await send({"type": "http.response.start", "status": refused.status, "headers": refused.headers()})
            await send({"type": "http.response.body", "body": refused.body, "more_body": True})
            await body.discard()
            await send({"type": "http.response.body", "body": b""})
        except _Disconnected:
            pass
        finally:
            self._held_bytes -= body.size_bytes

    def _check_host(self, scope: Scope) -> None:
        """Refuse names that lead here but are not ours: a page of a rebound name would be of the same origin."""
        hosts = _header(scope, b"host")
        if self._hosts is None or (not hosts and scope["http_version"] == "1.0"):
            return
        name = _split_authority(hosts[0])[0] if len(hosts) == 1 else ""
        if name not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            raise _Refused(421, ForbiddenError(f"this server is not {', '.join(hosts)[:100]!r}; it is {known}"))

    async def _read(self, body: _Body) -> None:
        if (body.declared_bytes or 0) > self.max_body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(BODY_S):
                while (size_bytes := await body.read_some()) is not None:
                    self._held_bytes += size_bytes
                    self._check_size(body)
        except TimeoutError as error:
            late = f"the request's body did not come in time: {BODY_S:g} s, with no pause over {BODY_PAUSE_S:g} s"
            raise _Refused(408, TransportError(late, retryable=True)) from error

    def _check_size(self, body: _Body) -> None:
        if body.size_bytes > self.max_body_bytes:
            raise self._too_large()
        if self._held_bytes > HELD_BYTES and body.size_bytes > SMALL_BYTES:
            raise _Refused(503, CapacityError("too many large requests at once; try again", retry_after_s=1.0))

    def _too_large(self) -> _Refused:
        return _Refused(413, TooLargeError(f"the request is larger than {self.max_body_bytes} bytes"))


class _Disconnected(Exception):
    """The client has gone before its request was complete."""


class _Body:
    """A request's body, read before the application asks for it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        lengths = _header(scope, b"content-length")
        self.declared_bytes = int(lengths[0]) if lengths and lengths[0].isdecimal() else None
        self.expected = bool(self.declared_bytes or _header(scope, b"transfer-encoding"))
        self._hesitant = bool(_header(scope, b"expect"))
        self.size_bytes = 0
        self._chunks: list[bytes] = []
        self._complete = not self.expected

    async def read_some(self) -> int | None:
        """Wait for the next part and return its size; None where the body is complete.

        Raises:
            TimeoutError: It did not come.
            _Disconnected: It will not come.
        """
        if self._complete:
            return None
        async with asyncio.timeout(BODY_PAUSE_S):
            message = await self._receive()
        if message["type"] != "http.request":
            raise _Disconnected
        part = message.get("body", b"")
        self._complete = not message.get("more_body", False)
        self._chunks.append(part)
        self.size_bytes += len(part)
        return len(part)

    async def receive(self) -> Message:
        """Return the whole body first, as the application's `receive`."""
        if not self._chunks:
            return await self._receive()
        body, self._chunks = b"".join(self._chunks), []
        return {"type": "http.request", "body": body, "more_body": False}

    async def discard(self) -> None:
        """Take what still comes, for a while: closing upon unread bytes would take the answer from the client."""
        self._chunks = []
        left = 0 if self._complete or self._hesitant else _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_S):
                while left > 0:
                    message = await self._receive()
                    left = left - len(message.get("body", b"")) if message.get("more_body") else 0
        except TimeoutError:
            pass


def _check_origin(scope: Scope) -> None:
    """Refuse what a page of another site sends."""
    origins = _header(scope, b"origin")
    if not origins:
        return
    scheme, _, authority = origins[0].partition("://")
    origin, hosts = _split_authority(authority), _header(scope, b"host")
    name_is_ours = len(hosts) == 1 and origin == _split_authority(hosts[0]) and origin[0]
    if len(origins) > 1 or scheme not in ("http", "https") or not name_is_ours:
        hint = "a proxy must pass the header Host on as it came"
        raise _Refused(403, ForbiddenError(f"a page of {origins[0][:100]!r} may not do this here ({hint})"))


_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::([0-9]{1,5}))?")


def _split_authority(text: str) -> tuple[str, str]:
    """Return the name and the port of ``name:port`` or ``name``, as they are written; ("", "") for anything else."""
    found = _AUTHORITY.fullmatch(text.strip().lower())
    return ("", "") if found is None else (found[1], found[2] or "")


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host.lower()


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in cast(list[tuple[bytes, bytes]], scope["headers"]) if key == name]


def _with_security_headers(send: Send) -> Send:
    async def send_secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _SECURITY_HEADERS.items() if name not in given]
            message = {**message, "headers": headers}
        await send(message)

    return send_secured
