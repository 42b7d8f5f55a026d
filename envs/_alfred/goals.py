"""What plans start from: a game's goal, and what of its house never changes.

Source: the goals are those of ALFWorld 0.4.2, `alfworld.gen.goal_library`.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from arena import UnsupportedError

from .game import Game, Play
from .pddl import And, Atom, Equal, Exists, Formula, Is, Not

__all__ = [
    "GO",
    "OPEN",
    "PUT",
    "TAKE",
    "USE",
    "LookGoal",
    "PlaceGoal",
    "Receptacle",
    "Setting",
    "Treatment",
    "grouped",
    "setting_of",
]

GO, OPEN, TAKE, PUT, USE = "gotolocation", "openobject", "pickupobject", "putobject", "toggleobject"
"""Names of ALFRED's actions, beside those that treat an object."""
_TOLD = frozenset(("?r", "?o", "?lend"))
"""Parameters that the texts of commands can depend on: a receptacle, an object, and where one goes."""
_DISTINCT = "distinct"
_NO_TYPES: frozenset[str] = frozenset()


class Treatment(NamedTuple):
    """What is done to an object in hand where a receptacle of the tool's type stands.

    Attributes:
        action: The action's name.
        suits: What objects must be for it.
        makes: What they are then.
        tool_type: The type of receptacle.
    """

    action: str
    suits: str
    makes: str
    tool_type: str


_TREATMENTS = (
    Treatment("cleanobject", "cleanable", "isclean", "sinkbasintype"),
    Treatment("heatobject", "heatable", "ishot", "microwavetype"),
    Treatment("coolobject", "coolable", "iscool", "fridgetype"),
)


@dataclass(frozen=True, slots=True)
class PlaceGoal:
    """The goal that objects of a type are in one receptacle of a type: one or two, or one that is treated."""

    object_type: str
    receptacle_type: str
    count: int
    treatment: Treatment | None


@dataclass(frozen=True, slots=True)
class LookGoal:
    """The goal that somebody stands at a used lamp of a type, with an object of a type in hand."""

    object_type: str
    lamp_type: str


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A place for objects.

    Attributes:
        id: Its id.
        location: Where one stands to reach it.
        types: Its types; one in official games.
        holds: The types of objects that can be put there.
        opens: Whether it can be open or closed.
    """

    id: str
    location: str
    types: frozenset[str]
    holds: frozenset[str]
    opens: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """What no action changes.

    Attributes:
        goal: What is wanted.
        receptacles: By location; both sorted.
        types: The types of each object.
        pickupable: Objects that can be taken.
        suited: Objects that the goal's treatment suits, all where it has none; or those that can be used.
    """

    goal: PlaceGoal | LookGoal
    receptacles: Mapping[str, tuple[Receptacle, ...]]
    types: Mapping[str, frozenset[str]]
    pickupable: Collection[str]
    suited: Collection[str]

    def objects(self, type: str) -> list[str]:
        """Return the ids of the objects of a type, sorted."""
        return [id for id, types in self.types.items() if type in types]


_settings: weakref.WeakKeyDictionary[Game, Setting] = weakref.WeakKeyDictionary()


def setting_of(play: Play) -> Setting:
    house = _settings.get(play.game)
    if house is None:
        house = _settings[play.game] = _read_setting(play)
    return house


def _read_setting(play: Play) -> Setting:
    goal = _goal(play.game)
    treatment = goal.treatment if isinstance(goal, PlaceGoal) else None
    _check_rules(play.game, [GO, OPEN, TAKE, PUT, treatment.action if treatment else USE])
    suits = "toggleable" if isinstance(goal, LookGoal) else treatment and treatment.suits
    types = grouped(play.facts("objecttype"))
    return Setting(
        goal=goal,
        receptacles=_receptacles(play),
        types=types,
        pickupable={id for (id,) in play.facts("pickupable")},
        suited={id for (id,) in play.facts(suits)} if suits else types,
    )


def _check_rules(game: Game, actions: Sequence[str]) -> None:
    """Raise an error unless a game has these actions, with commands that tell no more than plans know."""
    domain, told = game.program.domain, {rule.name: rule.told for rule in game.program.rules}
    for name in actions:
        action = domain.actions.get(name)
        if action is None or not {action.parameters[place][0] for place in told[name]} <= _TOLD:
            raise UnsupportedError(f"the rules of {game.path} are not ALFRED's: {name!r} is missing or another action")


def _receptacles(play: Play) -> dict[str, tuple[Receptacle, ...]]:
    kinds, contents = grouped(play.facts("receptacletype")), grouped(play.facts("cancontain"))
    opens = play.facts("openable")
    found: dict[str, list[Receptacle]] = {}
    seen = set()
    for id, location in sorted(play.facts("receptacleatlocation")):
        if id in seen:
            raise UnsupportedError(f"{id} stands in two places in {play.game.path}; plans need one for each receptacle")
        seen.add(id)
        types = kinds.get(id, _NO_TYPES)
        holds = _NO_TYPES.union(*(contents.get(type, _NO_TYPES) for type in types))
        found.setdefault(location, []).append(Receptacle(id, location, types, holds, (id,) in opens))
    return {location: tuple(found[location]) for location in sorted(found)}


def grouped(rows: Iterable[Sequence[str]]) -> dict[str, frozenset[str]]:
    """Return what stands second in the rows, by what stands first, sorted."""
    groups: dict[str, set[str]] = {}
    for first, second in rows:
        groups.setdefault(first, set()).add(second)
    return {first: frozenset(groups[first]) for first in sorted(groups)}


def _goal(game: Game) -> PlaceGoal | LookGoal:
    literals = frozenset(_literals(game.goal, {}, count()))
    goal = _place_goal(literals) or _look_goal(literals)
    if goal is None:
        raise UnsupportedError(
            f"the goal of {game.path} is none that can be planned for: one or two objects of a type in a receptacle, "
            "one that is clean, hot or cool, or one that is held at a lamp"
        )
    return goal


def _literals(formula: Formula, names: Mapping[str, str], numbers: Iterator[int]) -> Iterator[Atom]:
    """Yield what a condition asks for, each variable under a name of its own; () for all but plain facts."""
    match formula:
        case Is(atom):
            yield (atom[0], *(names.get(term, term) for term in atom[1:]))
        case Not(Equal(left, right)):
            yield (_DISTINCT, *sorted((names.get(left, left), names.get(right, right))))
        case And(parts):
            for part in parts:
                yield from _literals(part, names, numbers)
        case Exists(variables, part):
            inner = {**names, **{name: f"?{next(numbers)}" for name, _ in variables}}
            yield from _literals(part, inner, numbers)
        case _:
            yield ()


def _rows(literals: Set[Atom], predicate: str) -> list[Atom]:
    return sorted(literal[1:] for literal in literals if literal[:1] == (predicate,))


def _are_variables(*terms: str) -> bool:
    return len(set(terms)) == len(terms) and all(term.startswith("?") for term in terms)


def _place_goal(literals: Set[Atom]) -> PlaceGoal | None:
    objects = sorted({object for object, _ in _rows(literals, "inreceptacle")})
    receptacle_types, object_types = _rows(literals, "receptacletype"), _rows(literals, "objecttype")
    treatment = next((one for one in _TREATMENTS if _rows(literals, one.makes)), None)
    if not 1 <= len(objects) <= (1 if treatment else 2) or len(receptacle_types) != 1 or not object_types:
        return None
    (receptacle, receptacle_type), (_, object_type) = receptacle_types[0], object_types[0]
    known: set[Atom] = {("receptacletype", receptacle, receptacle_type)}
    for object in objects:
        known |= {("inreceptacle", object, receptacle), ("objecttype", object, object_type)}
        if treatment:
            known |= {(treatment.suits, object), (treatment.makes, object)}
    if len(objects) == 2:
        known.add((_DISTINCT, *objects))
    if known != literals or not _are_variables(receptacle, *objects):
        return None
    return PlaceGoal(object_type, receptacle_type, len(objects), treatment)


def _look_goal(literals: Set[Atom]) -> LookGoal | None:
    types = {object: type for object, type in _rows(literals, "objecttype")}
    match [
        _rows(literals, name) for name in ("istoggled", "inreceptacle", "receptacleatlocation", "atlocation", "holds")
    ]:
        case [[(lamp,)], [(_, receptacle)], [(_, location)], [(viewer, _)], [(holder, object)]]:
            known = {
                ("objecttype", lamp, types.get(lamp, "")),
                ("toggleable", lamp),
                ("istoggled", lamp),
                ("inreceptacle", lamp, receptacle),
                ("receptacleatlocation", receptacle, location),
                ("atlocation", viewer, location),
                ("objecttype", object, types.get(object, "")),
                ("holds", holder, object),
            }
            if known == literals and _are_variables(lamp, receptacle, location, object, *{viewer, holder}):
                return LookGoal(types[object], types[lamp]) if types[object] != types[lamp] else None
    return None
