"""A hub made of lists, for the pages' tests: what the pages ask, answered without a worker."""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field, replace

import uvicorn
from fastapi import FastAPI

from arena import EnvSpec, Score, restart, termination, transition
from arena.errors import EnvError, ErrorRecord, UnauthorizedError, UnknownIdError
from arena.protocol import Describe, EnvironmentInfo, SeatInfo, TaskPage, TaskRef, Tasks
from arena.server import pages
from arena.server.access import Caller, Principal
from arena.server.overview import SessionRow, SessionView
from arena.server.pages.login import Login
from arena.trace import AgentRef, EpisodeRecord, StepRecord, end_record
from arena.types import Limits, Task, TimeStep, Tool, Usage

SOLO = EnvSpec(
    id="text/guess-v0",
    summary="Guess a secret number from higher/lower hints.",
    endings={"guessed": "termination", "out_of_guesses": "termination"},
    reward_range=(0.0, 1.0),
    metrics={"guesses": "Guesses used."},
    legal_actions="all",
    max_steps=40,
    expert=True,
)
DUEL = EnvSpec(
    id="test/duel-v0", summary="Two sit here.", endings={"done": "termination"}, reward_range=(-1, 1), play="turns"
)
BROKEN = EnvSpec(id="test/broken-v0", summary="Fails.", endings={}, reward_range=(0, 0), extra="nowhere")
LOOK = Tool("look", "Look at a place.", {"type": "object", "properties": {"place": {"type": "string"}}})
OPTIONS_SCHEMA = {
    "properties": {"max_guesses": {"default": 8, "minimum": 1, "type": "integer", "description": "Guesses allowed."}}
}


def seat_info(instructions="Guess."):
    text = {"type": "free_text", "min_length": 0, "max_length": 200}
    return SeatInfo(observation_space=text, action_space=text, tools=(LOOK,), instructions=instructions)


def solo(observation, reward=0.0, *, ending=None, legal=None, **info):
    """Return the time step of one seat."""
    if ending:
        return TimeStep.solo(termination(observation, reward, ending=ending, **info))
    return TimeStep.solo(transition(observation, reward, legal_actions=legal, **info))


@dataclass
class FakeSession:
    row: SessionRow
    header: EpisodeRecord
    seats: dict
    records: list = field(default_factory=list)
    end: object = None

    def add(self, time_step, actions=None, **rest):
        """Append a step."""
        index = len(self.records)
        record = StepRecord(index=index, time_step=time_step, digest=f"{index:032x}", actions=actions or {}, **rest)
        self.records.append(record)
        returns = dict(self.row.returns)
        for seat, step in time_step.seats.items():
            returns[seat] = returns.get(seat, 0.0) + step.reward
        self.row = replace(self.row, steps=index, returns=returns)
        return record

    def finish(self, score=None, error=None):
        """End it."""
        score = None if error else score or Score(1.0, True, {"guesses": 2.0})
        self.end = end_record(self.records, score=score, error=error, refused=1, wall_s=2.5, usage=Usage(10, 3, 0.01))
        status = "failed" if error else "over"
        self.row = replace(self.row, status=status, ended_at=time.time(), worker=None, score=score, error=error)


class FakeHub:
    """What `arena.server.pages.endpoint.PagesHub` promises."""

    def __init__(self):
        self.sessions, self.specs, self.asked = {}, [SOLO, DUEL, BROKEN], []
        self.instructions = "Guess."

    def session(self, id="s-1", *, env=SOLO.id, task="range-8", seats=("player",), owner="local"):
        """Begin a session that nobody plays yet."""
        row = SessionRow(
            id=id, env=env, task=task, split="train", seed=7, owner=owner, status="running", steps=0, returns={},
            created_at=time.time() - 75, worker=1,
        )  # fmt: skip
        header = EpisodeRecord(
            env=env, task=Task(task), seed=7, episode=id, options={"max_guesses": 8}, limits=Limits(steps=40),
            seats={seat: AgentRef("remote") for seat in seats}, versions={"arena-rl": "0.1.0"},
        )  # fmt: skip
        session = FakeSession(row, header, {seat: seat_info() for seat in seats})
        session.add(TimeStep({seat: restart("I think of a number.") for seat in seats}, tuple(seats)))
        self.sessions[id] = session
        return session

    async def ask(self, request, caller):
        caller.require("play")
        self.asked.append(request)
        if request.env == BROKEN.id:
            raise EnvError("test/broken-v0: it failed", retryable=True)
        if isinstance(request, Tasks):
            names = [f"range-{i}" for i in range(120)] if request.split == "train" else ["only"]
            found = [TaskRef(id=name, split=request.split) for name in names[request.start : request.stop]]
            return TaskPage(id=0, tasks=found, total=len(names), start=request.start)
        assert isinstance(request, Describe)
        seats = ("left", "right") if request.env == DUEL.id else ("player",)
        return EnvironmentInfo(
            id=0, spec=SOLO, options={"max_guesses": 8}, options_schema=OPTIONS_SCHEMA,
            seats={seat: seat_info(self.instructions) for seat in seats}, tasks={"train": 120, "test": 1},
        )  # fmt: skip

    async def environments(self):
        return self.specs

    def overview(self):
        return [session.row for session in self.sessions.values() if session.end is None]

    def finished(self):
        return [session.row for session in self.sessions.values() if session.end is not None]

    async def view(self, session_id, start, stop):
        if session_id not in self.sessions:
            raise UnknownIdError(f"no session {session_id!r}")
        found = self.sessions[session_id]
        return SessionView(
            row=found.row, header=found.header, seats=found.seats if found.end is None else {},
            records=found.records[start:stop], total=len(found.records), end=found.end,
        )  # fmt: skip


TOKENS = {
    "good-token": Principal("ada", frozenset({"play", "admin"})),
    "player-token": Principal("bob", frozenset({"play"})),
}


def authenticate(token):
    if token not in TOKENS:
        raise UnauthorizedError("this token is not valid here")
    return TOKENS[token]


def identify_by_header(request):
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return Caller(authenticate(token)) if scheme == "Bearer" else Caller(None)


def open_app(hub):
    """Return an app of the pages alone, as on loopback: anybody may look."""
    app = FastAPI()
    app.include_router(pages.routes(hub, lambda request: Caller(Principal("local", frozenset({"admin"})))))
    return app


def guarded_app(hub, **login):
    """Return an app of the pages alone, as on a server with tokens."""
    app = FastAPI()
    app.include_router(pages.routes(hub, identify_by_header, Login(authenticate, **login)))
    return app


@contextlib.contextmanager
def serving(app):
    """Serve an app on loopback from a thread; gives its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


FAILURE = ErrorRecord(code="ENV", message="the game crashed", retryable=True)
