"""PettingZoo's own suites, and a contract for what they do not see.

The suites miss observations that alias the state, episodes that never end, most of what is not deterministic, and in
parallel environments wrong types, NaN and bounds. `check_pettingzoo` runs them and the clauses below on any environment
of PettingZoo, Arena's views among them; each clause is one function, named for what must hold.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from arena.errors import ArenaError
from arena.testing.report import Clauses, Report, run_clauses
from arena.testing.verdicts import broken, need, short

__all__ = ["CLAUSES", "api_test", "check_pettingzoo", "parallel_api_test", "seed_test"]

Factory = Callable[[], Any]

_KEY_SETS = r"Live agent was not given|Agent was given|No agents present|The `infos` dictionary"
"""Warnings of the suites that tell of a defect; the others are remarks on names and on kinds of spaces."""


def check_pettingzoo(make: Factory, *, steps: int = 200, max_cycles: int = 2_000) -> Report:
    """Return the report of PettingZoo's suites and of every clause.

    Args:
        make: Returns a new AEC or parallel environment every time. If it can be pickled, a clause runs it in another
            process.
        steps: Steps of each run that is compared; episodes follow each other.
        max_cycles: Cycles within which an episode must end; in a cycle every agent may act.
    """
    probe = _Probe(make, steps, max_cycles)
    return run_clauses(probe.subject, CLAUSES, probe)


# -- the suites --------------------------------------------------------------------------------------------------------


def api_test(env: Any, num_cycles: int = 60) -> None:
    """Run PettingZoo's `api_test`: warnings on keys are errors, and text needs no dtype; arrays do as ever.

    The suite compares the dtype of every observation with its space's, and text has none.

    Raises:
        AssertionError: A check failed.
    """
    with _suites() as suites:
        suites.api_test(env, num_cycles=num_cycles)


def parallel_api_test(env: Any, num_cycles: int = 60) -> None:
    """Run PettingZoo's `parallel_api_test`; warnings on keys are errors."""
    with _suites() as suites:
        suites.parallel_api_test(env, num_cycles=num_cycles)


def seed_test(make: Factory, num_cycles: int = 60) -> None:
    """Run PettingZoo's `seed_test` on AEC environments; what `make` returns is converted where it is parallel.

    `parallel_seed_test` is never run: it stops after one step and does not look at the first observation.
    """
    with _suites() as suites:
        suites.seed_test(lambda: _as_aec(make()), num_cycles=num_cycles)


@contextmanager
def _suites() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suites = importlib.import_module("pettingzoo.test")
        module = importlib.import_module("pettingzoo.test.api_test")
        warnings.filterwarnings("error", message=_KEY_SETS)
        original: Any = module._test_observation_space_compatibility

        def without_text(expected: Any, seen: Any, recursed_keys: list[str]) -> None:
            if isinstance(expected, spaces.Tuple):
                for part, item in zip(expected.spaces, seen, strict=True):
                    without_text(part, item, recursed_keys)
            elif not isinstance(expected, spaces.Text):
                original(expected, seen, recursed_keys)

        module._test_observation_space_compatibility = without_text  # type: ignore[attr-defined]
        try:
            yield suites
        finally:
            module._test_observation_space_compatibility = original  # type: ignore[attr-defined]


def _as_aec(env: Any) -> Any:
    from pettingzoo.utils import parallel_to_aec

    return parallel_to_aec(env) if isinstance(env, ParallelEnv) else env


# -- what is played ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Told:
    """What an environment tells after a reset or a step.

    Attributes:
        before: The agents that were alive before.
        after: Those that go on.
        observations: By agent; of an AEC environment, that of the agent whose turn it is.
        rewards: By agent; None after the reset of a parallel environment.
        terminations: By agent, or None.
        truncations: By agent, or None.
        infos: By agent.
    """

    before: list[Any]
    after: list[Any]
    observations: Mapping[Any, Any]
    rewards: Mapping[Any, Any] | None
    terminations: Mapping[Any, Any] | None
    truncations: Mapping[Any, Any] | None
    infos: Mapping[Any, Any]

    def frozen(self) -> Any:
        """Return everything as values that can be compared, NaN with itself."""
        return _frozen([self.after, self.observations, self.rewards, self.terminations, self.truncations, self.infos])


def _frozen(value: Any) -> Any:
    match value:
        case np.ndarray():
            return "array", value.dtype.str, value.shape, value.tobytes()
        case np.generic():
            return "number", value.dtype.str, value.tobytes()
        case Mapping():
            return tuple(sorted(((str(key), _frozen(item)) for key, item in value.items()), key=lambda pair: pair[0]))
        case list() | tuple():
            return tuple(_frozen(item) for item in value)
        case str() | bool() | int() | float() | None:
            return type(value).__name__, repr(value)
    return type(value).__name__


class _Choices:
    """Random legal actions, from copies of the action spaces that nobody else draws from."""

    def __init__(self, env: Any) -> None:
        self._env, self._rng = env, np.random.default_rng(7)
        self._spaces: dict[Any, Any] = {}

    def of(self, agent: Any, observation: Any, info: Any) -> Any:
        """Return an action for an agent that has just been told something."""
        if agent not in self._spaces:
            self._spaces[agent] = copy.deepcopy(self._env.action_space(agent))
            self._spaces[agent].seed(int(self._rng.integers(2**31)))
        mask = info.get("action_mask") if isinstance(info, Mapping) else None
        if isinstance(observation, Mapping) and "action_mask" in observation:
            mask = observation["action_mask"]
        return self._spaces[agent].sample() if mask is None else self._spaces[agent].sample(np.array(mask))


def _play(env: Any, steps: int, *, episodes: int | None = None) -> Iterator[_Told]:
    """Yield what an environment tells in `steps` steps from ``reset(seed=42)`` on; later resets have no seed."""
    play = _play_parallel if isinstance(env, ParallelEnv) else _play_aec
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from play(env, steps, episodes)


def _play_parallel(env: Any, steps: int, episodes: int | None) -> Iterator[_Told]:
    choices, begun, taken = _Choices(env), 0, 0
    while taken < steps and (episodes is None or begun < episodes):
        observations, infos = env.reset(seed=42) if begun == 0 else env.reset()
        begun += 1
        alive = list(env.agents)
        told = _Told(alive, alive, observations, None, None, None, infos)
        while True:
            actions = {
                agent: choices.of(agent, told.observations[agent], told.infos.get(agent)) for agent in told.after
            }
            yield told
            if not told.after or taken >= steps:
                break
            before = told.after
            told = _Told(before, [], *env.step(actions))
            told.after = list(env.agents)
            taken += 1


def _play_aec(env: Any, steps: int, episodes: int | None) -> Iterator[_Told]:
    choices, begun, taken = _Choices(env), 0, 0
    while taken < steps and (episodes is None or begun < episodes):
        env.reset(seed=42) if begun == 0 else env.reset()
        begun += 1
        before = list(env.agents)
        while env.agents and taken < steps:
            agent = env.agent_selection
            observation, _, terminated, truncated, info = env.last()
            told = _Told(
                before,
                list(env.agents),
                {agent: observation},
                env.rewards,
                env.terminations,
                env.truncations,
                env.infos,
            )
            action = None if terminated or truncated else choices.of(agent, observation, info)
            yield told
            before = list(env.agents)
            env.step(action)
            taken += 1


def _digest(make: Factory, steps: int) -> str:
    """Return a digest of what a new environment tells."""
    env = make()
    try:
        return hashlib.sha256(repr([told.frozen() for told in _play(env, steps)]).encode()).hexdigest()
    finally:
        env.close()


class _Probe:
    """A factory, and what its environments told."""

    def __init__(self, make: Factory, steps: int, max_cycles: int) -> None:
        self.make, self.steps, self.max_cycles = make, steps, max_cycles
        self._open: list[Any] = []
        env = self.fresh()
        self.parallel = isinstance(env, ParallelEnv)
        self.subject = str(getattr(env, "metadata", {}).get("name", type(env).__name__))
        self.sweep()

    def fresh(self) -> Any:
        """Return a new environment, closed by the next `sweep`."""
        env = self.make()
        self._open.append(env)
        return env

    def sweep(self) -> None:
        """Close what `fresh` made."""
        while self._open:
            self._open.pop().close()

    def run(self) -> Iterator[_Told]:
        """Yield what a new environment tells."""
        return _play(self.fresh(), self.steps)


# -- the clauses -------------------------------------------------------------------------------------------------------

CLAUSES = Clauses[_Probe]()


@CLAUSES.add
def api_test_passes(probe: _Probe) -> None:
    """`api_test` passes, on the AEC form."""
    api_test(_as_aec(probe.fresh()))


@CLAUSES.add
def parallel_api_test_passes(probe: _Probe) -> None:
    """`parallel_api_test` passes, and does not warn of keys."""
    need(probe.parallel, "it is not parallel")
    parallel_api_test(probe.fresh())


@CLAUSES.add
def seed_test_passes(probe: _Probe) -> None:
    """`seed_test` passes, on the AEC form."""
    seed_test(probe.make)


@CLAUSES.add
def keys_are_those_of_live_agents(probe: _Probe) -> None:
    """All that is told is told of the agents that were alive before the step, and of no others."""
    for index, told in enumerate(probe.run()):
        expected = set(told.before if probe.parallel else told.after)
        tables = {"rewards": told.rewards, "terminations": told.terminations, "truncations": told.truncations}
        tables |= {"infos": told.infos} | ({"observations": told.observations} if probe.parallel else {})
        for name, table in tables.items():
            if table is not None and set(table) != expected:
                broken(
                    f"step {index}: {name} are of {sorted(map(str, table))}; alive were {sorted(map(str, expected))}"
                )


@CLAUSES.add
def finished_agents_leave(probe: _Probe) -> None:
    """An agent that is over is gone after the step, and does not come back; one that is not stays."""
    need(probe.parallel, "it is not parallel")
    for index, told in enumerate(probe.run()):
        if told.terminations is None or told.truncations is None:
            continue
        over = {agent for agent in told.before if told.terminations.get(agent) or told.truncations.get(agent)}
        if set(told.after) != set(told.before) - over:
            broken(f"step {index}: {sorted(map(str, over))} are over, and {sorted(map(str, told.after))} go on")


@CLAUSES.add
def flags_are_booleans(probe: _Probe) -> None:
    """Terminations and truncations are True or False, and nothing like it."""
    for index, told in enumerate(probe.run()):
        for flags in (told.terminations, told.truncations):
            for agent, flag in (flags or {}).items():
                if type(flag) is not bool:
                    broken(f"step {index}: a flag of {agent} is {flag!r} of type {type(flag).__name__}")


@CLAUSES.add
def rewards_are_finite(probe: _Probe) -> None:
    """Every reward is a finite number."""
    for index, told in enumerate(probe.run()):
        for agent, reward in (told.rewards or {}).items():
            if not math.isfinite(float(reward)):
                broken(f"step {index}: {agent} gets the reward {reward}")


@CLAUSES.add
def observations_lie_in_their_spaces(probe: _Probe) -> None:
    """Every observation is an element of its space, of the very dtypes."""
    env = probe.fresh()
    for index, told in enumerate(_play(env, probe.steps)):
        for agent, observation in told.observations.items():
            space = env.observation_space(agent)
            if not space.contains(observation) or not _same_dtypes(space, observation):
                broken(f"step {index}: {agent} observes {short(observation)}, which is not in {space}")


def _same_dtypes(space: Any, value: Any) -> bool:
    match space:
        case spaces.Dict():
            return all(_same_dtypes(part, value[name]) for name, part in space.spaces.items())
        case spaces.Tuple():
            return all(_same_dtypes(part, item) for part, item in zip(space.spaces, value, strict=True))
        case spaces.Box() | spaces.MultiBinary() | spaces.MultiDiscrete():
            return isinstance(value, np.ndarray) and value.dtype == space.dtype
    return True


@CLAUSES.add
def spaces_stay_the_same_objects(probe: _Probe) -> None:
    """`observation_space` and `action_space` return the same object each time, so that seeding it has an effect."""
    env = probe.fresh()
    for told in _play(env, 2):
        for agent in told.after:
            for space in (env.observation_space, env.action_space):
                if space(agent) is not space(agent):
                    broken(f"the spaces of {agent} are new objects each time")


@CLAUSES.add
def same_seed_gives_the_same_episodes(probe: _Probe) -> None:
    """From one seed, all is the same: the first observation, every step, and the episodes after further resets."""
    _must_agree(probe, "with the same seed", probe.fresh(), probe.fresh())


@CLAUSES.add
def reset_with_a_seed_forgets(probe: _Probe) -> None:
    """A reset with a seed begins the same episodes in an environment that has played before."""
    env = probe.fresh()
    for _ in _play(env, max(3, probe.steps // 3)):
        pass
    _must_agree(probe, "after other episodes", probe.fresh(), env)


def _must_agree(probe: _Probe, what: str, one: Any, other: Any) -> None:
    pairs = zip(_play(one, probe.steps), _play(other, probe.steps), strict=False)
    for index, (expected, got) in enumerate(pairs):
        if expected.frozen() != got.frozen():
            broken(f"{what}, step {index} was {short(expected)} and is {short(got)}")


@CLAUSES.add
def another_process_gives_the_same_episodes(probe: _Probe) -> None:
    """From one seed, all is the same in another process."""
    try:
        pickle.dumps(probe.make)
    except Exception:  # whatever a stranger's factory raises
        need(False, "what makes it cannot be pickled")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        theirs = pool.submit(_digest, probe.make, probe.steps).result()
    if theirs != _digest(probe.make, probe.steps):
        broken("the same seed gives other episodes in another process")


@CLAUSES.add
def what_is_told_is_its_readers_own(probe: _Probe) -> None:
    """Changing what was told changes nothing later, and nothing later changes what was told."""
    calm = [told.frozen() for told in probe.run()]
    kept: list[tuple[Any, Any]] = []
    for index, told in enumerate(probe.run()):
        if told.frozen() != calm[index]:
            broken(f"step {index} is another one once observations of the steps before it are changed")
        for array in _arrays(told.observations):
            _spoil(array)
    for index, told in enumerate(probe.run()):
        kept.append((told.observations, _frozen(told.observations)))
        if _frozen(kept[max(0, index - 1)][0]) != kept[max(0, index - 1)][1]:
            broken(f"step {index} changed the observations of the step before it")


@CLAUSES.add
def agents_share_no_memory(probe: _Probe) -> None:
    """No two agents are given the same array."""
    env = probe.fresh()
    for index, told in enumerate(_play(env, min(probe.steps, 20))):
        given = told.observations
        if not probe.parallel:
            given = {agent: env.observe(agent) for agent in env.agents}
        arrays = [(agent, array) for agent, value in given.items() for array in _arrays(value)]
        for number, (agent, array) in enumerate(arrays):
            for other, theirs in arrays[:number]:
                if other != agent and np.shares_memory(array, theirs):
                    broken(f"step {index}: the observations of {other} and {agent} share memory")


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    match value:
        case np.ndarray():
            yield value
        case Mapping():
            for item in value.values():
                yield from _arrays(item)
        case list() | tuple():
            for item in value:
                yield from _arrays(item)


def _spoil(array: np.ndarray[Any, Any]) -> None:
    if array.flags.writeable:
        array[...] = ~array if array.dtype == bool else array + array.dtype.type(1)


@CLAUSES.add
def episodes_end(probe: _Probe) -> None:
    """An episode of random play ends within `max_cycles` cycles, in each of which every agent may act."""
    env = probe.fresh()
    turns = 1 if probe.parallel else len(env.possible_agents)
    for _ in _play(env, probe.max_cycles * turns, episodes=1):
        pass
    if env.agents:
        broken(f"an episode goes on after {probe.max_cycles} cycles")


@CLAUSES.add
def it_is_pickled_or_refuses(probe: _Probe) -> None:
    """A copy through pickle plays the same episodes; or pickling is refused, in one line that says so."""
    env = probe.fresh()
    try:
        data = pickle.dumps(env)
    except ArenaError as error:
        if "pickle" not in str(error) or "\n" in str(error):
            broken(f"pickling is refused with {str(error)!r}, which does not say so")
        return
    twin = pickle.loads(data)
    probe._open.append(twin)
    _must_agree(probe, "in a pickled copy", env, twin)
