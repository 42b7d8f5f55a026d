"""Team play in ALFRED's house: two to four agents share one household task, such as putting two remotes on the sofa.

The games are those of `text/alfworld-v0`. All agents begin in the middle of the same room with empty hands, and act in
turns. Each has its own place, hands and observations, and reaches the others by `say` only.

Observation: text, given when the seat is to act and at the end, else empty. First what the seat's last action was
    answered (at its first turn the task and the team), then what it has noticed, a line each.
Noticed: messages, wherever they are said. Of agents at the same place: that they leave, arrive or are there, what is in
    hand then, and what they take, move, open, close, use, heat, cool, clean or slice. Nothing else is shown: what was
    changed out of sight is found by looking there. Each line begins with the name of who did it, and a message is one
    line in quotes, so that nobody can speak as another agent or as the game.
Actions: text, one command of `text/alfworld-v0`, `say <text>` or `wait`; each costs a turn. All but `say` are listed.
    Other text is answered "Nothing happens.", costs a turn and does nothing else. A message is cut after 300
    characters, and what cannot be printed becomes a blank.
Reward: 1 for every seat when the goal is reached, whoever acted, else 0.
Endings: ``won`` is a termination, and there is no way to lose. ``out_of_rounds`` is a truncation, after the rounds of
    the option `max_rounds`; a round is one turn of each seat.
Score: 1 if the goal was reached, else 0, for every seat.
Information: private but for what is said. The order of turns is known to all.
Expert: a team that sees the whole house and shares the work without a word.
Tasks: those of `text/alfworld-v0`.
Seed: draws the order of turns.
Versions: v0, the first.
Source: games of Shridhar et al. 2021, arXiv:2010.03768; to play them as a team is Arena's own.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from arena import (
    Action,
    AgentID,
    Environment,
    FreeText,
    Score,
    SeatSpec,
    SeatStep,
    Task,
    Taskset,
    TimeStep,
    python_stream,
    register,
    termination,
    transition,
    truncation,
)

from .._alfred.game import Play, load_game
from .._alfred.tasks import SPLITS, GameOptions, game_path, tasks_of
from ._household_team import next_command

_LONGEST_MESSAGE = 300
_SAY = re.compile(r"say\s(.*)", re.DOTALL)
_WAIT = "wait"
_UNNOTICED = ("look", "inventory", "examine", "help")
"""First words of commands that show the others nothing."""

_NOTHING_HAPPENS = "Nothing happens."
_DONE = "The task is done."
_INSTRUCTIONS = (
    "You are {agent}, in a house with {others}. You are a team and have one task, which the game tells you. "
    "You act in turns. Answer with one command, such as: look, inventory, go to fridge 1, open fridge 1, "
    "close fridge 1, examine fridge 1, take apple 1 from fridge 1, move apple 1 to countertop 1, use desklamp 1, "
    "heat apple 1 with microwave 1, cool apple 1 with fridge 1, clean apple 1 with sinkbasin 1, "
    "slice apple 1 with knife 1, wait, say I have the apple. You can carry one thing at a time. "
    "You see what the others do only where you are, but they all hear what you say, wherever they are."
)


class HouseholdOptions(GameOptions):
    """Options of `marl/household-v0`."""

    agents: int = Field(2, ge=2, le=4, description="Agents in the house.")
    max_rounds: int = Field(50, ge=1, le=10_000, description="Rounds after which the episode is cut off.")


@dataclass(slots=True)
class _Log:
    """What there is to an episode besides the house.

    Attributes:
        order: The seats in the order of their turns.
        answers: What each seat's last action was answered; before it has acted, the task and the team.
        noticed: What each seat has noticed since then, a line each.
        turns: Turns taken.
        messages: How many of them were messages.
        waits: How many of them were waits.
        ineffective: How many of them did nothing.
    """

    order: tuple[AgentID, ...]
    answers: dict[AgentID, str] = field(default_factory=dict)
    noticed: dict[AgentID, list[str]] = field(default_factory=dict)
    turns: int = 0
    messages: int = 0
    waits: int = 0
    ineffective: int = 0

    @property
    def due(self) -> AgentID:
        """The seat whose turn it is."""
        return self.order[self.turns % len(self.order)]

    @property
    def rounds(self) -> int:
        """Rounds begun."""
        return -(-self.turns // len(self.order))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The state of an episode: the game file, the state of the house, and the log."""

    path: Path
    house: object
    log: _Log


@register(
    "marl/household-v0",
    summary="Two to four agents share a household task in a text world.",
    play="turns",
    endings={"won": "termination", "out_of_rounds": "truncation"},
    reward_range=(0.0, 1.0),
    metrics={
        "won": "1 if the goal was reached.",
        "rounds": "Rounds begun; a round is one turn of each seat.",
        "commands": "Turns that were neither messages nor waits.",
        "ineffective": "Commands that were answered 'Nothing happens.'",
        "messages": "Messages said.",
    },
    groups={"task_type": "The type of the task."},
    splits=tuple(SPLITS),
    legal_actions="some",
    shared_reward=True,
    snapshots=True,
    expert=True,
    extra="alfworld",
)
class Household(Environment):
    """One house at a time; the same game again reuses it."""

    Options = HouseholdOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._path: Path | None = None
        self._house: Play
        self._log: _Log

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        """The seats: agent1, agent2 and so on."""
        return tuple(f"agent{number}" for number in range(1, self.options.agents + 1))

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the seat's spaces, and what it is told about the game."""
        instructions = _INSTRUCTIONS.format(agent=agent, others=_and(self._others(agent)))
        return SeatSpec(FreeText(100_000), FreeText(1_000), instructions=instructions)

    def taskset(self, split: str) -> Taskset:
        """Return the games of the split."""
        return tasks_of(self.options, split)

    def prepare(self, task: Task) -> None:
        """Make the game where it is a generated one, and read it."""
        load_game(game_path(self.options, task))

    def reset(self, task: Task, seed: int) -> TimeStep:
        """Begin a game; the seed draws the order of turns."""
        self._open(game_path(self.options, task))
        self._house.begin()
        agents = self.possible_agents
        self._log = log = _Log(tuple(python_stream(seed, "env").sample(agents, len(agents))))
        for agent in agents:
            team = f"You are {agent}. The order of turns is {', '.join(log.order)}."
            log.answers[agent] = f"{self._house.intro(agent)}\n\n{team}"
            log.noticed[agent] = self._who_is_here(agent)
        return self._time_step()

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        """Take the turn of the seat that is to act."""
        ((agent, action),) = actions.items()
        self._log.turns += 1
        self._log.noticed[agent] = []
        self._log.answers[agent] = self._take_turn(agent, str(action).strip())
        return self._time_step()

    def score(self) -> Score:
        """Return whether the goal was reached."""
        log, won = self._log, self._house.won
        metrics = {
            "won": won,
            "rounds": log.rounds,
            "commands": log.turns - log.messages - log.waits,
            "ineffective": log.ineffective,
            "messages": log.messages,
        }
        seats = dict.fromkeys(self.possible_agents, float(won))
        return Score(float(won), won, {name: float(number) for name, number in metrics.items()}, seats)

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return what the seat does as one of an expert team; `wait` where it can do nothing for it."""
        command = next_command(self._house, agent)
        return _WAIT if command is None or command not in self._possible(agent) else command

    def snapshot(self) -> object:
        """Return the episode's state."""
        assert self._path is not None
        return _Snapshot(self._path, self._house.snapshot(), copy.deepcopy(self._log))

    def restore(self, state: object) -> None:
        """Continue from a state."""
        assert isinstance(state, _Snapshot)
        self._open(state.path)
        self._house.restore(state.house)
        self._log = copy.deepcopy(state.log)

    # -- the game ------------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        if self._path != path:
            self._house, self._path = Play(load_game(path), self.possible_agents), path

    def _others(self, agent: AgentID) -> list[AgentID]:
        return [other for other in self.possible_agents if other != agent]

    # -- what a turn does ----------------------------------------------------------------------------------------------

    def _take_turn(self, agent: AgentID, text: str) -> str:
        """Do what a seat wants, let the others notice it, and return the answer."""
        log = self._log
        if text == _WAIT:
            log.waits += 1
            return "You wait."
        said = _message(text)
        if said:
            log.messages += 1
            for other in self._others(agent):
                log.noticed[other].append(f"{agent} says: {said}")
            return f"You say: {said}"
        if text not in self._possible(agent):
            log.ineffective += 1
            return _NOTHING_HAPPENS
        before = self._places()
        answer = self._house.act(text, agent)
        self._let_notice(agent, text, before, self._places())
        return answer

    def _possible(self, agent: AgentID) -> Sequence[str]:
        """Return the commands that do something now: nobody takes what is in somebody's hands.

        Some games have a thing in two receptacles, and it stays in one of them when it is taken from the other.
        """
        taken = tuple(f"take {self._house.game.names[thing]} " for _, thing in self._house.facts("holds"))
        commands = self._house.commands(agent)
        return [command for command in commands if not command.startswith(taken)] if taken else commands

    def _let_notice(
        self, agent: AgentID, command: str, before: Mapping[AgentID, str], after: Mapping[AgentID, str]
    ) -> None:
        """Show a command to whoever is where it was given or led, and to who gave it whom he meets."""
        noticed, has_moved = self._log.noticed, before[agent] != after[agent]
        verb, _, rest = command.partition(" ")
        for other in self._others(agent):
            if has_moved and after[other] == before[agent]:
                noticed[other].append(f"{agent} leaves.")
            elif has_moved and after[other] == after[agent]:
                noticed[other].append(f"{agent} arrives {self._hands(agent)}.")
            elif not has_moved and verb not in _UNNOTICED and after[other] == after[agent]:
                noticed[other].append(f"{agent} {verb}s {rest}.")
        if has_moved or verb == "look":
            noticed[agent] += self._who_is_here(agent)

    # -- what a seat is shown ------------------------------------------------------------------------------------------

    def _time_step(self) -> TimeStep:
        log, agents = self._log, self.possible_agents
        if self._house.won:
            return TimeStep({agent: termination(self._shown(agent, _DONE), 1.0, ending="won") for agent in agents})
        if log.turns == self.options.max_rounds * len(agents):
            return TimeStep({agent: truncation(self._shown(agent), 0.0, ending="out_of_rounds") for agent in agents})
        return TimeStep({agent: self._seat_step(agent) for agent in agents}, (log.due,))

    def _seat_step(self, agent: AgentID) -> SeatStep:
        if agent != self._log.due:
            return transition("", 0.0)
        return transition(self._shown(agent), 0.0, legal_actions=[*self._possible(agent), _WAIT])

    def _shown(self, agent: AgentID, *last: str) -> str:
        parts = (self._log.answers[agent], "\n".join(self._log.noticed[agent]), *last)
        return "\n\n".join(part for part in parts if part)

    def _places(self) -> dict[AgentID, str]:
        return {agent: place for agent, place in self._house.facts("atlocation")}

    def _who_is_here(self, agent: AgentID) -> list[str]:
        places = self._places()
        others = [other for other in self._others(agent) if places[other] == places[agent]]
        return [f"{other} is here {self._hands(other)}." for other in others]

    def _hands(self, agent: AgentID) -> str:
        house = self._house
        held = sorted(house.game.names[thing] for holder, thing in house.facts("holds") if holder == agent)
        return f"with {_and(held)}" if held else "with empty hands"


def _message(text: str) -> str:
    """Return what an action says, quoted on one line; empty where it says nothing."""
    match = _SAY.fullmatch(text)
    if match is None:
        return ""
    printable = "".join(sign if sign.isprintable() else " " for sign in match[1])
    said = " ".join(printable.split())[:_LONGEST_MESSAGE]
    return json.dumps(said, ensure_ascii=False) if said else ""


def _and(names: Sequence[str]) -> str:
    """Return names as a list in words."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
