"""A session that lives in a worker: what is asked of it, and what it answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import msgspec

from arena.errors import (
    AgentError,
    ArenaError,
    BoundaryError,
    ErrorRecord,
    InvalidActionError,
    OutOfOrderError,
    UnsupportedError,
)
from arena.extras import versions
from arena.protocol import (
    Expert,
    ExpertAction,
    GetTrace,
    Read,
    Records,
    Reply,
    Request,
    Status,
    Step,
    Stepped,
    TraceText,
    Truncate,
)
from arena.recovery import Opening, entry_of
from arena.sampling import ActionSampler
from arena.seeding import stream
from arena.server.catalog import seat_info
from arena.server.frames import JSON, Answer, Call, Check, Default, Drop, Dropped, Format, Opened, Refusal, failure
from arena.server.keepable import check_keepable
from arena.session import Session
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord, StepRecord
from arena.types import AgentID, decode_msgpack, encode_json, encode_msgpack

__all__ = ["Resident", "request_of"]

_MOST_RECORDS = 256
"""Steps in one answer to `Read`."""
_MOST_REFUSALS = 8
"""Refusals of one step whose repeats are known."""

_encode_entry = msgspec.msgpack.Encoder().encode
_json_request: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
_msgpack_request: Callable[[bytes], Request] = msgspec.msgpack.Decoder(Request).decode


def request_of(call: Call) -> Request:
    """Return what a client asks."""
    return (_json_request if call.body_format == JSON else _msgpack_request)(call.body)


class _Standing(NamedTuple):
    """How a session stands between two of the things that are asked of it."""

    status: Status
    steps: int
    acting: tuple[AgentID, ...]
    end: EndRecord | None


class Resident:
    """A session of this worker.

    Args:
        session: The session.
        opening: What it is played on.
        refusals: The latest ones.

    Attributes:
        session: The session.
        opening: What it is played on.
        refusals: The latest ones.
        last_words: The answer to whoever closes it, once it is about to be closed.
    """

    __slots__ = ("_deserted", "_end", "_returns", "_shown", "_surveyed", "last_words", "opening", "refusals", "session")

    def __init__(self, session: Session, opening: Opening, refusals: list[Refusal]) -> None:
        self.session, self.opening, self.refusals = session, opening, refusals
        self.last_words: Answer | None = None
        self._end: EndRecord | None = None
        self._returns: dict[AgentID, float] = {}
        self._surveyed = 0
        self._shown: _Standing | None = None
        self._deserted = False

    def opened(self, known: int) -> Opened:
        """Return what is to be known of the session; entries from `known` on are told."""
        session = self.session
        return Opened(
            record=session.journal[-1],
            seats={agent: seat_info(session.env, agent) for agent in session.env.possible_agents},
            options=session.env.options.model_dump(mode="json"),
            limits=session.limits,
            entries=[_entry(session, record) for record in session.journal[known:]],
            over=self._is_over(),
            snapshots=session.env.spec.snapshots,
        )

    def returns(self) -> dict[AgentID, float]:
        """Return the sum of each seat's rewards so far; one thread asks."""
        journal, returns = self.session.journal, self._returns
        for record in journal[self._surveyed :]:
            for agent, step in record.time_step.seats.items():
                returns[agent] = returns.get(agent, 0.0) + step.reward
            self._surveyed += 1
        return returns

    # -- what is asked ----------------------------------------------------------------------------------------------

    def call(self, call: Call) -> Answer:
        """Do what a client asks."""
        request = request_of(call)
        session = self.session
        if isinstance(request, Step | Truncate):
            check_keepable(request, call.body if call.body_format == JSON else b"")
            return self._advance(call, request, len(session.journal))
        reply: Reply
        match request:
            case Read():
                return self.read(call, request)
            case Expert():
                reply = ExpertAction(id=request.id, action=session.expert_action(request.seat, request.kind))
            case GetTrace():
                lines = self._episode(call.session, session.end()).lines().decode()
                reply = TraceText(id=request.id, session=call.session, lines=lines)
            case _:
                raise UnsupportedError(f"a worker does not answer {type(request).__name__}")
        return Answer(call.req, _encoded(reply, call.reply_format))

    def read(self, call: Call, request: Read) -> Answer:
        """Return steps; of a session that is driven on another thread, those that have been answered."""
        standing = self._shown or self._standing()
        first = max(0, request.after + 1)
        records = Records(
            id=request.id,
            session=request.session,
            status=standing.status,
            next=standing.steps,
            acting=standing.acting,
            records=self.session.journal[first : min(first + _MOST_RECORDS, standing.steps)],
            end=standing.end,
        )
        return Answer(call.req, _encoded(records, call.reply_format))

    def check(self, frame: Check) -> Answer:
        """Check a seat's action."""
        known = len(self.session.journal)
        try:
            self.session.check(frame.seat, frame.action)
        except InvalidActionError as error:
            return self._refused(frame.req, error, known)
        return Answer(frame.req)

    def default(self, frame: Default) -> Answer:
        """Draw a seat's default action."""
        session = self.session
        step = session.journal[-1].time_step.seats[frame.seat]
        rng = stream(session.seed, f"default:{frame.seat}:{len(session.journal)}")
        return Answer(frame.req, encode_msgpack(ActionSampler(session.seats[frame.seat], rng).sample(step)))

    def drop(self, frame: Drop) -> Answer:
        """End the session and close it."""
        session = self.session
        session.spend(frame.usage)
        if session.status == "running":
            session.fail(_failure_of(frame.error))
        end = msgspec.structs.replace(self._end or session.end(), usage=session.usage)
        lines = self._episode(frame.session, end).lines()
        self.last_words = Answer(frame.req, encode_msgpack(Dropped(encode_msgpack(end), lines)))
        self.close()
        return self.last_words

    def close(self) -> None:
        """Close the session, unless its environment was left to a call that does not return."""
        if not self._deserted:
            self.session.close()

    # -- between two threads ----------------------------------------------------------------------------------------

    def show(self) -> None:
        """Let readers on another thread see how the session stands now, until it is shown again."""
        self._shown = self._standing()

    def desert(self, error: BoundaryError) -> Session:
        """Go on without the environment, which does not return from a call: the session fails as it was last shown.

        Returns:
            What is left to that call; whoever made it closes it.
        """
        left, shown = self.session, self._shown or self._standing()
        self.session = copy.copy(left)
        self.session.journal = left.journal[: shown.steps]
        self.session.fail(error)
        self._deserted = True
        self.show()
        return left

    # -- inside -----------------------------------------------------------------------------------------------------

    def _standing(self) -> _Standing:
        session = self.session
        status: Status = "running" if session.status == "new" else session.status
        return _Standing(status, len(session.journal), session.acting, self._end)

    def _is_over(self) -> bool:
        """Return whether the episode is over; then its verdict is known."""
        over = self.session.status == "over"
        if over and self._end is None:
            self._end = self.session.end()
        return over

    def _advance(self, call: Call, request: Step | Truncate, known: int) -> Answer:
        """Take a step, or answer its repeat."""
        session = self.session
        if isinstance(request, Step) and (refusal := _repeated(request, self.refusals)) is not None:
            error = decode_msgpack(refusal.error)
            return Answer(call.req, refusal.error, error["code"], over=session.status == "over")
        try:
            record = _step(session, request) if isinstance(request, Step) else _truncate(session, request)
        except InvalidActionError as error:
            if isinstance(request, Step):
                _remember(self.refusals, request, error)
            return self._refused(call.req, error, known)
        except ArenaError as error:
            return failure(call.req, error, failed=session.status == "failed")
        entry = _entry(session, record) if len(session.journal) > known else None
        over = self._is_over()
        end = self._end if over and record.index == len(session.journal) - 1 else None
        reply = Stepped(id=request.id, session=call.session, record=record, end=end)
        return Answer(call.req, _encoded(reply, call.reply_format), entry=entry, over=over)

    def _refused(self, req: int, error: InvalidActionError, known: int) -> Answer:
        session = self.session
        over = self._is_over()
        return Answer(
            req,
            encode_msgpack(error.record()),
            error.code,
            entry=_entry(session, session.journal[-1]) if len(session.journal) > known else None,
            counts=session.counts,
            refusals=self.refusals,
            over=over,
        )

    def _episode(self, id: str, end: EndRecord) -> Episode:
        opening, session = self.opening, self.session
        header = EpisodeRecord(
            episode=id,
            env=opening.env,
            options=opening.options,
            task=opening.task,
            seed=opening.seed,
            limits=session.limits,
            seats={agent: AgentRef("remote") for agent in session.env.possible_agents},
            versions=_versions(session.env.spec.extra),
        )
        return Episode(header, session.journal, end)


def _failure_of(error: ErrorRecord | None) -> BoundaryError:
    """Return why a session was closed before its episode was over."""
    if error is None:
        return AgentError("the session was closed before the episode was over")
    failure = ArenaError.from_record(error)
    return failure if isinstance(failure, BoundaryError) else AgentError(failure.message, **failure.details)


def _repeated(request: Step, refusals: list[Refusal]) -> Refusal | None:
    """Return the refusal of the very same request, if there was one."""
    asked = (request.id, request.index, request.actions)
    return next((refusal for refusal in refusals if asked == (refusal.id, refusal.index, refusal.actions)), None)


def _remember(refusals: list[Refusal], request: Step, error: InvalidActionError) -> None:
    """Note a refusal beside the others of the same step; a request without an id has no repeats."""
    refusals[:] = [refusal for refusal in refusals if refusal.index == request.index][1 - _MOST_REFUSALS :]
    if request.id != "":
        refusals.append(Refusal(request.id, request.index, request.actions, encode_msgpack(error.record())))


def _step(session: Session, request: Step) -> StepRecord:
    return session.step(
        request.index,
        request.actions,
        usage=request.usage,
        agent_s=request.agent_s,
        decisions=request.decisions,
    )


def _truncate(session: Session, request: Truncate) -> StepRecord:
    journal = session.journal
    if request.index < len(journal) and not journal[request.index].actions:
        return journal[request.index]
    if request.index != len(journal):
        raise OutOfOrderError(f"step {request.index} was sent; the next step is {len(journal)}", next=len(journal))
    session.spend(request.usage)
    return session.truncate(request.limit.kind, request.limit.value, request.limit.limit)


@cache
def _versions(extra: str | None) -> dict[str, str]:
    return versions(extra)


def _entry(session: Session, record: StepRecord) -> bytes:
    return _encode_entry(entry_of(record, session.counts))


def _encoded(reply: Reply, format: Format) -> bytes:
    return encode_json(reply) if format == JSON else encode_msgpack(reply)
