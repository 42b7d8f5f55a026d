"""The hub: the one way to the sessions of the server.

Endpoints turn what they receive into messages of `arena.protocol` and give them to `Hub.ask`, or to `Hub.submit` where
the answer is to leave as bytes. The hub checks who asks and hands on: to how sessions begin, are read and end, or, for
a step, straight to where the session lives.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from arena.env import EnvSpec
from arena.errors import ArenaError, EnvError, UnknownIdError, UnsupportedError, UsageError, did_you_mean
from arena.protocol import (
    Act,
    Attach,
    Close,
    Create,
    Describe,
    EnvironmentList,
    Environments,
    ErrorReply,
    Expert,
    Fork,
    GetTrace,
    Read,
    Reply,
    Request,
    RequestId,
    Step,
    StepItem,
    StepMany,
    SteppedMany,
    Tasks,
    Truncate,
)
from arena.server.access import Caller, Capabilities
from arena.server.beginning import Beginner
from arena.server.ending import Closer
from arena.server.frames import JSON, MSGPACK, Answer, Ask, Call, Format
from arena.server.hosting import Host, Hosted, answer_error, decode_reply
from arena.server.ledger import DurableLedger, Ledger
from arena.server.logs import log_context
from arena.server.matches import Matches
from arena.server.metrics import Metrics
from arena.server.overview import SessionRow, SessionView
from arena.server.pool import Pool
from arena.server.reading import Reader
from arena.server.sessions import Sessions
from arena.server.settings import ServerSettings
from arena.server.watching import Watcher
from arena.types import encode_json, encode_msgpack

__all__ = ["Deliver", "Hub"]

_log = logging.getLogger(__name__)
_TICK_S = 1.0
_COLLECT_AT = 5_000, 10, 10
"""Objects, and collections of the younger generations, after which a generation is searched for garbage."""
_decode_list = msgspec.msgpack.Decoder(EnvironmentList).decode
_decode_many = msgspec.msgpack.Decoder(SteppedMany).decode

Deliver = Callable[[bytes, str | None], None]
"""Takes an encoded reply and, where it is an `ErrorReply`, its code."""


class Hub:
    """Every session of the server. One event loop calls it.

    Args:
        settings: The server's settings.

    Attributes:
        capabilities: Makes and checks capabilities.
        metrics: What is counted.

    Raises:
        ConfigError: The state folder cannot be used.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.envs or ())
        keep = (settings.keep_traces, settings.keep_trace_bytes)
        self._ledger = Ledger(*keep) if settings.state is None else DurableLedger(settings.state, *keep)
        self._pool = Pool(
            settings.workers,
            settings.step_timeout_s,
            imports=settings.imports,
            restarted=lambda: self.metrics.worker_restarted(),
        )
        self._host = Host(self._pool, self._ledger, lambda hosted: self.metrics.session_rebuilt())
        self._sessions = Sessions(settings, self._ledger)
        self._specs: dict[str, EnvSpec] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._compose()

    def _compose(self) -> None:
        """Make the parts; what counts needs the names of the environments first."""
        self.capabilities = Capabilities(self._ledger.key)
        self._reader = Reader(self._sessions, self._host)
        self._matches = Matches(self._host, self._reader)
        self._beginner = Beginner(
            self.settings,
            self._sessions,
            self._host,
            self._ledger,
            self.capabilities,
            self._matches,
            self._reader,
            self.metrics,
        )
        self._closer = Closer(self.settings, self._sessions, self._host, self._ledger, self._matches, self.metrics)
        self._watcher = Watcher(self._sessions, self._ledger, self._reader, self._pool)

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
        self._compose()
        for stored, entries, standing in await self._ledger.open():
            hosted = Hosted(stored, entries, standing)
            hosted.failure = None if standing.failure is None else ArenaError.from_record(standing.failure)
            self._sessions.restore(hosted)
            self.metrics.env(stored.opening.env).restored()
            if stored.seats is not None and not hosted.failure:
                self._spawn(self._resume(hosted))
        self._ticking = asyncio.create_task(self._tick())
        gc.collect()
        gc.freeze()  # what has been imported stays: collecting need not look at it
        gc.set_threshold(*_COLLECT_AT)

    def drain(self) -> None:
        """From now on refuse new sessions, and let nobody wait for news."""
        self._sessions.draining = True
        for hosted in self._sessions:
            hosted.tell()

    async def stop(self) -> None:
        """Let requests in flight finish, close the ledger, and end the workers."""
        self.drain()
        deadline = time.monotonic() + self.settings.drain_s
        while self._pool.pending and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self._matches.close_all()
        self._beginner.cancel()
        self._closer.cancel()
        for task in [*self._tasks, *([self._ticking] if self._ticking else [])]:
            task.cancel()
        await self._pool.stop()
        await self._ledger.close()

    @property
    def ready(self) -> bool:
        """Whether new sessions can begin."""
        return not self._sessions.draining and self._pool.ready

    @property
    def in_flight(self) -> int:
        """Requests that are being worked on."""
        return len(self._tasks) + self._pool.pending

    # -- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, request: Request, caller: Caller) -> Reply:
        """Return the answer to a request.

        Raises:
            ArenaError: The request was refused or failed; an `ErrorReply` is never returned.
        """
        try:
            return await self._answer(request, caller)
        except OverflowError as error:
            raise _too_long(error) from error

    async def _answer(self, request: Request, caller: Caller) -> Reply:
        match request:
            case Step():
                return await self._ask_step(request, caller)
            case StepMany():
                return _decode_many(await self._many(request, caller, MSGPACK))
            case Act():
                return await self._act(request, caller)
            case Read():
                grant = caller.grant(request.session, "owner", "watch", "seat", seat=request.seat)
                return await self._reader.read(request, grant)
            case Create():
                return await self._beginner.create(request, self._spec(request.env), caller)
            case Fork():
                return await self._fork(request, caller)
            case Attach():
                grant = self.capabilities.open(request.capability)
                caller.add(grant)
                return await self._reader.attached(request, grant, self._spec, caller)
            case Close():
                caller.grant(request.session, "owner")
                closed = await self._closer.close(request)
                caller.close(request.session)
                return closed
            case GetTrace():
                caller.grant(request.session, "owner", "watch")
                return await self._reader.trace(request)
            case Truncate():
                caller.grant(request.session, "owner")
                return await self._host.ask(self._sessions.get(request.session), request)
            case Expert():
                caller.require("expert")
                caller.grant(request.session, "owner")
                return await self._host.ask(self._sessions.get(request.session), request)
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
            deliver: Called once.
            body: The request as it came, so that it need not be encoded again.
            body_format: The format of `body`.
            reply_format: The format of the reply.
        """
        if type(request) is not Step:
            self._spawn(self._ask_and_deliver(request, caller, reply_format, deliver))
            return
        try:
            hosted = self._to_step(request.session, caller)
            given = encode_msgpack(request) if body is None else body
        except ArenaError as error:
            self._deliver_error(request.id, error, reply_format, deliver)
            return
        except OverflowError as error:
            self._deliver_error(request.id, _too_long(error), reply_format, deliver)
            return
        self._submit_step(hosted, request.id, given, body_format, reply_format, deliver)

    def release(self, caller: Caller) -> None:
        """Note that a connection is gone; the sessions that it held live on for their leases."""
        self._sessions.release(caller)

    # -- steps ------------------------------------------------------------------------------------------------------

    def _to_step(self, id: str, caller: Caller) -> Hosted:
        """Return the session that is to be stepped, if the caller may and it is not too much."""
        caller.grant(id, "owner")
        hosted = self._sessions.get(id)
        if hosted.stored.seats is not None:
            raise UnsupportedError("this session is played by remote seats: send 'act', not 'step'")
        self._sessions.pace(hosted)
        return hosted

    def _submit_step(
        self,
        hosted: Hosted,
        request_id: RequestId,
        body: bytes,
        body_format: Format,
        reply_format: Format,
        deliver: Deliver,
    ) -> None:
        began = time.perf_counter()

        def done(answer: Answer) -> None:
            if answer.code is None:
                self.metrics.env(hosted.stored.opening.env).step(time.perf_counter() - began)
                deliver(answer.body, None)
            else:
                self._deliver_error(request_id, answer_error(answer), reply_format, deliver)

        id = hosted.stored.id
        self._host.submit(hosted, lambda req: Call(req, id, body_format, reply_format, body), done)

    async def _ask_step(self, request: Step, caller: Caller) -> Reply:
        hosted = self._to_step(request.session, caller)
        began = time.perf_counter()
        reply = await self._host.ask(hosted, request)
        self.metrics.env(hosted.stored.opening.env).step(time.perf_counter() - began)
        return reply

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
            self.submit(_step(item, request.id), caller, partial(take, position), reply_format=format)
        if results:
            await finished
        return _join(request.id, results, format)

    async def _act(self, request: Act, caller: Caller) -> Reply:
        grant = caller.grant(request.session, "seat", "owner", seat=request.seat)
        hosted = self._sessions.get(request.session)
        self._sessions.pace(hosted)
        began = time.perf_counter()
        acted = await self._matches.act(request, hosted, grant)
        self.metrics.env(hosted.stored.opening.env).step(time.perf_counter() - began)
        return acted

    # -- everything else --------------------------------------------------------------------------------------------

    async def _fork(self, request: Fork, caller: Caller) -> Reply:
        caller.grant(request.session, "owner")
        parent = self._sessions.get(request.session)
        return await self._beginner.fork(request, parent, self._spec(parent.stored.opening.env), caller)

    async def _about(self, request: Describe | Tasks) -> Reply:
        self._spec(request.env)
        reply = decode_reply((await self._host.anywhere(lambda req: Ask(req, request))).body)
        return msgspec.structs.replace(reply, id=request.id)

    def _spec(self, env: str) -> EnvSpec:
        spec = self._specs.get(env)
        if spec is None:
            raise UnknownIdError(f"no environment {env[:80]!r} here{did_you_mean(env[:80], self._specs)}")
        return spec

    async def _ask_and_deliver(self, request: Request, caller: Caller, format: Format, deliver: Deliver) -> None:
        principal = None if caller.principal is None else caller.principal.name
        with log_context(principal=principal, session=getattr(request, "session", None), request=request.id):
            await self._deliver_answer(request, caller, format, deliver)

    async def _deliver_answer(self, request: Request, caller: Caller, format: Format, deliver: Deliver) -> None:
        try:
            if type(request) is StepMany:
                reply = await self._many(request, caller, format)
            else:
                answer = await self.ask(request, caller)
                reply = encode_json(answer) if format == JSON else encode_msgpack(answer)
        except ArenaError as error:
            self._deliver_error(request.id, error, format, deliver)
        except Exception as error:  # the boundary: one request must not end a connection
            _log.exception("a %s failed", type(request).__name__)
            self._deliver_error(request.id, EnvError(f"internal error: {type(error).__name__}"), format, deliver)
        else:
            deliver(reply, None)

    def _deliver_error(self, id: RequestId, error: ArenaError, format: Format, deliver: Deliver) -> None:
        self.metrics.refused(error.code)
        reply = ErrorReply(id=id, error=error.record())
        deliver(encode_json(reply) if format == JSON else encode_msgpack(reply), error.code)

    async def _resume(self, hosted: Hosted) -> None:
        """Let a match go on, whose seats have deadlines."""
        try:
            await self._matches.resume(hosted)
        except ArenaError as error:
            _log.warning("the match of session %s cannot go on: %s", hosted.id, error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self._closer.reap(time.monotonic(), time.time())
                await self._watcher.survey()
            except Exception:  # the boundary: the clock must go on
                _log.exception("a tick failed")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- for those who run the server -------------------------------------------------------------------------------

    async def environments(self) -> list[EnvSpec]:
        """Return what each offered environment declares."""
        return list(self._specs.values())

    def overview(self) -> list[SessionRow]:
        """Return the open sessions, the newest first."""
        return self._watcher.overview()

    def finished(self, count: int = 50) -> list[SessionRow]:
        """Return the last closed sessions, the latest first."""
        return self._watcher.finished(count)

    async def view(self, id: str, start: int, stop: int) -> SessionView:
        """Return a window of a session's transcript; see `Watcher.view`."""
        return await self._watcher.view(id, start, stop)


def _too_long(error: OverflowError) -> UsageError:
    return UsageError(f"a number is too long: integers have at most 64 bits ({error})")


def _step(item: StepItem, id: RequestId) -> Step:
    return Step(
        id=id,
        session=item.session,
        index=item.index,
        actions=item.actions,
        usage=item.usage,
        agent_s=item.agent_s,
        decisions=item.decisions,
    )


def _join(id: RequestId, results: list[bytes], format: Format) -> bytes:
    """Return a `SteppedMany` whose results are encoded already."""
    message = {"type": "stepped_many", "id": id, "results": [msgspec.Raw(result) for result in results]}
    return msgspec.json.encode(message) if format == JSON else msgspec.msgpack.encode(message)
