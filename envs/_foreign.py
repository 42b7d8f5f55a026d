"""What environments of other libraries share: whom to trust, arguments, tasks, spaces, and how their calls are kept.

Options may come from a client at the other end of a network. So what may be loaded is a closed list that only the
operator extends, and arguments are plain values by name.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from gymnasium import spaces

from arena import (
    Action,
    Array,
    ConfigError,
    EnvError,
    EnvSpec,
    Task,
    Taskset,
    UnknownIdError,
    UnsupportedError,
    derive_seed,
    did_you_mean,
)

__all__ = [
    "MAX_REWARD",
    "MAX_SCORE",
    "SPLITS",
    "NumberedTasks",
    "SpecOfInstance",
    "allowed_packages",
    "checked_arguments",
    "checked_reward",
    "game_seed",
    "headless",
    "is_below",
    "plain",
    "reader",
    "shielded",
    "writer",
]

SPLITS = {"train": 1_000_000, "test": 1_000}
"""Splits and their numbers of tasks."""
MAX_REWARD = 1e9
"""Rewards are refused beyond this where no narrower range is known."""
MAX_SCORE = 1e12
"""Scores are refused beyond this where no narrower range is known."""

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TEXT = re.compile(r"[A-Za-z0-9_ .,:+-]{0,64}")
_REFUSED_NAMES = re.compile(r"render_mode|.*(path|file|dir|folder).*", re.IGNORECASE)
_LONG_NAMES = re.compile(r".*(cycle|step|frame).*", re.IGNORECASE)
_LONGEST, _LARGEST = 1_000_000, 1_000
"""Largest argument that is a time, and any other: a client must not be able to ask for a game that fills the memory."""


class SpecOfInstance:
    """A `spec` that declares on the class what is true of every game, and on an instance what is true of its own.

    Args:
        declared: The class's.
        derive: Returns an instance's from the class's; called when the instance's is first asked for.
    """

    def __init__(self, declared: EnvSpec, derive: Callable[[EnvSpec, Any], EnvSpec]) -> None:
        self.declared, self._derive = declared, derive

    def __get__(self, env: Any, owner: type) -> EnvSpec:
        if env is None:
            return self.declared
        spec = vars(env)["spec"] = self._derive(self.declared, env)  # found there from now on
        return spec


# -- whom to trust -----------------------------------------------------------------------------------------------------


def allowed_packages(usual: tuple[str, ...], variable: str) -> tuple[str, ...]:
    """Return the packages from which environments may be loaded.

    Args:
        usual: Those that are always allowed.
        variable: The environment variable in which the operator names more, separated by commas.

    Raises:
        ConfigError: The variable holds something that is no module name.
    """
    further = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    for name in further:
        if not _MODULE.fullmatch(name):
            raise ConfigError(
                f"the variable {variable} holds {name!r}; it takes names of packages, separated by commas"
            )
    return (*usual, *further)


def is_below(module: str, packages: tuple[str, ...]) -> bool:
    """Return whether a module is one of the packages, or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def checked_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments that are plain: numbers, booleans and short texts, by name.

    Raises:
        ValueError: One is not; the message is one line.
    """
    for name, value in given.items():
        if not _NAME.fullmatch(name) or _REFUSED_NAMES.fullmatch(name):
            raise ValueError(f"argument {name[:64]!r} cannot be set here (no render_mode, files or folders)")
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            most = _LONGEST if _LONG_NAMES.fullmatch(name) else _LARGEST
            if not (math.isfinite(value) and abs(value) <= most):
                raise ValueError(f"argument {name!r} must lie between -{most} and {most}")
        elif not isinstance(value, str) or not _TEXT.fullmatch(value):
            raise ValueError(f"argument {name!r} must be a number, a boolean or a text of at most 64 plain characters")
    return dict(given)


# -- tasks -------------------------------------------------------------------------------------------------------------


class NumberedTasks(Taskset):
    """Games that differ only in how they are seeded: ``train-0``, ``train-1`` and so on."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return SPLITS[self.split]

    def task(self, index: int) -> Task:
        """Return game number `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"split {self.split!r} has the tasks 0 to {len(self) - 1}")
        return Task(f"{self.split}-{index}", self.split, {"number": index})

    def get(self, task_id: str) -> Task:
        """Return the task with this id."""
        match = re.fullmatch(rf"{self.split}-(0|[1-9][0-9]{{0,8}})", task_id)
        if match is None or int(match[1]) >= len(self):
            raise UnknownIdError(
                f"no task {task_id[:80]!r} in split {self.split!r}{did_you_mean(task_id[:80], [f'{self.split}-0'])}; "
                f"they are {self.split}-0 to {self.split}-{len(self) - 1}"
            )
        return self.task(int(match[1]))


def game_seed(task: Task, seed: int, owner: str) -> int:
    """Return the seed, below 2**31, that a game gets for a task and an episode's root seed.

    Raises:
        UnknownIdError: The task is none of `NumberedTasks`.
    """
    number = task.data.get("number")
    if task.split not in SPLITS or type(number) is not int or NumberedTasks(task.split).get(task.id) != task:
        raise UnknownIdError(f"task {task.id[:80]!r} is not one of {owner}")
    return derive_seed(seed, "env", task.split, number) % 2**31


# -- observations, actions, rewards, facts -----------------------------------------------------------------------------


def reader(space: spaces.Space[Any], owner: str) -> Callable[[Any], Any]:
    """Return a function that turns what a game lets observe into an element of a space that nobody else holds.

    Raises:
        UnsupportedError: Elements of such a space cannot be sent.
    """
    match space:
        case spaces.Box() | spaces.MultiBinary() | spaces.MultiDiscrete():
            return partial(np.array, dtype=space.dtype)
        case spaces.Discrete():
            return int
        case spaces.Text():
            return str
        case spaces.Dict():
            parts = [(name, reader(part, owner)) for name, part in space.spaces.items()]
            return lambda value: {name: read(value[name]) for name, read in parts}
        case spaces.Tuple():
            items = [reader(part, owner) for part in space.spaces]
            return lambda value: tuple(read(item) for read, item in zip(items, value, strict=True))
    raise UnsupportedError(
        f"{owner} has a space of type {type(space).__name__}, which cannot be sent "
        "(allowed: Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple)"
    )


def writer(space: spaces.Space[Any], owner: str) -> Callable[[Action], Any]:
    """Return a function that turns a legal action into what a game takes.

    Raises:
        UnsupportedError: Elements of such a space are no actions.
    """
    match space:
        case spaces.Discrete() | spaces.Text():
            return _as_it_is
        case spaces.Box() | spaces.MultiBinary() | spaces.MultiDiscrete():
            return _as_array
    raise UnsupportedError(
        f"{owner} takes actions of type {type(space).__name__} "
        "(allowed: Box, Discrete, MultiBinary, MultiDiscrete, Text)"
    )


def _as_it_is(action: Action) -> Any:
    return action


def _as_array(action: Action) -> Any:
    return action.numpy() if isinstance(action, Array) else action


def checked_reward(reward: Any, owner: str) -> float:
    """Return a reward as a float.

    Raises:
        EnvError: It is not finite, or beyond `MAX_REWARD`.
    """
    value = float(reward)
    if not -MAX_REWARD <= value <= MAX_REWARD:  # also true of NaN
        raise EnvError(f"{owner} gave the reward {value}; allowed is what is finite and at most {MAX_REWARD:g}")
    return value


def plain(info: Mapping[str, Any], *, without: str = "") -> dict[str, Any]:
    """Return the facts of an info dictionary that can be sent: text, numbers, booleans, arrays as lists."""
    found = {str(name): _plain(value) for name, value in info.items() if name != without}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; None where it holds none."""
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else None
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return plain(value)
        case list() | tuple():
            items = [_plain(item) for item in value]
            return None if None in items else items
    return None


# -- how their calls are kept ------------------------------------------------------------------------------------------

_HEADLESS = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}


@contextmanager
def headless() -> Iterator[None]:
    """Let pygame start without a screen, a sound or a greeting; afterwards the process's environment is as it was."""
    before = {name: os.environ.get(name) for name in _HEADLESS}
    for name, value in _HEADLESS.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, was in before.items():
            if was is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = was


class _Shield:
    """A block in which no warning becomes an error; it is shown as a warning instead.

    Nothing is changed where no filter makes errors of warnings, as is usual outside tests. Filters belong to the whole
    process: the first thread that enters changes them, and the last one that leaves puts them back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._kept: warnings.catch_warnings[None] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return what a function returns, called within the block; the cheap way where no filter makes errors."""
        if self._inside == 0:
            for entry in warnings.filters:
                if entry[0] == "error":
                    break
            else:
                return function(*arguments, **named)
        with self():
            return function(*arguments, **named)

    def _enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and any(entry[0] == "error" for entry in warnings.filters):
                self._kept = warnings.catch_warnings()
                self._kept.__enter__()
                kept: Any = warnings.filters
                kept[:] = [("default", *entry[1:]) if entry[0] == "error" else entry for entry in kept]

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._kept is not None:
                self._kept.__exit__(None, None, None)
                self._kept = None


shielded = _Shield()
"""Where games of others are called: their warnings are shown, and never raised."""
