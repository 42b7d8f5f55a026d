"""A server of one toy environment that keeps the promises of the protocol: what was done once is never done again."""

from collections import Counter

import msgspec

from arena.env import EnvSpec
from arena.errors import ArenaError, CapacityError, OutOfOrderError, UnauthorizedError, UnknownIdError
from arena.protocol import (
    Attach,
    Attached,
    Close,
    Closed,
    Create,
    Created,
    EnvironmentList,
    Environments,
    ErrorReply,
    Request,
    SeatInfo,
    Step,
    StepMany,
    Stepped,
    SteppedMany,
    TaskRef,
)
from arena.spaces import FreeText, describe
from arena.trace import EndRecord, StepRecord
from arena.types import PLAYER, Limits, Score, SeatStep, TimeStep, encode_json, encode_msgpack

SPEC = EnvSpec(id="test/toy-v0", summary="Says back what it is told.", endings={}, reward_range=(0.0, 0.0))
SEATS = {PLAYER: SeatInfo(observation_space=describe(FreeText()), action_space=describe(FreeText()))}


def record(session, index, action):
    step = SeatStep(f"{session} {index} {action}")
    return StepRecord(index=index, time_step=TimeStep.solo(step), digest=f"{index}", actions={PLAYER: action})


class Toy:
    """The server; `applied` counts how often each step was really taken."""

    def __init__(self):
        self.sessions, self.keys, self.applied = {}, {}, Counter()
        self.closed = set()
        self.full = 0

    def answer(self, frame, granted):
        """Return the reply frame for a request frame of a connection whose sessions are `granted`."""
        decode = msgspec.json.decode if isinstance(frame, str) else msgspec.msgpack.decode
        request = decode(frame, type=Request)
        try:
            reply = self.reply(request, granted)
        except ArenaError as error:
            reply = ErrorReply(error=error.record())
        reply = msgspec.structs.replace(reply, id=request.id)
        return encode_json(reply).decode() if isinstance(frame, str) else encode_msgpack(reply)

    def reply(self, request, granted):
        match request:
            case Environments():
                return EnvironmentList(environments=[SPEC])
            case Create():
                return self.create(request, granted)
            case Attach():
                return self.attach(request.capability, granted)
            case Step():
                return self.step(request, granted)
            case StepMany():
                return SteppedMany(results=[self.step_or_error(item, granted) for item in request.steps])
            case Close():
                self.closed.add(request.session)
                return Closed(session=request.session, end=EndRecord(outcome="terminated", steps=0, score=Score(1.0)))
        raise UnknownIdError(f"a toy knows no {type(request).__name__}")

    def create(self, request, granted):
        if self.full:
            self.full -= 1
            raise CapacityError("full", retry_after_s=0.01)
        session = self.keys.setdefault(request.key, f"s{len(self.keys)}")
        granted.add(session)
        journal = self.sessions.setdefault(session, [record(session, 0, "")])
        return Created(
            session=session, capability=f"owner-{session}", watch=f"watch-{session}", env=SPEC.id, spec=SPEC,
            options={}, task=TaskRef(id="only", split="train"), seed=request.seed, limits=Limits(), seats=SEATS,
            record=journal[0], lease_s=1.0,
        )  # fmt: skip

    def attach(self, capability, granted):
        session = capability.removeprefix("owner-")
        if session not in self.sessions:
            raise UnauthorizedError("this capability is not valid here")
        granted.add(session)
        return Attached(
            session=session, role="owner", env=SPEC.id, spec=SPEC, status="running", next=len(self.sessions[session]),
            seats=SEATS, options={}, task=TaskRef(id="only", split="train"), seed=0, limits=Limits(), lease_s=1.0,
        )  # fmt: skip

    def step(self, request, granted):
        if request.session not in granted:
            raise UnknownIdError("no such session, or its capability was not shown (attach first)")
        journal, action = self.sessions[request.session], request.actions[PLAYER]
        if request.index == len(journal):
            self.applied[request.session, request.index] += 1
            journal.append(record(request.session, request.index, action))
        if request.index > len(journal) - 1 or journal[request.index].actions[PLAYER] != action:
            raise OutOfOrderError(f"step {request.index}; the next is {len(journal)}")
        return Stepped(session=request.session, record=journal[request.index])

    def step_or_error(self, item, granted):
        try:
            return self.step(item, granted)
        except ArenaError as error:
            return ErrorReply(error=error.record())
