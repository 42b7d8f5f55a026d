"""ALFWorld: household tasks in a text world, such as heating an egg and putting it into the garbage can.

The player stands in a house that it knows nothing of, is told one task, and must find, take, carry, clean, heat, cool
or light things by typing commands. Which games are played is said by the option `games`: ``generated`` ones, the
default, are made on this machine from the floor plans that ALFWorld's package carries; ``official`` ones are
ALFWorld's own 3,827, from the folder that ``ALFWORLD_DATA`` names. Figures of the literature are on official games.

Observation: text, what the game prints; by option also the admissible commands.
Actions: text, one command. The admissible commands are listed; other text is answered "Nothing happens.", costs a step
    and does nothing else.
Reward: 1 on winning, else 0.
Endings: ``won`` is a termination, and there is no way to lose. A game that is not won within the limit of steps ends as
    ``steps_limit``, a truncation.
Score: 1 if the game was won, else 0.
Information: one player, who sees what the game shows.
Experts: ``shortest``, the shortest way to the goal; ``planner`` and ``handcoded``, ALFWorld's own, which are slow.
    Where the hand-coded one gives up it only looks around, so that such an episode counts as not won.
Tasks: ``pick_and_place_simple``, ``look_at_obj_in_light``, ``pick_clean_then_place_in_recep``,
    ``pick_heat_then_place_in_recep``, ``pick_cool_then_place_in_recep``, ``pick_two_obj_and_place``. The houses of
    valid_unseen are in no other split.
Seed: has no effect; a game holds no chance.
Engines: ``fast`` reads the same files as ALFWorld's own, ``upstream``, and gives the same transcripts.
Versions: v0, the first.
Source: Shridhar et al. 2021, arXiv:2010.03768, on the houses and tasks of Shridhar et al. 2020, arXiv:1912.01734.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from arena import (
    Action,
    AgentID,
    FreeText,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Task,
    Taskset,
    UnsupportedError,
    register,
    restart,
    termination,
    transition,
)

from .._alfred.game import Play, load_game
from .._alfred.planner import plan
from .._alfred.tasks import SPLITS, GameMaker, GameOptions, game_path, tasks_of
from .._alfred.upstream import UpstreamPlay

_Engine = TypeVar("_Engine", Play, UpstreamPlay)

_NOTHING_HAPPENS = "Nothing happens."
_LOOK = "look"
_SEAT = SeatSpec(
    observation_space=FreeText(100_000),
    action_space=FreeText(1_000),
    instructions="You are in a house and have one task, which the game tells you. Answer with one command, such as: "
    "look, inventory, go to fridge 1, open fridge 1, close fridge 1, examine fridge 1, take apple 1 from fridge 1, "
    "move apple 1 to countertop 1, use desklamp 1, heat apple 1 with microwave 1, cool apple 1 with fridge 1, "
    "clean apple 1 with sinkbasin 1, slice apple 1 with knife 1. You can carry one thing at a time.",
)


class AlfworldOptions(GameOptions):
    """Options of `text/alfworld-v0`."""

    engine: Literal["fast", "upstream"] = Field(
        "fast", description="`fast`: Arena's own. `upstream`: ALFWorld's and TextWorld's packages, for comparison."
    )
    observe: tuple[Literal["commands"], ...] = Field(
        (), description="What every observation shows beside the game's own text."
    )


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The state of an episode.

    Attributes:
        path: The game file.
        history: The commands given so far.
        ineffective: How many of them did nothing.
        state: The fast engine's state; None for the other one, which is given the commands again.
    """

    path: Path
    history: tuple[str, ...]
    ineffective: int
    state: object


@register(
    "text/alfworld-v0",
    summary="Household tasks in a text world, in official or generated games.",
    endings={"won": "termination"},
    reward_range=(0.0, 1.0),
    metrics={
        "won": "1 if the game was won.",
        "commands": "Commands given.",
        "ineffective": "Commands that were answered 'Nothing happens.'",
    },
    groups={"task_type": "The type of the task."},
    splits=tuple(SPLITS),
    max_steps=50,
    seeded=False,
    legal_actions="some",
    snapshots=True,
    expert=True,
    experts=("shortest", "planner", "handcoded"),
    extra="alfworld",
)
class Alfworld(SingleAgentEnvironment):
    """One game at a time; the same game again reuses its engine."""

    Options = AlfworldOptions
    makers = {"generate": GameMaker}  # noqa: RUF012 - the base declares it as a class variable

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._path: Path | None = None
        self._engine: Play | UpstreamPlay | None = None
        self._beside: _Beside | None = None
        self._history: list[str] = []
        self._ineffective = 0
        self._planned: list[str] = []

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the player's spaces."""
        return _SEAT

    def taskset(self, split: str) -> Taskset:
        """Return the games of the split."""
        return tasks_of(self.options, split)

    def prepare(self, task: Task) -> None:
        """Make the game where it is a generated one, and read it."""
        load_game(game_path(self.options, task))

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Start the game; the seed has no effect."""
        engine = self._open(game_path(self.options, task))
        self._history, self._ineffective, self._planned = [], 0, []
        return restart(self._text(engine.begin()), legal_actions=engine.commands())

    def act(self, action: Action) -> SeatStep:
        """Type one command."""
        assert self._engine is not None
        command = str(action)
        feedback = self._engine.act(command)
        self._history.append(command)
        self._ineffective += feedback == _NOTHING_HAPPENS
        if self._engine.won:
            return termination(self._text(feedback), 1.0, ending="won")
        return transition(self._text(feedback), 0.0, legal_actions=self._engine.commands())

    def score(self) -> Score:
        """Return whether the game was won."""
        won = self._engine is not None and self._engine.won
        metrics = {"won": won, "commands": len(self._history), "ineffective": self._ineffective}
        return Score(float(won), won, {name: float(value) for name, value in metrics.items()})

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return the next command of one of the experts."""
        assert self._engine is not None
        if self._engine.won:  # from the start: whatever is done now ends the episode
            return _LOOK
        if kind in (None, "shortest"):
            return plan(self._at_hand(Play))[0]
        if kind == "planner":
            return self._planners_command()
        try:
            return self._at_hand(UpstreamPlay).expert_plan("handcoded")[0]
        except UnsupportedError:
            return _LOOK

    def snapshot(self) -> object:
        """Return the episode's state; the fast engine's is a copy, the other one's the commands so far."""
        assert self._path is not None
        state = self._engine.snapshot() if isinstance(self._engine, Play) else None
        return _Snapshot(self._path, tuple(self._history), self._ineffective, state)

    def restore(self, state: object) -> None:
        """Continue from a state."""
        assert isinstance(state, _Snapshot)
        engine = self._open(state.path)
        self._history, self._ineffective = list(state.history), state.ineffective
        if isinstance(engine, Play):
            engine.restore(state.state)
        else:
            engine.begin()
            for command in self._history:
                engine.act(command)

    def close(self) -> None:
        """Free the engines."""
        if self._engine is not None:
            self._engine.close()
        if self._beside is not None:
            self._beside.engine.close()
        self._path = self._engine = self._beside = None
        self._planned = []

    def _open(self, path: Path) -> Play | UpstreamPlay:
        """Return the engine that plays a game."""
        if self._engine is None or self._path != path:
            self.close()
            self._engine = Play(load_game(path)) if self.options.engine == "fast" else UpstreamPlay(path)
            self._path = path
        return self._engine

    def _at_hand(self, cls: type[_Engine]) -> _Engine:
        """Return an engine of a class where the episode stands: the one that plays, or another one beside it."""
        if isinstance(self._engine, cls):
            return self._engine
        assert self._path is not None
        if self._beside is None:
            self._beside = _Beside(UpstreamPlay(self._path) if cls is UpstreamPlay else Play(load_game(self._path)))
        self._beside.catch_up(self._history)
        assert isinstance(self._beside.engine, cls)
        return self._beside.engine

    def _planners_command(self) -> str:
        """Return the next command of ALFWorld's planner, which is asked again only where its plan has been left."""
        given = len(self._history)
        if self._planned[:given] != self._history or len(self._planned) == given:
            self._planned = [*self._history, *self._at_hand(UpstreamPlay).expert_plan("planner")]
        return self._planned[given]

    def _text(self, feedback: str) -> str:
        if "commands" not in self.options.observe:
            return feedback
        assert self._engine is not None
        return f"{feedback}\n\nCommands: {', '.join(self._engine.commands())}"


class _Beside:
    """An engine that is given the commands of an episode when it is needed."""

    def __init__(self, engine: Play | UpstreamPlay) -> None:
        self.engine = engine
        self._given: list[str] | None = None

    def catch_up(self, history: Sequence[str]) -> None:
        given, self._given = self._given, None  # begun again where this fails
        if given is None or given != history[: len(given)]:
            self.engine.begin()
            given = []
        for command in history[len(given) :]:
            self.engine.act(command)
        self._given = list(history)
