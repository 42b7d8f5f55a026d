"""What an expert team does in the house: who runs which errand, and how the others help.

Whoever is nearest to a part of the goal runs that errand: brings one object where it belongs, or does all that is left
to do. What comes of it is played ahead, and the next agent gets the nearest errand then. Agents without an errand open
doors and use lamps for those who have one where they get there first, and else try to be faster themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from arena import UnsupportedError

from .._alfred.game import Play
from .._alfred.planner import plan

__all__ = ["next_command"]

_WHERE = re.compile(r"(?:take|move) .* (?:from|to) (.*)")
_DELIVERY = re.compile(r"move (.*) \d+ to (.*)")


def next_command(house: Play, agent: str) -> str | None:
    """Return what an agent of an expert team does now; None where it can only wait. The episode does not change.

    Raises:
        UnsupportedError: Nobody in the team knows how to go on from here.
    """
    errands, possible = _errands(house), house.commands(agent)
    if not errands:
        raise UnsupportedError("nobody in the team knows how to go on from here")
    if agent in errands:
        return _first(errands[agent], possible)
    help = next(_helping(errands.values(), possible), None)
    return help or _first(_plan(house, agent), possible)


def _errands(house: Play) -> dict[str, Sequence[str]]:
    """Return the commands of each agent's errand; agents that are not needed have none."""
    ahead = Play(house.game, house.agents)
    ahead.restore(house.snapshot())
    errands: dict[str, Sequence[str]] = {}
    while not ahead.won:
        free = [agent for agent in house.agents if agent not in errands]
        offers = [(agent, _first_delivery(_plan(ahead, agent))) for agent in free]
        if not any(commands for _, commands in offers):  # each holds what another one needs
            offers = [(agent, _putting_down(ahead, agent)) for agent in free]
        offers = [offer for offer in offers if offer[1]]
        if not offers:
            break
        nearest, commands = min(offers, key=lambda offer: len(offer[1]))
        errands[nearest] = commands
        for command in commands:
            ahead.act(command, nearest)
    return errands


def _plan(house: Play, agent: str) -> Sequence[str]:
    """Return the shortest way of an agent that is alone with the task; empty where there is none."""
    try:
        return plan(house, agent)
    except UnsupportedError:
        return ()


def _first_delivery(commands: Sequence[str]) -> Sequence[str]:
    """Return a plan up to where the first object of the wanted kind is where the last one will be."""
    kind = commands and _DELIVERY.fullmatch(commands[-1])
    for number, command in enumerate(commands, 1):
        delivery = _DELIVERY.fullmatch(command)
        if kind and delivery and delivery.groups() == kind.groups():
            return commands[:number]
    return commands


def _putting_down(house: Play, agent: str) -> Sequence[str]:
    """Return how an agent brings what it holds where the task wants it; empty where that cannot be."""
    delivery = _DELIVERY.fullmatch(([*_plan(Play(house.game, house.agents), agent)] or [""])[-1])
    held = [house.game.names[thing] for holder, thing in house.facts("holds") if holder == agent]
    if delivery is None or not held:
        return ()
    target = delivery[2]
    state, done = house.snapshot(), list[str]()
    for command in (f"go to {target}", f"open {target}", f"move {held[0]} to {target}"):
        if command in house.commands(agent):
            house.act(command, agent)
            done.append(command)
    house.restore(state)
    return done if done[-1:] == [f"move {held[0]} to {target}"] else ()


def _first(commands: Sequence[str], possible: Collection[str]) -> str | None:
    """Return the first of some commands, or what opens the receptacle that somebody else was to open by then."""
    if not commands or commands[0] in possible:
        return commands[0] if commands else None
    where = _WHERE.fullmatch(commands[0])
    return f"open {where[1]}" if where and f"open {where[1]}" in possible else None


def _helping(errands: Iterable[Sequence[str]], possible: Collection[str]) -> Iterator[str]:
    """Yield commands that spare others one of theirs, or lead where such a one can be given in time."""
    for commands in errands:
        way = ""
        for number, command in enumerate(commands):
            if command.startswith("go to "):
                way = command
            elif command.startswith(("open ", "use ")):
                if command in possible:
                    yield command
                elif number >= 1 and way in possible:
                    yield way
