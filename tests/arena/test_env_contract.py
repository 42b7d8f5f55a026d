"""Every registered environment keeps every clause, and every clause catches the defect that it is named for."""

from __future__ import annotations

import copy
import itertools
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
from gymnasium import spaces

from arena import (
    PLAYER,
    Action,
    AgentID,
    Array,
    Environment,
    EnvSpec,
    FreeText,
    InvalidActionError,
    Options,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Task,
    Taskset,
    TimeStep,
    Tool,
    ToolCall,
    UnknownIdError,
    UnsupportedError,
    make,
    python_stream,
    restart,
    stream,
    termination,
    transition,
    truncation,
)
from arena.registry import environments
from arena.testing import ContractError, check_env
from arena.testing.env_contract import CLAUSES


@pytest.mark.parametrize("env_id", environments.ids())
def test_registered_environment_keeps_the_contract(env_id: str) -> None:
    env = make(env_id)
    tasks = [env.taskset(split).task(0) for split in env.spec.splits]
    check_env(env_id, tasks=tasks, max_steps=25).raise_if_failed()


def test_registry_is_not_empty() -> None:
    assert "text/guess-v0" in environments.ids()
    assert not environments.broken


# -- sound environments of every kind ---------------------------------------------------------------------------------


class Lines(Taskset):
    def __init__(self, split: str) -> None:
        self.split = split
        self.sizes = {"train": (6, 7, 8, 9), "test": (10, 11)}[split]

    def __len__(self) -> int:
        return len(self.sizes)

    def task(self, index: int) -> Task:
        size = self.sizes[index]
        return Task(f"line-{size}", self.split, {"size": size})


_NEAR = spaces.Box(-1, 1, (2,), np.float32)
_WALKER = SeatSpec(spaces.Dict({"place": spaces.Discrete(12), "near": _NEAR}), FreeText(8), (), "Go right.")


class WalkOptions(Options):
    patience: int = pydantic.Field(12, ge=1, description="Moves before the walker is tired.")


class Walk(SingleAgentEnvironment):
    """Walk to the right end of a line; one cannot go left from its left end."""

    Options = WalkOptions
    spec = EnvSpec(
        id="toys/walk-v0",
        summary="Walk to the end of a line.",
        endings={"goal": "termination", "tired": "truncation"},
        reward_range=(-0.1, 1.0),
        metrics={"moves": "Moves made."},
        legal_actions="all",
        snapshots=True,
        expert=True,
        max_steps=50,
    )

    def seat(self, agent: AgentID) -> SeatSpec:
        return _WALKER

    def taskset(self, split: str) -> Taskset:
        return Lines(split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        if not isinstance(task.data.get("size"), int):
            raise UnknownIdError(f"no task {task.id!r} (known: line-6 to line-11)")
        self.size: int = task.data["size"]
        self.trail = [python_stream(seed, "env").randint(0, 3)]
        return restart(self.look(), legal_actions=self.legal(), moves=0)

    def act(self, action: Action) -> SeatStep:
        if action not in self.legal():
            raise InvalidActionError(f"{action!r} is not legal (legal: {self.legal()})")
        self.trail.append(self.place + (1 if action == "right" else -1))
        if self.place == self.size:
            return termination(self.look(), 1.0, ending="goal")
        if self.moves == self.options.patience:
            return truncation(self.look(), 0.0, ending="tired")
        return transition(self.look(), -0.1, legal_actions=self.legal(), moves=self.moves)

    def score(self) -> Score:
        return Score(float(self.place == self.size), self.place == self.size, {"moves": float(self.moves)})

    def expert_action(self, agent: AgentID) -> Action:
        return "right"

    def snapshot(self) -> object:
        return copy.deepcopy((self.size, self.trail))

    def restore(self, state: object) -> None:
        self.size, self.trail = copy.deepcopy(state)  # type: ignore[misc]

    @property
    def place(self) -> int:
        return self.trail[-1]

    @property
    def moves(self) -> int:
        return len(self.trail) - 1

    def legal(self) -> tuple[str, ...]:
        return ("left", "right") if self.place else ("right",)

    def look(self) -> Any:
        return {"place": self.place, "near": np.array([self.place / 12, 0], np.float32)}


class Race(Environment):
    """Both seats run at once; who has arrived runs no further."""

    spec = EnvSpec(
        id="toys/race-v0",
        summary="Run until both have arrived.",
        endings={"arrived": "termination"},
        reward_range=(0, 1),
        play="simultaneous",
        splits=("train",),
        seeded=False,
    )

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        return ("a", "b")

    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(spaces.Discrete(40), spaces.Discrete(3, start=1))

    def taskset(self, split: str) -> Taskset:
        return Lines(split)

    def reset(self, task: Task, seed: int) -> TimeStep:
        if "size" not in task.data:
            raise UnknownIdError("no such task (known: line-6 to line-9)")
        self.size, self.run = task.data["size"], {"a": 0, "b": 0}
        return TimeStep({agent: restart(0) for agent in self.run}, ("a", "b"))

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        for agent, action in actions.items():
            assert isinstance(action, int)
            self.run[agent] += action
        return TimeStep({agent: self.given(agent) for agent in actions}, self.alive())

    def given(self, agent: AgentID) -> SeatStep:
        far = self.run[agent]
        return transition(far, 0.0) if far < self.size else termination(far, 1.0, ending="arrived")

    def alive(self) -> tuple[AgentID, ...]:
        return tuple(agent for agent, far in self.run.items() if far < self.size)

    def score(self) -> Score:
        return Score(0.5, seats={agent: float(far >= self.size) for agent, far in self.run.items()})


class Nim(Environment):
    """Take one to three stones in turn; who takes the last one wins."""

    spec = EnvSpec(
        id="toys/nim-v0",
        summary="Take the last stone.",
        endings={"won": "termination", "lost": "termination"},
        reward_range=(-1, 1),
        score_range=(-1, 1),
        play="turns",
        splits=("train",),
        legal_actions="all",
        expert=True,
    )

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        return ("first", "second")

    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(spaces.Box(0, 50, (1,), np.int64), spaces.Discrete(3, start=1))

    def taskset(self, split: str) -> Taskset:
        return Lines(split)

    def reset(self, task: Task, seed: int) -> TimeStep:
        if "size" not in task.data:
            raise UnknownIdError("no such task (known: line-6 to line-9)")
        self.stones = task.data["size"] + python_stream(seed, "env").randint(0, 9)
        self.turn = 0
        return TimeStep(
            {agent: restart(self.look(), legal_actions=self.legal()) for agent in self.possible_agents}, ("first",)
        )

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        (action,) = actions.values()
        if action not in self.legal():
            raise InvalidActionError(f"{action!r} is not legal (legal: {self.legal()})")
        self.stones -= int(str(action))
        self.turn = 1 - self.turn
        mine, theirs = self.possible_agents[self.turn], self.possible_agents[1 - self.turn]
        if self.stones:
            given = transition(self.look(), 0, legal_actions=self.legal())
            return TimeStep({mine: given, theirs: given}, (mine,))
        lost, won = termination(self.look(), -1, ending="lost"), termination(self.look(), 1, ending="won")
        return TimeStep({mine: lost, theirs: won})

    def expert_action(self, agent: AgentID) -> Action:
        if agent != self.possible_agents[self.turn]:
            raise UnsupportedError("it is the other's turn")
        return self.stones % 4 or 1

    def score(self) -> Score:
        return Score(0.0 if self.stones else 2.0 * self.turn - 1)

    def look(self) -> Any:
        return np.array([self.stones])

    def legal(self) -> tuple[int, ...]:
        return tuple(range(1, min(3, self.stones) + 1))


_PRESS = {
    "type": "object",
    "properties": {"button": {"enum": ["red", "blue"]}, "times": {"type": "integer", "minimum": 1, "maximum": 3}},
    "required": ["button", "times"],
    "additionalProperties": False,
}


class Press(SingleAgentEnvironment):
    """Press a button seven times, by tool calls; no seed, no listing, no expert."""

    spec = EnvSpec(
        id="toys/press-v0",
        summary="Press a button.",
        endings={"pressed": "termination"},
        reward_range=(0, 1),
        splits=("train",),
        seeded=False,
    )

    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(FreeText(100), None, (Tool("press", "Press a button.", _PRESS),))

    def taskset(self, split: str) -> Taskset:
        return Lines(split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        if "size" not in task.data:
            raise UnknownIdError("no such task (known: line-6 to line-9)")
        self.pressed = 0
        return restart("There are two buttons.")

    def act(self, action: Action) -> SeatStep:
        assert isinstance(action, ToolCall)
        self.pressed += action.arguments["times"]
        if self.pressed < 7:
            return transition(f"{action.arguments['button']} clicks.", 0)
        return termination("It rings.", 1, ending="pressed")

    def score(self) -> Score:
        return Score(float(self.pressed >= 7))


class Aim(SingleAgentEnvironment):
    """Throw five darts with array actions; the wind comes from nowhere, so it is not deterministic."""

    spec = EnvSpec(
        id="toys/aim-v0",
        summary="Throw darts.",
        endings={"thrown": "termination"},
        reward_range=(0, 1),
        splits=("train",),
        deterministic=False,
    )
    wind = np.random.default_rng()

    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(spaces.Box(-9, 9, (2,), np.float32), spaces.Box(-1, 1, (2,), np.float32))

    def taskset(self, split: str) -> Taskset:
        return Lines(split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        if "size" not in task.data:
            raise UnknownIdError("no such task (known: line-6 to line-9)")
        self.darts = 0
        return restart(np.zeros(2, np.float32))

    def act(self, action: Action) -> SeatStep:
        assert isinstance(action, Array)
        self.darts += 1
        hit = (action.numpy() + self.wind.uniform(-1, 1, 2)).astype(np.float32)
        return transition(hit, 0) if self.darts < 5 else termination(hit, 1, ending="thrown")

    def score(self) -> Score:
        return Score(1.0)


@pytest.mark.parametrize("cls", [Walk, Race, Nim, Press, Aim])
def test_sound_environment_keeps_the_contract(cls: type[Environment]) -> None:
    check_env(cls).raise_if_failed()


def test_clauses_that_do_not_apply_say_why() -> None:
    report = check_env(Aim)
    skipped = [outcome for outcome in report.outcomes if outcome.verdict == "not applicable"]
    assert {"same_task_seed_and_actions_give_same_steps", "fork_equals_its_parent"} <= {o.clause for o in skipped}
    assert all(outcome.why for outcome in skipped)


# -- defects ----------------------------------------------------------------------------------------------------------


def variant(base: type[Environment], spec: Mapping[str, Any] | None = None, **members: Any) -> type[Environment]:
    """Return a subclass with another declaration and other methods."""
    changed = msgspec.structs.replace(base.spec, **(spec or {}))
    return type("Broken", (base,), {"spec": changed, **members})


def altered(method: Callable[..., Any], **changes: Any) -> Callable[..., Any]:
    """Return a method whose step has other fields; a callable change is given the step."""

    def call(self: Any, *args: Any) -> Any:
        step = method(self, *args)
        return msgspec.structs.replace(step, **{k: v(step) if callable(v) else v for k, v in changes.items()})

    return call


def with_tasks(
    base: type[Taskset] = Lines, /, splits: tuple[str, ...] | None = None, **members: Any
) -> type[Environment]:
    tasks = type("BrokenTasks", (base,), members)
    return variant(Walk, {} if splits is None else {"splits": splits}, taskset=lambda self, split: tasks(split))


def with_seat(base: type[Environment] = Walk, /, **changes: Any) -> type[Environment]:
    def seat(self: Any, agent: AgentID) -> SeatSpec:
        given = base.seat(self, agent)
        old = {name: getattr(given, name) for name in SeatSpec.__slots__}
        return SeatSpec(**{**old, **{k: v(self) if callable(v) else v for k, v in changes.items()}})

    return variant(base, seat=seat)


class _Undescribed(Options):
    patience: int = 12


class _Patient(Options):
    patience: int = pydantic.Field(59, description="Moves before the walker is tired.")


class _Loose(WalkOptions):
    model_config = pydantic.ConfigDict(extra="ignore")


class _Lossy(WalkOptions):
    @pydantic.field_serializer("patience")
    def _half(self, patience: int) -> int:
        return patience // 2


class _AnyText(FreeText):
    def contains(self, x: Any) -> bool:
        return True


class _ByTuple(Press):
    spec = msgspec.structs.replace(Press.spec, expert=True)

    def expert_action(self, agent: AgentID) -> Action:
        return ToolCall("press", {"button": "red", "times": 1, "how": (1, 2)})


_MODULE_RNG = random.Random(0)
_counter = itertools.count()


def _new_task_each_time(self: Any, index: int) -> Task:
    return Task(f"line-{index}-{self.split}", self.split, {"size": 6, "serial": next(_counter)})


def _skip_first(self: Any) -> Iterator[Task]:
    return (self.task(index) for index in range(1, len(self)))


def _sample_globally(self: Any, count: int, seed: int) -> list[Task]:
    return [self.task(index) for index in random.sample(range(len(self)), min(count, len(self)))]


def _goes_on_where_it_was(self: Any, task: Task, seed: int) -> SeatStep:
    old = getattr(self, "trail", None)
    step = Walk.begin(self, task, seed)
    if old and self.size != old[-1] and len(old) - 1 != self.options.patience:
        self.trail = old
        step = restart(self.look(), legal_actions=self.legal(), moves=self.moves)
    return step


def _counts_episodes(self: Any, task: Task, seed: int) -> SeatStep:
    self.episodes = getattr(self, "episodes", 0) + 1
    return msgspec.structs.replace(Walk.begin(self, task, seed), info={"episode": self.episodes})


def _notes_its_thread(self: Any, options: Any = None) -> None:
    Walk.__init__(self, options)
    self.thread = threading.get_ident()


def _only_on_its_thread(self: Any, action: Action) -> SeatStep:
    if threading.get_ident() != self.thread:
        raise RuntimeError("called from another thread than the one that made it")
    return Walk.act(self, action)


class _Shared(Walk):
    state: list[int] = []  # noqa: RUF012 - the defect: one list for all instances

    def begin(self, task: Task, seed: int) -> SeatStep:
        step = super().begin(task, seed)
        self.state[:] = [0]
        return step

    def act(self, action: Action) -> SeatStep:
        step = super().act(action)
        self.state[0] += 1
        return msgspec.structs.replace(step, info={"moves": self.state[0]})


class _ResetsRefusals(Walk):
    """A refused action costs a move."""

    def act(self, action: Action) -> SeatStep:
        if action not in self.legal():
            self.trail.append(self.place)
            raise InvalidActionError("not legal (legal: left, right)")
        if self.moves >= self.options.patience:
            return truncation(self.look(), 0.0, ending="tired")
        return super().act(action)


class _OneObservation(Walk):
    """The same dictionary is returned and changed at every step."""

    seen: dict[str, Any]

    def begin(self, task: Task, seed: int) -> SeatStep:
        self.seen = {}
        return super().begin(task, seed)

    def look(self) -> Any:
        self.seen.update(super().look())
        return self.seen


def _from_seed(draw: Callable[[int], Any]) -> type[Environment]:
    """Return a walk whose first place comes from elsewhere than its stream."""

    def begin(self: Any, task: Task, seed: int) -> SeatStep:
        Walk.begin(self, task, seed)
        self.trail = [draw(seed)]
        return restart(self.look(), legal_actions=self.legal(), moves=0)

    return variant(Walk, begin=begin)


def _draw_globally(self: Any, action: Action) -> SeatStep:
    random.random()
    return Walk.act(self, action)


def _raise(error: Exception) -> Any:
    raise error


def _tell_of_the_end(self: Any) -> tuple[str, ...]:
    return ("left", "right")


def _mark_task(self: Any, task: Task, seed: int) -> SeatStep:
    step = Walk.begin(self, task, seed)
    task.data["played"] = True
    return step


def _pop_times(self: Any, action: Action) -> SeatStep:
    step = Press.act(self, action)
    assert isinstance(action, ToolCall)
    action.arguments["times"] = 0
    return step


def _scores_once(self: Any) -> Score:
    self.scored = getattr(self, "scored", 0) + 1
    return Score(1.0 / self.scored)


def _moves_by_asking(self: Any, agent: AgentID) -> Action:
    self.trail.append(self.place)
    return "right"


def _forgetful_restore(self: Any, state: Any) -> None:
    self.size, self.trail = state[0], state[1][-1:]


def _restore_place_only(self: Any, state: Any) -> None:
    self.trail = list(state[1])


def _snapshot_and_rest(self: Any) -> object:
    state = Walk.snapshot(self)
    self.trail = self.trail[-1:]
    return state


def _close_once(self: Any) -> None:
    if getattr(self, "closed", False):
        raise RuntimeError("closed already")
    self.closed = True


_prepared: set[str] = set()


def _prepare_once(self: Any, task: Task) -> None:
    if task.id in _prepared:
        raise FileExistsError(task.id)
    _prepared.add(task.id)


def _revive(self: Any, actions: Mapping[AgentID, Action]) -> TimeStep:
    answer = Race.step(self, actions)
    return TimeStep({agent: self.given(agent) for agent in self.run}, answer.acting)


def _one_acts(self: Any, actions: Mapping[AgentID, Action]) -> TimeStep:
    answer = Nim.step(self, actions)
    return TimeStep(answer.seats, tuple(answer.seats) if answer.acting else ())


_wrong_schema = Tool("press", "Press a button.", {"type": "object", "properties": 5})

DEFECTS: list[tuple[str, str, Any]] = [
    ("an id without a version", "id_names_family_name_and_version", variant(Walk, {"id": "toys/walk"})),
    ("no summary", "summary_is_one_sentence", variant(Walk, {"summary": ""})),
    ("range upside down", "ranges_are_finite_and_ordered", variant(Walk, {"reward_range": (1.0, -0.1)})),
    ("infinite range", "ranges_are_finite_and_ordered", variant(Walk, {"score_range": (0.0, float("inf"))})),
    ("no ending declared", "endings_and_metrics_are_declared", variant(Walk, {"endings": {}})),
    ("group without meaning", "groups_are_declared_and_kept", variant(Walk, {"groups": {"kind": ""}})),
    ("group that tasks lack", "groups_are_declared_and_kept", variant(Walk, {"groups": {"kind": "What kind it is."}})),
    ("metric without meaning", "endings_and_metrics_are_declared", variant(Walk, {"metrics": {"moves": ""}})),
    ("max_steps of zero", "max_steps_is_positive", variant(Walk, {"max_steps": 0})),
    ("option undescribed", "options_are_described", variant(Walk, Options=_Undescribed)),
    ("unknown options accepted", "unknown_option_is_refused", variant(Walk, Options=_Loose)),
    ("options that change in JSON", "options_survive_json", variant(Walk, Options=_Lossy)),
    ("empty split", "every_split_has_tasks", with_tasks(__len__=lambda self: 0)),
    ("iteration too short", "length_matches_iteration", with_tasks(__iter__=_skip_first)),
    ("tasks made anew", "task_number_is_always_the_same", with_tasks(task=_new_task_each_time)),
    ("tasks of another split", "tasks_belong_to_their_split", with_tasks(task=lambda s, i: Task(f"{s.split}{i}"))),
    ("splits that share ids", "task_ids_are_unique", with_tasks(task=lambda s, i: Task(f"{i}", s.split, {"size": 6}))),
    ("path as an id", "task_ids_are_unique", with_tasks(task=lambda s, i: Task(f"../{i}", s.split, {"size": 6}))),
    ("sample by global RNG", "sample_is_deterministic_and_distinct", with_tasks(sample=_sample_globally)),
    ("get of a wrong task", "task_is_found_by_id", with_tasks(get=lambda self, task_id: self.task(0))),
    ("get of an unknown id", "unknown_task_id_is_refused", with_tasks(get=lambda self, task_id: {}[task_id])),
    (
        "tuple in a task",
        "tasks_survive_the_wire",
        with_tasks(task=lambda s, i: Task(f"{s.split}{i}", s.split, {"a": (1,)})),
    ),
    (
        "foreign task accepted",
        "foreign_task_is_refused",
        variant(Walk, begin=lambda self, task, seed: Walk.begin(self, Task("t", data={"size": 6}), seed)),
    ),
    ("seat with a wrong name", "seats_are_named_and_fixed", variant(Walk, possible_agents=("walker",))),
    ("seat that changes", "seat_is_constant", with_seat(instructions=lambda self: str(getattr(self, "size", 0)))),
    (
        "space that cannot be sent",
        "spaces_survive_the_wire",
        with_seat(observation_space=spaces.Sequence(spaces.Discrete(2))),
    ),
    ("no way to act", "seat_can_act", with_seat(action_space=None)),
    ("actions of a Dict space", "seat_can_act", with_seat(action_space=spaces.Dict({"a": spaces.Discrete(2)}))),
    ("tool with a wrong schema", "tools_are_valid", with_seat(Press, tools=(_wrong_schema,))),
    ("reward at the start", "reset_gives_no_reward", variant(Walk, begin=altered(Walk.begin, reward=0.5))),
    (
        "over at the start",
        "reset_ends_nobody",
        variant(Walk, begin=altered(Walk.begin, terminated=True, ending="goal")),
    ),
    ("episode goes on over a reset", "reset_drops_an_unfinished_episode", variant(Walk, begin=_goes_on_where_it_was)),
    ("two act in turn-based play", "acting_matches_declared_play", variant(Nim, step=_one_acts)),
    ("turns declared, played at once", "acting_matches_declared_play", variant(Race, {"play": "turns"})),
    ("seat that ended is given a step", "every_live_seat_gets_every_step", variant(Race, step=_revive)),
    (
        "observation outside its space",
        "observation_lies_in_its_space",
        variant(Walk, look=lambda self: {**Walk.look(self), "place": 12}),
    ),
    ("reward outside its range", "reward_lies_in_its_range", variant(Walk, act=altered(Walk.act, reward=1.5))),
    ("reward that is no number", "reward_lies_in_its_range", variant(Walk, act=altered(Walk.act, reward=float("nan")))),
    (
        "truncation reported as termination",
        "ending_is_declared_with_its_kind",
        variant(Walk, act=altered(Walk.act, terminated=lambda s: s.is_last, truncated=False)),
    ),
    (
        "undeclared ending",
        "ending_is_declared_with_its_kind",
        variant(Walk, act=altered(Walk.act, ending=lambda s: "lost" if s.is_last else None)),
    ),
    (
        "ending while it goes on",
        "ending_is_declared_with_its_kind",
        variant(Walk, act=altered(Walk.act, ending="goal")),
    ),
    ("list left out", "legal_actions_are_listed_as_declared", variant(Walk, act=altered(Walk.act, legal_actions=None))),
    ("list not declared", "legal_actions_are_listed_as_declared", variant(Walk, {"legal_actions": "none"})),
    ("list with strangers", "listed_actions_are_legal", with_seat(action_space=FreeText(4))),
    (
        "list with an illegal action",
        "listed_actions_are_accepted",
        variant(Walk, begin=altered(Walk.begin, legal_actions=("right", "jump"))),
    ),
    (
        "illegal action accepted",
        "unlisted_action_is_refused",
        variant(Walk, legal=lambda self: None, act=lambda self, action: transition(self.look(), 0.0)),
    ),
    ("space that admits anything", "illegal_action_is_refused", with_seat(Press, action_space=_AnyText())),
    ("refused action costs a move", "refused_action_changes_nothing", _ResetsRefusals),
    (
        "module-level RNG",
        "same_task_seed_and_actions_give_same_steps",
        _from_seed(lambda seed: _MODULE_RNG.randint(0, 3)),
    ),
    ("episodes counted", "reset_forgets_the_last_episode", variant(Walk, begin=_counts_episodes)),
    ("state shared by instances", "instances_are_independent", _Shared),
    (
        "bound to the thread that made it",
        "episodes_that_wait_go_side_by_side",
        variant(Walk, {"blocking": True}, __init__=_notes_its_thread, act=_only_on_its_thread),
    ),
    ("draw from the global RNG", "global_generators_are_left_alone", variant(Walk, act=_draw_globally)),
    ("global RNG seeded", "global_generators_are_left_alone", _from_seed(lambda seed: np.random.seed(seed) or 0)),
    ("global RNG decides", "global_generators_decide_nothing", _from_seed(lambda seed: random.randint(0, 3))),
    ("seed ignored", "seed_is_honest", _from_seed(lambda seed: 2)),
    ("seed heeded undeclared", "seed_is_honest", variant(Walk, {"seeded": False})),
    (
        "info that JSON cannot hold",
        "answers_survive_the_wire",
        variant(Walk, act=altered(Walk.act, info={"seen": object()})),
    ),
    ("info with integer keys", "answers_survive_the_wire", variant(Walk, act=altered(Walk.act, info={"at": {1: 2}}))),
    ("reward that is a bool", "answers_survive_the_wire", variant(Walk, act=altered(Walk.act, reward=True))),
    ("tuple in an action", "actions_survive_the_wire", _ByTuple),
    ("one observation for all", "answers_stay_as_they_were", _OneObservation),
    ("task marked", "task_and_actions_are_not_changed", variant(Walk, begin=_mark_task)),
    ("action changed", "task_and_actions_are_not_changed", variant(Press, act=_pop_times)),
    ("score out of range", "score_lies_in_its_range", variant(Walk, score=lambda self: Score(2.0))),
    ("no score", "score_lies_in_its_range", variant(Walk, score=lambda self: None)),
    (
        "undeclared metric",
        "score_has_declared_metrics",
        variant(Walk, score=lambda self: Score(1.0, metrics={"x": 1.0})),
    ),
    ("score that wears off", "score_stays_when_asked_again", variant(Walk, score=_scores_once)),
    (
        "no score before the end",
        "unfinished_episode_has_a_score",
        variant(Walk, score=lambda self: Walk.score(self) if self.moves else _raise(RuntimeError("too early"))),
    ),
    ("stranger's seat", "session_plays_it_to_the_end", variant(Race, possible_agents=("a", "c"))),
    ("shared reward that differs", "shared_reward_is_honest", variant(Race, {"shared_reward": True})),
    (
        "expert makes illegal moves",
        "expert_gives_legal_actions",
        variant(Walk, expert_action=lambda self, agent: "jump"),
    ),
    (
        "expert walks away",
        "expert_does_no_worse_than_chance",
        variant(Walk, expert_action=lambda self, agent: self.legal()[0], Options=_Patient),
    ),
    ("expert changes state", "expert_changes_nothing", variant(Walk, expert_action=_moves_by_asking)),
    ("experts of one name", "experts_are_told_apart_by_name", variant(Walk, {"experts": ("a", "a")})),
    (
        "first expert is not the default",
        "experts_are_told_apart_by_name",
        variant(
            Walk,
            {"experts": ("first", "second")},
            expert_action=lambda self, agent, kind="second": self.legal()[0 if kind == "second" else -1],
        ),
    ),
    ("expert not declared", "undeclared_expert_is_refused", variant(Walk, {"expert": False})),
    ("snapshots not declared", "undeclared_snapshots_are_refused", variant(Walk, {"snapshots": False})),
    ("snapshot moves", "snapshot_changes_nothing", variant(Walk, snapshot=_snapshot_and_rest)),
    ("restore forgets", "restore_continues", variant(Walk, restore=_forgetful_restore)),
    ("fork forgets", "fork_equals_its_parent", variant(Walk, restore=_forgetful_restore)),
    (
        "shallow snapshot",
        "state_is_restored_many_times",
        variant(
            Walk,
            snapshot=lambda self: dict(vars(self)),
            restore=lambda self, state: self.__dict__.update(state),
        ),
    ),
    (
        "restore of half the state",
        "state_is_restored_into_another_instance",
        variant(Walk, restore=_restore_place_only),
    ),
    ("close fails twice", "close_is_safe_twice", variant(Walk, close=_close_once)),
    ("prepare fails twice", "prepare_is_safe_twice_at_once", variant(Walk, prepare=_prepare_once)),
]


@pytest.mark.parametrize(("clause", "cls"), [pytest.param(c, cls, id=name) for name, c, cls in DEFECTS])
def test_defect_is_caught_by_its_clause(clause: str, cls: type[Environment]) -> None:
    report = check_env(cls)
    assert clause in report.failed, report
    with pytest.raises(ContractError, match=clause) as caught:
        report.raise_if_failed()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, AssertionError)


def test_every_clause_has_a_defect() -> None:
    kept_by_the_session = {"step_after_the_end_is_refused"}
    assert set(CLAUSES) - {clause for _, clause, _ in DEFECTS} == kept_by_the_session


def test_random_play_does_not_share_the_environments_stream() -> None:
    """A policy that drew from the environment's stream would walk as far as the secret start at once."""
    draws = {int(stream(seed, "policy").integers(100)) == int(stream(seed, "env").integers(100)) for seed in range(20)}
    assert False in draws


def test_given_tasks_and_options_are_used() -> None:
    task = Lines("test").task(0)
    report = check_env(Walk, options={"patience": 1}, tasks=[task], seeds=[4])
    report.raise_if_failed()
    seen: list[str] = []

    class Spy(Walk):
        def begin(self, task: Task, seed: int) -> SeatStep:
            seen.append(task.id)
            return super().begin(task, seed)

    check_env(Spy, tasks=[task])
    assert set(seen) == {task.id, "no-such-task"}


def test_seat_of_a_single_environment_is_the_player() -> None:
    assert Walk().possible_agents == (PLAYER,)
