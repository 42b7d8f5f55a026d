"""Logging in to the pages: a browser shows a bearer token once and is given a cookie that expires.

The cookie is a random name for the login and says nothing by itself; what it stands for is kept here and nowhere else.
So logging out really ends a login, a restart of the server ends all, and a token that is taken away takes its logins
with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from arena.errors import ForbiddenError, TooLargeError, UnauthorizedError, UsageError
from arena.server.access import Principal

__all__ = ["COOKIE", "Login", "read_form"]

COOKIE = "arena_login"
_MOST_FORM_BYTES = 8192


class Login:
    """Gives out and checks the pages' cookies.

    Args:
        authenticate: Returns the principal of a bearer token, or raises `UnauthorizedError`; asked again at every
            request.
        lifetime_s: Seconds after which one must log in again.
        most: Logins at once; one more ends the oldest.
        clock: Unix seconds.
    """

    def __init__(
        self,
        authenticate: Callable[[str], Principal],
        *,
        lifetime_s: float = 12 * 3600.0,
        most: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticate, self._lifetime_s, self._most, self._clock = authenticate, lifetime_s, most, clock
        self._logins: dict[str, tuple[str, float]] = {}  # token and expiry by cookie, the oldest first

    def log_in(self, token: str, response: Response, *, secure: bool) -> None:
        """Put the cookie of a new login on a response.

        Raises:
            UnauthorizedError: The token is not valid.
            ForbiddenError: It does not have the scope ``admin``.
        """
        if "admin" not in self._authenticate(token).scopes:
            raise ForbiddenError("the pages need a token with the scope 'admin'")
        if len(self._logins) >= self._most:
            del self._logins[next(iter(self._logins))]
        cookie = secrets.token_urlsafe(32)
        self._logins[cookie] = (token, self._clock() + self._lifetime_s)
        response.set_cookie(
            COOKIE, cookie, max_age=int(self._lifetime_s), path="/", secure=secure, httponly=True, samesite="strict"
        )

    def log_out(self, request: Request, response: Response) -> None:
        """End the request's login and take its cookie away."""
        self._logins.pop(request.cookies.get(COOKIE, ""), None)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    def principal(self, request: Request) -> Principal | None:
        """Return who has logged in with the request's cookie; None where nobody has, or no longer."""
        cookie = request.cookies.get(COOKIE, "")
        token, expires = self._logins.get(cookie, ("", 0.0))
        if self._clock() < expires:
            try:
                return self._authenticate(token)
            except UnauthorizedError:
                pass  # the token was taken away
        self._logins.pop(cookie, None)
        return None


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form of this site; of a repeated field, the first.

    Raises:
        ForbiddenError: The browser says that another site sent it.
        TooLargeError: It is larger than 8 KiB.
        UsageError: It is not a URL-encoded form.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("this form was sent by another site")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise UsageError("this is no form; allowed is application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_FORM_BYTES:
            raise TooLargeError(f"the form is larger than {_MOST_FORM_BYTES} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20)
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError("this is no form; its fields cannot be read") from error
    return {name: values[0] for name, values in fields.items()}
