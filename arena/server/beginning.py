"""How sessions begin: created, or forked from another one. A key makes either happen once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from arena.env import EnvSpec
from arena.errors import ArenaError, ConfigError, EnvError, UnsupportedError, UsageError, did_you_mean
from arena.protocol import Create, Created, Fork, RequestId, SeatTerms, TaskRef
from arena.recovery import Opening
from arena.server.access import Caller, Capabilities, Grant
from arena.server.frames import Drop, Frame, Prepare
from arena.server.hosting import Host, Hosted
from arena.server.ledger import Ledger, Stored
from arena.server.matches import Matches
from arena.server.metrics import Metrics
from arena.server.reading import Reader
from arena.server.sessions import Sessions
from arena.server.settings import ServerSettings
from arena.types import AgentID

__all__ = ["Beginner"]

_decode_opening = msgspec.msgpack.Decoder(Opening).decode


class Beginner:
    """Begins sessions.

    Args:
        settings: The longest lease and the longest episode.
        sessions: Where a session that has begun is taken in.
        host: Where it lives.
        ledger: Where it is noted.
        capabilities: What its owner is given.
        matches: The remote seats of the sessions that have some.
        reader: Reads a session's first step again.
        metrics: Counts what began.
    """

    def __init__(
        self,
        settings: ServerSettings,
        sessions: Sessions,
        host: Host,
        ledger: Ledger,
        capabilities: Capabilities,
        matches: Matches,
        reader: Reader,
        metrics: Metrics,
    ) -> None:
        self._settings, self._sessions, self._host, self._ledger = settings, sessions, host, ledger
        self._capabilities, self._matches, self._reader = capabilities, matches, reader
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, request: Create, spec: EnvSpec, caller: Caller) -> Created:
        """Begin a session, or find the one that began with the same key."""
        owner = caller.require("play").name
        future, ours = self._sessions.claim(owner, request.key)
        if ours:
            self._begin(owner, request.key, future, self._new(request, owner))
        return await self._created(request.id, spec, future, caller)

    async def fork(self, request: Fork, parent: Hosted, spec: EnvSpec, caller: Caller) -> Created:
        """Begin a session where another one stood, or find the one that began with the same key.

        Raises:
            UsageError: The parent has no such step.
            UnsupportedError: It is played by remote seats.
        """
        if parent.stored.seats is not None:
            raise UnsupportedError("a session with remote seats cannot be forked")
        last = len(parent.entries) - 1
        at = last if request.at is None else request.at
        if not 0 <= at <= last:
            raise UsageError(f"cannot fork at step {at}; recorded are steps 0 to {last}")
        owner = parent.stored.owner
        future, ours = self._sessions.claim(owner, request.key)
        if ours:
            self._begin(owner, request.key, future, self._branch(parent, request.at, at, request.key))
        return await self._created(request.id, spec, future, caller)

    def cancel(self) -> None:
        """Give up what is beginning: the server stops."""
        for task in self._tasks:
            task.cancel()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self, owner: str, key: str, future: asyncio.Future[str], work: Coroutine[Any, Any, Hosted]) -> None:
        """Do the work in the background, so that it ends even if whoever asked is gone."""
        task = asyncio.create_task(self._run(owner, key, future, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, owner: str, key: str, future: asyncio.Future[str], work: Coroutine[Any, Any, Hosted]) -> None:
        try:
            self._sessions.admit(owner)
        except ArenaError as error:
            work.close()
            self._sessions.release_key(owner, key)
            _fail(future, error)
            return
        try:
            hosted = await work
        except BaseException as error:
            self._sessions.dismiss(owner, key)
            _fail(future, error if isinstance(error, ArenaError) else EnvError(f"it could not begin: {error!r}"))
            if not isinstance(error, ArenaError):
                raise
            return
        self._sessions.add(hosted)
        self._metrics.env(hosted.stored.opening.env).created()
        self._ledger.after(lambda: None if future.done() else future.set_result(hosted.id))

    async def _new(self, request: Create, owner: str) -> Hosted:
        lease_s = self._lease_s(request.lease_s)
        self._check_deadlines(request.seats or {})
        hosted = Hosted(
            Stored(
                id=_new_id(),
                owner=owner,
                key=request.key,
                opening=await self._prepared(request),
                lease_s=lease_s,
                created_at=time.time(),
                seats=request.seats,
            )
        )
        opened = await self._host.begin(hosted)
        for seat in request.seats or {}:
            if seat not in opened.seats:
                await self._host.request(hosted, lambda req: Drop(req, hosted.id))
                self._host.leave(hosted)
                self._ledger.drop(hosted.id)
                raise ConfigError(f"no seat {seat!r}{did_you_mean(seat, opened.seats)}")
        self._matches.open(hosted, opened.record)
        return hosted

    async def _branch(self, parent: Hosted, asked: int | None, at: int, key: str) -> Hosted:
        """Begin a fork at step `at`; or, where none was asked for, after the steps that are under way."""
        stored = msgspec.structs.replace(parent.stored, id=_new_id(), key=key, created_at=time.time(), begin=at)
        hosted = Hosted(stored, parent.entries[: at + 1])
        snapshots = parent.opened is not None and parent.opened.snapshots
        if snapshots and at == len(parent.entries) - 1 and not parent.over and not parent.failure:
            await self._host.branch(parent, hosted, asked)
        else:
            await self._host.begin(hosted, fresh_counts=True)
        return hosted

    async def _prepared(self, request: Create) -> Opening:
        """Return what an episode is played on, its task found and prepared."""
        wall_s, most_s = request.limits.wall_time_s, self._settings.max_wall_time_s
        if wall_s is not None and wall_s > most_s:
            raise UsageError(f"limit wall_time_s is {wall_s:g}; this server allows {most_s:g}")

        def frame(req: int) -> Frame:
            return Prepare(req, request.env, request.options, request.task, request.split, request.seed, request.limits)

        return _decode_opening((await self._host.anywhere(frame)).body)

    def _lease_s(self, asked_s: float | None) -> float:
        most_s = self._settings.max_lease_s
        if asked_s is None:
            return self._settings.lease_s
        if not 0 < asked_s <= most_s:
            raise UsageError(f"lease_s is {asked_s:g}; allowed are more than 0 and at most {most_s:g}")
        return asked_s

    def _check_deadlines(self, seats: Mapping[AgentID, SeatTerms]) -> None:
        most_s = self._settings.max_wall_time_s
        for seat, terms in seats.items():
            if terms.deadline_s is not None and not 0 < terms.deadline_s <= most_s:
                given_s = terms.deadline_s
                raise UsageError(
                    f"deadline_s of seat {seat[:80]!r} is {given_s:g}; allowed are more than 0 and at most {most_s:g}"
                )

    async def _created(self, id: RequestId, spec: EnvSpec, future: asyncio.Future[str], caller: Caller) -> Created:
        hosted = self._sessions.get(await asyncio.shield(future))
        session, stored = hosted.id, hosted.stored
        caller.add(Grant(session, "owner"))
        self._sessions.hold(hosted, caller)
        opened = hosted.opened
        if opened is not None and len(hosted.entries) == stored.begin + 1:
            record = opened.record
        else:
            record = (await self._reader.records(hosted, stored.begin - 1)).records[0]
            opened = hosted.opened
        assert opened is not None  # it has been read
        seats = opened.seats if stored.seats is not None else {}
        return Created(
            id=id,
            session=session,
            capability=self._capabilities.issue(Grant(session, "owner")),
            watch=self._capabilities.issue(Grant(session, "watch")),
            seat_capabilities={seat: self._capabilities.issue(Grant(session, "seat", seat)) for seat in seats},
            env=stored.opening.env,
            spec=spec,
            options=opened.options,
            task=TaskRef(id=stored.opening.task.id, split=stored.opening.task.split),
            seed=stored.opening.seed,
            limits=opened.limits,
            seats=opened.seats,
            record=record,
            lease_s=stored.lease_s,
        )


def _fail(future: asyncio.Future[str], error: ArenaError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # nobody may be waiting


def _new_id() -> str:
    return secrets.token_hex(10)
