"""The rules of Werewolf: roles, settings, nights, days and votes, and who is told what.

A game keeps, for each player, the list of everything that this player has been told. What a seat is shown is written
from that list alone, and the rule-based players decide from it alone, so a secret that is told to nobody else is known
to nobody else.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = [
    "NAMES",
    "SETTINGS",
    "Begun",
    "Chosen",
    "Dealt",
    "Event",
    "Game",
    "Inspected",
    "Left",
    "Move",
    "Nobody",
    "Out",
    "Over",
    "Protected",
    "Role",
    "Said",
    "Setting",
    "Team",
    "Voted",
    "line",
    "team",
    "werewolves_among",
]

Role: TypeAlias = Literal["werewolf", "seer", "doctor", "villager"]
Team: TypeAlias = Literal["village", "werewolves"]
Out: TypeAlias = Literal["killed", "voted_out"]
Phase: TypeAlias = Literal["night", "talk", "vote", "over"]

NAMES = ("ada", "ben", "cleo", "dan", "eva", "finn", "gwen", "hugo", "iris")
"""The players' names; a game of n players takes the first n."""

_PLURALS = {"werewolf": "werewolves", "seer": "seers", "doctor": "doctors", "villager": "villagers"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What differs between games of the same number of players.

    Attributes:
        seer: Whether there is a seer.
        doctor: Whether there is a doctor.
        shows_roles: Whether all are told the role of who leaves.
        opens: What the game begins with.
    """

    seer: bool = True
    doctor: bool = True
    shows_roles: bool = True
    opens: Literal["night", "day"] = "night"

    def roles(self, players: int) -> tuple[Role, ...]:
        """Return the roles of so many players, one each, not dealt yet."""
        roles: list[Role] = []
        while len(roles) < werewolves_among(players):
            roles.append("werewolf")
        if self.seer:
            roles.append("seer")
        if self.doctor:
            roles.append("doctor")
        while len(roles) < players:
            roles.append("villager")
        return tuple(roles)


SETTINGS = {
    "classic": Setting(),
    "hidden": Setting(shows_roles=False),
    "unguarded": Setting(doctor=False),
    "daybreak": Setting(opens="day"),
}
"""The settings by name."""


def werewolves_among(players: int) -> int:
    """Return how many of so many players are werewolves: 1 up to 6 players, 2 from 7 on."""
    return 1 if players < 7 else 2


def team(role: Role) -> Team:
    """Return the team of a role."""
    return "werewolves" if role == "werewolf" else "village"


# -- what players are told ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dealt:
    """To one player: its role, and how the game is set up.

    Attributes:
        player: Who is told.
        role: Its role.
        pack: The other werewolves, where it is one.
        order: All players in the order of turns.
        setting: The setting.
    """

    player: str
    role: Role
    pack: tuple[str, ...]
    order: tuple[str, ...]
    setting: Setting


@dataclass(frozen=True, slots=True)
class Begun:
    """To all: a night or a day begins; each is numbered from 1."""

    part: Literal["Night", "Day"]
    number: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """To the werewolves: whom one of them has named as the victim."""

    werewolf: str
    victim: str


@dataclass(frozen=True, slots=True)
class Inspected:
    """To the seer: what a player is."""

    player: str
    is_werewolf: bool


@dataclass(frozen=True, slots=True)
class Protected:
    """To the doctor: whom it has protected."""

    player: str


@dataclass(frozen=True, slots=True)
class Said:
    """To all: what a player has said, one line without control characters; empty where it passed."""

    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class Voted:
    """To all, once all have voted: who voted for whom; None is for nobody."""

    ballots: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Left:
    """To all: a player has left; its role where the setting shows it."""

    player: str
    ending: Out
    role: Role | None


@dataclass(frozen=True, slots=True)
class Nobody:
    """To all: nobody was killed in the night, or nobody was voted out."""

    ending: Out


@dataclass(frozen=True, slots=True)
class Over:
    """To all who are still there: who has won, None for nobody, and every player's role."""

    winner: Team | None
    roles: tuple[tuple[str, Role], ...]


Event: TypeAlias = Dealt | Begun | Chosen | Inspected | Protected | Said | Voted | Left | Nobody | Over


def line(event: Event, reader: str) -> str:
    """Return an event as the reader is shown it: one line, or for the deal several."""
    match event:
        case Dealt():
            return _deal_lines(event)
        case Begun(part, number):
            return f"{part} {number}."
        case Chosen(werewolf, victim):
            return f"{'You name' if werewolf == reader else f'{werewolf} names'} {victim} as the victim."
        case Inspected(player, is_werewolf):
            return f"You see that {player} is {'a werewolf' if is_werewolf else 'not a werewolf'}."
        case Protected(player):
            return f"You protect {'yourself' if player == reader else player}."
        case Said(speaker, ""):
            return "You say nothing." if speaker == reader else f"{speaker} says nothing."
        case Said(speaker, text):
            return f"{'You say' if speaker == reader else f'{speaker} says'}: {json.dumps(text, ensure_ascii=False)}"
        case Voted(ballots):
            votes = ", ".join(f"{voter} for {choice or 'nobody'}" for voter, choice in ballots)
            return f"The votes: {votes}."
        case Left(player, ending, role):
            how = "was killed in the night" if ending == "killed" else "is voted out"
            return f"{player} {how}.{'' if role is None else f' {player} was a {role}.'}"
        case Nobody(ending):
            return "Nobody was killed in the night." if ending == "killed" else "Nobody is voted out."
        case Over(winner, roles):
            won = {"village": "The village wins.", "werewolves": "The werewolves win.", None: "Nobody wins."}[winner]
            return f"{won} The roles: {', '.join(f'{player} {role}' for player, role in roles)}."


def _deal_lines(deal: Dealt) -> str:
    pack = f" The other werewolf is {' and '.join(deal.pack)}." if deal.pack else ""
    if deal.role == "werewolf" and not deal.pack:
        pack = " You are the only one."
    counts = Counter(deal.setting.roles(len(deal.order)))
    roles = ", ".join(f"{count} {role if count == 1 else _PLURALS[role]}" for role, count in counts.items())
    shown = "is told to all" if deal.setting.shows_roles else "is not told"
    return (
        f"You are {deal.player}. Your role: {deal.role}.{pack}\n"
        f"The players in the order of turns: {', '.join(deal.order)}. Among them: {roles}. "
        f"The role of a player who leaves {shown}."
    )


# -- the game ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """What a player does at its turn: a verb, and whom or what it is about."""

    verb: Literal["kill", "inspect", "protect", "sleep", "say", "pass", "vote", "abstain"]
    what: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.what}" if self.what else self.verb


@dataclass(slots=True)
class Game:
    """A game that is being played.

    Attributes:
        order: The players in the order of turns.
        roles: Each player's role.
        setting: The setting.
        max_days: Days after which nobody wins.
        told: All that each player has been told.
        out: How those who have left did so, in the order of leaving.
        phase: What is going on.
        due: Who is still to act in this phase, in order.
        choices: What was chosen in this phase, not yet resolved: whom, by player; None is nobody.
        protected: Whom the doctor protected last.
        nights: Nights begun.
        days: Days begun.
        winner: Who has won.
        messages: Messages said.
    """

    order: tuple[str, ...]
    roles: dict[str, Role]
    setting: Setting
    max_days: int
    told: dict[str, list[Event]] = field(default_factory=dict)
    out: dict[str, Out] = field(default_factory=dict)
    phase: Phase = "night"
    due: list[str] = field(default_factory=list)
    choices: dict[str, str | None] = field(default_factory=dict)
    protected: str | None = None
    nights: int = 0
    days: int = 0
    winner: Team | None = None
    messages: int = 0

    @classmethod
    def deal(cls, order: Sequence[str], setting: Setting, max_days: int, rng: random.Random) -> Game:
        """Return a new game whose roles are drawn with `rng`, after its first words."""
        roles = rng.sample(setting.roles(len(order)), len(order))
        game = cls(tuple(order), dict(zip(order, roles, strict=True)), setting, max_days)
        pack = [player for player in game.order if game.roles[player] == "werewolf"]
        for player in game.order:
            role = game.roles[player]
            others = tuple(wolf for wolf in pack if wolf != player) if role == "werewolf" else ()
            game.told[player] = [Dealt(player, role, others, game.order, setting)]
        if setting.opens == "night":
            game._begin_night(game.order)
        else:
            game._begin_day(game.order)
            game._ask("talk")
        return game

    def copy(self) -> Game:
        """Return a game that goes on by itself from here."""
        told = {player: list(events) for player, events in self.told.items()}
        changed = {"roles": dict(self.roles), "out": dict(self.out), "choices": dict(self.choices)}
        return dataclasses.replace(self, told=told, due=list(self.due), **changed)  # type: ignore[arg-type]

    @property
    def living(self) -> tuple[str, ...]:
        """Who has not left, in the order of turns."""
        return tuple(player for player in self.order if player not in self.out)

    def moves(self, player: str) -> tuple[Move, ...]:
        """Return what the player can do now; where it may talk, `say` with any text besides."""
        others = [other for other in self.living if other != player]
        match self.phase, self.roles[player]:
            case "talk", _:
                return (Move("pass"),)
            case "vote", _:
                return (*(Move("vote", other) for other in others), Move("abstain"))
            case _, "werewolf":
                return tuple(Move("kill", other) for other in others if self.roles[other] != "werewolf")
            case _, "seer":
                return tuple(Move("inspect", other) for other in others)
            case _, "doctor":
                return tuple(Move("protect", other) for other in self.living if other != self.protected)
        return (Move("sleep"),)

    def take(self, move: Move) -> None:
        """Let the player whose turn it is make a move, one of its `moves` or a message, and go on to the next turn."""
        player, present = self.due.pop(0), self.living
        match move.verb:
            case "kill":
                self.choices[player] = move.what
                self._tell((wolf for wolf in present if self.roles[wolf] == "werewolf"), Chosen(player, move.what))
            case "inspect":
                self._tell([player], Inspected(move.what, self.roles[move.what] == "werewolf"))
            case "protect":
                self.protected = move.what
                self._tell([player], Protected(move.what))
            case "say" | "pass":
                self.messages += move.verb == "say"
                self._tell(present, Said(player, move.what))
            case "vote" | "abstain":
                self.choices[player] = move.what or None
        if not self.due:
            self._resolve(present)

    # -- phases --------------------------------------------------------------------------------------------------------

    def _resolve(self, present: Sequence[str]) -> None:
        match self.phase:
            case "night":
                victim = list(self.choices.values())[-1]
                self._begin_day(present)
                self._leave(present, None if victim == self._guarded() else victim, "killed")
                self._go_on(present, "talk")
            case "talk":
                self._ask("vote")
            case _:
                self._tell(present, Voted(tuple(self.choices.items())))
                self._leave(present, most_voted(self.choices.values()), "voted_out")
                self._go_on(present, "over" if self.days == self.max_days else "night")

    def _guarded(self) -> str | None:
        """Return whom a living doctor has protected this night."""
        doctor = next((player for player in self.living if self.roles[player] == "doctor"), None)
        return None if doctor is None else self.protected

    def _leave(self, present: Sequence[str], player: str | None, ending: Out) -> None:
        if player is None:
            self._tell(present, Nobody(ending))
            return
        self._tell(present, Left(player, ending, self.roles[player] if self.setting.shows_roles else None))
        self.out[player] = ending

    def _go_on(self, present: Sequence[str], phase: Phase) -> None:
        """Go on with a phase, unless a team has won or the days are up."""
        self.winner = self._won()
        if self.winner is not None or phase == "over":
            self.phase, self.due = "over", []
            self._tell(present, Over(self.winner, tuple((player, self.roles[player]) for player in self.order)))
        elif phase == "night":
            self._begin_night(self.living)
        else:
            self._ask(phase)

    def _won(self) -> Team | None:
        werewolves = sum(self.roles[player] == "werewolf" for player in self.living)
        if werewolves == 0:
            return "village"
        return "werewolves" if 2 * werewolves >= len(self.living) else None

    def _begin_night(self, present: Sequence[str]) -> None:
        self.nights += 1
        self._tell(present, Begun("Night", self.nights))
        self._ask("night")

    def _begin_day(self, present: Sequence[str]) -> None:
        self.days += 1
        self._tell(present, Begun("Day", self.days))

    def _ask(self, phase: Phase) -> None:
        """Let every living player act once, in an order that depends on nothing secret: each day another one begins."""
        first = self.days % len(self.order)
        turns = (*self.order[first:], *self.order[:first])
        self.phase, self.choices = phase, {}
        self.due = [player for player in turns if player not in self.out]

    def _tell(self, players: Iterable[str], event: Event) -> None:
        for player in players:
            self.told[player].append(event)


def most_voted(choices: Iterable[str | None]) -> str | None:
    """Return who has more votes than anybody else and than there are for nobody; None where there is no such player."""
    counts = Counter(choices).most_common(2)
    is_tie = len(counts) == 2 and counts[0][1] == counts[1][1]
    return None if is_tie else counts[0][0]
