"""How a page becomes a response: Jinja2 templates with escaping on, and headers that let nothing else in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, Response

from arena.server.pages import text
from arena.server.pages.trace import seat_columns

__all__ = ["Renderer", "protect"]


class Renderer:
    """Renders templates.

    Args:
        clock: Unix seconds, from which ages are counted.
        login: Whether there is anything to log out of.
    """

    def __init__(self, *, login: bool, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("arena.server.pages", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(
            duration=text.duration_text,
            line=text.line,
            segment=text.path_segment,
            signed=text.signed,
            timestamp=text.timestamp,
            visible=text.visible,
        )
        self._templates.globals.update(login=login, seat_columns=seat_columns)

    def page(self, name: str, *, status: int = 200, **values: Any) -> Response:
        """Return a template as a response; `values` are its variables."""
        nonce = secrets.token_urlsafe(16)
        html = self._templates.get_template(name).render(values, nonce=nonce, now=self._clock(), show=text.Excerpts())
        return protect(HTMLResponse(html, status), nonce)


def protect(response: Response, nonce: str = "") -> Response:
    """Return the response with the headers of every page; only style and script with the nonce apply."""
    allowed = f"'nonce-{nonce}'" if nonce else "'none'"
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src {allowed}; script-src {allowed}; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
