"""Hosting: sessions that outlive the processes they run in.

A `Hosted` session is its journal; the `arena.session.Session` in a worker is what can be rebuilt from it. `Host` sends
work to where a session lives, keeps the journal, and when a worker dies has its sessions rebuilt elsewhere before it
sends again what was not answered. The session's own rule, that a recorded step is answered and not taken again, makes
that safe.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import msgspec

from arena.errors import ArenaError, BoundaryError, EnvError, ErrorRecord
from arena.protocol import Reply, Request
from arena.server.frames import MSGPACK, Answer, Branch, Call, Frame, Opened, Rebuild
from arena.server.ledger import Ledger, Standing, Stored
from arena.server.pool import Job, Pool, WorkerProcess
from arena.server.trials import Suspect, Trials
from arena.types import encode_msgpack

__all__ = ["Host", "Hosted", "answer_error", "decode_reply", "settle"]

_log = logging.getLogger(__name__)
_MOST_DEATHS = 4
"""Work that needs no session is given up when this many workers have died at it."""
_decode_opened = msgspec.msgpack.Decoder(Opened).decode
_decode_error = msgspec.msgpack.Decoder(ErrorRecord).decode

decode_reply: Callable[[bytes], Reply] = msgspec.msgpack.Decoder(Reply).decode
"""Decode a worker's MessagePack reply."""

Done: TypeAlias = Callable[[Answer], None]


@dataclass(slots=True, eq=False)
class Hosted:
    """A session of this server.

    Attributes:
        stored: What never changes about it.
        entries: Its journal, each entry as MessagePack.
        standing: What changed without a step.
        state: ``live`` in a worker, ``dormant`` in the journal only, ``reviving`` in between, ``closing``.
        worker: Where it lives.
        opened: What the worker said of it when it came to live there.
        failure: What failed for good.
        over: The episode is over.
        holders: Connections that hold it.
        last_seen: When somebody last asked for it, on the monotonic clock.
        rewarded: Returns by seat, as of the last survey.
        size: Bytes of its journal.
        uncommitted: Entries that the ledger does not hold yet.
        suspect: What is held against it when workers die.
    """

    stored: Stored
    entries: list[bytes] = field(default_factory=list)
    standing: Standing = field(default_factory=Standing)
    state: Literal["live", "reviving", "dormant", "closing"] = "dormant"
    worker: WorkerProcess | None = None
    opened: Opened | None = None
    failure: ArenaError | None = None
    over: bool = False
    holders: int = 0
    last_seen: float = field(default_factory=time.monotonic)
    rewarded: dict[str, float] = field(default_factory=dict)
    size: int = 0
    uncommitted: int = 0
    suspect: Suspect = field(default_factory=Suspect)
    _waiting: list[Job] = field(default_factory=list)
    _news: asyncio.Event | None = None

    @property
    def id(self) -> str:
        """The session's id."""
        return self.stored.id

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change; there is one only where somebody waits."""
        if self._news is None:
            self._news = asyncio.Event()
        return self._news

    def tell(self) -> None:
        """Wake up whoever waits for a change."""
        if self._news is not None:
            self._news.set()
            self._news = None


class Host:
    """Sends work to sessions, and keeps them alive.

    Args:
        pool: The workers.
        ledger: Where journals go.
        revived: Called when a session has been rebuilt.
    """

    def __init__(self, pool: Pool, ledger: Ledger, revived: Callable[[Hosted], None] = lambda hosted: None) -> None:
        self._pool, self._ledger, self._revived = pool, ledger, revived
        self._trials = Trials()

    # -- to the session ---------------------------------------------------------------------------------------------

    def submit(self, hosted: Hosted, frame: Callable[[int], Frame], done: Done) -> None:
        """Send work to a session; `done` gets the answer once the step that it tells of is safe."""
        job = Job(frame, partial(self._answered, hosted, done), partial(self._lost, hosted))
        self._dispatch(hosted, job)

    async def request(self, hosted: Hosted, frame: Callable[[int], Frame]) -> Answer:
        """Send work to a session and return the answer.

        Raises:
            ArenaError: What the answer says.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.submit(hosted, frame, partial(settle, future))
        return _checked(await future)

    async def ask(self, hosted: Hosted, request: Request) -> Reply:
        """Have a session's worker answer what a client asks, and return the reply.

        Raises:
            ArenaError: It was refused or failed.
        """
        body = encode_msgpack(request)
        return decode_reply((await self.request(hosted, lambda req: Call(req, hosted.id, MSGPACK, MSGPACK, body))).body)

    async def anywhere(self, frame: Callable[[int], Frame]) -> Answer:
        """Send work that needs no session to any worker and return the answer; repeated when a worker dies at it.

        Raises:
            ArenaError: What the answer says.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def lost(job: Job, at_work: int) -> None:
            job.deaths += at_work > 0
            if job.deaths >= _MOST_DEATHS:
                settle(future, _failed(EnvError(f"{job.deaths} workers died at this")))
            else:
                self._pool.pick().send(job)

        self._pool.pick().send(Job(frame, partial(settle, future), lost))
        return _checked(await future)

    async def begin(self, hosted: Hosted, *, fresh_counts: bool = False) -> Opened:
        """Begin a new session in some worker, or one that is forked by replay, and note it.

        Raises:
            ArenaError: It could not begin.
        """
        hosted.state = "reviving"
        answer = await self._settled(hosted, fresh_counts)
        self._admit(hosted, answer)
        return self._noted(hosted)

    async def branch(self, parent: Hosted, hosted: Hosted, at: int | None) -> Opened:
        """Fork a session in its own worker.

        Args:
            parent: The session.
            hosted: The fork, with the entries that are known of it.
            at: Index of the step to fork at; where the parent stands once it is this request's turn, if None.

        Raises:
            ArenaError: It could not be forked.
        """
        known = len(hosted.entries)
        answer = await self.request(parent, lambda req: Branch(req, parent.id, hosted.id, at, known))
        if parent.worker is None:
            raise EnvError("the session is gone", retryable=True)
        hosted.worker = parent.worker
        hosted.worker.load += 1
        self._admit(hosted, answer)
        assert hosted.opened is not None
        hosted.stored = msgspec.structs.replace(hosted.stored, begin=hosted.opened.record.index)
        return self._noted(hosted)

    def leave(self, hosted: Hosted) -> None:
        """Note that a session no longer lives in its worker."""
        if hosted.worker is not None:
            hosted.worker.load -= 1
            hosted.worker = None

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _settled(self, hosted: Hosted, fresh_counts: bool) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._ask_to_rebuild(hosted, partial(settle, future), fresh_counts)
        try:
            return _checked(await future)
        finally:
            self._trials.leave(hosted.suspect)

    def _noted(self, hosted: Hosted) -> Opened:
        opened = hosted.opened
        assert opened is not None
        hosted.entries.extend(opened.entries)
        hosted.size = sum(map(len, hosted.entries))
        self._ledger.begin(hosted.stored, hosted.entries)
        return opened

    def _admit(self, hosted: Hosted, answer: Answer) -> None:
        hosted.opened = _decode_opened(answer.body)
        hosted.over = hosted.opened.over
        hosted.state = "live"

    def _dispatch(self, hosted: Hosted, job: Job) -> None:
        worker = hosted.worker
        if hosted.state in ("live", "closing") and worker is not None and worker.alive:
            worker.send(job)
            return
        if hosted.failure is not None:
            job.done(_failed(hosted.failure))
            return
        hosted._waiting.append(job)
        if hosted.state != "reviving":
            self._revive(hosted)

    def _answered(self, hosted: Hosted, done: Done, answer: Answer) -> None:
        hosted.over = hosted.over or answer.over
        if answer.counts is not None or answer.failed:
            self._stand(hosted, answer)
        if answer.entry is not None:
            hosted.suspect.deaths = 0
            hosted.entries.append(answer.entry)
            hosted.size += len(answer.entry)
            if self._ledger.durable:
                hosted.uncommitted += 1
                step = len(hosted.entries) - 1
                self._ledger.append(hosted.id, step, answer.entry, partial(self._committed, hosted, done, answer))
                return
            hosted.tell()
        elif hosted.uncommitted or (answer.counts is not None and self._ledger.durable):
            self._ledger.after(partial(done, answer))
            return
        done(answer)

    def _committed(self, hosted: Hosted, done: Done, answer: Answer) -> None:
        hosted.uncommitted -= 1
        hosted.tell()
        done(answer)

    def _stand(self, hosted: Hosted, answer: Answer) -> None:
        """Note what an answer without a step has changed."""
        failure = _decode_error(answer.body) if answer.failed else hosted.standing.failure
        hosted.standing = Standing(
            answer.counts or hosted.standing.counts, answer.refusals or hosted.standing.refusals, failure
        )
        if answer.failed:
            hosted.failure = answer_error(answer)
        self._ledger.stand(hosted.id, hosted.standing)

    def _lost(self, hosted: Hosted, job: Job, at_work: int) -> None:
        """Put work aside whose worker has died, until the session is rebuilt."""
        if at_work:
            self._suspect(hosted, job, at_work)
        if hosted.suspect.is_guilty:
            self._give_up(hosted, _guilty(hosted))
        self._dispatch(hosted, job)

    def _suspect(self, hosted: Hosted, job: Job, at_work: int) -> None:
        """Note that a worker died at a job; its answer, once there is one, acquits the session."""
        hosted.suspect.blame(at_work)
        if not job.deaths:
            done = job.done

            def acquit(answer: Answer) -> None:
                self._trials.leave(hosted.suspect)
                done(answer)

            job.done = acquit
        job.deaths += 1

    def _give_up(self, hosted: Hosted, error: ArenaError) -> None:
        hosted.failure = error
        self._trials.leave(hosted.suspect)
        hosted.state = "dormant"
        self.leave(hosted)
        hosted.standing = msgspec.structs.replace(hosted.standing, failure=error.record())
        self._ledger.stand(hosted.id, hosted.standing)
        waiting, hosted._waiting = hosted._waiting, []
        for job in waiting:
            job.done(_failed(error))
        hosted.tell()

    def _revive(self, hosted: Hosted) -> None:
        hosted.state = "reviving"
        self.leave(hosted)
        self._ask_to_rebuild(hosted, partial(self._rebuilt, hosted), False)

    def _ask_to_rebuild(self, hosted: Hosted, done: Done, fresh_counts: bool) -> None:
        """Have a session rebuilt; one that is on trial waits for its turn."""
        self._trials.enter(hosted.suspect, partial(self._send_rebuild, hosted, done, fresh_counts))

    def _send_rebuild(self, hosted: Hosted, done: Done, fresh_counts: bool) -> None:
        worker = self._pool.pick()
        worker.load += 1
        hosted.worker = worker
        stored, standing = hosted.stored, hosted.standing

        def frame(req: int) -> Frame:
            return Rebuild(
                req, stored.id, stored.opening, hosted.entries, standing.counts, standing.refusals, fresh_counts
            )

        def lost(job: Job, at_work: int) -> None:
            self.leave(hosted)
            hosted.suspect.blame(at_work)
            if hosted.suspect.is_guilty:
                self._trials.leave(hosted.suspect)
                done(_failed(_guilty(hosted)))
            else:
                self._ask_to_rebuild(hosted, done, fresh_counts)

        def refused(answer: Answer) -> None:
            if answer.code is not None:
                self.leave(hosted)
            done(answer)

        worker.send(Job(frame, refused, lost))

    def _rebuilt(self, hosted: Hosted, answer: Answer) -> None:
        if answer.code is not None:
            error = answer_error(answer)
            _log.warning("the session could not be rebuilt: %s", error, extra={"session": hosted.id})
            self._give_up(hosted, error if isinstance(error, BoundaryError) else EnvError(str(error)))
            return
        self._admit(hosted, answer)
        self._revived(hosted)
        waiting, hosted._waiting = hosted._waiting, []
        if not any(job.deaths for job in waiting):
            self._trials.leave(hosted.suspect)
        for job in waiting:
            self._dispatch(hosted, job)


def answer_error(answer: Answer) -> ArenaError:
    """Return the error that an answer with a code carries."""
    return ArenaError.from_record(_decode_error(answer.body))


def _guilty(hosted: Hosted) -> EnvError:
    return EnvError(f"{hosted.suspect.deaths} workers died at this session's work")


def _failed(error: ArenaError) -> Answer:
    return Answer(0, msgspec.msgpack.encode(error.record()), error.code)


def _checked(answer: Answer) -> Answer:
    if answer.code is not None:
        raise answer_error(answer)
    return answer


def settle(future: asyncio.Future[Answer], answer: Answer) -> None:
    """Give a future its answer, unless whoever waited has gone."""
    if not future.done():
        future.set_result(answer)
