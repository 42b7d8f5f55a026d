"""Where episodes are played: many sessions at once, in this process or on a server, behind one small face."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from arena import (
    PLAYER,
    Action,
    ArenaError,
    ConfigError,
    Environment,
    EnvSpec,
    LimitReached,
    Limits,
    Score,
    SeatSpec,
    SeatStep,
    Session,
    Task,
    Taskset,
    Tell,
    UnsupportedError,
    connect,
    make,
)

__all__ = ["Game", "Games", "LocalGames", "Order", "RemoteGames", "open_games"]

G = TypeVar("G")
R = TypeVar("R")
_MOST_WAITING = 128
"""Sessions of this process that wait at once."""


@dataclass(frozen=True, slots=True)
class Order:
    """An episode that is to be played.

    Attributes:
        task: The task.
        seed: The episode's root seed.
        group: Number of the group that the episode belongs to.
    """

    task: Task
    seed: int
    group: int = 0


class _Session(Protocol):
    @property
    def journal(self) -> Sequence[Any]: ...
    @property
    def acting(self) -> tuple[str, ...]: ...
    @property
    def seats(self) -> Mapping[str, SeatSpec]: ...
    def step(self, index: int, actions: Mapping[str, Any]) -> Any: ...
    def expert_action(self, agent: str, kind: str | None = None) -> Action: ...
    def truncate(self, kind: Any, value: float, allowed: float) -> Any: ...
    def end(self) -> Any: ...
    def close(self) -> None: ...


class Game:
    """One running episode.

    Args:
        session: Its session, which has begun.
    """

    def __init__(self, session: _Session) -> None:
        self.session = session

    @property
    def seat(self) -> SeatSpec:
        """What the player sees and can do."""
        return self.session.seats[PLAYER]

    @property
    def latest(self) -> SeatStep:
        """The player's last step."""
        step: SeatStep = self.session.journal[-1].time_step.seats[PLAYER]
        return step

    @property
    def over(self) -> bool:
        """Whether nobody is to act."""
        return not self.session.acting

    def expert(self, kind: str | None) -> Action:
        """Return the expert's action."""
        return self.session.expert_action(PLAYER, kind)

    def cut_off(self, reached: LimitReached) -> None:
        """Truncate the episode, because of a limit that its player keeps."""
        self.session.truncate(reached.kind, reached.value, reached.limit)

    def score(self) -> Score:
        """Return the verdict.

        Raises:
            BoundaryError: The episode failed.
        """
        end = self.session.end()
        if end.error is not None:
            raise ArenaError.from_record(end.error)
        score: Score = end.score
        return score

    def close(self) -> None:
        """Let the session go."""
        self.session.close()


class Games(abc.ABC):
    """Plays episodes of one environment with one seat.

    Attributes:
        spec: The environment's declaration.
        options: All its options.
        tell: Is told what takes long; see `arena.Trainer`.
    """

    spec: EnvSpec
    options: Mapping[str, Any]

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    @abc.abstractmethod
    def size(self, split: str) -> int:
        """Return the number of tasks in a split."""

    @abc.abstractmethod
    def task(self, split: str, index: int) -> Task:
        """Return a split's task."""

    def prepare(self, tasks: Sequence[Task]) -> None:  # noqa: B027 - optional: a server prepares on its own
        """Do the slow one-time work of tasks."""

    def expect(self, tasks: Sequence[Task]) -> None:  # noqa: B027 - optional: a server prepares on its own
        """Do that work in the background: these are played before long."""

    @abc.abstractmethod
    def begin(self, orders: Sequence[Order], limits: Limits) -> list[Game | ArenaError]:
        """Begin episodes."""

    @abc.abstractmethod
    def step(self, actions: Sequence[tuple[Game, Action]]) -> list[ArenaError | None]:
        """Take a step in each game; an action that was refused, or a failure, is returned in its place."""

    def close(self) -> None:  # noqa: B027 - optional
        """Let everything go."""


def open_games(
    env: str,
    options: Mapping[str, Any],
    server: str | None,
    token: str | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Games:
    """Return the games of an environment, here or on a server.

    Raises:
        UnsupportedError: The environment has more than one seat.
    """
    games = LocalGames(env, options, tell) if server is None else RemoteGames(server, token, env, options, tell)
    if games.spec.play != "single":
        games.close()
        raise UnsupportedError(f"{env} has several seats; learning/language learns environments with one")
    return games


class LocalGames(Games):
    """Sessions in this process, stepped one after the other; side by side where the environment waits."""

    def __init__(self, env: str, options: Mapping[str, Any], tell: Tell = lambda what, done, total: None) -> None:
        super().__init__(tell)
        self._env, self._options = env, options
        self._own: Environment = make(env, options)
        self.spec, self.options = self._own.spec, self._own.options.model_dump(mode="json")
        self._sets: dict[str, Taskset] = {}
        self._ahead = ThreadPoolExecutor(1, "arena-prepare")
        self._apart = ThreadPoolExecutor(_MOST_WAITING, "arena-games") if self.spec.blocking else None
        self._expected: set[tuple[str, str]] = set()

    def size(self, split: str) -> int:
        """Return the number of tasks in a split."""
        return len(self._taskset(split))

    def task(self, split: str, index: int) -> Task:
        """Return a split's task."""
        return self._taskset(split).task(index)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Prepare tasks, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            for done, _ in enumerate(pool.map(self._own.prepare, tasks), 1):
                self.tell("tasks prepared", done, len(tasks))

    def expect(self, tasks: Sequence[Task]) -> None:
        """Prepare tasks in the background, one at a time; what fails is said where they are played."""
        for task in tasks:
            if (task.split, task.id) not in self._expected:
                self._expected.add((task.split, task.id))
                self._ahead.submit(self._own.prepare, task)

    def begin(self, orders: Sequence[Order], limits: Limits) -> list[Game | ArenaError]:
        """Begin episodes."""
        return list(self._each(lambda order: self._begin(order, limits), orders))

    def step(self, actions: Sequence[tuple[Game, Action]]) -> list[ArenaError | None]:
        """Take a step in each game."""
        return list(self._each(lambda taken: self._step(*taken), actions))

    def close(self) -> None:
        """Close the environment that answers questions about tasks, and leave the rest of what is expected undone."""
        self._ahead.shutdown(cancel_futures=True)
        if self._apart is not None:
            self._apart.shutdown()
        self._own.close()

    def _each(self, call: Callable[[G], R], given: Iterable[G]) -> Iterable[R]:
        return map(call, given) if self._apart is None else self._apart.map(call, given)

    def _taskset(self, split: str) -> Taskset:
        if split not in self.spec.splits:
            raise ConfigError(f"{self._env} has no split {split!r} (known: {', '.join(self.spec.splits)})")
        if split not in self._sets:
            self._sets[split] = self._own.taskset(split)
        return self._sets[split]

    def _begin(self, order: Order, limits: Limits) -> Game | ArenaError:
        session = Session(make(self._env, self._options), order.task, order.seed, limits=limits)
        try:
            session.open()
        except ArenaError as error:
            session.close()
            return error
        return Game(session)

    def _step(self, game: Game, action: Action) -> ArenaError | None:
        try:
            game.session.step(len(game.session.journal), {PLAYER: action})
        except ArenaError as error:
            return error
        return None


class RemoteGames(Games):
    """Sessions on a server; all steps of a round are one request."""

    def __init__(
        self,
        server: str,
        token: str | None,
        env: str,
        options: Mapping[str, Any],
        tell: Tell = lambda what, done, total: None,
    ) -> None:
        super().__init__(tell)
        self._client = connect(server, token)
        self._env, self._options = env, dict(options)
        try:
            info = self._client.describe(env, **self._options)
        except BaseException:
            self._client.close()
            raise
        self.spec, self.options, self._sizes = info.spec, info.options, info.tasks

    def size(self, split: str) -> int:
        """Return the number of tasks in a split."""
        if split not in self._sizes:
            raise ConfigError(f"{self._env} has no split {split!r} (known: {', '.join(self._sizes)})")
        return self._sizes[split]

    def task(self, split: str, index: int) -> Task:
        """Return a split's task, without what only the environment needs."""
        return Task(self._client.tasks(self._env, split, index, index + 1, self._options).tasks[0].id, split)

    def begin(self, orders: Sequence[Order], limits: Limits) -> list[Game | ArenaError]:
        """Begin episodes, several at once."""
        with ThreadPoolExecutor(min(32, max(1, len(orders)))) as pool:
            return list(pool.map(lambda order: self._begin(order, limits), orders))

    def step(self, actions: Sequence[tuple[Game, Action]]) -> list[ArenaError | None]:
        """Take a step in each game with one request."""
        steps: list[Any] = [(game.session, {PLAYER: action}) for game, action in actions]
        taken = self._client.step_many(steps)
        return [one if isinstance(one, ArenaError) else None for one in taken]

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _begin(self, order: Order, limits: Limits) -> Game | ArenaError:
        try:
            session = self._client.session(
                self._env,
                task=order.task.id,
                split=order.task.split,
                seed=order.seed,
                limits=limits,
                options=self._options,
            )
            session.open()
        except ArenaError as error:
            return error
        return Game(session)
