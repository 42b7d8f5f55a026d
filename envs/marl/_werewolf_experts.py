"""Rule-based players of Werewolf, one set of rules for each role.

A player decides from what it has been told and from the moves that it is offered: the game itself is not at hand here.
It believes what it has seen, then the first player who says that it is the seer and is not refuted; it never supposes
that a member of the village lies. What others say is read by patterns, whoever they are: "I am the seer", "I am the
doctor", "ben is a werewolf", "ben is not a werewolf", "I suspect ben".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from arena import derive_seed

from ._werewolf_rules import (
    NAMES,
    Begun,
    Chosen,
    Dealt,
    Event,
    Inspected,
    Left,
    Move,
    Protected,
    Role,
    Said,
    Voted,
    werewolves_among,
)

__all__ = ["next_move"]

_NAME = f"({'|'.join(NAMES)})"
_CLAIM = re.compile(r"\bi(?: am|'m) (?:the|a) (seer|doctor)\b")
_FINDING = re.compile(rf"\b{_NAME} is (not )?(?:a |the )?werewolf\b")
_SUSPICION = re.compile(rf"\bi suspect {_NAME}\b")


def next_move(told: Sequence[Event], moves: Sequence[Move], *, talks: bool) -> Move:
    """Return what a player does at its turn.

    Args:
        told: All that it has been told.
        moves: What it can do now; where it may pass it may also talk.
        talks: Whether it talks; otherwise it always passes.
    """
    mind = _Mind(told)
    match moves[0].verb:
        case "kill":
            return Move("kill", mind.victim([move.what for move in moves]))
        case "inspect":
            return Move("inspect", mind.to_inspect([move.what for move in moves]))
        case "protect":
            return Move("protect", mind.to_protect([move.what for move in moves]))
        case "pass":
            said = " ".join(mind.speech()) if talks else ""
            return Move("say", said) if said else moves[0]
        case "vote":
            target = mind.target()
            return Move("abstain") if target is None else Move("vote", target)
    return moves[0]


class _Mind:
    """What a player knows, has heard, and makes of it.

    Args:
        told: All that it has been told.

    Attributes:
        me: The player.
        role: Its role.
        living: Who has not left, in the order of turns that begins with who begins today.
        facts: Roles that are certain; the player's own among them.
        wolves: Players who are certainly, or by their own lies, werewolves.
        innocent: Players who certainly are not.
        claims: What players who say that they are the seer have found, in the order of their first claims.
        doctors: Players who say that they are the doctor.
        suspicions: Who has said today that it suspects whom, or that it is a werewolf.
    """

    def __init__(self, told: Sequence[Event]) -> None:
        deal = told[0]
        assert isinstance(deal, Dealt)
        self.me, self.role, self.pack = deal.player, deal.role, deal.pack
        self._order, self._setting, self._days = deal.order, deal.setting, 0
        self._left: set[str] = set()
        self.facts: dict[str, Role] = {deal.player: deal.role, **dict.fromkeys(deal.pack, "werewolf")}
        self.wolves = {player for player, role in self.facts.items() if role == "werewolf"}
        self.innocent = {self.me} - self.wolves
        self.findings: dict[str, bool] = {}
        self.claims: dict[str, dict[str, bool]] = {}
        self.doctors: list[str] = []
        self.suspicions: list[tuple[str, str]] = []
        self.named: str | None = None
        self._told, self._claimed = told, dict[str, int]()
        self._ballots: list[tuple[str, str | None]] = []
        self._last_ballots: tuple[tuple[str, str | None], ...] = ()
        for event in told:
            self._learn(event)
        self._expose_liars()

    # -- learning ------------------------------------------------------------------------------------------------------

    def _learn(self, event: Event) -> None:
        match event:
            case Begun("Day", number):
                self._days, self.suspicions = number, []
            case Begun():
                self.named = None
            case Chosen(_, victim):
                self.named = victim
            case Inspected(player, is_werewolf):
                self.findings[player] = is_werewolf
                (self.wolves if is_werewolf else self.innocent).add(player)
            case Left(player, ending, role):
                self._left.add(player)
                if role is not None:
                    self.facts[player] = role
                if ending == "killed" or role not in (None, "werewolf"):
                    self.innocent.add(player)
                elif role == "werewolf":
                    self.wolves.add(player)
            case Voted(ballots):
                self._ballots += ballots
                self._last_ballots = ballots
            case Said(speaker, text):
                self._listen(speaker, text.casefold())

    def _listen(self, speaker: str, text: str) -> None:
        for role in _CLAIM.findall(text):
            if role == "seer":
                self.claims.setdefault(speaker, {})
                self._claimed.setdefault(speaker, self._days)
            elif speaker not in self.doctors:
                self.doctors.append(speaker)
        for player, negation in _FINDING.findall(text):
            if speaker in self.claims:
                self.claims[speaker][player] = not negation
            if not negation:
                self.suspicions.append((speaker, player))
        self.suspicions += [(speaker, player) for player in _SUSPICION.findall(text)]

    def _expose_liars(self) -> None:
        """Take for werewolves who claim what cannot be, until nobody else is found out."""
        found = True
        while found:
            liars = {player for player in self.claims if self._is_refuted(player, "seer")}
            liars |= {player for player in self.doctors if self._is_refuted(player, "doctor")}
            found = bool(liars - self.wolves - self.innocent)
            self.wolves |= liars - self.innocent

    def _is_refuted(self, player: str, claimed: Role) -> bool:
        if self.facts.get(player, claimed) != claimed or player in self.wolves:
            return True
        if claimed not in self._setting.roles(len(self._order)):
            return True
        if any(role == claimed and other != player for other, role in self.facts.items()):
            return True
        findings = self.claims.get(player, {}) if claimed == "seer" else {}
        return any(target in (self.innocent if is_wolf else self.wolves) for target, is_wolf in findings.items())

    # -- judging -------------------------------------------------------------------------------------------------------

    @cached_property
    def living(self) -> list[str]:
        """Who has not left, in an order that is the same for all and another one each day."""
        first = self._days % len(self._order)
        return [player for player in (*self._order[first:], *self._order[:first]) if player not in self._left]

    @cached_property
    def seer(self) -> str | None:
        """Who is believed to be the seer."""
        if self.role == "seer":
            return self.me
        return next((player for player in self.claims if not self._is_refuted(player, "seer")), None)

    @cached_property
    def seen(self) -> dict[str, bool]:
        """What the believed seer is believed to have found."""
        return self.findings if self.role == "seer" else self.claims.get(self.seer or "", {})

    @cached_property
    def cleared(self) -> set[str]:
        """Who is believed to be innocent."""
        seer = {self.seer} if self.seer is not None else set()
        return self.innocent | seer | {player for player, is_wolf in self.seen.items() if not is_wolf} - self.wolves

    def _accused(self) -> list[str]:
        """Return the living whom the player believes to be werewolves, the most certain first."""
        believed = [player for player, is_wolf in self.seen.items() if is_wolf]
        rivals = [player for player in self.claims if player != self.seer]
        ranked = [*(player for player in self.living if player in self.wolves), *believed, *rivals]
        return [player for player in dict.fromkeys(ranked) if player in self.living and player != self.me]

    def _suspicion(self, player: str) -> int:
        """Return how much speaks against a player: votes for the innocent, and what the innocent say of it."""
        cleared, wolves = self.cleared, self.wolves
        votes = [choice for voter, choice in self._ballots if voter == player]
        wrong, right = sum(choice in cleared for choice in votes), sum(choice in wolves for choice in votes)
        said = {speaker for speaker, suspect in self.suspicions if suspect == player and speaker in cleared}
        return wrong - 2 * right + 2 * len(said)

    def _most_suspect(self, among: Iterable[str]) -> str | None:
        """Return the most suspect one; of equals the first in the order of the day, so that the village agrees."""
        return max(among, key=self._suspicion, default=None)

    # -- acting --------------------------------------------------------------------------------------------------------

    def target(self) -> str | None:
        """Return for whom to vote; None for nobody."""
        if self.role == "werewolf":
            return self._cover()
        accused = self._accused()
        if accused:
            return accused[0]
        if len(self.living) % 2 == 0:
            return None
        return self._most_suspect(player for player in self.living if player not in self.cleared)

    def _cover(self) -> str | None:
        """Return for whom a werewolf votes: for whom a villager would, and so unseen among them.

        For another one where that would be of the pack and somebody else can be blamed, or where the village votes
        without a plan, so that two votes for the same player weigh much.
        """
        seeming = _Mind([_as_villager(event) for event in self._told if _is_public(event)])
        wanted, accusers = seeming.target(), [player for player in self.claims if player in self._others()]
        if wanted in self.pack and accusers:
            return accusers[0]
        votes_with_a_plan = len({choice for _, choice in self._last_ballots} - {None}) <= 2
        is_first_vote = not self._last_ballots
        if accusers or (votes_with_a_plan and not (is_first_vote and wanted in self.pack)):
            return wanted
        return self._draw("prey", self._others())

    def _others(self) -> list[str]:
        """Return the living who are not in the pack."""
        return [player for player in self.living if player != self.me and player not in self.pack]

    def victim(self, among: Sequence[str]) -> str:
        """Return whom to kill: whom the pack has named this night, else who knows or is trusted, else anybody."""
        if self.named is not None:
            return self.named
        seers = [player for player in self.claims if player in among]
        if seers and not self._is_guarded(seers[0]):
            return seers[0]
        vouched = [player for findings in self.claims.values() for player, is_wolf in findings.items() if not is_wolf]
        wanted = [player for player in (*self.doctors, *vouched) if player in among]
        others = [player for player in among if player not in seers]
        return wanted[0] if wanted else self._draw("prey", others or among)

    def _is_guarded(self, seer: str) -> bool:
        """Return whether the doctor will protect the seer: in the first night after the claim, and not in the next."""
        doctor_lives = self._setting.doctor and all(self.facts.get(player) != "doctor" for player in self._left)
        return doctor_lives and (self._days - self._claimed[seer]) % 2 == 0

    def to_inspect(self, among: Sequence[str]) -> str:
        """Return whom to inspect: the most suspect of whom nothing is known."""
        unknown = [player for player in among if player not in self.wolves | self.innocent] or list(among)
        most = max(map(self._suspicion, unknown))
        return self._draw("inspect", [player for player in unknown if self._suspicion(player) == most])

    def to_protect(self, among: Sequence[str]) -> str:
        """Return whom to protect: the believed seer, else somebody who is believed to be innocent, such as itself."""
        if self.seer is not None and self.seer in among:
            return self.seer
        return self._draw("protect", [player for player in among if player in self.cleared] or among)

    def _draw(self, purpose: str, among: Sequence[str]) -> str:
        """Return one of some players, drawn with a seed that all who know the table can work out."""
        return among[derive_seed(self._days, purpose, *self._order) % len(among)]

    # -- talking -------------------------------------------------------------------------------------------------------

    def speech(self) -> list[str]:
        """Return what to say, a sentence each; nothing where silence is better."""
        if self.role == "seer" and self._seer_speaks():
            found = [f"{player} is {'a' if wolf else 'not a'} werewolf." for player, wolf in self.findings.items()]
            return ["I am the seer.", *found]
        if self.role == "werewolf":
            return self._bluff()
        if self.role == "doctor" and any(suspect == self.me for _, suspect in self.suspicions):
            return ["I am the doctor."]
        target = self.target()
        return [] if target is None else [f"I suspect {target}."]

    def _seer_speaks(self) -> bool:
        """Return whether the seer shows itself: it has something to tell, is in danger, or is impersonated."""
        werewolves = werewolves_among(len(self._order)) - len(self.wolves & self._left)
        return (
            any(wolf and player not in self._left for player, wolf in self.findings.items())
            or bool(self.claims)
            or len(self.living) <= 2 * werewolves + 2
            or any(suspect == self.me for _, suspect in self.suspicions)
        )

    def _bluff(self) -> list[str]:
        """Return a werewolf's words: who is accused by a seer claims to be the seer itself; others accuse the prey."""
        accusers = [player for player, findings in self.claims.items() if findings.get(self.me)]
        if accusers and self.me not in self.claims:
            return ["I am the seer.", f"{accusers[0]} is a werewolf."]
        target = self.target()
        return [] if target is None else [f"I suspect {target}."]


def _is_public(event: Event) -> bool:
    return not isinstance(event, Chosen | Inspected | Protected)


def _as_villager(event: Event) -> Event:
    """Return the deal as if the player were a villager, and any other event as it is."""
    return dataclasses.replace(event, role="villager", pack=()) if isinstance(event, Dealt) else event
