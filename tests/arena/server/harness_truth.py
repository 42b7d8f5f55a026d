"""What must come out: episodes played in this process, and how what a server tells is compared with them."""

import importlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from arena.errors import AgentError, ArenaError
from arena.registry import environments, parse_options
from arena.sampling import sample_action, sample_element
from arena.seeding import stream
from arena.session import Session
from arena.trace import read_lines
from arena.types import Limits, encode_msgpack

TIMES = ("env_s", "agent_s", "wall_s")


def environment(id, options=None):
    """Return an environment, the tests' own included; those stay out of the registry, where roll-calls are held."""
    cls = environments.get(id) if not id.startswith("test/") else _served(id)
    return cls(parse_options(id, cls.Options, options or {}))


_SERVED = {}


def _served(id):
    if not _SERVED:
        before = dict(environments._classes)
        for module in ("tests.arena.served", "tests.arena.server.harness_envs"):
            importlib.import_module(module)
        _SERVED.update(environments._classes)
        environments._classes = before
    return _SERVED[id]


@dataclass
class Plan:
    """An episode that is to be played somewhere.

    Attributes:
        moves: For each request, the actions of the acting seats; a refused one does not count as a step.
    """

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    split: str | None = None
    seed: int = 0
    limits: dict[str, Any] = field(default_factory=dict)
    moves: list[dict[str, Any]] = field(default_factory=list)

    def creation(self):
        """Return the fields of the `create` request."""
        return {
            "env": self.env,
            "options": self.options,
            "task": self.task,
            "split": self.split,
            "seed": self.seed,
            "limits": self.limits,
        }


@dataclass
class Outcome:
    """What came of a plan, without its times.

    Attributes:
        records: The first record, and then a record or an error for each move.
        journal: Every step of the trace.
        end: The verdict; of an episode that was left, that it was left.
    """

    records: list[dict[str, Any]]
    journal: list[dict[str, Any]]
    end: dict[str, Any]


def begin(plan):
    """Return the open session of a plan, in this process."""
    env = environment(plan.env, plan.options)
    tasks = env.taskset(plan.split or env.spec.splits[0])
    task = tasks.sample(1, plan.seed)[0] if plan.task is None else tasks.get(plan.task)
    env.prepare(task)
    session = Session(env, task, plan.seed, limits=msgspec.convert(plan.limits, Limits))
    session.open()
    return session


def play(plan):
    """Return the outcome of a plan that is played in this process, where nothing goes wrong."""
    session = begin(plan)
    outcomes = [plain(session.journal[0])]
    for actions in plan.moves:
        outcomes.append(attempt(session, actions))
    end = finish(session)
    return Outcome(outcomes, [plain(record) for record in session.journal], end)


def attempt(session, actions):
    """Return the record that a move leads to, or its error."""
    try:
        return plain(session.step(len(session.journal), msgspec.convert(actions, dict[str, Any])))
    except ArenaError as error:
        return plain(error.record())


def finish(session):
    """Return the verdict on an episode, and close it; one that is not over is left by its agent."""
    if session.status == "running":
        session.fail(AgentError("the session was closed before the episode was over"))
    end = plain(session.end())
    session.close()
    return end


def plan_episode(plan, steps, *, illegal=0.0, expert=False):
    """Return the plan with moves: drawn from what is legal, by the expert, and now and then what is not legal."""
    rng = stream(plan.seed, "moves")
    session = begin(plan)
    for _ in range(steps):
        if session.status != "running":
            break
        last = session.journal[-1].time_step
        wrong = rng.random() < illegal
        actions = {
            seat: _action(session, seat, last.seats[seat], rng, wrong=wrong, expert=expert) for seat in last.acting
        }
        plan.moves.append(actions)
        attempt(session, actions)
    session.close()
    return plan


def _action(session, seat, step, rng, *, wrong, expert):
    if wrong:
        return [7, "no such thing", "999"][int(rng.integers(3))]
    if expert:
        return session.expert_action(seat)
    spec = session.seats[seat]
    return sample_action(rng, spec, step) if step.legal_actions else sample_element(rng, spec)


def plain(record):
    """Return a record or an error as plain values, without its times."""
    decoded = msgspec.msgpack.decode(encode_msgpack(record))
    return without_times(decoded)


def without_times(record):
    """Return a record as the wire gives it, without its times and without the message around it."""
    return {name: value for name, value in record.items() if name not in TIMES and name != "type"}


def check_trace(lines, plan, outcome):
    """Assert that a trace tells of a plan and its outcome."""
    episode = read_lines(lines.encode())
    assert (episode.record.env, episode.record.seed) == (plan.env, plan.seed)
    assert [plain(step) for step in episode.steps] == outcome.journal
    if episode.end is not None:
        assert plain(episode.end) == outcome.end
