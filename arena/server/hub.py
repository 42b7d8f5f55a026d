"""The hub: every session of the server, and the one way to reach it.

Endpoints turn what they receive into messages of `arena.protocol` and give them to `Hub.ask`, or to `Hub.submit` where
the answer is to leave as bytes. Here it is decided who may do what, what fits in, and how long a session lives; how
it is kept alive is `arena.server.hosting`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from arena.env import EnvSpec
from arena.errors import (
    ArenaError,
    CapacityError,
    ConfigError,
    EnvError,
    ForbiddenError,
    SessionGoneError,
    UnknownIdError,
    UnsupportedError,
    UsageError,
    did_you_mean,
)
from arena.protocol import (
    Act,
    Acted,
    Attach,
    Attached,
    Close,
    Closed,
    Create,
    Created,
    Describe,
    EnvironmentInfo,
    EnvironmentList,
    Environments,
    ErrorReply,
    Expert,
    Fork,
    GetTrace,
    Read,
    Records,
    Reply,
    Request,
    SeatInfo,
    Status,
    Step,
    StepMany,
    SteppedMany,
    TaskPage,
    TaskRef,
    Tasks,
    TraceText,
    Truncate,
)
from arena.recovery import Opening
from arena.server.access import Caller, Capabilities, Grant
from arena.server.frames import (
    JSON,
    MSGPACK,
    Answer,
    Ask,
    Call,
    Drop,
    Dropped,
    Format,
    Frame,
    Prepare,
    Survey,
)
from arena.server.guard import TokenBucket
from arena.server.hosting import Host, Hosted, answer_error
from arena.server.ledger import DurableLedger, Finished, Ledger, Stored
from arena.server.match import Match, seat_view
from arena.server.metrics import Metrics, SessionOutcome
from arena.server.overview import SessionRow, SessionView
from arena.server.pool import Job, Pool
from arena.server.settings import ServerSettings
from arena.trace import EndRecord, EpisodeRecord, StepRecord, read_lines
from arena.types import AgentID, Limit, encode_json, encode_msgpack

__all__ = ["Hub"]

_log = logging.getLogger(__name__)
_TICK_S = 1.0
_SURVEY_FOR_S = 5.0
_LONGEST_WAIT_S = 60.0
_MOST_SESSION_BYTES = 64 * 2**20
_BUSY_S = 1.0
_decode_reply: Callable[[bytes], Reply] = msgspec.msgpack.Decoder(Reply).decode
_decode_list = msgspec.msgpack.Decoder(EnvironmentList).decode
_decode_opening = msgspec.msgpack.Decoder(Opening).decode
_decode_dropped = msgspec.msgpack.Decoder(Dropped).decode
_decode_end = msgspec.msgpack.Decoder(EndRecord).decode
Deliver = Callable[[bytes, str | None], None]


class Hub:
    """Every session of the server. One event loop calls it.

    Args:
        settings: The server's settings.

    Attributes:
        capabilities: Makes and checks capabilities.
        draining: The server is about to stop: nothing new begins.

    Raises:
        ConfigError: The state folder cannot be used.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.draining = False
        self.metrics = Metrics()
        keep = (settings.keep_traces, settings.keep_trace_bytes)
        self._ledger = Ledger(*keep) if settings.state is None else DurableLedger(settings.state, *keep)
        self.capabilities = Capabilities(self._ledger.key)
        self._pool = Pool(
            settings.workers,
            settings.step_timeout_s,
            imports=settings.imports,
            restarted=lambda: self.metrics.worker_restarted(),
        )
        self._host = Host(self._pool, self._ledger, lambda hosted: self.metrics.session_rebuilt())
        self._sessions: dict[str, Hosted] = {}
        self._matches: dict[str, Match] = {}
        self._keys: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._owned: Counter[str] = Counter()
        self._closing: dict[str, asyncio.Task[EndRecord]] = {}
        self._buckets: dict[str, TokenBucket] = {}
        self._specs: dict[str, EnvSpec] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._surveyed_at = 0.0

    # -- the server's life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers, and take over the sessions that the ledger holds.

        Raises:
            UnknownIdError: An environment that is to be offered does not exist.
        """
        await self._pool.start()
        answer = await self._host.anywhere(lambda req: Ask(req, Environments(id=0)))
        specs = {spec.id: spec for spec in _decode_list(answer.body).environments}
        offered = self.settings.envs
        for id in offered or ():
            if id not in specs:
                raise UnknownIdError(f"no environment {id!r}{did_you_mean(id, specs)}")
        self._specs = {id: spec for id, spec in specs.items() if offered is None or id in offered}
        self.metrics = Metrics(self._specs)
        for stored, entries, standing in await self._ledger.open():
            hosted = Hosted(stored, entries, standing)
            hosted.failure = None if standing.failure is None else ArenaError.from_record(standing.failure)
            self._sessions[stored.id] = hosted
            self._owned[stored.owner] += 1
            self._key_future(stored.owner, stored.key).set_result(stored.id)
            self.metrics.env(stored.opening.env).restored()
        self._ticker = asyncio.create_task(self._tick())

    def drain(self) -> None:
        """From now on refuse new sessions, and let nobody wait for news."""
        self.draining = True
        for hosted in self._sessions.values():
            hosted.tell()

    @property
    def in_flight(self) -> int:
        """Requests that are being worked on."""
        return len(self._tasks) + sum(worker.pending for worker in self._pool.workers)

    async def stop(self) -> None:
        """Let requests in flight finish, close the ledger, and end the workers."""
        self.drain()
        deadline = time.monotonic() + self.settings.drain_s
        while any(worker.pending for worker in self._pool.workers) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for match in self._matches.values():
            match.close()
        for task in [*self._tasks, *self._closing.values(), *([self._ticker] if self._ticker else [])]:
            task.cancel()
        await self._pool.stop()
        await self._ledger.close()

    @property
    def ready(self) -> bool:
        """Whether new sessions can begin."""
        return not self.draining and self._pool.ready

    # -- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, request: Request, caller: Caller) -> Reply:
        """Return the answer to a request.

        Raises:
            ArenaError: The request was refused or failed; an `ErrorReply` is never returned.
        """
        match request:
            case Step():
                return await self._ask_session(request, caller, "owner")
            case Truncate() | GetTrace():
                return await self._ask_session(request, caller, "owner", "watch")
            case StepMany():
                return await self._step_many(request, caller)
            case Act():
                return await self._act(request, caller)
            case Read():
                return await self._read(request, caller)
            case Create():
                return await self._create(request, caller)
            case Fork():
                return await self._fork(request, caller)
            case Attach():
                return await self._attach(request, caller)
            case Close():
                return await self._close(request, caller)
            case Expert():
                return await self._expert(request, caller)
            case Environments():
                caller.require("play")
                return EnvironmentList(id=request.id, environments=list(self._specs.values()))
            case Describe() | Tasks():
                caller.require("play")
                return await self._about(request)

    def submit(
        self,
        request: Request,
        caller: Caller,
        deliver: Deliver,
        *,
        body: bytes | None = None,
        body_format: Format = MSGPACK,
        reply_format: Format = MSGPACK,
    ) -> None:
        """Answer a request in bytes.

        Args:
            request: The request.
            caller: Who asks.
            deliver: Called once with the encoded reply and, for an `ErrorReply`, its code.
            body: The request as it came, so that it need not be encoded again.
            body_format: The format of `body`.
            reply_format: The format of the reply.
        """
        if type(request) is Step:
            try:
                hosted = self._to_step(request.session, caller)
            except ArenaError as error:
                self._deliver_error(request.id, error, reply_format, deliver)
                return
            given = encode_msgpack(request) if body is None else body
            self._submit_step(hosted, request, given, body_format, reply_format, deliver)
            return
        self._spawn(self._ask_and_deliver(request, caller, reply_format, deliver))

    def release(self, caller: Caller) -> None:
        """Note that a connection is gone; the sessions that it held live on for their leases."""
        now = time.monotonic()
        for id in caller.held:
            hosted = self._sessions.get(id)
            if hosted is not None:
                hosted.holders -= 1
                hosted.last_seen = now
        caller.held.clear()

    async def environments(self) -> list[EnvSpec]:
        """Return what each offered environment declares."""
        return list(self._specs.values())

    # -- stepping ---------------------------------------------------------------------------------------------------

    def _to_step(self, id: str, caller: Caller) -> Hosted:
        """Return the session that is to be stepped, if the caller may and it is not too much."""
        caller.grant(id, "owner")
        hosted = self._get(id)
        if hosted.stored.seats is not None:
            raise UnsupportedError("this session is played by remote seats: send 'act', not 'step'")
        self._pace(hosted)
        if hosted.size > _MOST_SESSION_BYTES:
            raise CapacityError(f"the session's journal is full ({_MOST_SESSION_BYTES} bytes)", retryable=False)
        return hosted

    def _pace(self, hosted: Hosted) -> None:
        """Refuse what is more than the allowed steps per second.

        Raises:
            CapacityError: It is too much at once.
        """
        settings = self.settings
        for name, rate in (
            (hosted.id, settings.max_steps_per_s),
            ("owner " + hosted.stored.owner, settings.max_token_steps_per_s),
        ):
            if rate:
                bucket = self._buckets.get(name)
                if bucket is None:
                    bucket = self._buckets[name] = TokenBucket(rate, max(1.0, rate))
                retry_after_s = bucket.take(1)
                if retry_after_s:
                    raise CapacityError(f"more than {rate:g} steps per second", retry_after_s=retry_after_s)

    def _submit_step(
        self,
        hosted: Hosted,
        request: Step,
        body: bytes,
        body_format: Format,
        reply_format: Format,
        deliver: Deliver,
    ) -> None:
        began = time.perf_counter()
        metrics = self.metrics.env(hosted.stored.opening.env)

        def done(answer: Answer) -> None:
            if answer.code is None:
                metrics.step(time.perf_counter() - began)
                deliver(answer.body, None)
            else:
                self._deliver_error(request.id, answer_error(answer), reply_format, deliver)

        id = hosted.id
        self._host.submit(hosted, lambda req: Call(req, id, body_format, reply_format, body), done)

    def _deliver_error(self, id: Any, error: ArenaError, format: Format, deliver: Deliver) -> None:
        self.metrics.refused(error.code)
        reply = ErrorReply(id=id, error=error.record())
        deliver(encode_json(reply) if format == JSON else encode_msgpack(reply), error.code)

    async def _ask_and_deliver(self, request: Request, caller: Caller, format: Format, deliver: Deliver) -> None:
        if type(request) is StepMany:
            deliver(await self._many(request, caller, format), None)
            return
        try:
            reply = await self.ask(request, caller)
        except ArenaError as error:
            self._deliver_error(request.id, error, format, deliver)
        except Exception as error:  # the boundary: one request must not end a connection
            _log.exception("a %s failed", type(request).__name__)
            self._deliver_error(request.id, EnvError(f"internal error: {type(error).__name__}"), format, deliver)
        else:
            deliver(encode_json(reply) if format == JSON else encode_msgpack(reply), None)

    async def _many(self, request: StepMany, caller: Caller, format: Format) -> bytes:
        """Return the encoded answers to a batch, as a `SteppedMany`."""
        results: list[bytes] = [b""] * len(request.steps)
        left = len(results)
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(position: int, body: bytes, code: str | None) -> None:
            nonlocal left
            results[position] = body
            left -= 1
            if left == 0 and not finished.done():
                finished.set_result(None)

        for position, item in enumerate(request.steps):
            step = Step(
                id=request.id,
                session=item.session,
                index=item.index,
                actions=item.actions,
                usage=item.usage,
                agent_s=item.agent_s,
                decisions=item.decisions,
            )
            self.submit(step, caller, partial(take, position), reply_format=format)
        if results:
            await finished
        return _join(request.id, results, format)

    async def _step_many(self, request: StepMany, caller: Caller) -> Reply:
        many: SteppedMany = msgspec.msgpack.decode(await self._many(request, caller, MSGPACK), type=SteppedMany)
        return many

    async def _act(self, request: Act, caller: Caller) -> Acted:
        grant = caller.grant(request.session, "seat", "owner", seat=request.seat)
        hosted = self._get(request.session)
        if hosted.stored.seats is None:
            raise UnsupportedError("this session has no remote seats: send 'step', not 'act'")
        self._pace(hosted)
        played = await self._match(hosted)
        seat = _seat_of(grant, request.seat, hosted)
        began = time.perf_counter()
        record = await played.act(seat, request.index, request.action)
        self.metrics.env(hosted.stored.opening.env).step(time.perf_counter() - began)
        return Acted(id=request.id, session=hosted.id, record=record)

    async def _match(self, hosted: Hosted) -> Match:
        """Return the match of a session with remote seats; made anew after a restart."""
        found = self._matches.get(hosted.id)
        if found is None:
            records = await self._records(hosted, len(hosted.entries) - 2)
            found = self._matches.get(hosted.id)
        if found is None:
            found = self._matches[hosted.id] = Match(self._host, hosted, hosted.stored.seats or {}, records.records[-1])
        return found

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _ask_session(self, request: Step | Truncate | GetTrace, caller: Caller, *roles: Any) -> Reply:
        """Send a request to its session's worker as it is."""
        if isinstance(request, GetTrace):
            caller.grant(request.session, *roles)
            kept = self._ledger.finished(request.session)
            if kept is not None:
                return TraceText(id=request.id, session=request.session, lines=kept.trace().decode())
            hosted = self._get(request.session)
        elif isinstance(request, Truncate):
            caller.grant(request.session, "owner")
            hosted = self._get(request.session)
        else:
            hosted = self._to_step(request.session, caller)
        answer = await self._host.request(hosted, _call(hosted.id, request))
        return _decode_reply(answer.body)

    async def _read(self, request: Read, caller: Caller) -> Records:
        grant = caller.grant(request.session, "owner", "watch", "seat", seat=request.seat)
        hosted = self._sessions.get(request.session)
        if hosted is None:
            return self._read_finished(request, grant)
        hosted.last_seen = time.monotonic()
        await self._wait_for_news(hosted, request)
        if request.session not in self._sessions:
            return self._read_finished(request, grant)
        return _as_seen(await self._records(hosted, request.after), grant, request)

    def _read_finished(self, request: Read, grant: Grant) -> Records:
        kept = self._finished(request.session)
        episode = read_lines(kept.trace())
        first = max(0, request.after + 1)
        records = Records(
            session=request.session,
            status="closed",
            next=len(episode.steps),
            records=episode.steps[first : first + 256],
            end=_decode_end(kept.end),
        )
        return _as_seen(records, grant, request)

    async def _wait_for_news(self, hosted: Hosted, request: Read) -> None:
        wait_s = min(request.wait_s, _LONGEST_WAIT_S)
        deadline = time.monotonic() + wait_s
        while wait_s > 0 and not self._has_news(hosted, request.after):
            with suppress(TimeoutError):
                await asyncio.wait_for(hosted.changed.wait(), wait_s)
            wait_s = deadline - time.monotonic()

    def _has_news(self, hosted: Hosted, after: int) -> bool:
        if self.draining or hosted.over or hosted.failure or hosted.id not in self._sessions:
            return True
        return len(hosted.entries) - hosted.uncommitted > after + 1

    async def _records(self, hosted: Hosted, after: int) -> Records:
        read = Read(id=0, session=hosted.id, after=after)
        reply = _decode_reply((await self._host.request(hosted, _call(hosted.id, read))).body)
        assert isinstance(reply, Records)
        return reply

    async def _expert(self, request: Expert, caller: Caller) -> Reply:
        principal = caller.require("expert")
        caller.grant(request.session, "owner")
        hosted = self._get(request.session)
        _log.debug("expert for %s asked by %s", request.session, principal.name)
        return _decode_reply((await self._host.request(hosted, _call(hosted.id, request))).body)

    async def _about(self, request: Describe | Tasks) -> Reply:
        self._spec(request.env)
        answer = await self._host.anywhere(lambda req: Ask(req, request))
        reply = _decode_reply(answer.body)
        assert isinstance(reply, EnvironmentInfo | TaskPage)
        return msgspec.structs.replace(reply, id=request.id)

    async def _attach(self, request: Attach, caller: Caller) -> Attached:
        grant = self.capabilities.open(request.capability)
        caller.add(grant)
        hosted = self._sessions.get(grant.session)
        if hosted is None:
            kept = self._finished(grant.session)
            return Attached(
                id=request.id,
                session=grant.session,
                role=grant.role,
                seat=grant.seat,
                env=kept.stored.opening.env,
                spec=self._spec(kept.stored.opening.env),
                status="closed",
                next=kept.steps + 1,
                seats={},
            )
        self._hold(hosted, caller)
        records = await self._records(hosted, len(hosted.entries) - 1)
        stored, opened = hosted.stored, hosted.opened
        seats = {} if opened is None else opened.seats
        attached = Attached(
            id=request.id,
            session=hosted.id,
            role=grant.role,
            seat=grant.seat,
            env=stored.opening.env,
            spec=self._spec(stored.opening.env),
            status=records.status,
            next=records.next,
            acting=records.acting,
            seats=seats if grant.seat is None else {grant.seat: seats[grant.seat]},
        )
        if grant.role != "owner":
            return attached
        return msgspec.structs.replace(
            attached,
            options=stored.opening.options,
            task=TaskRef(id=stored.opening.task.id, split=stored.opening.task.split),
            seed=stored.opening.seed,
            limits=stored.opening.limits,
            lease_s=stored.lease_s,
        )

    # -- beginning --------------------------------------------------------------------------------------------------

    async def _create(self, request: Create, caller: Caller) -> Created:
        principal = caller.require("play")
        future, ours = self._claim_key(principal.name, request.key)
        if ours:
            self._spawn(self._begin(request, principal.name, future))
        return await self._created(request.id, future, caller)

    async def _begin(self, request: Create, owner: str, future: asyncio.Future[str]) -> None:
        """Begin a session; the future gets its id or what went wrong."""
        try:
            self._spec(request.env)
            self._admit(owner)
            try:
                opening = await self._prepared(request)
                hosted = self._new(request, owner, opening)
                await self._host.begin(hosted)
                self._check_seats(hosted)
            except BaseException:
                self._owned[owner] -= 1
                raise
            self._take_in(hosted, future)
        except BaseException as error:
            self._keys.pop((owner, request.key), None)
            future.set_exception(error if isinstance(error, ArenaError) else EnvError(f"{type(error).__name__}"))
            future.exception()
            if not isinstance(error, ArenaError):
                raise

    async def _fork(self, request: Fork, caller: Caller) -> Created:
        caller.grant(request.session, "owner")
        parent = self._get(request.session)
        if parent.stored.seats is not None:
            raise UnsupportedError("a session with remote seats cannot be forked")
        last = len(parent.entries) - 1
        at = last if request.at is None else request.at
        if not 0 <= at <= last:
            raise UsageError(f"cannot fork at step {at}; recorded are steps 0 to {last}")
        owner = parent.stored.owner
        future, ours = self._claim_key(owner, request.key)
        if ours:
            self._spawn(self._branch(parent, at, request.key, future))
        return await self._created(request.id, future, caller)

    async def _branch(self, parent: Hosted, at: int, key: str, future: asyncio.Future[str]) -> None:
        owner = parent.stored.owner
        try:
            self._admit(owner)
            try:
                stored = msgspec.structs.replace(parent.stored, id=_new_id(), key=key, created_at=time.time(), begin=at)
                hosted = Hosted(stored, parent.entries[: at + 1])
                snapshots = parent.opened is not None and parent.opened.snapshots
                if snapshots and at == len(parent.entries) - 1 and not parent.over:
                    await self._host.branch(parent, hosted)
                else:
                    await self._host.begin(hosted, fresh_counts=True)
            except BaseException:
                self._owned[owner] -= 1
                raise
            self._take_in(hosted, future)
        except BaseException as error:
            self._keys.pop((owner, key), None)
            future.set_exception(error if isinstance(error, ArenaError) else EnvError(f"{type(error).__name__}"))
            future.exception()
            if not isinstance(error, ArenaError):
                raise

    def _new(self, request: Create, owner: str, opening: Opening) -> Hosted:
        return Hosted(
            Stored(
                id=_new_id(),
                owner=owner,
                key=request.key,
                opening=opening,
                lease_s=self._lease(request.lease_s),
                created_at=time.time(),
                seats=request.seats,
            )
        )

    def _take_in(self, hosted: Hosted, future: asyncio.Future[str]) -> None:
        """Make a session that has begun known."""
        self._sessions[hosted.id] = hosted
        env = hosted.stored.opening.env
        self.metrics.env(env).created()
        if hosted.stored.seats is not None and hosted.opened is not None:
            self._matches[hosted.id] = Match(self._host, hosted, hosted.stored.seats, hosted.opened.record)
        self._ledger.after(lambda: None if future.done() else future.set_result(hosted.id))

    def _admit(self, owner: str) -> None:
        """Count a session that is about to begin.

        Raises:
            CapacityError: There are too many.
        """
        settings = self.settings
        if self.draining:
            raise CapacityError("the server is stopping", retry_after_s=_BUSY_S)
        if self._owned.total() >= settings.max_sessions:
            raise CapacityError(
                f"the server holds {settings.max_sessions} sessions, the most it may",
                retry_after_s=_BUSY_S,
                active_sessions=len(self._sessions),
                max_sessions=settings.max_sessions,
            )
        if self._owned[owner] >= settings.max_sessions_per_token:
            raise CapacityError(
                f"{owner!r} holds {settings.max_sessions_per_token} sessions, the most it may",
                retry_after_s=_BUSY_S,
                active_sessions=self._owned[owner],
                max_sessions=settings.max_sessions_per_token,
            )
        self._owned[owner] += 1

    async def _prepared(self, request: Create) -> Opening:
        """Return what an episode is played on, its task found and prepared."""
        wall_s = request.limits.wall_time_s
        if wall_s is not None and wall_s > self.settings.max_wall_time_s:
            raise UsageError(f"limit wall_time_s is {wall_s:g}; this server allows {self.settings.max_wall_time_s:g}")

        def frame(req: int) -> Frame:
            return Prepare(req, request.env, request.options, request.task, request.split, request.seed, request.limits)

        return _decode_opening((await self._host.anywhere(frame)).body)

    def _check_seats(self, hosted: Hosted) -> None:
        """Refuse terms for seats that the environment does not have, and give every other seat the usual ones."""
        terms, opened = hosted.stored.seats, hosted.opened
        assert opened is not None
        for seat in terms or {}:
            if seat not in opened.seats:
                self._spawn(self._host.request(hosted, lambda req: Drop(req, hosted.id)))
                self._host.leave(hosted)
                raise ConfigError(f"no seat {seat!r}{did_you_mean(seat, opened.seats)}")

    async def _created(self, id: Any, future: asyncio.Future[str], caller: Caller) -> Created:
        session = await asyncio.shield(future)
        hosted = self._get(session)
        caller.add(Grant(session, "owner"))
        self._hold(hosted, caller)
        stored, opened = hosted.stored, hosted.opened
        if opened is None or len(hosted.entries) != stored.begin + 1:
            record = (await self._records(hosted, stored.begin - 1)).records[0]
            opened = hosted.opened
        else:
            record = opened.record
        assert opened is not None
        return Created(
            id=id,
            session=session,
            capability=self.capabilities.issue(Grant(session, "owner")),
            watch=self.capabilities.issue(Grant(session, "watch")),
            seat_capabilities={
                seat: self.capabilities.issue(Grant(session, "seat", seat))
                for seat in (opened.seats if stored.seats is not None else ())
            },
            env=stored.opening.env,
            spec=self._spec(stored.opening.env),
            options=opened.options,
            task=TaskRef(id=stored.opening.task.id, split=stored.opening.task.split),
            seed=stored.opening.seed,
            limits=opened.limits,
            seats=opened.seats,
            record=record,
            lease_s=stored.lease_s,
        )

    def _claim_key(self, owner: str, key: str) -> tuple[asyncio.Future[str], bool]:
        """Return the future session of a key, and whether it is for the caller to begin it."""
        if not 8 <= len(key) <= 200:
            raise UsageError("a key is 8 to 200 characters, such as a UUID")
        known = self._keys.get((owner, key))
        return (known, False) if known is not None else (self._key_future(owner, key), True)

    def _key_future(self, owner: str, key: str) -> asyncio.Future[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._keys[owner, key] = future
        return future

    def _lease(self, asked_s: float | None) -> float:
        settings = self.settings
        if asked_s is None:
            return settings.lease_s
        if not 0 < asked_s <= settings.max_lease_s:
            raise UsageError(f"lease_s is {asked_s:g}; allowed are more than 0 and at most {settings.max_lease_s:g}")
        return asked_s

    # -- ending -----------------------------------------------------------------------------------------------------

    async def _close(self, request: Close, caller: Caller) -> Closed:
        caller.grant(request.session, "owner")
        hosted = self._sessions.get(request.session)
        if hosted is None:
            end = _decode_end(self._finished(request.session).end)
        else:
            why = None if request.error is None else request.error.message
            end = await asyncio.shield(self._end(hosted, why))
        return Closed(id=request.id, session=request.session, end=end)

    def _end(self, hosted: Hosted, why: str | None) -> asyncio.Task[EndRecord]:
        """Close a session, once."""
        task = self._closing.get(hosted.id)
        if task is None:
            task = self._closing[hosted.id] = asyncio.create_task(self._finish(hosted, why))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _finish(self, hosted: Hosted, why: str | None) -> EndRecord:
        id, stored = hosted.id, hosted.stored
        if (played := self._matches.pop(id, None)) is not None:
            played.close()
        try:
            answer = await self._host.request(hosted, lambda req: Drop(req, id, why))
            dropped = _decode_dropped(answer.body)
            end, lines = _decode_end(dropped.end), dropped.lines
        except ArenaError as error:  # it could not even be rebuilt
            failure = hosted.failure or error
            end = EndRecord(outcome="failed", steps=max(0, len(hosted.entries) - 1), error=failure.record())
            lines = _header(stored) + encode_json(end) + b"\n"
        self._host.leave(hosted)
        finished = Finished(
            stored, time.time(), encode_msgpack(end), Finished.compress(lines), dict(end.returns), end.steps
        )
        self._ledger.finish(finished)
        self._forget(hosted)
        self.metrics.env(stored.opening.env).ended(_outcome(end, why))
        hosted.tell()
        if self._ledger.durable:
            safe = asyncio.get_running_loop().create_future()
            self._ledger.after(lambda: None if safe.done() else safe.set_result(None))
            await safe
        return end

    def _forget(self, hosted: Hosted) -> None:
        stored = hosted.stored
        self._sessions.pop(hosted.id, None)
        self._keys.pop((stored.owner, stored.key), None)
        self._closing.pop(hosted.id, None)
        self._buckets.pop(hosted.id, None)
        self._owned[stored.owner] -= 1
        if not self._owned[stored.owner]:
            del self._owned[stored.owner]
            self._buckets.pop("owner " + stored.owner, None)

    # -- time -------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self._reap(time.monotonic(), time.time())
                if time.monotonic() - self._surveyed_at < _SURVEY_FOR_S:
                    await self._survey()
            except Exception:  # the boundary: the clock must go on
                _log.exception("a tick failed")

    def _reap(self, now: float, unix: float) -> None:
        """End sessions that nobody holds any more, that nobody uses, or that have lasted too long."""
        settings = self.settings
        for hosted in list(self._sessions.values()):
            unseen_s = now - hosted.last_seen
            stored = hosted.stored
            if hosted.id in self._closing:
                continue
            if hosted.holders <= 0 and unseen_s > stored.lease_s:
                why = f"nobody came back for {stored.lease_s:g} s"
            elif unseen_s > max(settings.idle_s, stored.lease_s):
                why = f"it was idle for {unseen_s:.0f} s"
            elif unix - stored.created_at > settings.max_wall_time_s and not hosted.over:
                self._spawn(self._stop_the_clock(hosted))
                continue
            else:
                continue
            _log.info("session %s is reaped: %s", hosted.id, why)
            self._end(hosted, f"the session was reaped: {why}")

    async def _stop_the_clock(self, hosted: Hosted) -> None:
        """Truncate a session that has lasted as long as the server allows."""
        allowed = self.settings.max_wall_time_s
        truncate = Truncate(
            id=0, session=hosted.id, index=len(hosted.entries), limit=Limit("wall_time", allowed, allowed)
        )
        with suppress(ArenaError):
            await self._host.request(hosted, _call(hosted.id, truncate))

    async def _survey(self) -> None:
        for worker in list(self._pool.workers):
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            worker.send(_survey_job(future))
            answer = await future
            if answer.code is None:
                for id, returns in msgspec.msgpack.decode(answer.body).items():
                    if id in self._sessions:
                        self._sessions[id].rewarded = returns

    # -- for the pages ----------------------------------------------------------------------------------------------

    def overview(self) -> list[SessionRow]:
        """Return the live sessions, the newest first; returns are at most a second or two old."""
        self._surveyed_at = time.monotonic()
        return [self._row(hosted) for hosted in reversed(self._sessions.values())]

    def finished(self, count: int = 50) -> list[SessionRow]:
        """Return the last closed sessions, the latest first."""
        return [_finished_row(finished) for finished in self._ledger.recent(count)]

    async def view(self, id: str, start: int, stop: int) -> SessionView:
        """Return a window of a session's transcript, live or closed.

        Raises:
            UnknownIdError: There is no such session, or it is no longer kept.
        """
        hosted = self._sessions.get(id)
        if hosted is not None:
            return await self._live_view(hosted, start, stop)
        kept = self._ledger.finished(id)
        if kept is None:
            raise UnknownIdError(f"no session {id[:80]!r}, or it is no longer kept")
        episode = read_lines(kept.trace())
        return SessionView(
            row=_finished_row(kept),
            header=_without_data(episode.record),
            seats={},
            records=episode.steps[start:stop],
            total=len(episode.steps),
            end=episode.end,
        )

    async def _live_view(self, hosted: Hosted, start: int, stop: int) -> SessionView:
        records: list[StepRecord] = []
        end = None
        try:
            while start + len(records) < min(stop, len(hosted.entries)):
                found = await self._records(hosted, start + len(records) - 1)
                end = found.end
                if not found.records:
                    break
                records += found.records
            if not records:
                end = (await self._records(hosted, len(hosted.entries))).end
        except ArenaError as error:
            _log.info("session %s cannot be read: %s", hosted.id, error)
        return SessionView(
            row=self._row(hosted),
            header=_without_data(_episode_record(hosted.stored)),
            seats={} if hosted.opened is None else hosted.opened.seats,
            records=records[: max(0, stop - start)],
            total=len(hosted.entries),
            end=end,
        )

    def _row(self, hosted: Hosted) -> SessionRow:
        status: Status = "failed" if hosted.failure else "over" if hosted.over else "running"
        stored = hosted.stored
        opening = stored.opening
        return SessionRow(
            id=hosted.id,
            env=opening.env,
            task=opening.task.id,
            split=opening.task.split,
            seed=opening.seed,
            owner=stored.owner,
            status=status,
            steps=max(0, len(hosted.entries) - 1),
            returns=hosted.rewarded,
            created_at=stored.created_at,
            worker=None if hosted.worker is None else hosted.worker.number,
            error=None if hosted.failure is None else hosted.failure.record(),
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    def _get(self, id: str) -> Hosted:
        hosted = self._sessions.get(id)
        if hosted is None:
            gone = self._ledger.finished(id) is not None
            raise SessionGoneError("the session is closed" if gone else "the session is no longer here")
        hosted.last_seen = time.monotonic()
        return hosted

    def _finished(self, id: str) -> Finished:
        kept = self._ledger.finished(id)
        if kept is None:
            raise SessionGoneError("the session is no longer here")
        return kept

    def _hold(self, hosted: Hosted, caller: Caller) -> None:
        if hosted.id not in caller.held:
            caller.held.add(hosted.id)
            hosted.holders += 1
        hosted.last_seen = time.monotonic()

    def _spec(self, env: str) -> EnvSpec:
        spec = self._specs.get(env)
        if spec is None:
            raise UnknownIdError(f"no environment {env[:80]!r} here{did_you_mean(env[:80], self._specs)}")
        return spec

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _outcome(end: EndRecord, why: str | None) -> SessionOutcome:
    if end.error is None:
        return "over"
    if end.error.code != "AGENT":
        return "failed"
    return "expired" if why is not None and "was reaped" in why else "abandoned"


def _new_id() -> str:
    return secrets.token_urlsafe(12).replace("-", "x").replace("_", "y")


def _call(id: str, request: Request) -> Callable[[int], Frame]:
    body = encode_msgpack(request)
    return lambda req: Call(req, id, MSGPACK, MSGPACK, body)


def _seat_of(grant: Grant, asked: AgentID | None, hosted: Hosted) -> AgentID:
    """Return the seat that acts: the grant's own, or, for the owner, the one that is named."""
    seat = grant.seat if grant.seat is not None else asked
    if seat is None:
        raise UsageError("name the seat that acts")
    if asked is not None and asked != seat:
        raise ForbiddenError(f"this capability is for seat {seat!r}")
    seats: dict[AgentID, SeatInfo] = {} if hosted.opened is None else hosted.opened.seats
    if seats and seat not in seats:
        raise UnknownIdError(f"no seat {seat!r}{did_you_mean(seat, seats)}")
    return seat


def _as_seen(records: Records, grant: Grant, request: Read) -> Records:
    """Return what the holder of a grant may see of some steps."""
    seat = grant.seat if grant.seat is not None else request.seat
    if seat is None:
        return msgspec.structs.replace(records, id=request.id)
    views = [seat_view(record, seat) for record in records.records]
    return msgspec.structs.replace(records, id=request.id, records=[], seat_records=views, end=None)


def _join(id: Any, results: list[bytes], format: Format) -> bytes:
    """Return a `SteppedMany` whose results are encoded already."""
    raws = [msgspec.Raw(result) for result in results]
    message = {"type": "stepped_many", "id": id, "results": raws}
    return msgspec.json.encode(message) if format == JSON else msgspec.msgpack.encode(message)


def _survey_job(future: asyncio.Future[Answer]) -> Job:
    def settle(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    return Job(lambda req: Survey(req), settle, lambda job, at_work: settle(Answer(0, code="LOST")))


def _episode_record(stored: Stored) -> EpisodeRecord:
    opening = stored.opening
    return EpisodeRecord(
        episode=stored.id,
        env=opening.env,
        options=opening.options,
        task=opening.task,
        seed=opening.seed,
        limits=opening.limits,
    )


def _without_data(record: EpisodeRecord) -> EpisodeRecord:
    return msgspec.structs.replace(record, task=msgspec.structs.replace(record.task, data={}))


def _header(stored: Stored) -> bytes:
    return encode_json(_episode_record(stored)) + b"\n"


def _finished_row(finished: Finished) -> SessionRow:
    stored, end = finished.stored, _decode_end(finished.end)
    opening = stored.opening
    return SessionRow(
        id=stored.id,
        env=opening.env,
        task=opening.task.id,
        split=opening.task.split,
        seed=opening.seed,
        owner=stored.owner,
        status="failed" if end.error is not None else "closed",
        steps=finished.steps,
        returns=finished.returns,
        created_at=stored.created_at,
        ended_at=finished.ended_at,
        score=end.score,
        error=end.error,
    )
