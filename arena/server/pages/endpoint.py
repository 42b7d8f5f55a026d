"""The pages: environments, live sessions that update by themselves, and the trace viewer, for people with a browser.

Everything is rendered here and read only; a page shows what the hub says and asks for nothing from anywhere else. They
are for principals with the scope ``admin``, because they show everybody's sessions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from arena.env import EnvSpec
from arena.errors import ArenaError, UnknownIdError, UsageError, did_you_mean
from arena.protocol import Describe, EnvironmentInfo, Reply, TaskPage, Tasks
from arena.protocol import Request as Message
from arena.server.access import Caller
from arena.server.overview import SessionRow, SessionView
from arena.server.pages.gate import Gate, wants_fragment
from arena.server.pages.login import Login
from arena.server.pages.render import Renderer
from arena.server.pages.trace import STEPS_PER_PAGE, Page, page_at

__all__ = ["PagesHub", "routes"]

_TASKS_PER_PAGE, _SESSIONS_PER_PAGE, _FINISHED = 50, 100, 50
_MOST_PAGE = 10**9


class PagesHub(Protocol):
    """What the pages ask of the hub."""

    async def ask(self, request: Message, caller: Caller) -> Reply:
        """Return the answer to a request, or raise an `ArenaError`."""

    async def environments(self) -> list[EnvSpec]:
        """Return what each environment declares."""

    def overview(self) -> list[SessionRow]:
        """Return the live sessions."""

    def finished(self) -> list[SessionRow]:
        """Return the sessions that ended not long ago."""

    async def view(self, session_id: str, start: int, stop: int, /) -> SessionView:
        """Return steps `start` to `stop` of a session, or raise `UnknownIdError`."""


def routes(hub: PagesHub, identify: Callable[[Request], Caller], login: Login | None = None) -> APIRouter:
    """Return the routes of the pages.

    Args:
        hub: The sessions.
        identify: Says who sends a request: a caller without a principal, or `UnauthorizedError`, sends a browser to the
            login.
        login: How browsers log in; None where everybody may look.
    """
    renderer = Renderer(login=login is not None)
    pages, gate = _Pages(hub, renderer), Gate(identify, login, renderer)
    router = APIRouter(include_in_schema=False)
    router.add_route("/", gate.guard(pages.index), methods=["GET"])
    router.add_route("/environments/{family}/{name}", gate.guard(pages.environment), methods=["GET"])
    router.add_route("/sessions", gate.guard(pages.sessions), methods=["GET"])
    router.add_route("/sessions/{session}", gate.guard(pages.session), methods=["GET"])
    router.add_route("/login", gate.log_in, methods=["GET", "POST"])
    router.add_route("/logout", gate.log_out, methods=["POST"])
    return router


class _Pages:
    def __init__(self, hub: PagesHub, renderer: Renderer) -> None:
        self._hub, self._renderer = hub, renderer
        self._seats: dict[str, int] = {}

    async def index(self, request: Request, caller: Caller) -> Response:
        """Say what this server is and what it offers."""
        specs = await self._hub.environments()
        return self._renderer.page(
            "index.html",
            specs=specs,
            seats={spec.id: await self._seat_count(spec, caller) for spec in specs},
            live=len(self._hub.overview()),
            finished=len(self._hub.finished()),
        )

    async def _seat_count(self, spec: EnvSpec, caller: Caller) -> int | None:
        """Return how many seats an environment has with its default options; None where it cannot say."""
        if spec.play == "single":
            return 1
        if spec.id not in self._seats:
            info, _ = await self._asked(Describe(id=0, env=spec.id), caller)
            if not isinstance(info, EnvironmentInfo):
                return None
            self._seats[spec.id] = len(info.seats)
        return self._seats[spec.id]

    async def environment(self, request: Request, caller: Caller) -> Response:
        """Show what an environment declares, its options and seats, and a page of its tasks."""
        env = f"{request.path_params['family']}/{request.path_params['name']}"
        specs = {spec.id: spec for spec in await self._hub.environments()}
        if env not in specs:
            raise UnknownIdError(f"this server offers no environment {env!r}{did_you_mean(env, specs)}")
        spec = specs[env]
        split = request.query_params.get("split") or next(iter(spec.splits), None)
        start = (_page_number(request) - 1) * _TASKS_PER_PAGE
        info, trouble = await self._asked(Describe(id=0, env=env), caller)
        request_tasks = Tasks(id=0, env=env, split=split, start=start, stop=start + _TASKS_PER_PAGE)
        tasks, no_tasks = await self._asked(request_tasks, caller)
        total = tasks.total if isinstance(tasks, TaskPage) else 0
        return self._renderer.page(
            "environment.html",
            spec=spec,
            info=info,
            trouble=trouble,
            split=split,
            tasks=tasks,
            no_tasks=no_tasks,
            page=page_at(total, _TASKS_PER_PAGE, number=_page_number(request)),
        )

    async def _asked(self, message: Message, caller: Caller) -> tuple[Reply | None, ArenaError | None]:
        """Return the answer, or what went wrong: a page can be shown without this part."""
        try:
            return await self._hub.ask(message, caller), None
        except ArenaError as error:
            return None, error

    async def sessions(self, request: Request, caller: Caller) -> Response:
        """List the live sessions and those that ended not long ago."""
        live = sorted(self._hub.overview(), key=lambda row: (-row.created_at, row.id))
        over = sorted(self._hub.finished(), key=lambda row: (-(row.ended_at or row.created_at), row.id))
        page = page_at(len(live), _SESSIONS_PER_PAGE, number=_page_number(request))
        return self._renderer.page(
            "sessions_lists.html" if wants_fragment(request) else "sessions.html",
            live=live[page.start : page.stop],
            finished=over[:_FINISHED],
            page=page,
            poll=f"/sessions?page={page.number}&fragment=1",
        )

    async def session(self, request: Request, caller: Caller) -> Response:
        """Show a page of a session's transcript; as a fragment, only the steps after step `after`."""
        session = request.path_params["session"]
        page, view = await self._transcript(request, session)
        after = _integer(request, "after", -1)
        return await asyncio.to_thread(  # a long transcript takes a while, and the loop has steps to route
            self._renderer.page,
            "session_parts.html" if wants_fragment(request) else "session.html",
            view=view,
            row=view.row,
            page=page,
            seats=list(dict.fromkeys([*view.seats, *view.row.returns])),
            records=[record for record in view.records if record.index > after],
            last_shown=max([after, *(record.index for record in view.records)]),
        )

    async def _transcript(self, request: Request, session: str) -> tuple[Page, SessionView]:
        """Return the page that is asked for, the last one where there are not so many, and the view that fills it."""
        if request.query_params.get("page") == "last":
            wanted = page_at((await self._hub.view(session, 0, 0)).total, STEPS_PER_PAGE, number=_MOST_PAGE)
        elif "step" in request.query_params:
            wanted = page_at(_MOST_PAGE, STEPS_PER_PAGE, item=_integer(request, "step", 0))
        else:
            wanted = page_at(_MOST_PAGE, STEPS_PER_PAGE, number=_page_number(request))
        view = await self._hub.view(session, wanted.start, wanted.start + STEPS_PER_PAGE)
        page = page_at(view.total, STEPS_PER_PAGE, number=wanted.number)
        if page.number != wanted.number:
            view = await self._hub.view(session, page.start, page.start + STEPS_PER_PAGE)
        return page, view


def _page_number(request: Request) -> int:
    return max(1, _integer(request, "page", 1))


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise UsageError(f"{name} is {text[:100]!r}; allowed is a whole number of at most 9 digits")
    return int(text)
