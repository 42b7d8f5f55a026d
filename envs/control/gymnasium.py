"""Environments of Gymnasium, by their ids.

Observation: the environment's own.
Actions: the environment's own: a number of a Discrete space, or an array of a Box, MultiBinary or MultiDiscrete one.
    Where its facts hold an action mask, as in Taxi, what the mask names is listed; other actions are accepted, too.
Reward: the environment's own. The declared range is the environment's where Arena knows it, else anything up to 1e9.
Endings: ``terminated`` and ``truncated``, as the environment and its time limit say.
Score: the return, which is the sum of rewards. There is no success.
Information: facts in its info dictionary are passed on where they are plain.
Expert: none.
Tasks: the environment over and over, numbered: a million to train on, and a thousand others to test on.
Seed: together with the task's number it seeds the environment.
Allowed: ids that Gymnasium itself registers, and those of packages that the environment variable ARENA_GYMNASIUM names,
    separated by commas; never ``module:id``.
Versions: v0, the first. The id of the environment holds its own version.
Source: https://gymnasium.farama.org; Towers et al. 2024, arXiv:2407.17032.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from gymnasium import spaces
from pydantic import Field, field_validator

from arena import (
    Action,
    AgentID,
    ConfigError,
    EnvSpec,
    Options,
    PrerequisiteError,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Task,
    Taskset,
    did_you_mean,
    register,
)

from .._foreign import (
    MAX_REWARD,
    MAX_SCORE,
    SPLITS,
    NumberedTasks,
    SpecOfInstance,
    allowed_packages,
    checked_arguments,
    checked_reward,
    game_seed,
    headless,
    is_below,
    plain,
    reader,
    shielded,
    writer,
)

_ID = "control/gymnasium-v0"
_VARIABLE = "ARENA_GYMNASIUM"
_USUAL = ("gymnasium.envs",)
_REGISTERED = re.compile(r"([A-Za-z0-9_]+/)?[A-Za-z0-9_.-]+")
_MASK = "action_mask"
_UNFORGETTING = ("BipedalWalker",)
"""Environments whose reset keeps something of the episode before; they are made anew for each one."""


class GymnasiumOptions(Options):
    """Options of `control/gymnasium-v0`."""

    environment: str = Field("CartPole-v1", max_length=200, description="Id of the environment in Gymnasium.")
    arguments: dict[str, Any] = Field(
        {}, max_length=32, description="Arguments of its constructor: numbers, booleans and short texts."
    )
    max_episode_steps: int | None = Field(
        None, ge=1, le=1_000_000, description="Steps after which it truncates; its own number where absent."
    )

    @field_validator("environment")
    @classmethod
    def _an_id(cls, id: str) -> str:
        if not _REGISTERED.fullmatch(id):
            raise ValueError(f"{id[:80]!r} is no id (allowed: 'Name-v0' or 'namespace/Name-v0', never 'module:id')")
        return id

    @field_validator("arguments")
    @classmethod
    def _plain(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return checked_arguments(arguments)


@dataclass(frozen=True)
class _Facts:
    """What is known of an environment that Gymnasium does not declare; true with the default arguments.

    Attributes:
        rewards: Smallest and largest reward of one step.
        scores: Smallest and largest score.
        seeded: The seed changes anything.
    """

    rewards: tuple[float, float] = (-MAX_REWARD, MAX_REWARD)
    scores: tuple[float, float] = (-MAX_SCORE, MAX_SCORE)
    seeded: bool = True


_FACTS = {
    "Acrobot-v1": _Facts((-1.0, 0.0), (-500.0, 0.0)),
    "Blackjack-v1": _Facts((-1.0, 1.0), (-1.0, 1.0)),
    "CartPole-v1": _Facts((0.0, 1.0), (0.0, 500.0)),
    "CliffWalking-v1": _Facts(seeded=False),
    "FrozenLake-v1": _Facts((0.0, 1.0), (0.0, 1.0)),
    "MountainCar-v0": _Facts((-1.0, 0.0), (-200.0, 0.0)),
}


@register(
    _ID,
    summary="An environment of Gymnasium, chosen by its id.",
    endings={"terminated": "termination", "truncated": "truncation"},
    reward_range=(-MAX_REWARD, MAX_REWARD),
    score_range=(-MAX_SCORE, MAX_SCORE),
    splits=tuple(SPLITS),
    max_steps=100_000,
)
class Gymnasium(SingleAgentEnvironment):
    """One environment of Gymnasium, made when it is first asked for; what it declares depends on it."""

    Options = GymnasiumOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._made: Any = None
        self._return = 0.0

    @property
    def made(self) -> Any:
        """Gymnasium's environment.

        Raises:
            ConfigError: There is none with this id, or it refuses its arguments.
            PrerequisiteError: A package is missing.
            UnsupportedError: Its spaces cannot be played here.
        """
        if self._made is None:
            options = self.options
            self._made = made = self._make()
            self._read = reader(made.observation_space, options.environment)
            self._write = writer(made.action_space, options.environment)
            _, info = shielded.call(made.reset, seed=0)
            self._masked = isinstance(made.action_space, spaces.Discrete) and info.get(_MASK) is not None
        return self._made

    @property
    def masked(self) -> bool:
        """Whether it names actions that make sense."""
        return self.made is not None and self._masked

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return its spaces."""
        made = self.made
        return SeatSpec(
            made.observation_space, made.action_space, instructions=f"You control {self.options.environment}."
        )

    def taskset(self, split: str) -> Taskset:
        """Return the split's numbered tasks."""
        return NumberedTasks(split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Begin an episode with the seed that task and episode give it."""
        made = self.made
        if self.options.environment.startswith(_UNFORGETTING):
            made.close()
            self._made = made = self._make()
        with headless():
            observation, info = shielded.call(made.reset, seed=game_seed(task, seed, _ID))
        self._return = 0.0
        return self._step(observation, 0.0, info)

    def act(self, action: Action) -> SeatStep:
        """Pass the action on."""
        observation, given, terminated, truncated, info = shielded.call(self._made.step, self._write(action))
        reward = checked_reward(given, self.options.environment)
        self._return += reward
        if not (terminated or truncated):
            return self._step(observation, reward, info)
        over = bool(terminated)
        ending = "terminated" if over else "truncated"
        facts = plain(info, without=_MASK) if info else {}
        return SeatStep(self._read(observation), reward, over, not over, ending, None, facts)

    def score(self) -> Score:
        """Return the sum of rewards."""
        return Score(self._return)

    def close(self) -> None:
        """Close it."""
        if self._made is not None:
            self._made.close()

    def _make(self) -> Any:
        options = self.options
        return _make(options.environment, options.arguments, options.max_episode_steps)

    def _step(self, observation: Any, reward: float, info: Mapping[str, Any]) -> SeatStep:
        facts = plain(info, without=_MASK) if info else {}
        legal = None
        if self._masked:
            start = int(self._made.action_space.start)
            legal = tuple(start + index for index, allowed in enumerate(info.get(_MASK, ())) if allowed) or None
        return SeatStep(self._read(observation), reward, legal_actions=legal, info=facts)


def _make(id: str, arguments: Mapping[str, Any], max_episode_steps: int | None) -> Any:
    """Return an environment that Gymnasium or one of the operator's packages registers."""
    import gymnasium

    packages = allowed_packages(_USUAL, _VARIABLE)
    for package in packages[len(_USUAL) :]:
        _import(package)
    found = gymnasium.registry.get(id)
    entry = "" if found is None else found.entry_point
    if found is None or not isinstance(entry, str) or not is_below(entry.partition(":")[0], packages):
        known = [spec.id for spec in gymnasium.registry.values() if is_below(str(spec.entry_point), packages)]
        hint = did_you_mean(id, known)
        hint = hint if len(hint) < 500 else " (such as 'CartPole-v1')"
        raise ConfigError(
            f"no environment {id!r}{hint}; packages allowed: {', '.join(packages)} ({_VARIABLE} adds more)"
        )
    further = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    try:
        with headless():
            _check_names(id, entry, arguments)
            return shielded.call(gymnasium.make, found, disable_env_checker=True, **further, **arguments)
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise PrerequisiteError(f"{id} needs a package that is not installed: {_first_line(error)}") from error
    except ConfigError:
        raise
    except Exception as error:  # the boundary to a constructor of others, with arguments of the user's
        what = f" with the arguments {dict(arguments)}" if arguments else ""
        raise ConfigError(f"{id} cannot be made{what}: {type(error).__name__}: {_first_line(error)}") from error


def _check_names(id: str, entry: str, arguments: Mapping[str, Any]) -> None:
    if not arguments:
        return
    path, _, attribute = entry.partition(":")
    parameters = inspect.signature(getattr(shielded.call(importlib.import_module, path), attribute)).parameters
    known = [name for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    for name in arguments:
        if name not in known:
            allowed = [other for other in known if other != "render_mode"]
            raise ConfigError(f"{id} has no argument {name!r}{did_you_mean(name, allowed)}")


def _import(package: str) -> None:
    try:
        shielded.call(importlib.import_module, package)
    except ImportError as error:
        raise ConfigError(f"{_VARIABLE} names {package}, which cannot be imported: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _spec_of(declared: EnvSpec, env: Gymnasium) -> EnvSpec:
    options = env.options
    usual = not options.arguments and options.max_episode_steps is None
    facts = _FACTS.get(options.environment, _Facts()) if usual else _Facts()
    return msgspec.structs.replace(
        declared,
        legal_actions="some" if env.masked else "none",
        reward_range=facts.rewards,
        score_range=facts.scores,
        seeded=facts.seeded or not usual,
    )


Gymnasium.spec = SpecOfInstance(Gymnasium.spec, _spec_of)  # type: ignore[assignment]
