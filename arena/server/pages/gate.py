"""Who may look at the pages: administrators, by bearer token or by login; what refuses them is a page too."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from arena.errors import ArenaError, CapacityError, UnauthorizedError, UsageError
from arena.server.access import Caller, Principal
from arena.server.http import STATUS
from arena.server.pages.login import Login, read_form
from arena.server.pages.render import Renderer, protect

__all__ = ["Endpoint", "Gate", "Handler", "wants_fragment"]

_OWN_PATH = re.compile(r"/(sessions(/[A-Za-z0-9._~%-]+)?|environments/[A-Za-z0-9._~%-]+/[A-Za-z0-9._~%-]+)?")

Handler = Callable[[Request, Caller], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Gate:
    """Lets administrators in.

    Args:
        identify: Says who sends a request: a caller without a principal, or `UnauthorizedError`, sends a browser to the
            login.
        login: How browsers log in; None where everybody may look.
        renderer: Renders the login and what is refused.
    """

    def __init__(self, identify: Callable[[Request], Caller], login: Login | None, renderer: Renderer) -> None:
        self._identify, self._login, self._renderer = identify, login, renderer

    def guard(self, handler: Handler) -> Endpoint:
        """Return an endpoint that lets administrators in and turns errors into pages."""

        async def endpoint(request: Request) -> Response:
            try:
                return await handler(request, self._admin(request))
            except ArenaError as error:
                return self._refused(request, error)

        return endpoint

    def _admin(self, request: Request) -> Caller:
        """Return the caller; who may see everybody's sessions may see what can be played, too."""
        try:
            principal = self._identify(request).principal
        except UnauthorizedError:
            principal = None
        if principal is None and self._login is not None:
            principal = self._login.principal(request)
        admin = Caller(principal).require("admin")
        return Caller(Principal(admin.name, admin.scopes | {"play"}))

    def _refused(self, request: Request, error: ArenaError) -> Response:
        if isinstance(error, UnauthorizedError) and self._login is not None and not wants_fragment(request):
            return protect(RedirectResponse(f"/login?next={quote(request.url.path)}", 303))
        status = STATUS.get(error.code, 502)
        response = self._renderer.page("error.html", status=status, code=status, error=error)
        if isinstance(error, CapacityError):
            response.headers["Retry-After"] = str(max(1, int(error.details.get("retry_after_s", 1))))
        return response

    async def log_in(self, request: Request) -> Response:
        """Show the login form, or take it."""
        if self._login is None:
            return protect(RedirectResponse("/", 303))
        if request.method != "POST":
            return self._form(_own_path(request.query_params.get("next", "/")))
        target = "/"
        try:
            form = await read_form(request)
            target = _own_path(form.get("next", "/"))
            response = RedirectResponse(target, 303)
            self._login.log_in(form.get("token", "").strip(), response, secure=request.url.scheme == "https")
        except UsageError as error:
            return self._form(target, error)
        return protect(response)

    def _form(self, target: str, error: UsageError | None = None) -> Response:
        status = 200 if error is None else STATUS.get(error.code, 400)
        return self._renderer.page("login.html", status=status, next=target, error=error)

    async def log_out(self, request: Request) -> Response:
        """End the login."""
        if self._login is None:
            return protect(RedirectResponse("/", 303))
        try:
            await read_form(request)
        except UsageError as error:
            return self._refused(request, error)
        response = RedirectResponse("/login", 303)
        self._login.log_out(request, response)
        return protect(response)


def wants_fragment(request: Request) -> bool:
    """Return whether the pages' script asks, which wants the parts that change and no redirection."""
    return request.query_params.get("fragment") == "1"


def _own_path(path: str) -> str:
    """Return a path of these pages; the index for anything else."""
    return path if _OWN_PATH.fullmatch(path) else "/"
