"""What the installed `alfworld` package knows of the 120 floor plans of AI2-THOR, and of which things go together.

Read from the package's files, without importing it: its import makes folders and sets environment variables. What the
files do not say (where the coffee machine stands, how much a drawer holds) is settled here, the same for ever.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import msgspec
import numpy as np

from arena import import_extra, stream

__all__ = [
    "APPLIANCES",
    "CAPACITY",
    "HELD_OUT",
    "LAMP",
    "ON_COUNTERS",
    "ROOMS",
    "TASK_TYPES",
    "FloorPlan",
    "Ground",
    "Position",
    "Spot",
    "Tables",
    "Thing",
    "floor_plan",
    "tables",
]

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)

APPLIANCES = {
    "pick_clean_then_place_in_recep": ("SinkBasin", "Cleanable"),
    "pick_heat_then_place_in_recep": ("Microwave", "Heatable"),
    "pick_cool_then_place_in_recep": ("Fridge", "Coolable"),
}
"""What these tasks need in the house, and what they need the object to be."""

LAMP = "DeskLamp"
"""The lamp of `look_at_obj_in_light`. A floor lamp stands in no receptacle, and nothing turns such a lamp on: official
games with one are marked as unsolvable."""

ROOMS = {
    "Kitchen": range(1, 31),
    "LivingRoom": range(201, 231),
    "Bedroom": range(301, 331),
    "Bathroom": range(401, 431),
}
"""The numbers of the floor plans of each kind of room."""

_OFFICIAL_UNSEEN = (10, 219, 308, 424)
HELD_OUT = frozenset(number for plans in ROOMS.values() for number in plans[:6]) | frozenset(_OFFICIAL_UNSEEN)
"""The floor plans that training never sees: the first six of each kind of room, which ALFRED's own list sets apart, and
the four of the official valid_unseen, so that they are new also to those who trained on generated games."""

CAPACITY = {
    **dict.fromkeys(("CoffeeMachine", "Toaster", "StoveBurner", "ToiletPaperHanger"), 1),
    **dict.fromkeys(("TowelHolder", "HandTowelHolder"), 1),
    **dict.fromkeys(("Drawer", "Microwave", "Safe", "TVStand", "Toilet", "LaundryHamper"), 2),
    **dict.fromkeys(("Cabinet", "Shelf", "ArmChair", "Ottoman", "BathtubBasin", "Cart"), 3),
    **dict.fromkeys(("Fridge", "SinkBasin", "GarbageCan", "Sofa", "Bed"), 5),
    **dict.fromkeys(("SideTable", "Desk", "Dresser", "CoffeeTable"), 7),
    **dict.fromkeys(("CounterTop", "DiningTable"), 9),
}
"""How many things a receptacle of a type holds when a game begins; the rules of play know no limit."""

ON_COUNTERS = frozenset({"CoffeeMachine", "Toaster", "StoveBurner"})
"""Receptacles that stand on a counter."""

_LAMP_STANDS = ("Desk", "SideTable", "Dresser", "DiningTable", "CoffeeTable", "Shelf")
_COUNT = {"StoveBurner": 4, "StoveKnob": 4}
_HEIGHT_M = {
    **dict.fromkeys(("Mirror", "Window", "Painting", "Poster", "Blinds", "Curtains"), 1.5),
    **dict.fromkeys(("LightSwitch", "TowelHolder", "HandTowelHolder", "Television"), 1.2),
    **dict.fromkeys(("CoffeeMachine", "Toaster", "StoveBurner", "StoveKnob", "SinkBasin", "Shelf"), 0.9),
    **dict.fromkeys(("Drawer", "Cabinet", "ToiletPaperHanger"), 0.6),
}
"""Where what has no place in the package's files hangs or stands; on the floor if it is not named."""

_STEP_M = 0.25
_CAMERA_M = 1.65
_ID = re.compile(r"(?P<type>\w+)\|(?P<x>[-+]?\d+\.\d+)\|(?P<y>[-+]?\d+\.\d+)\|(?P<z>[-+]?\d+\.\d+)(?:\|(?P<part>\w+))?")

Position: TypeAlias = tuple[float, float, float]
"""East, up and north, in metres."""


class Spot(msgspec.Struct, frozen=True, order=True):
    """Where an agent stands and looks: a location of the domain.

    Attributes:
        x: Steps of 0.25 m to the east.
        z: Steps of 0.25 m to the north.
        rotation: Quarter turns to the right from north, 0 to 3.
        horizon: Degrees by which the view is lowered, -30 to 60.
    """

    x: int
    z: int
    rotation: int
    horizon: int

    @property
    def id(self) -> str:
        """The location's name."""
        return f"loc|{self.x}|{self.z}|{self.rotation}|{self.horizon}"


class Thing(msgspec.Struct, frozen=True):
    """Something in a house.

    Attributes:
        id: AI2-THOR's name of it: the type, then the position.
        type: As in the tables, such as ``CounterTop``.
        position: Where it is.
        spot: Where an agent stands to reach it.
        opens: Whether it is a receptacle with a door or a lid.
    """

    id: str
    type: str
    position: Position
    spot: Spot
    opens: bool = False


class Tables(msgspec.Struct, frozen=True):
    """What holds in every house.

    Attributes:
        types: All types of things, in the package's order.
        receptacles: The types of receptacles that stay where they are.
        carriers: The types of receptacles that can be carried.
        holds: The types of things that each type of receptacle can hold.
        able: The types that are ``Cleanable``, ``Heatable``, ``Coolable``, ``Toggleable``, ``Sliceable``.
        openable: The types of receptacles with a door or a lid.
        horizons: Views that are given and not computed: by type, and by floor plan or None for all.
        most: How many objects of a type a house has at most, and of the type that the task asks for.
        rooms: The kinds of rooms in which a task type makes sense.
        goals: The goal of each task type: ``#`` for ``-``; ``{obj}``, ``{recep}``, ``{toggle}`` are to be filled in.
        sentences: How a task of each type is told, to be filled in likewise.
        domain: The rules, in PDDL.
        grammar: The texts of the game, with ``UNKNOWN GOAL`` in place of the task.
    """

    types: tuple[str, ...]
    receptacles: frozenset[str]
    carriers: frozenset[str]
    holds: dict[str, frozenset[str]]
    able: dict[str, frozenset[str]]
    openable: frozenset[str]
    horizons: dict[tuple[str, int | None], int]
    most: tuple[int, int]
    rooms: dict[str, frozenset[str]]
    goals: dict[str, str]
    sentences: dict[str, tuple[str, ...]]
    domain: str
    grammar: str


class Ground(msgspec.Struct, frozen=True):
    """Where an agent can stand in a floor plan.

    Attributes:
        number: The floor plan's.
        points: East and north, in steps of 0.25 m, sorted.
    """

    number: int
    points: tuple[tuple[int, int], ...]

    def thing(self, type: str, position: Position) -> Thing:
        """Return a thing with AI2-THOR's name for what is there."""
        parts = ["00.00" if round(part, 2) == 0 else f"{part:+06.2f}" for part in position]
        bowl = type.removesuffix("Basin")
        return self.named_thing("|".join([bowl, *parts] if bowl == type else [bowl, *parts, type]), type, position)

    def named_thing(self, id: str, type: str, position: Position, at: tuple[float, float] | None = None) -> Thing:
        """Return a thing with the spot from which ALFRED reaches it: near, facing it, looking at its foot.

        Args:
            id: Its name.
            type: Its type.
            position: Where it is.
            at: Where to stand, east and north in metres; otherwise the nearest point.
        """
        east, up, north = position[0] / _STEP_M, position[1], position[2] / _STEP_M
        x, z = (round(at[0] / _STEP_M), round(at[1] / _STEP_M)) if at else self._nearest(east, north)
        dx, dz = east - x, north - z
        rotation = (1 if dx > 0 else 3) if abs(dx) > abs(dz) else (0 if dz > 0 else 2)
        horizons = tables().horizons
        horizon = horizons.get((type, self.number), horizons.get((type, None)))
        if horizon is None:
            degrees = math.degrees(math.atan2(_CAMERA_M - up, max(abs(dx), abs(dz)) * _STEP_M))
            horizon = max(-30, min(60, 15 * round(degrees / 15)))
        return Thing(id, type, position, Spot(x, z, rotation, horizon))

    def by_a_wall(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a place, east and north in metres, half a metre off a point on a side where nobody can walk."""
        free = set(self.points)
        sides = ((0, 2), (2, 0), (0, -2), (-2, 0))
        beyond = [(x + dx, z + dz) for x, z in self.points for dx, dz in sides if (x + dx, z + dz) not in free]
        x, z = beyond[int(rng.integers(len(beyond)))]
        return x * _STEP_M, z * _STEP_M

    def _nearest(self, x: float, z: float) -> tuple[int, int]:
        return min(self.points, key=lambda point: (abs(point[0] - x) + abs(point[1] - z), point))


class FloorPlan(msgspec.Struct, frozen=True):
    """A house before any object is put into it, the same in every game.

    Attributes:
        ground: Where an agent can stand.
        room: The kind of room, one of `ROOMS`.
        receptacles: What stays where it is and holds things, sorted by id.
        fixtures: What stays where it is and holds nothing, sorted by id.
        objects: Types of the objects that belong here and that a receptacle here can hold, sorted.
        lamp_stand: The receptacle with the desk lamp on it; None where there is no such lamp, or nothing to put it on.
    """

    ground: Ground
    room: str
    receptacles: tuple[Thing, ...]
    fixtures: tuple[Thing, ...]
    objects: tuple[str, ...]
    lamp_stand: Thing | None

    def receptacle_types(self) -> list[str]:
        """Return the types of its receptacles, sorted, each once."""
        return sorted({receptacle.type for receptacle in self.receptacles})

    def room_for(self, object_type: str, never_in: str) -> int:
        """Return how many objects of a type fit into its receptacles of all types but one."""
        holds = tables().holds
        fitting = [holder.type for holder in self.receptacles if object_type in holds[holder.type]]
        return sum(CAPACITY[type] for type in fitting if type != never_in)


@cache
def tables() -> Tables:
    """Return what holds in every house.

    Raises:
        PrerequisiteError: The package is not installed.
    """
    constants, library = _run("gen/constants.py"), _run("gen/goal_library.py").gdict
    carriers = frozenset(constants.MOVABLE_RECEPTACLES)
    return Tables(
        types=tuple(constants.OBJECTS),
        receptacles=frozenset(constants.RECEPTACLES) - carriers,
        carriers=carriers,
        holds={holder: frozenset(held) for holder, held in constants.VAL_RECEPTACLE_OBJECTS.items()},
        able={action: frozenset(types) for action, types in constants.VAL_ACTION_OBJECTS.items()},
        openable=frozenset(constants.OPENABLE_CLASS_LIST),
        horizons=dict(constants.FORCED_HORIZON_OBJS),
        most=(constants.MAX_NUM_OF_OBJ_INSTANCES, constants.PICKUP_REPEAT_MAX),
        rooms={task: frozenset(constants.GOALS_VALID[task]) for task in TASK_TYPES},
        goals={task: library[task]["pddl"] for task in TASK_TYPES},
        sentences={task: tuple(library[task]["templates"]) for task in TASK_TYPES},
        domain=_file("data/alfred.pddl").read_text(encoding="utf-8"),
        grammar=_file("data/alfred.twl2").read_text(encoding="utf-8"),
    )


@cache
def floor_plan(number: int) -> FloorPlan:
    """Return the floor plan with a number, which one of `ROOMS` has.

    Raises:
        PrerequisiteError: The package is not installed.
    """
    known = tables()
    here: set[str] = set(json.loads(_file(f"gen/layouts/FloorPlan{number}-objects.json").read_text()))
    grid = np.load(_file(f"gen/layouts/FloorPlan{number}-layout.npy"))
    ground = Ground(number, tuple(sorted({(round(x / _STEP_M), round(z / _STEP_M)) for x, z in grid.tolist()})))
    receptacles = list(_listed(ground))
    for type in sorted((known.receptacles & here) - {receptacle.type for receptacle in receptacles}):
        receptacles += _unlisted(ground, type, receptacles)
    fixtures = list(_bowls(ground, receptacles))
    ever_held = frozenset[str]().union(*known.holds.values())
    placed = known.receptacles | ever_held | {LAMP} | {fixture.type for fixture in fixtures}
    for type in sorted((here & set(known.types)) - placed):
        fixtures += _unlisted(ground, type, receptacles)
    held_here = frozenset[str]().union(*(known.holds[receptacle.type] for receptacle in receptacles))
    return FloorPlan(
        ground=ground,
        room=next(room for room, numbers in ROOMS.items() if number in numbers),
        receptacles=tuple(sorted(receptacles, key=lambda receptacle: receptacle.id)),
        fixtures=tuple(sorted(fixtures, key=lambda fixture: fixture.id)),
        objects=tuple(sorted(held_here & here)),
        lamp_stand=_lamp_stand(receptacles) if LAMP in here else None,
    )


def _file(name: str) -> Path:
    """Return the path of one of the package's files."""
    spec = importlib.util.find_spec("alfworld")
    origin = spec.origin if spec else import_extra("alfworld", extra="alfworld").__file__
    return Path(str(origin)).parent / name


def _run(name: str) -> ModuleType:
    """Return one of the package's modules that needs none of the others, run by itself."""
    path = _file(name)
    spec = importlib.util.spec_from_file_location(f"_alfworld_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _listed(ground: Ground) -> Iterator[Thing]:
    """Yield the receptacles whose places the package lists: the only ones that open, as in the official games."""
    openable = tables().openable
    listed: dict[str, list[float]] = json.loads(
        _file(f"gen/layouts/FloorPlan{ground.number}-openable.json").read_text()
    )
    for id, (x, z, *_) in sorted(listed.items()):
        parts = _ID.fullmatch(id)
        assert parts is not None, id
        type = parts["part"] or parts["type"]
        position = (float(parts["x"]), float(parts["y"]), float(parts["z"]))
        thing = ground.named_thing(id, type, position, (x, z))
        yield msgspec.structs.replace(thing, opens=type in openable)


def _bowls(ground: Ground, receptacles: list[Thing]) -> Iterator[Thing]:
    """Yield the sinks and bathtubs whose basins are receptacles."""
    for basin in receptacles:
        id, _, part = basin.id.rpartition("|")
        if part.endswith("Basin"):
            yield ground.named_thing(id, id.partition("|")[0], basin.position)


def _unlisted(ground: Ground, type: str, receptacles: list[Thing]) -> list[Thing]:
    """Return the things of a type that belongs to a floor plan, at a place that is drawn once for all games."""
    rng = stream(ground.number, f"alfworld:{type}")
    counters = [receptacle for receptacle in receptacles if receptacle.type == "CounterTop"]
    if type in ON_COUNTERS and counters:
        x, _, z = counters[int(rng.integers(len(counters)))].position
        x, z = x + rng.uniform(-0.3, 0.3), z + rng.uniform(-0.3, 0.3)
    else:
        x, z = ground.by_a_wall(rng)
    height = _HEIGHT_M.get(type, 0.0)
    corners = [(0.2 * (index % 2), 0.2 * (index // 2)) for index in range(_COUNT.get(type, 1))]
    return [ground.thing(type, (round(x + east, 2), height, round(z + north, 2))) for east, north in corners]


def _lamp_stand(receptacles: list[Thing]) -> Thing | None:
    stands = [receptacle for receptacle in receptacles if receptacle.type in _LAMP_STANDS]
    return min(stands, key=lambda stand: (_LAMP_STANDS.index(stand.type), stand.id), default=None)
