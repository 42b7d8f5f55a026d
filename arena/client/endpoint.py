"""Reaching a server: its address, the handshake, and what a refused handshake means."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from arena.errors import ArenaError, ConfigError, ForbiddenError, TransportError, UnauthorizedError
from arena.protocol import PROTOCOL_VERSION

__all__ = ["backoff_s", "endpoint", "reach"]

MAX_REPLY_BYTES = 100 * 2**20
_OPEN_S, _CLOSE_S = 10.0, 2.0
_FIRST_S, _LONGEST_S = 0.05, 5.0
_PASSING = frozenset([408, 425, 429, 500, 502, 503, 504])
"""HTTP statuses of a server that may be there again soon."""
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_log = logging.getLogger("arena.client.websocket")
_log.setLevel(logging.INFO)  # at DEBUG, handshakes are logged with their headers, and so with the token


def endpoint(url: str) -> str:
    """Return the WebSocket address of the server at `url`: ``ws://host:port/v1/ws``, below the path that `url` has.

    Raises:
        ConfigError: It is none of ``http``, ``https``, ``ws`` and ``wss``, names no host, or holds a password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"not the address of a server: {error}") from error
    if parts.scheme not in _SCHEMES or not host:
        raise ConfigError(f"{url!r} is not the address of a server; one looks like http://host:8700")
    if "@" in parts.netloc:
        raise ConfigError("the address of a server must not hold a user name or a password; pass a token instead")
    path = parts.path.rstrip("/").removesuffix(f"/v{PROTOCOL_VERSION}/ws")
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, f"{path}/v{PROTOCOL_VERSION}/ws", "", ""))


async def reach(address: str, token: str | None) -> ClientConnection:
    """Return an open connection.

    Raises:
        ConfigError: The token is none.
        UnauthorizedError, ForbiddenError: The server does not accept the token.
        TransportError: It cannot be reached; `retryable` where it may be there again soon.
    """
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError("a bearer token is one word of printable ASCII characters")
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    try:
        return await connect(
            address,
            additional_headers=headers,
            compression=None,
            proxy=None,
            max_size=MAX_REPLY_BYTES,
            open_timeout=_OPEN_S,
            close_timeout=_CLOSE_S,
            logger=_log,
        )
    except InvalidStatus as error:
        raise _refusal(address, error.response.status_code) from error
    except (OSError, WebSocketException, EOFError, ValueError) as error:  # TimeoutError is an OSError
        raise TransportError(f"cannot reach {address}: {error or type(error).__name__}", retryable=True) from error


def backoff_s() -> Iterator[float]:
    """Yield seconds to wait before each further attempt: doubled each time, of which a random part is taken."""
    longest = _FIRST_S
    while True:
        yield longest * random.uniform(0.5, 1.0)
        longest = min(2 * longest, _LONGEST_S)


def _refusal(address: str, status: int) -> ArenaError:
    if status == 401:
        return UnauthorizedError(f"{address} needs a bearer token that it knows")
    if status == 403:
        return ForbiddenError(f"{address} does not let this token in")
    return TransportError(f"{address} answered with HTTP status {status}", retryable=status in _PASSING)
