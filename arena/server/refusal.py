"""Refusing a request before the application sees it, and the headers that every response carries."""

from __future__ import annotations

import math

from arena.errors import ArenaError
from arena.protocol import ErrorReply
from arena.types import encode_json

__all__ = ["SECURITY_HEADERS", "Refused"]

SECURITY_HEADERS = {
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


class Refused(Exception):
    """A request that the application never sees.

    Attributes:
        status: HTTP status.
        error: What is wrong with it.
    """

    def __init__(self, status: int, error: ArenaError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        return encode_json(ErrorReply(error=self.error.record()))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go with the body; the connection is closed after it."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        wait_s = self.error.details.get("retry_after_s")
        if wait_s is not None:
            headers.append((b"retry-after", b"%d" % math.ceil(wait_s)))
        return [*headers, (b"connection", b"close")]
