"""The environment contract as a runnable suite.

`check_env` runs every promise of `arena.env` and `arena.types` on any environment: each clause below is one function,
named for the promise whose sentence is its docstring. A clause passes by returning, fails by raising, and declares
itself not applicable where the environment does not make the promise.

Random play draws from the stream ``policy``, never from the environment's: with the same stream a random policy guesses
the environment's secrets.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NoReturn, TypeAlias

import jsonschema
import msgspec
import numpy as np
import pydantic
from gymnasium import spaces

from arena.env import Environment, EnvSpec, SeatSpec
from arena.errors import (
    ArenaError,
    ConfigError,
    InvalidActionError,
    ResetNeededError,
    UnknownIdError,
    UnsupportedError,
    UsageError,
)
from arena.legality import check_action
from arena.registry import make, parse_options
from arena.seeding import stream
from arena.session import Session
from arena.spaces import describe, rebuild, restore
from arena.types import (
    PLAYER,
    Action,
    AgentID,
    Limits,
    Score,
    SeatStep,
    Task,
    TimeStep,
    Tool,
    ToolCall,
    as_action,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
)

__all__ = ["CLAUSES", "ContractError", "EnvFactory", "Outcome", "Report", "check_env", "random_action"]

EnvFactory: TypeAlias = str | Callable[[], Environment]
"""An id, a class, or a function that returns a new environment every time."""

_SCANNED = 300
_DRAWS = 20


# -- reports -----------------------------------------------------------------------------------------------------------


class ContractError(ArenaError, AssertionError):
    """Clauses of a contract do not hold; the message names each and says why."""

    code = "CONTRACT"


class NotApplicable(Exception):
    """Raised by a clause whose promise this subject does not make."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one clause.

    Attributes:
        clause: Its name.
        verdict: Whether the promise is kept, or not made.
        why: One line, empty where it passed.
    """

    clause: str
    verdict: Literal["passed", "failed", "not applicable"]
    why: str = ""

    def __str__(self) -> str:
        return f"{self.clause}: {self.verdict}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of every clause, in the order of the contract.

    Attributes:
        subject: What was checked.
        outcomes: One for each clause.
    """

    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> dict[str, str]:
        """The clauses that failed, and why."""
        return {outcome.clause: outcome.why for outcome in self.outcomes if outcome.verdict == "failed"}

    def raise_if_failed(self) -> None:
        """Raise one error that lists every failed clause.

        Raises:
            ContractError: At least one clause failed.
        """
        if self.failed:
            reasons = "; ".join(f"{clause}: {why}" for clause, why in self.failed.items())
            raise ContractError(f"{self.subject} breaks {len(self.failed)} clauses: {reasons}", failed=self.failed)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {outcome}" for outcome in self.outcomes)])


def run_clauses(subject: str, clauses: Mapping[str, Callable[[Any], None]], probe: Any) -> Report:
    """Return the report of running every clause on a probe, which is swept after each one."""
    return Report(subject, tuple(_run_clause(name, clause, probe) for name, clause in clauses.items()))


def _run_clause(name: str, clause: Callable[[Any], None], probe: Any) -> Outcome:
    try:
        try:
            clause(probe)
        finally:
            probe.sweep()
    except NotApplicable as reason:
        return Outcome(name, "not applicable", str(reason))
    except ContractError as error:
        return Outcome(name, "failed", str(error))
    except Exception as error:  # the subject is a stranger's code: whatever it raises fails the clause
        return Outcome(name, "failed", " ".join(f"{type(error).__name__}: {error}".split()))
    return Outcome(name, "passed")


def broken(what: str) -> NoReturn:
    """Fail the clause that is running."""
    raise ContractError(what)


# -- random play -------------------------------------------------------------------------------------------------------


def random_action(rng: np.random.Generator, seat: SeatSpec, step: SeatStep) -> Action:
    """Return a random action: one of those listed, else a sample of the action space, or a call of a tool."""
    ways = len(seat.tools) + (seat.action_space is not None)
    way = int(rng.integers(ways))
    if way < len(seat.tools):
        return _random_call(rng, seat.tools[way])
    if step.legal_actions:
        return step.legal_actions[int(rng.integers(len(step.legal_actions)))]
    return _random_sample(rng, seat)


def _random_sample(rng: np.random.Generator, seat: SeatSpec) -> Action:
    """Return a sample of the action space, drawn from a copy: the environment's own space stays as it is."""
    if seat.action_space is None:
        return _random_call(rng, seat.tools[int(rng.integers(len(seat.tools)))])
    space = rebuild(describe(seat.action_space))
    space.seed(int(rng.integers(2**31)))
    return as_action(space.sample())


def _random_call(rng: np.random.Generator, tool: Tool) -> ToolCall:
    return ToolCall(tool.name, _random_value(rng, {"type": "object", **tool.parameters}))


def _random_value(rng: np.random.Generator, schema: Mapping[str, Any]) -> Any:
    """Return a value that a simple JSON schema allows; keywords that are not understood are passed over."""
    for choices in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if choices:
            return choices[int(rng.integers(len(choices)))]
    for options in (schema.get("anyOf"), schema.get("oneOf")):
        if options:
            return _random_value(rng, options[int(rng.integers(len(options)))])
    kind = schema.get("type", "string")
    return _random_of_type(rng, kind if isinstance(kind, str) else kind[0], schema)


def _random_of_type(rng: np.random.Generator, kind: str, schema: Mapping[str, Any]) -> Any:
    match kind:
        case "boolean":
            return bool(rng.integers(2))
        case "integer":
            low = int(schema.get("minimum", 0))
            return int(rng.integers(low, int(schema.get("maximum", low + 9)), endpoint=True))
        case "number":
            low_number = float(schema.get("minimum", 0.0))
            return float(rng.uniform(low_number, float(schema.get("maximum", low_number + 1.0))))
        case "string":
            least = int(schema.get("minLength", 0))
            length = int(rng.integers(least, min(int(schema.get("maxLength", least + 8)), least + 8), endpoint=True))
            return "".join(rng.choice(list("abcdefgh 01"), size=length))
        case "array":
            count = int(schema.get("minItems", 0)) + int(rng.integers(2)) * ("maxItems" not in schema)
            return [_random_value(rng, schema.get("items", {})) for _ in range(count)]
        case "object":
            required = schema.get("required", ())
            fields = schema.get("properties", {})
            return {
                name: _random_value(rng, sub) for name, sub in fields.items() if name in required or rng.integers(2)
            }
    return None


# -- the probe ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """An episode that was played.

    Attributes:
        task: Its task.
        seed: Its seed.
        steps: The time steps, as the environment returned them.
        encoded: The same, encoded when they came.
        actions: The accepted actions; `actions[i]` led to `steps[i + 1]`.
        given: The same, encoded before the environment got them.
        refused: Actions that the environment itself refused, with the time step at which they were tried.
        score: The score at the end.
    """

    task: Task
    seed: int
    steps: list[TimeStep] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    actions: list[dict[AgentID, Action]] = field(default_factory=list)
    given: list[bytes] = field(default_factory=list)
    refused: list[tuple[TimeStep, dict[AgentID, Action]]] = field(default_factory=list)
    score: Score | None = None

    def add(self, step: TimeStep) -> None:
        """Take note of a time step."""
        self.steps.append(step)
        self.encoded.append(encode_msgpack(step))

    def __iter__(self) -> Iterator[tuple[int, AgentID, SeatStep]]:
        for index, time_step in enumerate(self.steps):
            for agent, step in time_step.seats.items():
                yield index, agent, step


Seats: TypeAlias = Mapping[AgentID, SeatSpec]
Chooser: TypeAlias = Callable[[Environment, Seats, TimeStep, np.random.Generator], dict[AgentID, Action]]


def _at_random(env: Environment, seats: Seats, now: TimeStep, rng: np.random.Generator) -> dict[AgentID, Action]:
    return {agent: random_action(rng, seats[agent], now.seats[agent]) for agent in now.acting}


def _as_expert(env: Environment, seats: Seats, now: TimeStep, rng: np.random.Generator) -> dict[AgentID, Action]:
    """Return the expert's actions, random ones where it does not know how to go on."""
    try:
        return {agent: as_action(env.expert_action(agent)) for agent in now.acting}
    except UnsupportedError:
        return _at_random(env, seats, now, rng)


class Probe:
    """What the clauses examine: an environment's factory, some of its tasks, and episodes played with them.

    Args:
        factory: Returns a new environment.
        tasks: The tasks to play; a sample of every split where None.
        seeds: The seeds to play.
        max_steps: Most steps of one episode.
    """

    def __init__(
        self,
        factory: Callable[[], Environment],
        tasks: Sequence[Task] | None,
        seeds: Sequence[int],
        max_steps: int,
    ) -> None:
        self._factory, self._given = factory, tasks
        self.seeds, self.max_steps = tuple(seeds), max_steps
        self._open: list[Environment] = []
        self.pristine: list[bytes] = []
        self.spec: EnvSpec = self.fresh().spec

    def fresh(self) -> Environment:
        """Return a new environment, closed by the next `sweep`."""
        env = self._factory()
        self._open.append(env)
        return env

    def sweep(self) -> None:
        """Close what `fresh` made."""
        while self._open:
            self._open.pop().close()

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks to play: at most two of each split unless given; `pristine` is how they were before."""
        tasks = self._sampled() if self._given is None else list(self._given)
        self.pristine = [encode_msgpack(task) for task in tasks]
        return tasks

    def _sampled(self) -> list[Task]:
        env = self.fresh()
        return [task for split in self.spec.splits for task in env.taskset(split).sample(2, self.seeds[0])]

    @cached_property
    def episodes(self) -> list[tuple[Task, int]]:
        """Every task with the first seed, and the first task with every seed."""
        others = [(self.tasks[0], seed) for seed in self.seeds[1:]]
        return [(self.tasks[0], self.seeds[0]), *others, *((task, self.seeds[0]) for task in self.tasks[1:])]

    @cached_property
    def runs(self) -> list[Run]:
        """Random play of every episode."""
        return [self.play(task, seed) for task, seed in self.episodes]

    @cached_property
    def expert_runs(self) -> list[Run]:
        """The expert's play of every episode; none where there is no expert."""
        return [self.play(*pair, chooser=_as_expert) for pair in self.episodes] if self.spec.expert else []

    @property
    def seen(self) -> list[Run]:
        """Everything that was played."""
        return [*self.runs, *self.expert_runs]

    @property
    def longest(self) -> Run:
        """The random run with most actions."""
        return max(self.runs, key=lambda run: len(run.actions))

    def play(
        self,
        task: Task,
        seed: int,
        *,
        env: Environment | None = None,
        choices: int | None = None,
        chooser: Chooser = _at_random,
        limit: int | None = None,
    ) -> Run:
        """Play an episode.

        Args:
            task: The task.
            seed: The seed.
            env: The environment to play in; a new one where None.
            choices: Seed of the policy's stream; `seed` where None.
            chooser: Who chooses.
            limit: Most steps.
        """
        env = self.fresh() if env is None else env
        rng = stream(seed if choices is None else choices, "policy")
        run = Run(task, seed)
        run.add(env.reset(task, seed))
        seats = {agent: env.seat(agent) for agent in env.possible_agents}
        while run.steps[-1].acting and len(run.actions) < (limit or self.max_steps):
            if not _move(env, run, lambda now: chooser(env, seats, now, rng)):
                break
        run.score = env.score()
        return run

    def follow(self, run: Run, *, env: Environment | None = None, stop: int | None = None) -> list[bytes]:
        """Return what an environment answers to a run's task, seed and first `stop` actions, encoded."""
        env = self.fresh() if env is None else env
        answers = [encode_msgpack(env.reset(run.task, run.seed))]
        return answers + go_on(env, run.actions[:stop])

    def need(self, declared: bool, why: str) -> None:
        """Declare the clause not applicable unless something is declared."""
        if not declared:
            raise NotApplicable(why)


def _move(env: Environment, run: Run, choose: Callable[[TimeStep], dict[AgentID, Action]]) -> bool:
    """Take one step, trying again where the environment refuses; return whether one was accepted."""
    now = run.steps[-1]
    for _ in range(_DRAWS):
        actions = choose(now)
        given = encode_msgpack(actions)
        try:
            answer = env.step(actions)
        except InvalidActionError:
            run.refused.append((now, actions))
            continue
        run.actions.append(actions)
        run.given.append(given)
        run.add(answer)
        return True
    return False


def go_on(env: Environment, script: Sequence[Mapping[AgentID, Action]]) -> list[bytes]:
    """Return the answers to actions, encoded; the script ends where the episode does."""
    answers = []
    for actions in script:
        answer = env.step(actions)
        answers.append(encode_msgpack(answer))
        if answer.is_last:
            break
    return answers


def _same(what: str, expected: Sequence[bytes], got: Sequence[bytes]) -> None:
    """Fail at the first answer that differs."""
    for index, (a, b) in enumerate(zip(expected, got, strict=False)):
        if a != b:
            broken(f"{what}: answer {index} was {_short(decode_msgpack(a))} and is {_short(decode_msgpack(b))}")
    if len(expected) != len(got):
        broken(f"{what}: the episode had {len(expected)} answers and has {len(got)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def resolve_env(env_id_or_factory: EnvFactory, options: Mapping[str, Any] | None) -> Callable[[], Environment]:
    """Return a function that makes a new environment every time.

    Raises:
        UnknownIdError: No such environment.
        ConfigError: The options are wrong, or given beside a function that takes none.
    """
    if isinstance(env_id_or_factory, str):
        env_id = env_id_or_factory
        return lambda: make(env_id, options)
    if isinstance(env_id_or_factory, type):
        cls: type[Environment] = env_id_or_factory
        return lambda: cls(parse_options(cls.spec.id, cls.Options, options or {}))
    if options is not None:
        raise ConfigError("options go with an id or a class; a function makes its environment with options of its own")
    return env_id_or_factory


def check_env(
    env_id_or_factory: EnvFactory,
    *,
    options: Mapping[str, Any] | None = None,
    tasks: Sequence[Task] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 60,
) -> Report:
    """Return the report of running every clause of the environment contract.

    Args:
        env_id_or_factory: An id, a class, or a function without arguments that returns a new environment every time.
        options: The environment's options, for an id or a class.
        tasks: The tasks to play; where None, two of every split.
        seeds: The seeds to play, at least one.
        max_steps: Most steps of one episode.

    Raises:
        UnknownIdError: No such environment.
        ConfigError: The options are wrong.
    """
    probe = Probe(resolve_env(env_id_or_factory, options), tasks, seeds, max_steps)
    return run_clauses(probe.spec.id, CLAUSES, probe)


CLAUSES: dict[str, Callable[[Probe], None]] = {}
"""The clauses of the environment contract by name, in order."""


def _clause(function: Callable[[Probe], None]) -> Callable[[Probe], None]:
    CLAUSES[function.__name__] = function
    return function


# -- the declaration ---------------------------------------------------------------------------------------------------


@_clause
def id_names_family_name_and_version(probe: Probe) -> None:
    """``family/name-vN``."""
    if not re.fullmatch(r"[a-z0-9_]+/[a-z0-9_-]+-v\d+", probe.spec.id):
        broken(f"the id is {probe.spec.id!r}; it must look like 'family/name-v0'")


@_clause
def summary_is_one_sentence(probe: Probe) -> None:
    """One sentence."""
    summary = probe.spec.summary
    if not summary.strip() or "\n" in summary or not summary.endswith("."):
        broken(f"the summary is {summary!r}; it must be one sentence on one line, with a full stop")


@_clause
def ranges_are_finite_and_ordered(probe: Probe) -> None:
    """Smallest and largest reward of one step; smallest and largest score."""
    for name in ("reward_range", "score_range"):
        low, high = getattr(probe.spec, name)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            broken(f"{name} is {low}, {high}; it must be two finite numbers, the smaller first")


@_clause
def endings_and_metrics_are_declared(probe: Probe) -> None:
    """Every name an ending can have, and whether it ends the task or only the watching; name and meaning of metrics."""
    spec = probe.spec
    if not spec.endings:
        broken("no ending is declared")
    for name, kind in spec.endings.items():
        if not name.isidentifier() or kind not in ("termination", "truncation"):
            broken(f"ending {name!r} is declared as {kind!r}; name it like a variable, as termination or truncation")
    for name, meaning in spec.metrics.items():
        if not name or not meaning.strip():
            broken(f"metric {name!r} has no meaning")


@_clause
def max_steps_is_positive(probe: Probe) -> None:
    """Steps after which a session truncates the episode unless its limits say otherwise."""
    if probe.spec.max_steps is not None and probe.spec.max_steps < 1:
        broken(f"max_steps is {probe.spec.max_steps}; it must be positive, or absent")


@_clause
def options_are_described(probe: Probe) -> None:
    """Each field described."""
    for name, info in probe.fresh().Options.model_fields.items():
        if not (info.description or "").strip():
            broken(f"option {name!r} has no description")


@_clause
def unknown_option_is_refused(probe: Probe) -> None:
    """Unknown names refused."""
    refuses_unknown_option(probe.spec.id, probe.fresh().Options)


def refuses_unknown_option(owner: str, model: Any) -> None:
    """Fail unless an options' model refuses a name that it does not know, and cannot be changed."""
    try:
        parse_options(owner, model, {"no_such_option": 1})
    except ConfigError:
        if not model.model_config.get("frozen"):
            broken("the options can be changed; derive them from arena.Options")
        return
    broken("the unknown option 'no_such_option' was accepted; derive the options from arena.Options")


@_clause
def options_survive_json(probe: Probe) -> None:
    """A trace holds the resolved options, and a replay makes the environment from them."""
    env = probe.fresh()
    if not isinstance(env.options, pydantic.BaseModel):
        broken(f"options are a {type(env.options).__name__}; they must be the environment's Options")
    again = parse_options(probe.spec.id, env.Options, env.options.model_dump(mode="json"))
    if again != env.options:
        broken(f"the options {env.options!r} came back from JSON as {again!r}")


# -- tasks -------------------------------------------------------------------------------------------------------------


def _scan(probe: Probe, split: str) -> list[Task]:
    """Return the first tasks of a split."""
    taskset = probe.fresh().taskset(split)
    return [taskset.task(index) for index in range(min(len(taskset), _SCANNED))]


@_clause
def every_split_has_tasks(probe: Probe) -> None:
    """Names of the task splits."""
    if not probe.spec.splits or len(set(probe.spec.splits)) != len(probe.spec.splits):
        broken(f"the splits are {probe.spec.splits}; at least one, each named once")
    for split in probe.spec.splits:
        taskset = probe.fresh().taskset(split)
        if taskset.split != split or len(taskset) < 1:
            broken(f"taskset({split!r}) has split {taskset.split!r} and {len(taskset)} tasks")


@_clause
def length_matches_iteration(probe: Probe) -> None:
    """Return the number of tasks."""
    for split in probe.spec.splits:
        taskset = probe.fresh().taskset(split)
        if len(taskset) <= _SCANNED and len(list(taskset)) != len(taskset):
            broken(f"split {split!r} says that it has {len(taskset)} tasks and yields {len(list(taskset))}")
        taskset.task(len(taskset) - 1)


@_clause
def task_number_is_always_the_same(probe: Probe) -> None:
    """Return task number `index`, from 0 to `len - 1`: always the same one."""
    for split in probe.spec.splits:
        for index, (one, other) in enumerate(zip(_scan(probe, split), _scan(probe, split), strict=True)):
            if one != other:
                broken(f"task {index} of split {split!r} was {one} and is {other}")


@_clause
def tasks_belong_to_their_split(probe: Probe) -> None:
    """The split that it belongs to."""
    for split in probe.spec.splits:
        for task in _scan(probe, split):
            if task.split != split:
                broken(f"task {task.id!r} of split {split!r} says that it belongs to {task.split!r}")


@_clause
def task_ids_are_unique(probe: Probe) -> None:
    """Unique within the environment; what a client names. Never a path."""
    splits: dict[str, str] = {}
    for split in probe.spec.splits:
        for task in _scan(probe, split):
            if task.id in splits:
                broken(f"task {task.id!r} is in split {splits[task.id]!r} and again in {split!r}")
            if not task.id.isprintable() or not task.id.strip() or re.search(r"^[/~]|\\|(^|/)\.\.?(/|$)", task.id):
                broken(f"the task id {task.id!r} is empty, not printable, or a path")
            splits[task.id] = split


@_clause
def sample_is_deterministic_and_distinct(probe: Probe) -> None:
    """Return `count` different tasks drawn with `seed`; all of them, shuffled, when there are not so many."""
    for split in probe.spec.splits:
        taskset = probe.fresh().taskset(split)
        for count in (1, 2, 5, min(len(taskset), 50) + 1):
            drawn = taskset.sample(count, 7)
            if drawn != probe.fresh().taskset(split).sample(count, 7):
                broken(f"sample({count}, seed=7) of split {split!r} gave different tasks the second time")
            if len({task.id for task in drawn}) != min(count, len(taskset)):
                broken(f"sample({count}) of split {split!r} gave {[task.id for task in drawn]}")


@_clause
def task_is_found_by_id(probe: Probe) -> None:
    """Return the task with this id."""
    for split in probe.spec.splits:
        taskset = probe.fresh().taskset(split)
        for task in taskset.sample(3, 0):
            if taskset.get(task.id) != task:
                broken(f"get({task.id!r}) gave {taskset.get(task.id)}, not {task}")


@_clause
def unknown_task_id_is_refused(probe: Probe) -> None:
    """Raises UnknownIdError: there is none."""
    for split in probe.spec.splits:
        for task_id in ("no such task", "", "../no-such-task"):
            with _refusal(UnknownIdError, f"get({task_id!r}) of split {split!r}"):
                probe.fresh().taskset(split).get(task_id)


@_clause
def tasks_survive_the_wire(probe: Probe) -> None:
    """What the environment needs to build it, JSON-serialisable."""
    for split in probe.spec.splits:
        for task in _scan(probe, split):
            if decode_json(encode_json(task), Task) != task or decode_msgpack(encode_msgpack(task), Task) != task:
                broken(f"task {task.id!r} does not come back from JSON or MessagePack as it was")


@_clause
def foreign_task_is_refused(probe: Probe) -> None:
    """Raises UsageError: the task is not one of this environment's."""
    env = probe.fresh()
    with _refusal(UsageError, "reset with a foreign task"):
        env.reset(Task("no-such-task", probe.spec.splits[0], {"no_such_field": None}), probe.seeds[0])
    env.reset(probe.tasks[0], probe.seeds[0])


@contextmanager
def _refusal(expected: type[ArenaError], what: str) -> Iterator[None]:
    """Fail unless the block raises an error of a kind, whose message is one line that says something."""
    try:
        yield
    except expected as error:
        if not str(error).strip() or "\n" in str(error):
            broken(f"{what}: the message is {str(error)!r}; it must be one line that says what is allowed")
        return
    except Exception as error:  # reported as what it is: the wrong kind of error
        broken(f"{what} raised {type(error).__name__} ({error}); it must raise {expected.__name__}")
    broken(f"{what} was accepted; it must raise {expected.__name__}")


# -- seats -------------------------------------------------------------------------------------------------------------


@_clause
def seats_are_named_and_fixed(probe: Probe) -> None:
    """Every seat, in a fixed order."""
    env = probe.fresh()
    agents = env.possible_agents
    if not agents or len(set(agents)) != len(agents) or not all(isinstance(a, str) and a for a in agents):
        broken(f"possible_agents is {agents!r}; it must be distinct names")
    if (probe.spec.play == "single") != (tuple(agents) == (PLAYER,)):
        broken(f"play is {probe.spec.play!r} and the seats are {agents}; a single seat is called {PLAYER!r}")
    probe.play(probe.tasks[0], probe.seeds[0], env=env)
    if env.possible_agents != agents or probe.fresh().possible_agents != agents:
        broken(f"possible_agents was {agents} and is {env.possible_agents} after an episode")


@_clause
def seat_is_constant(probe: Probe) -> None:
    """Return what the seat sees and can do; constant over the environment's life."""
    env = probe.fresh()
    before = [_seat_as_data(env, agent) for agent in env.possible_agents]
    for task in probe.tasks[:2]:
        probe.play(task, probe.seeds[0], env=env, limit=5)
        if [_seat_as_data(env, agent) for agent in env.possible_agents] != before:
            broken(f"seat() was {_short(before)} and changed with the episode")


def _seat_as_data(env: Environment, agent: AgentID) -> Any:
    seat = env.seat(agent)
    act = None if seat.action_space is None else describe(seat.action_space)
    return describe(seat.observation_space), act, [msgspec.to_builtins(tool) for tool in seat.tools], seat.instructions


def _all_seats(probe: Probe) -> list[tuple[AgentID, SeatSpec]]:
    env = probe.fresh()
    return [(agent, env.seat(agent)) for agent in env.possible_agents]


@_clause
def spaces_survive_the_wire(probe: Probe) -> None:
    """Return a space as JSON-serialisable data, and back."""
    for agent, seat in _all_seats(probe):
        for space in (seat.observation_space, seat.action_space):
            if space is None:
                continue
            data = describe(space)
            again = rebuild(decode_json(encode_json(data)))
            if describe(again) != data:
                broken(f"{agent}: {space} came back from JSON as {again}")


@_clause
def seat_can_act(probe: Probe) -> None:
    """The space of its text, discrete or array actions; None where it acts through tools only."""
    sendable = (spaces.Text, spaces.Discrete, spaces.Box, spaces.MultiBinary, spaces.MultiDiscrete)
    for agent, seat in _all_seats(probe):
        if seat.action_space is None and not seat.tools:
            broken(f"{agent} has neither an action space nor tools")
        if seat.action_space is not None and not isinstance(seat.action_space, sendable):
            broken(f"{agent} has action space {seat.action_space}; actions are text, integers, arrays or tool calls")


@_clause
def tools_are_valid(probe: Probe) -> None:
    """Letters, digits, `_` and `-`; what it does, for the model; JSON schema of the arguments, an object schema."""
    if not any(seat.tools for _, seat in _all_seats(probe)):
        raise NotApplicable("there are no tools")
    for agent, seat in _all_seats(probe):
        names = [tool.name for tool in seat.tools]
        if len(set(names)) != len(names):
            broken(f"{agent} has two tools of one name: {names}")
        for tool in seat.tools:
            _check_tool(tool)


def _check_tool(tool: Tool) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name) or not tool.description.strip():
        broken(f"tool {tool.name!r} needs a name of letters, digits, _ and -, and a description")
    if tool.parameters.get("type") != "object":
        broken(f"the parameters of tool {tool.name!r} are not an object schema: {tool.parameters}")
    try:
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
    except jsonschema.SchemaError as error:
        broken(f"the parameters of tool {tool.name!r} are no JSON schema: {error.message}")


# -- the first step ----------------------------------------------------------------------------------------------------


@_clause
def reset_gives_no_reward(probe: Probe) -> None:
    """Received for the step that led here; 0 at the start."""
    for run in probe.runs:
        for agent, step in run.steps[0].seats.items():
            if step.reward != 0:
                broken(f"task {run.task.id!r}: {agent} gets reward {step.reward} at the start")


@_clause
def reset_ends_nobody(probe: Probe) -> None:
    """Begin an episode."""
    for run in probe.runs:
        first = run.steps[0]
        if not first.acting or any(step.is_last for step in first.seats.values()):
            broken(f"task {run.task.id!r} is over at the start")


@_clause
def reset_drops_an_unfinished_episode(probe: Probe) -> None:
    """Begin an episode; an unfinished one is dropped."""
    run = probe.longest
    env = probe.fresh()
    probe.follow(run, env=env, stop=max(1, len(run.actions) // 2))
    answers = probe.follow(run, env=env)
    if probe.spec.deterministic:
        _same("after a reset in mid-episode", run.encoded, answers)


# -- every step --------------------------------------------------------------------------------------------------------


@_clause
def acting_matches_declared_play(probe: Probe) -> None:
    """The seats whose action is due next: one in turn-based play, all in simultaneous play, none at the end."""
    for run in probe.seen:
        for index, now in enumerate(run.steps):
            alive = sorted(agent for agent, step in now.seats.items() if not step.is_last)
            acting = sorted(now.acting)
            expected = alive if probe.spec.play == "simultaneous" else acting[:1] if alive else []
            if acting != expected or not set(acting) <= set(alive) or (alive and not acting):
                broken(f"play is {probe.spec.play!r}; at step {index} alive are {alive} and acting are {acting}")


@_clause
def every_live_seat_gets_every_step(probe: Probe) -> None:
    """The step of every seat that was alive before it; one that ended earlier is absent."""
    for run in probe.seen:
        alive = sorted(probe.fresh().possible_agents)
        for index, now in enumerate(run.steps):
            if sorted(now.seats) != alive:
                broken(f"step {index} is for {sorted(now.seats)}; alive before it were {alive}")
            alive = sorted(agent for agent, step in now.seats.items() if not step.is_last)


@_clause
def observation_lies_in_its_space(probe: Probe) -> None:
    """An element of the seat's observation space."""
    seats = dict(_all_seats(probe))
    for run in probe.seen:
        for index, agent, step in run:
            if not seats[agent].observation_space.contains(step.observation):
                space = seats[agent].observation_space
                broken(f"step {index}: {agent} observes {_short(step.observation)}, which is not in {space}")


@_clause
def reward_lies_in_its_range(probe: Probe) -> None:
    """Smallest and largest reward of one step."""
    low, high = probe.spec.reward_range
    for run in probe.seen:
        for index, agent, step in run:
            if not low <= step.reward <= high:
                broken(f"step {index}: {agent} gets reward {step.reward}, outside {probe.spec.reward_range}")


@_clause
def ending_is_declared_with_its_kind(probe: Probe) -> None:
    """The declared name of how it ended; None while it goes on."""
    for run in probe.seen:
        for index, agent, step in run:
            kind = "termination" if step.terminated else "truncation" if step.truncated else None
            declared = None if step.ending is None else probe.spec.endings.get(step.ending, "undeclared")
            if kind != declared or (step.terminated and step.truncated):
                broken(f"step {index}: {agent} has ending {step.ending!r} as {kind}; declared is {declared}")


@_clause
def legal_actions_are_listed_as_declared(probe: Probe) -> None:
    """``none`` are listed, ``some`` are (others are accepted too), or ``all`` (others are refused)."""
    listed = probe.spec.legal_actions
    for run in probe.seen:
        for index, now in enumerate(run.steps):
            for agent in now.acting:
                legal = now.seats[agent].legal_actions
                if (legal is not None) != (listed == "all") and not (listed == "some" and legal):
                    broken(f"legal_actions is {listed!r}; at step {index} {agent} is given {_short(legal)}")
                if legal is not None and (not legal or len(set(legal)) != len(legal)):
                    broken(f"at step {index} the list of {agent}'s legal actions is empty or repeats: {_short(legal)}")


@_clause
def listed_actions_are_legal(probe: Probe) -> None:
    """Text actions or discrete choices that are legal now, where the environment lists them."""
    probe.need(probe.spec.legal_actions != "none", "none are listed")
    seats = dict(_all_seats(probe))
    for run in probe.seen:
        for now in run.steps:
            for agent in now.acting:
                for action in now.seats[agent].legal_actions or ():
                    check_action(agent, seats[agent], now.seats[agent], action, listed=probe.spec.legal_actions)


@_clause
def listed_actions_are_accepted(probe: Probe) -> None:
    """Text actions or discrete choices that are legal now: `step` accepts each of them."""
    probe.need(probe.spec.legal_actions != "none", "none are listed")
    for run in probe.runs:
        for now, actions in run.refused:
            if all(action in (now.seats[agent].legal_actions or ()) for agent, action in actions.items()):
                broken(f"{_short(actions)} was refused although listed")
    run = probe.longest
    agent = run.steps[0].acting[0]
    for action in (run.steps[0].seats[agent].legal_actions or ())[:_DRAWS]:
        env = probe.fresh()
        now = env.reset(run.task, run.seed)
        others = {a: (now.seats[a].legal_actions or (None,))[0] for a in now.acting if a != agent}
        if None not in others.values():
            env.step({**others, agent: action})  # type: ignore[dict-item]


@_clause
def unlisted_action_is_refused(probe: Probe) -> None:
    """``all`` (others are refused)."""
    probe.need(probe.spec.legal_actions == "all", "not all are listed")
    tried = 0
    for session, script in _at_every_step(probe):
        for agent, action in _unlisted(session, stream(len(session.journal), "policy")):
            tried += 1
            with _refusal(InvalidActionError, f"{_short(action)} of {agent}, which is not listed,"):
                session.step(len(session.journal), {**script, agent: action})
    probe.need(tried > 0, "every element of the action space was listed")


def _at_every_step(probe: Probe) -> Iterator[tuple[Session, dict[AgentID, Action]]]:
    """Yield a session before each step of the longest run, with the actions that will be taken."""
    run = probe.longest
    session = Session(probe.fresh(), run.task, run.seed, limits=Limits(invalid_actions=None))
    session.open()
    for actions in run.actions[:_DRAWS]:
        if session.status == "running" and set(actions) == set(session.acting):
            yield session, actions
            session.step(len(session.journal), actions)


def _unlisted(session: Session, rng: np.random.Generator) -> Iterator[tuple[AgentID, Action]]:
    """Yield elements of the acting seats' action spaces that are not listed at the first time step's declaration."""
    for agent in session.acting:
        seat, legal = session.env.seat(agent), session.journal[-1].time_step.seats[agent].legal_actions or ()
        if seat.action_space is None:
            continue
        for action in (_random_sample(rng, seat) for _ in range(5)):
            if action not in legal:
                yield agent, action


@_clause
def illegal_action_is_refused(probe: Probe) -> None:
    """Raises InvalidActionError: an action is not legal; the message says what is legal."""
    junk: tuple[Any, ...] = (None, 1.5, True, [], {}, b"x", ToolCall("no-such-tool"), "\ud800", -(2**70))
    for session, script in _at_every_step(probe):
        index = len(session.journal)
        for agent in session.acting:
            for action in junk:
                with _refusal(InvalidActionError, f"{action!r} of {agent}"):
                    session.step(index, {**script, agent: action})
        for actions in ({}, {**script, "no-such-seat": "x"}):
            with _refusal(InvalidActionError, f"actions of {sorted(actions)}"):
                session.step(index, actions)


@_clause
def refused_action_changes_nothing(probe: Probe) -> None:
    """Raises InvalidActionError: an action is not legal; nothing has changed."""
    refusals = 0
    for task, seed in probe.episodes:
        pestered = _pester(probe, task, seed)
        refusals += len(pestered.refused)
        if pestered.refused and probe.spec.deterministic:
            env = probe.fresh()
            _same("without the refused actions", pestered.encoded, probe.follow(pestered, env=env))
            if pestered.score != env.score():
                broken(f"refused actions changed the score from {env.score()} to {pestered.score}")
    probe.need(refusals > 0, "the environment refused no action")
    probe.need(probe.spec.deterministic, "it is not deterministic, so there is nothing to compare")


def _pester(probe: Probe, task: Task, seed: int) -> Run:
    """Play an episode in which most actions are tried without regard to what is legal."""
    draws = iter(range(10**9))

    def mostly_junk(env: Environment, seats: Seats, now: TimeStep, rng: np.random.Generator) -> dict[AgentID, Action]:
        legal = _at_random(env, seats, now, rng)
        if next(draws) % 4 == 3:
            return legal
        agent = now.acting[int(rng.integers(len(now.acting)))]
        return {**legal, agent: _random_sample(rng, seats[agent])}

    return probe.play(task, seed, chooser=mostly_junk, limit=_DRAWS)


@_clause
def step_after_the_end_is_refused(probe: Probe) -> None:
    """Raises ResetNeededError: the episode is over."""
    run = probe.longest
    session = Session(probe.fresh(), run.task, run.seed, limits=Limits(steps=len(run.actions)))
    session.open()
    for index, actions in enumerate(run.actions, 1):
        session.step(index, actions)
    with _refusal(ResetNeededError, "a step after the end"):
        session.step(len(session.journal), run.actions[-1])


# -- determinism -------------------------------------------------------------------------------------------------------


def _need_deterministic(probe: Probe) -> None:
    probe.need(probe.spec.deterministic, "it is not deterministic")


@_clause
def same_task_seed_and_actions_give_same_steps(probe: Probe) -> None:
    """The same task, seed and actions give the same time steps, so journals can be replayed."""
    _need_deterministic(probe)
    for run in probe.runs:
        env = probe.fresh()
        _same("in a new environment", run.encoded, probe.follow(run, env=env))
        if env.score() != run.score:
            broken(f"the same episode had score {run.score} and then {env.score()}")


@_clause
def reset_forgets_the_last_episode(probe: Probe) -> None:
    """An environment hosts one episode at a time."""
    _need_deterministic(probe)
    env = probe.fresh()
    for run in [*probe.runs, probe.runs[0]]:
        _same("in an environment that has played before", run.encoded, probe.follow(run, env=env))
        if env.score() != run.score:
            broken(f"in an environment that has played before the score is {env.score()}, not {run.score}")


@_clause
def instances_are_independent(probe: Probe) -> None:
    """One episode of a task: another instance's episode does not enter it."""
    _need_deterministic(probe)
    for run, other in zip(probe.runs, [*probe.runs[1:], probe.runs[0]], strict=True):
        mine, theirs = probe.fresh(), probe.fresh()
        mine_got = [encode_msgpack(mine.reset(run.task, run.seed))]
        theirs_got = [encode_msgpack(theirs.reset(other.task, other.seed))]
        for index in range(max(len(run.actions), len(other.actions))):
            mine_got += go_on(mine, run.actions[index : index + 1])
            theirs_got += go_on(theirs, other.actions[index : index + 1])
        _same("beside another instance", run.encoded, mine_got)
        _same("beside another instance", other.encoded, theirs_got)
        if mine.score() != run.score:
            broken(f"beside another instance the score is {mine.score()}, not {run.score}")


def global_rng_state() -> tuple[Any, ...]:
    """Return the states of the global generators, comparable."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, np.asarray(keys).tobytes(), tuple(rest)


@contextmanager
def global_rng_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators for a block and put their states back."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@_clause
def global_generators_are_left_alone(probe: Probe) -> None:
    """The environment draws from its stream ``env`` only: it neither draws from nor seeds a global generator."""
    for task, seed in probe.episodes[:3]:
        before = global_rng_state()
        probe.play(task, seed)
        if global_rng_state() != before:
            broken("an episode changed the state of the global generators `random` or `numpy.random`")


@_clause
def global_generators_decide_nothing(probe: Probe) -> None:
    """The environment draws from its stream ``env`` only: seeding the global generators changes nothing."""
    _need_deterministic(probe)
    for run in probe.runs[:3]:
        for seed in (1, 2):
            with global_rng_seeded(seed):
                answers = probe.follow(run)
            _same("with other seeds of the global generators", run.encoded, answers)


@_clause
def seed_is_honest(probe: Probe) -> None:
    """The seed changes episodes of the same task; when false every seed gives the same episode."""
    _need_deterministic(probe)
    seeds = [*probe.seeds, *range(1000, 1005)]
    for task in probe.tasks if probe.spec.seeded else probe.tasks[:2]:
        played = [tuple(probe.play(task, seed, choices=0, limit=_DRAWS).encoded) for seed in seeds]
        if len(set(played)) > 1 and not probe.spec.seeded:
            broken(f"seeded is false, and seeds {seeds} give different episodes of task {task.id!r}")
        if len(set(played)) > 1:
            return
    if probe.spec.seeded:
        broken(f"seeded is true, and seeds {seeds} all give the same episodes")


# -- what travels ------------------------------------------------------------------------------------------------------


@_clause
def answers_survive_the_wire(probe: Probe) -> None:
    """Defined once as a frozen struct and used in process, on the wire (JSON and MessagePack) and on disk."""
    seats = dict(_all_seats(probe))
    for run in probe.seen:
        for now in run.steps:
            for decoded in (decode_json(encode_json(now), TimeStep), decode_msgpack(encode_msgpack(now), TimeStep)):
                again = _restored(decoded, seats)
                if encode_msgpack(again) != encode_msgpack(_with_float_rewards(now)):
                    broken(f"{_short(now)} came back as {_short(again)}")


def _restored(step: TimeStep, seats: Mapping[AgentID, SeatSpec]) -> TimeStep:
    def one(agent: AgentID, seat_step: SeatStep) -> SeatStep:
        observation = restore(seats[agent].observation_space, seat_step.observation)
        return msgspec.structs.replace(seat_step, observation=observation)

    return TimeStep({agent: one(agent, seat_step) for agent, seat_step in step.seats.items()}, step.acting)


def _with_float_rewards(now: TimeStep) -> TimeStep:
    """Return a time step whose rewards are floats: authors may write integers, and a decoder returns floats."""
    seats = {agent: msgspec.structs.replace(step, reward=float(step.reward)) for agent, step in now.seats.items()}
    return TimeStep(seats, now.acting)


@_clause
def actions_survive_the_wire(probe: Probe) -> None:
    """What a seat can do: text, a discrete choice, a tool call, or an array; an expert's action is one, too."""
    for run in probe.seen:
        for actions in run.actions:
            for action in actions.values():
                if decode_json(encode_json(action), Action) != action:
                    broken(f"the action {_short(action)} does not come back from JSON as it was")


@_clause
def answers_stay_as_they_were(probe: Probe) -> None:
    """What every seat is given at one time step: later steps do not change it."""
    for run in probe.seen:
        for index, (now, encoded) in enumerate(zip(run.steps, run.encoded, strict=True)):
            if encode_msgpack(now) != encoded:
                broken(f"time step {index} was changed after it was returned; return a copy of what you go on using")


@_clause
def task_and_actions_are_not_changed(probe: Probe) -> None:
    """Frozen: the environment changes neither the task nor the actions that it is given."""
    for run in probe.seen:
        if [encode_msgpack(actions) for actions in run.actions] != run.given:
            broken("the episode changed the actions that it was given")
    if [encode_msgpack(task) for task in probe.tasks] != probe.pristine:
        broken("an episode changed the task that it was given")


# -- the verdict -------------------------------------------------------------------------------------------------------


@_clause
def score_lies_in_its_range(probe: Probe) -> None:
    """The score, in the range that the environment declares."""
    low, high = probe.spec.score_range
    for run in probe.seen:
        score = _scored(run)
        for value in (score.value, *score.seats.values()):
            if not low <= value <= high:
                broken(f"task {run.task.id!r} has score {value}, outside {probe.spec.score_range}")


def _scored(run: Run) -> Score:
    if not isinstance(run.score, Score):
        broken(f"score() returned {_short(run.score)}; it must return a Score")
    return run.score


@_clause
def score_has_declared_metrics(probe: Probe) -> None:
    """Further numbers by declared name; the score of each seat."""
    agents = probe.fresh().possible_agents
    for run in probe.seen:
        score = _scored(run)
        if not set(score.metrics) <= set(probe.spec.metrics) or not set(score.seats) <= set(agents):
            broken(f"the score names {sorted(score.metrics)} and {sorted(score.seats)}, which are not all declared")
        if not all(math.isfinite(value) for value in score.metrics.values()):
            broken(f"a metric is not finite: {score.metrics}")
        if decode_json(encode_json(score), Score) != score:
            broken(f"the score {score} does not come back from JSON as it was")


@_clause
def score_stays_when_asked_again(probe: Probe) -> None:
    """Return the verdict on the episode as it stands."""
    run = probe.longest
    env = probe.fresh()
    probe.follow(run, env=env)
    verdicts = [env.score() for _ in range(3)]
    if any(verdict != verdicts[0] for verdict in verdicts):
        broken(f"score() gave {verdicts[0]} and then {verdicts[1:]}")


@_clause
def unfinished_episode_has_a_score(probe: Probe) -> None:
    """Return the verdict on the episode as it stands; a limit may end it anywhere."""
    session = Session(probe.fresh(), probe.tasks[0], probe.seeds[0])
    session.open()
    session.truncate("wall_time", 1.0, 1.0)
    end = session.end()
    if end.score is None:
        broken(f"an episode that a limit ended has no score: {end.error}")


@_clause
def session_plays_it_to_the_end(probe: Probe) -> None:
    """`reset` first; then `step` with exactly the seats in `acting`; no step after the end; then a score."""
    for run in probe.seen:
        session = Session(probe.fresh(), run.task, run.seed, limits=Limits(steps=max(1, len(run.actions))))
        session.open()
        for index, actions in enumerate(run.actions, 1):
            session.step(index, actions)
        if run.actions and session.end().score != run.score:
            broken(f"a session ends with {session.end()}; the score was {run.score}")


@_clause
def shared_reward_is_honest(probe: Probe) -> None:
    """Every seat always gets the same reward."""
    probe.need(probe.spec.shared_reward, "it is not declared")
    for run in probe.seen:
        for index, now in enumerate(run.steps):
            rewards = {agent: step.reward for agent, step in now.seats.items()}
            if len(set(rewards.values())) > 1:
                broken(f"shared_reward is declared, and step {index} gives {rewards}")


# -- experts, snapshots, forks -----------------------------------------------------------------------------------------


@_clause
def expert_gives_legal_actions(probe: Probe) -> None:
    """Return a good action for the seat now."""
    probe.need(probe.spec.expert, "no expert is declared")
    seats = dict(_all_seats(probe))
    for run in probe.expert_runs:
        if run.refused:
            broken(f"the expert's action {_short(run.refused[0][1])} was refused")
        for now, actions in zip(run.steps, run.actions, strict=False):
            for agent, action in actions.items():
                check_action(agent, seats[agent], now.seats[agent], action, listed=probe.spec.legal_actions)


@_clause
def expert_does_no_worse_than_chance(probe: Probe) -> None:
    """Return a good action: over all episodes a lone expert's score is at least that of random play."""
    probe.need(probe.spec.expert, "no expert is declared")
    probe.need(probe.spec.play == "single", "the score is not one seat's alone")
    expert, chance = (sum(_scored(run).value for run in runs) for runs in (probe.expert_runs, probe.runs))
    if expert < chance:
        broken(f"the expert's scores add up to {expert}, those of random play to {chance}")


@_clause
def expert_changes_nothing(probe: Probe) -> None:
    """Return a good action for the seat now, without changing anything."""
    probe.need(probe.spec.expert, "no expert is declared")
    _need_deterministic(probe)
    for run in probe.runs:
        env = probe.fresh()
        answers = [encode_msgpack(now := env.reset(run.task, run.seed))]
        for index, actions in enumerate(run.actions):
            asked = [_ask(env, now) for _ in range(2)]
            if asked[0] != asked[1]:
                broken(f"the expert was asked twice before step {index + 1} and said {asked[0]}, then {asked[1]}")
            answers.append(encode_msgpack(now := env.step(actions)))
        _same("with the expert asked before each step", run.encoded, answers)
        if env.score() != run.score:
            broken(f"asking the expert changed the score from {run.score} to {env.score()}")


def _ask(env: Environment, now: TimeStep) -> list[Any]:
    """Return the expert's action for every acting seat; None where it does not know how to go on."""

    def one(agent: AgentID) -> Any:
        try:
            return env.expert_action(agent)
        except UnsupportedError:
            return None

    return [one(agent) for agent in now.acting]


@_clause
def undeclared_expert_is_refused(probe: Probe) -> None:
    """Raises UnsupportedError: there is no expert."""
    probe.need(not probe.spec.expert, "an expert is declared")
    env = probe.fresh()
    now = env.reset(probe.tasks[0], probe.seeds[0])
    with _refusal(UnsupportedError, "expert_action"):
        env.expert_action(now.acting[0])


@_clause
def undeclared_snapshots_are_refused(probe: Probe) -> None:
    """`snapshot` and `restore` work, so that forks need no replay; else they raise UnsupportedError."""
    probe.need(not probe.spec.snapshots, "snapshots are declared")
    env = probe.fresh()
    env.reset(probe.tasks[0], probe.seeds[0])
    with _refusal(UnsupportedError, "snapshot"):
        env.snapshot()
    with _refusal(UnsupportedError, "restore"):
        env.restore(None)


def _halfway(probe: Probe) -> tuple[Environment, Run, int]:
    """Return an environment in the middle of the longest run, the run, and the number of actions taken."""
    probe.need(probe.spec.snapshots, "snapshots are not declared")
    _need_deterministic(probe)
    run = probe.longest
    env = probe.fresh()
    middle = len(run.actions) // 2
    probe.follow(run, env=env, stop=middle)
    return env, run, middle


def _goes_on_as(run: Run, middle: int, env: Environment, what: str) -> None:
    """Fail unless an environment goes on from the middle of a run as the run did."""
    _same(what, run.encoded[middle + 1 :], go_on(env, run.actions[middle:]))
    if env.score() != run.score:
        broken(f"{what}: the score is {env.score()}, not {run.score}")


@_clause
def snapshot_changes_nothing(probe: Probe) -> None:
    """Return the episode's state."""
    env, run, middle = _halfway(probe)
    env.snapshot()
    _goes_on_as(run, middle, env, "after a snapshot")


@_clause
def restore_continues(probe: Probe) -> None:
    """Continue from a state that `snapshot` returned."""
    env, run, middle = _halfway(probe)
    state = env.snapshot()
    go_on(env, run.actions[middle:])
    env.restore(state)
    _goes_on_as(run, middle, env, "after a restore")


@_clause
def state_is_restored_many_times(probe: Probe) -> None:
    """One state can be restored many times."""
    env, run, middle = _halfway(probe)
    state = env.snapshot()
    for times in range(1, 4):
        env.restore(state)
        _goes_on_as(run, middle, env, f"restored for time {times}")
        probe.play(run.task, run.seed, env=env, choices=times)


@_clause
def state_is_restored_into_another_instance(probe: Probe) -> None:
    """To be given to `restore` of an environment with the same options, in this process."""
    env, run, middle = _halfway(probe)
    state = env.snapshot()
    others = [probe.fresh(), probe.fresh()]
    for other in others:
        other.restore(state)
    for other in [*others, env]:
        _goes_on_as(run, middle, other, "restored into another instance")


@_clause
def fork_equals_its_parent(probe: Probe) -> None:
    """Return a new session that stands where this one stood after step `at`; this one is untouched."""
    _need_deterministic(probe)
    run = probe.longest
    middle = len(run.actions) // 2
    parent = Session(probe.fresh(), run.task, run.seed, limits=Limits(steps=len(run.actions) + 1))
    parent.open()
    _push(parent, run, middle)
    twin = parent.fork(probe.fresh())
    _push(twin, run, len(run.actions))
    _push(parent, run, len(run.actions))
    again = parent.fork(probe.fresh(), at=middle)
    _push(again, run, len(run.actions))
    for fork in (twin, again):
        if [record.digest for record in fork.journal] != [record.digest for record in parent.journal]:
            broken("a fork that was given its parent's actions had other answers")


def _push(session: Session, run: Run, until: int) -> None:
    """Give a session the actions of a run, up to number `until`."""
    for index in range(len(session.journal), until + 1):
        session.step(index, run.actions[index - 1])


# -- care --------------------------------------------------------------------------------------------------------------


@_clause
def close_is_safe_twice(probe: Probe) -> None:
    """Free everything that the environment holds; safe to call twice."""
    for began in (False, True):
        env = probe.fresh()
        if began:
            env.reset(probe.tasks[0], probe.seeds[0])
        env.close()
        env.close()


@_clause
def prepare_is_safe_twice_at_once(probe: Probe) -> None:
    """Do the slow one-time work of a task and cache it on disk; safe to call twice at once."""
    run = probe.runs[0]
    env = probe.fresh()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(one.prepare, run.task) for one in (env, probe.fresh())]:
            done.result()
    env.prepare(run.task)
    answers = probe.follow(run, env=env)
    if probe.spec.deterministic:
        _same("after prepare", run.encoded, answers)
