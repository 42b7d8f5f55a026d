"""What stands between the network and the application: deadlines, caps, and who may ask from where.

`Guard` is an ASGI middleware round the whole application; it reads request bodies before the application is called, so
that nothing behind it ever waits for a slow sender. What a connection may do before there is a request is bounded by
`arena.server.connections`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arena.errors import CapacityError, ForbiddenError, TooLargeError, TransportError
from arena.server.refusal import SECURITY_HEADERS, Refused
from arena.server.settings import ServerSettings

__all__ = ["Guard"]

BODY_PAUSE_S, BODY_S = 30.0, 60.0
"""Seconds that a body may pause, and take in all."""
HELD_BYTES, SMALL_BYTES = 256 * 2**20, 64 * 2**10
"""Bodies that are held at once, in all; those below `SMALL_BYTES` are let in even then."""
_LINGER_S, _LINGER_BYTES = 2.0, 64 * 2**20


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
        except Refused as refused:
            await receive()
            headers = [*refused.headers(), *SECURITY_HEADERS.items()]
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
        except Refused as refused:
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
            raise Refused(421, ForbiddenError(f"this server is not {', '.join(hosts)[:100]!r}; it is {known}"))

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
            raise Refused(408, TransportError(late, retryable=True)) from error

    def _check_size(self, body: _Body) -> None:
        if body.size_bytes > self.max_body_bytes:
            raise self._too_large()
        if self._held_bytes > HELD_BYTES and body.size_bytes > SMALL_BYTES:
            raise Refused(503, CapacityError("too many large requests at once; try again", retry_after_s=1.0))

    def _too_large(self) -> Refused:
        return Refused(413, TooLargeError(f"the request is larger than {self.max_body_bytes} bytes"))


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
        raise Refused(403, ForbiddenError(f"a page of {origins[0][:100]!r} may not do this here ({hint})"))


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
            headers += [(name, value) for name, value in SECURITY_HEADERS.items() if name not in given]
            message = {**message, "headers": headers}
        await send(message)

    return send_secured
