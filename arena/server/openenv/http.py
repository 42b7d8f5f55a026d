"""OpenEnv over HTTP, with state: the same routes as its own server, whose HTTP forgets the episode after each request.

A request says which session it means by the header ``X-Session-ID``, by `episode_id` (in the body, or the query of
``/state``), or by the cookie that ``/reset`` set, in this order; with none of them, the principal's only session of
the environment is meant, and several are a conflict (409). ``X-Session-ID`` and the cookie are the session's
capability. The first one goes on naming the session after further resets, until the server restarts; the latest one
outlives that too. A step whose `request_id` repeats the last one's gets the recorded answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from arena.errors import ArenaError, ResetNeededError, UnauthorizedError, UnknownIdError, UsageError
from arena.protocol import EnvironmentInfo
from arena.server.access import Caller
from arena.server.hub import Hub
from arena.server.openenv.dialect import FieldError
from arena.server.openenv.session import OpenEnvSession, describe

__all__ = ["AmbiguousSessionError", "HttpSessions", "Identify", "Shown", "cookie_of", "shown_by"]

Identify = Callable[[HTTPConnection], Caller]
"""Says who sends a request."""

HEADER, COOKIE = "x-session-id", "openenv_session"


class AmbiguousSessionError(UsageError):
    """A request names no session, and the principal has several."""


class Shown:
    """What a request shows of the session that it means.

    Args:
        header: A capability.
        cookie: The same, but it may be stale without any fault of the client's.
        episode_id: The client's own name of the episode.
    """

    def __init__(self, header: str | None, cookie: str | None, episode_id: str | None) -> None:
        self.header, self.cookie, self.episode_id = header, cookie, episode_id


def shown_by(request: HTTPConnection, episode_id: Any) -> Shown:
    """Return what a request shows."""
    if episode_id is not None and not isinstance(episode_id, str):
        raise FieldError("episode_id is a text", "episode_id", given=episode_id)
    return Shown(request.headers.get(HEADER), request.cookies.get(COOKIE), episode_id)


def cookie_of(session: OpenEnvSession, response: Response, request: Request, path: str) -> None:
    """Tell the client how to name the session from now on."""
    assert session.capability is not None
    response.headers[HEADER] = session.capability
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, session.capability, path=path, httponly=True, samesite="strict", secure=secure)


class HttpSessions:
    """The sessions that are used over HTTP.

    Args:
        hub: The server's hub.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._entries: dict[OpenEnvSession, _Entry] = {}
        self._by_id: dict[str, _Entry] = {}

    async def for_reset(self, env: str, caller: Caller, shown: Shown) -> OpenEnvSession:
        """Return the session that a reset means, or a new one.

        Raises:
            ArenaError: The header opens no session, or there is no such environment.
        """
        self._sweep()
        entry = await self._shown(env, caller, shown, strict=False)
        if entry is not None:
            entry.session.check_owner(caller)
            return entry.session
        info = await describe(self._hub, caller, env)
        await self._drop_finished(env, caller)
        return self.new(caller, info)

    def new(self, caller: Caller, info: EnvironmentInfo) -> OpenEnvSession:
        """Return a session that no connection holds: it lasts for as long as an idle one may."""
        settings = self._hub.settings
        return OpenEnvSession(self._hub, caller, info, lease_s=min(settings.idle_s, settings.max_lease_s))

    async def attach(self, env: str, caller: Caller, capability: str) -> tuple[OpenEnvSession, bool]:
        """Return the session that a capability opens, for a socket, and whether it is one that is used over HTTP.

        Raises:
            ArenaError: It opens none.
        """
        entry = self._known(env, self._owned(capability))
        if entry is not None:
            entry.session.check_owner(caller)
            return entry.session, True
        session = OpenEnvSession(self._hub, caller, await describe(self._hub, caller, env))
        await session.attach(capability)
        return session, False

    async def for_step(self, env: str, caller: Caller, shown: Shown) -> OpenEnvSession:
        """Return the session that a request means.

        Raises:
            UnknownIdError: What is shown opens no session.
            ResetNeededError: Nothing is shown, and there is no session.
            AmbiguousSessionError: Nothing is shown, and there are several.
        """
        entry = await self._shown(env, caller, shown, strict=True)
        return (entry or self._only(env, caller)).session

    def keep(self, session: OpenEnvSession, *, named: bool) -> None:
        """Note a session that has begun an episode."""
        entry = self._entries.get(session)
        if entry is None:
            entry = self._entries[session] = _Entry(session)
        entry.named = entry.named or named
        for id in entry.ids:
            self._by_id.pop(id, None)
        entry.ids = {id for id in (entry.first, session.session) if id is not None}
        self._by_id |= dict.fromkeys(entry.ids, entry)

    def forget(self, session: OpenEnvSession) -> None:
        """Forget a session."""
        entry = self._entries.pop(session, None)
        for id in entry.ids if entry is not None else ():
            self._by_id.pop(id, None)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _shown(self, env: str, caller: Caller, shown: Shown, *, strict: bool) -> _Entry | None:
        if shown.header is not None:
            return await self._open(env, caller, shown.header)
        if shown.episode_id is not None:
            entry = self._by_episode(env, caller, shown.episode_id)
            if entry is None and strict:
                raise UnknownIdError(f"no session with the episode_id {shown.episode_id[:80]!r}; POST /reset first")
            return entry
        if shown.cookie is not None:
            try:
                return await self._open(env, caller, shown.cookie)
            except ArenaError:
                if strict:
                    raise
        return None

    async def _open(self, env: str, caller: Caller, capability: str) -> _Entry:
        entry = self._known(env, self._owned(capability))
        if entry is None:
            session = OpenEnvSession(self._hub, Caller(caller.principal), await describe(self._hub, caller, env))
            await session.attach(capability)
            self.keep(session, named=True)
            entry = self._entries[session]
        entry.named = True
        return entry

    def _owned(self, capability: str) -> str:
        grant = self._hub.capabilities.open(capability)
        if grant.role != "owner":
            raise UnauthorizedError("a session is named by its owner's capability")
        return grant.session

    def _known(self, env: str, id: str) -> _Entry | None:
        entry = self._by_id.get(id)
        return entry if entry is not None and entry.session.info.spec.id == env else None

    def _by_episode(self, env: str, caller: Caller, episode_id: str) -> _Entry | None:
        mine = [entry for entry in self._of(env, caller) if entry.session.episode_id == episode_id]
        return mine[-1] if mine else None

    def _only(self, env: str, caller: Caller) -> _Entry:
        mine = self._of(env, caller)
        if len(mine) > 1:
            mine = [entry for entry in mine if not entry.session.done] or mine
        if not mine:
            raise ResetNeededError(f"there is no session of {env}; POST /reset first")
        if len(mine) > 1:
            raise AmbiguousSessionError(
                f"there are {len(mine)} sessions of {env}; name one by the header X-Session-ID of the answer to "
                "/reset, by its cookie, or by episode_id"
            )
        return mine[0]

    def _of(self, env: str, caller: Caller) -> list[_Entry]:
        if caller.principal is None:
            raise UnauthorizedError("this needs a bearer token, or a session's capability as X-Session-ID")
        self._sweep()
        return [entry for entry in self._entries.values() if entry.belongs_to(env, caller)]

    async def _drop_finished(self, env: str, caller: Caller) -> None:
        """Close the finished episodes that nobody has ever named: whoever resets without a name has left them."""
        if caller.principal is None:
            return
        for entry in self._of(env, caller):
            if entry.session.done and not entry.named:
                self.forget(entry.session)
                await entry.session.close()

    def _sweep(self) -> None:
        """Forget the sessions whose lease has passed; the hub has ended them."""
        now = time.monotonic()
        for session in list(self._entries):
            if not session.sockets and now - session.used_at > session.lease_s:
                self.forget(session)


class _Entry:
    """A session, the id under which it was first known, and whether a request has ever named it."""

    def __init__(self, session: OpenEnvSession) -> None:
        self.session, self.first, self.named = session, session.session, False
        self.ids: set[str] = set()

    def belongs_to(self, env: str, caller: Caller) -> bool:
        return self.session.info.spec.id == env and self.session.caller.principal == caller.principal
