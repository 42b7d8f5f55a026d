"""Connections with bounds: uvicorn's protocols, and what a connection may hold back or pile up."""

from __future__ import annotations

import asyncio
import http
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from arena.errors import CapacityError, TooLargeError, TransportError, UsageError
from arena.server.metrics import Metrics
from arena.server.refusal import SECURITY_HEADERS, Refused

__all__ = ["GuardedHttp", "GuardedWebSocket"]

HEADERS_S = 10.0
"""Seconds for a request's complete headers."""
MAX_HEADER_BYTES = 32 * 2**10
"""Of a request line and headers, each header counted with 32 bytes for itself."""
PEER_S = 120
"""Seconds after which a peer that acknowledges nothing is gone."""
_MAX_FRAGMENTS = 2**16
_LINGER_S, _LINGER_BYTES = 2.0, 64 * 2**20


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
        self._refusal: Refused | None = None
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
            self._refuse(Refused(503, error))
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
        self._refuse(self._refusal or Refused(400, UsageError(msg)))

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
            self._refuse(Refused(408, error))
        else:
            self.transport.close()

    def _refuse(self, refused: Refused) -> None:
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
        lines += [name + b": " + value for name, value in [*refused.headers(), *SECURITY_HEADERS.items()]]
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


def _too_large() -> Refused:
    return Refused(431, TooLargeError(f"the request's headers are larger than {MAX_HEADER_BYTES} bytes"))


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
