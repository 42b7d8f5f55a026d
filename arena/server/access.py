"""Who may do what: principals by bearer token, sessions by capability.

A *principal* is whoever holds a bearer token of the token file, or anybody on a loopback server without one. It may
create sessions. A *capability* is a text that opens one session in one role; it is all that an agent needs, and all
that it gets. Capabilities are made from the server's key by HMAC-SHA256, so nothing about them is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import deque
from dataclasses import dataclass, field

from arena.errors import ForbiddenError, UnauthorizedError, UnknownIdError
from arena.protocol import Role
from arena.types import AgentID

__all__ = ["SCOPES", "Caller", "Capabilities", "Grant", "Principal"]

SCOPES = {
    "play": "list environments, create sessions and play them",
    "expert": "ask an environment's expert",
    "admin": "see everybody's sessions, read the pages and the metrics",
}
"""What a token can allow."""
_MOST_CLOSED = 256


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may create sessions.

    Attributes:
        name: For logs, limits and metrics; never a secret.
        scopes: A subset of `SCOPES`.
    """

    name: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a capability opens: a session, as its owner, as one of its seats, or to watch."""

    session: str
    role: Role
    seat: AgentID | None = None


@dataclass(slots=True)
class Caller:
    """Whoever sends a request: a connection, or one HTTP request.

    Attributes:
        principal: None where only a capability was shown.
        grants: What the capabilities that were shown open, by session.
        held: Sessions that this connection holds; they live at least as long as it.
        gone: The connection is gone: it holds nothing any more.
    """

    principal: Principal | None
    grants: dict[str, list[Grant]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    gone: bool = False
    _closed: deque[str] = field(default_factory=deque)

    def add(self, grant: Grant) -> None:
        """Note that a capability was shown."""
        grants = self.grants.setdefault(grant.session, [])
        if grant not in grants:
            grants.append(grant)

    def close(self, session: str) -> None:
        """Note that a session is closed: only the grants of the last ones are kept, for their traces and repeats."""
        self.held.discard(session)
        if session not in self._closed:
            self._closed.append(session)
        while len(self._closed) > _MOST_CLOSED:
            self.grants.pop(self._closed.popleft(), None)

    def require(self, scope: str) -> Principal:
        """Return the principal.

        Raises:
            UnauthorizedError: There is none.
            ForbiddenError: It does not have the scope.
        """
        if self.principal is None:
            raise UnauthorizedError("this needs a bearer token; a session's capability does not allow it")
        if scope not in self.principal.scopes:
            raise ForbiddenError(f"this needs a token with the scope {scope!r}")
        return self.principal

    def grant(self, session: str, *roles: Role, seat: AgentID | None = None) -> Grant:
        """Return the first grant in one of these roles, for this seat where one is named.

        Raises:
            UnknownIdError: No capability for the session was shown. Whether there is such a session is not said.
            ForbiddenError: Only capabilities for other roles were shown.
        """
        grants = self.grants.get(session)
        if not grants:
            raise UnknownIdError("no such session, or its capability was not shown (attach first)")
        for role in roles:
            for grant in grants:
                if grant.role == role and (seat is None or grant.seat is None or grant.seat == seat):
                    return grant
        raise ForbiddenError(f"this needs the session's capability as {' or '.join(roles)}")


class Capabilities:
    """Makes and checks capabilities: ``<session>.<role>.<signature>``.

    Args:
        key: The server's secret, at least 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, grant: Grant) -> str:
        """Return the capability for a grant: always the same text."""
        role = grant.role if grant.seat is None else f"{grant.role}-{_encode(grant.seat.encode())}"
        body = f"{grant.session}.{role}"
        return f"{body}.{self._sign(body)}"

    def open(self, text: str) -> Grant:
        """Return what a capability opens.

        Raises:
            UnauthorizedError: It is none of this server's.
        """
        body, _, signature = text.rpartition(".")
        session, _, role = body.partition(".")
        name, _, seat = role.partition("-")
        given = signature.encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._sign(body).encode()) or name not in ("owner", "seat", "watch"):
            raise UnauthorizedError("this capability is not valid here")
        try:
            return Grant(session, name, _decode(seat).decode() if name == "seat" else None)  # type: ignore[arg-type]
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UnauthorizedError("this capability is not valid here") from error

    def _sign(self, body: str) -> str:
        return _encode(hmac.digest(self._key, body.encode("utf-8", "replace"), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
