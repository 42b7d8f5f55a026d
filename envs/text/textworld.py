r"""TextWorld: generated text adventures, played by typing commands.

The player is told an objective and must reach it by walking, taking, opening, unlocking, cooking and the like. Games
come from Microsoft's `textworld` package: by size (``w2-o3-q4``: 2 rooms, 3 objects, a quest of about 4 commands) or
from its challenges (``tw-simple``, ``tw-coin_collector``, ``tw-treasure_hunter``, ``tw-cooking``).

Observation: text. What the game prints, without its banner, prompt and status line; by option also the room's
    description, the inventory, the objective, the score and the admissible commands.
Actions: text, one command. The admissible commands are listed; other text is answered as the game's parser would, costs
    a step and does nothing, or means what the game takes it for. Text never reaches the interpreter unless it is one
    command that begins with a verb of play: the interpreter itself would write files (``save``, ``script``), ask
    questions back (``quit``), run several commands at once, and crash or hang on control characters.
Reward: ``sparse``: 1 on winning. ``dense``: the gain in score divided by the maximal score, so a won game sums to 1.
    ``progress``: how much shorter the remaining optimal plan became, as a share of the first plan (a potential
    difference, so a won game sums to 1); each step lies in [-1, 1].
Endings: ``won`` and ``lost`` are terminations. A game that is merely cut off ends as ``steps_limit``, a truncation.
Score: the share of the maximal score that was reached; success is winning.
Information: one player, who sees what the game shows.
Expert: the game's walkthrough while it has been followed, from then on TextWorld's own planner. It finds no way on in
    a game that can no longer be won, nor off the walkthrough of cooking games with `drop`.
Tasks: generator seeds. Train, valid and test take theirs from disjoint ranges; cooking also keeps the foods apart, and
    tw-simple its test distribution. Every game was won by its walkthrough when it was made; where TextWorld makes one
    that cannot be (with names that its parser cannot tell apart), the next of a series of seeds takes its place.
Seed: has no effect; TextWorld's games hold no chance.
Versions: v0, the first.
Source: Côté et al. 2018, arXiv:1806.11532; sizes as in meow-tea-taro.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Literal

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
    UnknownIdError,
    UnsupportedError,
    did_you_mean,
    import_extra,
    register,
    restart,
    termination,
    transition,
)

from ._textworld_commands import playable
from ._textworld_games import GameOptions, GameSpec, game_file, game_of

_SPLITS = {"train": range(0, 100_000), "valid": range(100_000, 110_000), "test": range(110_000, 120_000)}

_UNKNOWN_VERB = "That's not a verb I recognise."

_STATUS = re.compile(r"[^\n]* =-\s*-?\d+/\d+\s*")
"""What follows the ``-= `` of the status line, which the interpreter prints at the right of the prompt."""
_GAPS = re.compile(r"\n{3,}")
_QUESTION = "Would you like to RESTART"


_SEAT = SeatSpec(
    observation_space=FreeText(100_000),
    action_space=FreeText(1_000),
    instructions="You play a text adventure. Reach the objective that the game tells you. "
    "Answer with one short command, such as: go east, open red box, take key from table, look, inventory.",
)


class TextWorldOptions(GameOptions):
    """Options of `text/textworld-v0`."""

    reward: Literal["sparse", "dense", "progress"] = Field("sparse", description="What is rewarded; see the page.")
    observe: tuple[Literal["description", "inventory", "objective", "score", "commands"], ...] = Field(
        (), description="What every observation shows beside the game's own text, in this order."
    )
    list_commands: bool = Field(True, description="List the admissible commands; without them a step is twice as fast.")


class TextWorldTasks(Taskset):
    """One task for each generator seed of the split."""

    def __init__(self, options: GameOptions, split: str) -> None:
        self.options, self.split, self.seeds = options, split, _SPLITS[split]

    def __len__(self) -> int:
        return len(self.seeds)

    def task(self, index: int) -> Task:
        """Return the game of the split's seed number `index`."""
        seed = self.seeds[index]
        return Task(game_of(self.options, self.split, seed).id, self.split, {"seed": seed})

    def get(self, task_id: str) -> Task:
        """Return the game with this id."""
        family, _, number = task_id.rpartition("_")
        expected = self.task(0).id.rpartition("_")[0]
        seed = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1
        if family != expected or seed not in self.seeds:
            hint = did_you_mean(family, [expected]) if family != expected else ""
            raise UnknownIdError(
                f"no task {task_id!r} in split {self.split!r}{hint}; "
                f"ids are {expected}_<seed> with seeds {self.seeds[0]} to {self.seeds[-1]}"
            )
        return self.task(self.seeds.index(seed))


@register(
    "text/textworld-v0",
    summary="Generated text adventures of any size, on Microsoft's TextWorld.",
    endings={"won": "termination", "lost": "termination"},
    reward_range=(-1.0, 1.0),
    metrics={"won": "1 if the game was won.", "lost": "1 if the game was lost.", "commands": "Commands given."},
    splits=tuple(_SPLITS),
    max_steps=50,
    seeded=False,
    legal_actions="some",
    expert=True,
    extra="text",
)
class TextWorld(SingleAgentEnvironment):
    """One game at a time on an interpreter of its own; the same game again reuses it."""

    Options = TextWorldOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._engine: _Engine | None = None
        self._planner: _Engine | None = None

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the player's spaces."""
        return _SEAT

    def taskset(self, split: str) -> Taskset:
        """Return one task for each generator seed of the split."""
        return TextWorldTasks(self.options, split)

    def prepare(self, task: Task) -> None:
        """Generate the game."""
        game_file(self._game(task), task.split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Start the game; the seed has no effect."""
        path = game_file(self._game(task), task.split)
        if self._engine is None or self._engine.path != path:
            self._close_engines()
            self._engine = _Engine(path, self._wanted())
        self._commands: list[str] = []
        self._planned: list[str] | None = None
        self._state = state = self._engine.reset()
        self._plan_length = len(state.get("policy_commands") or ()) or 1
        self._potential = 0.0
        return restart(self._text(_first_text(state)), legal_actions=self._listed())

    def act(self, action: Action) -> SeatStep:
        """Type one command."""
        assert self._engine is not None
        before = self._state["score"]
        command = playable(str(action))
        self._commands.append(command)
        if command:
            self._state = self._engine.step(command)
        text = self._text(_clean(self._state["feedback"]) if command else _UNKNOWN_VERB)
        reward = self._reward(before)
        if self._state["won"] or self._state["lost"]:
            return termination(text, reward, ending="won" if self._state["won"] else "lost")
        return transition(text, reward, legal_actions=self._listed())

    def score(self) -> Score:
        """Return the share of the maximal score."""
        won, lost = bool(self._state["won"]), bool(self._state["lost"])
        metrics = {"won": float(won), "lost": float(lost), "commands": float(len(self._commands))}
        return Score(self._share(self._state["score"]), won, metrics)

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return the walkthrough's next command, or the planner's once the walkthrough has been left."""
        walkthrough: list[str] = self._state["extra.walkthrough"]
        given = len(self._commands)
        if self._commands == walkthrough[:given] and given < len(walkthrough):
            return walkthrough[given]
        plan = self._plan()
        if not plan:
            raise UnsupportedError("TextWorld's planner knows no way to win from here")
        return plan[0]

    def close(self) -> None:
        """Free the interpreters."""
        self._close_engines()

    def _plan(self) -> list[str]:
        """Return the planner's commands from here; it has an interpreter of its own, given the same commands."""
        assert self._engine is not None
        if self._planner is None:
            self._planner = _Engine(self._engine.path, {"policy_commands": True})
        if self._planned is None or self._planned != self._commands[: len(self._planned)]:
            self._planner.reset()
            self._planned = []
        for command in self._commands[len(self._planned) :]:
            if command:
                self._planner.step(command)
            self._planned.append(command)
        return list(self._planner.state.get("policy_commands") or ())

    def _game(self, task: Task) -> GameSpec:
        seed = task.data.get("seed")
        if task.split not in _SPLITS or type(seed) is not int or seed not in _SPLITS[task.split]:
            raise UnknownIdError(
                f"task {task.id!r} is not one of text/textworld-v0: no split {task.split!r} has seed {seed}"
            )
        game = game_of(self.options, task.split, seed)
        if game.id != task.id:
            raise UnknownIdError(f"task {task.id!r} does not fit the options; they give {game.id!r}")
        return game

    def _wanted(self) -> dict[str, bool]:
        observe = self.options.observe
        return {
            "description": "description" in observe,
            "inventory": "inventory" in observe,
            "admissible_commands": self.options.list_commands or "commands" in observe,
            "policy_commands": self.options.reward == "progress",
        }

    def _listed(self) -> tuple[str, ...] | None:
        return tuple(self._state["admissible_commands"]) if self.options.list_commands else None

    def _share(self, score: int) -> float:
        return max(0.0, min(1.0, score / (self._state["max_score"] or 1)))

    def _reward(self, before: int) -> float:
        match self.options.reward:
            case "sparse":
                return float(self._state["won"])
            case "dense":
                return self._share(self._state["score"]) - self._share(before)
        last, self._potential = self._potential, self._progress()
        return max(-1.0, min(1.0, self._potential - last))

    def _progress(self) -> float:
        """Return 1 minus the remaining plan's share of the first plan; where there is no plan, what it was last."""
        if self._state["won"]:
            return 1.0
        plan = self._state.get("policy_commands")
        return 1.0 - len(plan) / self._plan_length if plan else self._potential

    def _text(self, feedback: str) -> str:
        return "\n\n".join([feedback, *(self._section(name) for name in self.options.observe)])

    def _section(self, name: str) -> str:
        state = self._state
        match name:
            case "score":
                return f"Score: {state['score']} of {state['max_score']}"
            case "commands":
                return "Commands: " + ", ".join(state["admissible_commands"])
            case _:
                return f"{name.capitalize()}: {state[name].strip()}"

    def _close_engines(self) -> None:
        for engine in (self._engine, self._planner):
            if engine is not None:
                engine.close()
        self._engine = self._planner = None


class _Engine:
    """TextWorld's interpreter on one story file.

    Attributes:
        path: The story file.
        state: TextWorld's latest game state; after the end it stays at the final one.
    """

    def __init__(self, path: Path, wanted: dict[str, bool]) -> None:
        textworld = import_extra("textworld", extra="text")
        self.path = path
        infos = textworld.EnvInfos(
            feedback=True,
            objective=True,
            won=True,
            lost=True,
            score=True,
            max_score=True,
            extras=["walkthrough"],
            **wanted,
        )
        with warnings.catch_warnings():  # Jericho warns of every game that is not on its list
            warnings.simplefilter("ignore")
            self._env = textworld.start(str(path), infos)
        self.state: Any = None

    def reset(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.state = self._env.reset()
        return self.state

    def step(self, command: str) -> Any:
        self.state, _, _ = self._env.step(command)
        return self.state

    def close(self) -> None:
        self._env.close()


def _clean(feedback: str) -> str:
    """Return what the game printed, without its status line, prompt and last question."""
    text, _, status = feedback.rpartition("-= ")
    text = text.rstrip().removesuffix(">") if _STATUS.fullmatch(status) else feedback
    return _GAPS.sub("\n\n", text.partition(_QUESTION)[0]).strip()


def _first_text(state: Any) -> str:
    """Return the first text of a game from its objective on: what stands before is a banner."""
    text, objective = str(state["feedback"]), str(state["objective"]).strip()
    start = text.find(objective) if objective else -1
    if start < 0:
        start = max(text.find("-= "), 0)
    return _clean(text[start:])
