"""Werewolf: five to nine players, some of them secretly werewolves; the others must find them by talk and votes.

At night the werewolves name a victim, the seer learns what one player is, and the doctor protects one. By day everybody
speaks once and then votes. The village wins when no werewolf is left, the werewolves when they are as many as the
others.

Observation: text, given when the seat is to act and when it leaves or the game ends, else empty: what the seat has been
    told since its last turn, a line each, and what it can do now. The first one says which role it has.
Actions: text. At night `kill NAME`, `inspect NAME`, `protect NAME` or, for villagers, `sleep`; by day `say <text>` or
    `pass`, then `vote NAME` or `abstain`. All but `say` are listed, and anything else is refused. Capitals and a full
    stop do not matter. A message is cut after 300 characters, and what cannot be printed becomes a blank.
Turns: every living player acts once in each night, talk and vote, even who can only sleep, in an order that is known to
    all and depends on nothing secret; each day another player begins. So nobody betrays a role by being asked.
Night: the pack's victim is the one that its last member names; the others' choices are told to it. The doctor may
    protect itself, but nobody in two nights running. Whoever is protected is not killed.
Vote: ballots are shown when all have voted. Who has more votes than any other player, and than there are abstentions,
    leaves; where there is no such player nobody does.
Reward: at the end of the game 1 for every living player of the team that has won, else 0. Who leaves earlier gets 0
    then and no later step, so its team's victory is in `Score.seats` only.
Endings: ``killed`` and ``voted_out`` are terminations of one seat, at any time; ``won`` and ``lost`` are those of the
    seats that live to the end. ``out_of_days`` is a truncation, after the days of the option `max_days`.
Score: 1 if the village won, else 0; for each seat, living or not, 1 if its team won.
Information: roles, choices of the night, and what the seer learns are private; werewolves know each other. What is
    said, ballots that have been counted, and who leaves are told to all living players and to who leaves at that
    moment. Who has left is told nothing more. At the end the roles are told.
Expert: rules for each role that use only what the seat has been told: ``talking`` shares and reads findings in plain
    sentences, ``silent`` plays alike and never speaks.
Tasks: a setting and an order of turns. Settings: ``classic``; ``hidden``, where the role of who leaves is not shown;
    ``unguarded``, without a doctor; ``daybreak``, which begins with a day.
Seed: deals the roles.
Versions: v0, the first.
Source: the party game of Davidoff (1986), as Mafia, and Plotkin (1997), as Werewolf; rules differ from table to table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field

from arena import (
    Action,
    AgentID,
    Environment,
    FreeText,
    InvalidActionError,
    Options,
    Score,
    SeatSpec,
    SeatStep,
    Task,
    Taskset,
    TimeStep,
    UnknownIdError,
    UnsupportedError,
    python_stream,
    register,
    termination,
    transition,
    truncation,
)

from ._werewolf_experts import next_move
from ._werewolf_rules import NAMES, SETTINGS, Game, Move, line, team, werewolves_among

_LONGEST_MESSAGE = 300
_SAY = re.compile(r"say(?:\s*:|\s)\s*(.*)", re.DOTALL | re.IGNORECASE)
_SPLITS = {"train": range(10_000), "test": range(10_000, 11_000)}
"""Numbers of the tasks of each split."""

_QUESTIONS = {
    "kill": "Name the pack's victim.",
    "inspect": "Choose whom to inspect.",
    "protect": "Choose whom to protect.",
    "sleep": "You can only sleep.",
    "pass": "It is your turn to speak: say <text>, or pass.",
    "vote": "It is your turn to vote.",
}
_INSTRUCTIONS = (
    "You are {agent} in a game of Werewolf with {others}. {werewolves} secretly; the others are the village, which "
    "may have a seer and a doctor. Your first message tells you your role: keep it to yourself unless telling it "
    "helps your team. The village wins when no werewolf is left, the werewolves win when they are as many as the "
    "others. Each night every player acts: a werewolf answers kill NAME (the pack kills whom its last member names), "
    "the seer inspect NAME and learns whether that is a werewolf, the doctor protect NAME (also itself, but nobody in "
    "two nights running), and a villager sleep. Each day every player speaks once, by say and a text of up to 300 "
    "characters, or pass. Then every player votes, by vote NAME or abstain; the votes are shown when all have voted, "
    "and who has more votes than any other player and than there are abstentions leaves the game. You win or lose "
    "with your team, even after you have left. Answer with one action and nothing else, for instance: vote {example}"
)

SettingName: TypeAlias = Literal["classic", "hidden", "unguarded", "daybreak"]


def _each_once_in_order(names: tuple[SettingName, ...]) -> tuple[SettingName, ...]:
    if len(set(names)) != len(names):
        raise ValueError("every setting must be given once")
    return tuple(sorted(names, key=get_args(SettingName).index))


class WerewolfOptions(Options):
    """Options of `marl/werewolf-v0`."""

    players: int = Field(7, ge=5, le=len(NAMES), description="Players; of 7 and more, 2 are werewolves, else 1.")
    settings: Annotated[tuple[SettingName, ...], AfterValidator(_each_once_in_order)] = Field(
        get_args(SettingName), min_length=1, description="Settings that are played; they take turns."
    )
    max_days: int = Field(10, ge=1, le=1000, description="Days after which the game is cut off and nobody wins.")


class WerewolfTasks(Taskset):
    """Numbered tables; the settings take turns."""

    def __init__(self, split: str, settings: tuple[str, ...]) -> None:
        self.split, self._settings, self._numbers = split, settings, _SPLITS[split]

    def __len__(self) -> int:
        return len(self._numbers)

    def task(self, index: int) -> Task:
        """Return the split's table number `index`."""
        number = self._numbers[index]
        setting = self._settings[number % len(self._settings)]
        return Task(f"{setting}-{number}", self.split, {"setting": setting, "number": number})


@register(
    "marl/werewolf-v0",
    summary="Five to nine players find the werewolves among them, or are eaten.",
    play="turns",
    endings={
        "killed": "termination",
        "voted_out": "termination",
        "won": "termination",
        "lost": "termination",
        "out_of_days": "truncation",
    },
    reward_range=(0.0, 1.0),
    metrics={
        "village_won": "1 if the village won.",
        "werewolves_won": "1 if the werewolves won.",
        "days": "Days begun.",
        "killed": "Players killed at night.",
        "werewolves_out": "Werewolves voted out.",
        "villagers_out": "Members of the village voted out.",
        "messages": "Messages said.",
    },
    groups={"setting": "The setting."},
    splits=tuple(_SPLITS),
    legal_actions="some",
    snapshots=True,
    expert=True,
    experts=("talking", "silent"),
)
class Werewolf(Environment):
    """One game at a time."""

    Options = WerewolfOptions
    _game: Game
    _shown: dict[AgentID, int]
    """How much of what it has been told each seat has been shown."""

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        """The players by name."""
        return NAMES[: self.options.players]

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the seat's spaces and the rules; its role comes with its first observation."""
        others = [other for other in self.possible_agents if other != agent]
        werewolves = {1: "One player is a werewolf,", 2: "Two players are werewolves,"}
        instructions = _INSTRUCTIONS.format(
            agent=agent,
            others=f"{', '.join(others[:-1])} and {others[-1]}",
            werewolves=werewolves[werewolves_among(self.options.players)],
            example=others[0],
        )
        return SeatSpec(FreeText(100_000), FreeText(1_000), instructions=instructions)

    def taskset(self, split: str) -> Taskset:
        """Return the tables of the split."""
        return WerewolfTasks(split, self.options.settings)

    def reset(self, task: Task, seed: int) -> TimeStep:
        """Begin a game at the task's table; the seed deals the roles."""
        if task.split not in _SPLITS or self.taskset(task.split).get(task.id).data != task.data:
            raise UnknownIdError(f"task {task.id!r} with {task.data} is not one of marl/werewolf-v0 with these options")
        players = self.possible_agents
        order = python_stream(task.data["number"], "table").sample(players, len(players))
        setting = SETTINGS[task.data["setting"]]
        self._game = Game.deal(order, setting, self.options.max_days, python_stream(seed, "env"))
        self._shown = dict.fromkeys(players, 0)
        return self._time_step(players)

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        """Take the turn of the player who is to act."""
        ((agent, action),) = actions.items()
        move = self._read(agent, str(action))
        present = self._game.living
        self._game.take(move)
        return self._time_step(present)

    def score(self) -> Score:
        """Return whether the village won, and for each seat whether its team did."""
        game = self._game
        voted_out = [team(game.roles[player]) for player, ending in game.out.items() if ending == "voted_out"]
        metrics = {
            "village_won": game.winner == "village",
            "werewolves_won": game.winner == "werewolves",
            "days": game.days,
            "killed": len(game.out) - len(voted_out),
            "werewolves_out": voted_out.count("werewolves"),
            "villagers_out": voted_out.count("village"),
            "messages": game.messages,
        }
        seats = {agent: float(team(game.roles[agent]) == game.winner) for agent in self.possible_agents}
        won = game.winner == "village"
        return Score(float(won), won, {name: float(number) for name, number in metrics.items()}, seats)

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return what the rules for the seat's role say; they are given what the seat has been told and no more."""
        game = self._game
        if agent not in game.due[:1]:
            raise UnsupportedError(f"{agent} is not to act")
        return str(next_move(game.told[agent], game.moves(agent), talks=kind != "silent"))

    def snapshot(self) -> object:
        """Return the game's state."""
        return self._game.copy(), dict(self._shown)

    def restore(self, state: object) -> None:
        """Continue from a state."""
        assert isinstance(state, tuple)
        game, shown = state
        self._game, self._shown = game.copy(), dict(shown)

    # -- what a seat says and is shown ---------------------------------------------------------------------------------

    def _read(self, agent: AgentID, text: str) -> Move:
        """Return the move that a text means.

        Raises:
            InvalidActionError: It means none that can be made now.
        """
        moves = self._game.moves(agent)
        wanted = " ".join(text.split()).casefold().rstrip(".!")
        for move in moves:
            if wanted == str(move):
                return move
        may_talk = moves[0].verb == "pass"
        match = _SAY.fullmatch(text.strip()) if may_talk else None
        if match is not None and (said := _printable(match[1])):
            return Move("say", said)
        legal = [*(["say <text>"] if may_talk else []), *map(str, moves)]
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise InvalidActionError(f"{shown!r} is not legal for {agent} now (legal: {', '.join(legal)})")

    def _time_step(self, present: tuple[AgentID, ...]) -> TimeStep:
        return TimeStep({agent: self._seat_step(agent) for agent in present}, tuple(self._game.due[:1]))

    def _seat_step(self, agent: AgentID) -> SeatStep:
        game = self._game
        if agent in game.out:
            return termination(self._news(agent, "You are out of the game."), 0.0, ending=game.out[agent])
        if game.winner is not None:
            won = team(game.roles[agent]) == game.winner
            return termination(self._news(agent), float(won), ending="won" if won else "lost")
        if not game.due:
            return truncation(self._news(agent), 0.0, ending="out_of_days")
        if agent != game.due[0]:
            return transition("", 0.0)
        moves = game.moves(agent)
        return transition(self._news(agent, _QUESTIONS[moves[0].verb]), 0.0, legal_actions=map(str, moves))

    def _news(self, agent: AgentID, *last: str) -> str:
        """Return what a seat has been told and not been shown yet; from now on it counts as shown."""
        told = self._game.told[agent]
        lines = [line(event, agent) for event in told[self._shown[agent] :]]
        self._shown[agent] = len(told)
        return "\n".join([*lines, *last])


def _printable(text: str) -> str:
    """Return a message as one line of printable characters, cut to its greatest length."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.split())[:_LONGEST_MESSAGE]
