"""The houses and tasks of generated games: which there are, and the problem text of one.

A house is one of the floor plans that ALFWorld's package carries with objects put into it at random, its problem text
written as ALFWorld writes that of a scene.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from arena import UsageError, derive_seed, did_you_mean, stream

from .tables import (
    APPLIANCES,
    CAPACITY,
    HELD_OUT,
    LAMP,
    ON_COUNTERS,
    ROOMS,
    TASK_TYPES,
    FloorPlan,
    Spot,
    Thing,
    floor_plan,
    tables,
)

__all__ = [
    "RELEASE",
    "SPLITS",
    "TASK_TYPES",
    "GameSpec",
    "House",
    "furnish",
    "game_of",
    "problem_text",
    "what_matters",
]

SPLITS = {"train": range(0, 100_000), "valid_seen": range(100_000, 110_000), "valid_unseen": range(110_000, 120_000)}
"""The seeds of each split. valid_seen plays in the floor plans of train, valid_unseen in those of `HELD_OUT`."""

RELEASE = "json_2.1.1"
"""The folder of the official games below ``$ALFWORLD_DATA``."""

_NESTED, _ON_BOTH = 0.15, 0.5
"""How often an object that is beside a bowl or the like is in it, and one on a stove also counts as on the counter."""
_HORIZON = 30
_TWO = "pick_two_obj_and_place"
_MANGLED = {"-": "_minus_", "#": "-", "|": "_bar_", "+": "_plus_", ".": "_dot_"}
"""How AI2-THOR's names are written in PDDL, in this order, and ``#`` for the hyphen of PDDL itself."""

Item = TypeVar("Item")


class GameSpec(msgspec.Struct, frozen=True):
    """All that determines a game.

    Attributes:
        split: One of `SPLITS`.
        seed: One of the split's.
        task_type: One of `TASK_TYPES`.
        floor_plan: The floor plan's number.
        object: The type of what is to be found.
        target: The type of receptacle to put it in; for `look_at_obj_in_light` the type of lamp.
    """

    split: str
    seed: int
    task_type: str
    floor_plan: int
    object: str
    target: str

    @property
    def id(self) -> str:
        """The task's id: letters, digits, `-` and `_` only."""
        return f"{self.family}_{self.seed:06d}"

    @property
    def family(self) -> str:
        """The task as the official folders name it; several seeds can share it."""
        return f"{self.task_type}-{self.object}-None-{self.target}-{self.floor_plan}"

    @property
    def trial(self) -> str:
        """The inner folder's name: where the official games have the time of recording, it has zeros and the seed."""
        return f"trial_T00000000_000000_{self.seed:06d}"

    @property
    def folder(self) -> Path:
        """The game's folder below that of the data."""
        return Path(RELEASE, self.split, self.family, self.trial)


class House(msgspec.Struct, frozen=True):
    """A floor plan with objects in it.

    Attributes:
        plan: The floor plan.
        objects: What can be carried, and the lamp; sorted by id.
        held: Pairs of an object's and a receptacle's id. As in the official data, what stands on a stove burner may be
            on the counter below it too.
        nested: Pairs of ids of two objects: the first lies in the second.
        start: Where the agent begins, near no receptacle.
    """

    plan: FloorPlan
    objects: tuple[Thing, ...]
    held: tuple[tuple[str, str], ...]
    nested: tuple[tuple[str, str], ...]
    start: Spot


def game_of(split: str, seed: int, task_types: Sequence[str] = TASK_TYPES) -> GameSpec:
    """Return the game of a split and a seed.

    Args:
        split: One of `SPLITS`.
        seed: One of the split's seeds.
        task_types: The types wanted; they take turns, seed by seed.

    Raises:
        UsageError: There is no such split, seed or task type.
        PrerequisiteError: The package `alfworld`, whose tables are read, is not installed.
    """
    if split not in SPLITS:
        raise UsageError(f"no split {split!r}{did_you_mean(split, SPLITS)}; there are {', '.join(SPLITS)}")
    if type(seed) is not int or seed not in SPLITS[split]:
        raise UsageError(f"split {split!r} has the seeds {SPLITS[split][0]} to {SPLITS[split][-1]}, not {seed!r}")
    unknown = next((name for name in task_types if name not in TASK_TYPES), None)
    if unknown is not None or not task_types:
        given = f"no task type {unknown!r}{did_you_mean(unknown, TASK_TYPES)}" if unknown else "no task type is given"
        raise UsageError(f"{given}; there are {', '.join(TASK_TYPES)}")
    task_type = task_types[seed % len(task_types)]
    rng = stream(derive_seed(seed, "alfworld", split, task_type), "task")
    number, choices = _pick(rng, _choices(split, task_type))
    object_type, targets = _pick(rng, choices)
    return GameSpec(split, seed, task_type, number, object_type, _pick(rng, targets))


def furnish(spec: GameSpec, attempt: int = 0) -> House:
    """Return the house of a game, in which it is not won from the beginning.

    Args:
        spec: The game.
        attempt: Another number gives another house for the same game.
    """
    rng = stream(derive_seed(spec.seed, "alfworld", spec.split, spec.task_type), f"house:{attempt}")
    plan = floor_plan(spec.floor_plan)
    most, most_wanted = tables().most
    counts = {spec.object: int(rng.integers(2 if spec.task_type == _TWO else 1, most_wanted + 1))}
    counts |= {type: int(rng.integers(1, most + 1)) for type in plan.objects if type != spec.object}
    objects: dict[str, Thing] = {}
    holder_of: dict[str, Thing] = {}
    for type, count in counts.items():
        never_in = _never_at_first(spec) if type == spec.object else ""
        for _ in range(count):
            holder = _free_holder(rng, plan, type, never_in, holder_of)
            if holder is not None:
                thing = _beside(rng, plan, type, holder, objects)
                objects[thing.id], holder_of[thing.id] = thing, holder
    if plan.lamp_stand is not None:
        lamp = _beside(rng, plan, LAMP, plan.lamp_stand, objects)
        objects[lamp.id], holder_of[lamp.id] = lamp, plan.lamp_stand
    held = {(id, holder.id) for id, holder in holder_of.items()}
    held |= set(_on_counters(rng, plan, spec, objects, holder_of))
    return House(
        plan=plan,
        objects=tuple(objects[id] for id in sorted(objects)),
        held=tuple(sorted(held)),
        nested=tuple(_nested(rng, objects, holder_of)),
        start=_start(rng, plan),
    )


def problem_text(spec: GameSpec, house: House) -> str:
    """Return a game's problem in PDDL, laid out as ALFWorld writes it for a scene, but sorted."""
    known, plan = tables(), house.plan
    things = sorted([*house.objects, *plan.fixtures], key=lambda thing: thing.id)
    spots = sorted({house.start, *_spots(house).values(), *(receptacle.spot for receptacle in plan.receptacles)})
    movable_types = [type for type in known.types if type not in known.receptacles]
    objects = [
        "agent1 # agent",
        *(f"{type} # object" for type in movable_types),
        *(f"{type}Type # otype" for type in movable_types),
        *(f"{type}Type # rtype" for type in sorted(known.receptacles)),
        *(f"{thing.id} # object" for thing in things),
        *(f"{receptacle.id} # receptacle" for receptacle in plan.receptacles),
        *(f"{spot.id} # location" for spot in spots),
    ]
    goal = known.goals[spec.task_type].format(obj=spec.object, recep=spec.target, toggle=spec.target)
    text = (
        f"\n(define (problem plan_{spec.trial})\n(:domain alfred)\n(:objects\n{_lines(objects)}\n        )\n\n"
        f"(:init\n{_lines(_facts(spec, house, things))}\n        )\n\n{goal}"
    )
    for character, mangled in _MANGLED.items():
        text = text.replace(character, mangled)
    return text


def _facts(spec: GameSpec, house: House, things: list[Thing]) -> Iterator[str]:
    """Yield the facts at the beginning, in ALFWorld's order; `things` are all that is no receptacle."""
    known, plan = tables(), house.plan
    types = {thing.type for thing in things}
    fridges = {receptacle.id for receptacle in plan.receptacles if receptacle.type == "Fridge"}
    targets = {thing.id for thing in things if thing.type == spec.object}
    yield from (f"(receptacleType {receptacle.id} {receptacle.type}Type)" for receptacle in plan.receptacles)
    yield from (f"(objectType {thing.id} {thing.type}Type)" for thing in things)
    for holder in plan.receptacle_types():
        yield from (f"(canContain {holder}Type {type}Type)" for type in sorted(known.holds[holder] & types))
    yield from (f"(pickupable {thing.id})" for thing in house.objects if thing.type != LAMP)
    yield from (f"(isReceptacleObject {thing.id})" for thing in house.objects if thing.type in known.carriers)
    yield from (f"(openable {receptacle.id})" for receptacle in plan.receptacles if receptacle.opens)
    yield f"(atLocation agent1 {house.start.id})"
    for ability in ("Cleanable", "Heatable", "Coolable"):
        yield from (f"({ability.lower()} {thing.id})" for thing in things if thing.type in known.able[ability])
    yield from (f"(isCool {id})" for id, holder in house.held if id in targets and holder in fridges)
    for ability in ("Toggleable", "Sliceable"):
        yield from (f"({ability.lower()} {thing.id})" for thing in things if thing.type in known.able[ability])
    yield from (f"(inReceptacle {id} {holder})" for id, holder in house.held)
    yield from (f"(inReceptacleObject {id} {carrier})" for id, carrier in house.nested)
    yield from (f"(receptacleAtLocation {receptacle.id} {receptacle.spot.id})" for receptacle in plan.receptacles)
    yield from (f"(objectAtLocation {id} {spot.id})" for id, spot in sorted(_spots(house).items()))


def _spots(house: House) -> dict[str, Spot]:
    """Return where one stands to reach each thing: before what holds it, by the first one where there are two."""
    spots = {thing.id: thing.spot for thing in [*house.objects, *house.plan.fixtures]}
    holders = {receptacle.id: receptacle.spot for receptacle in house.plan.receptacles}
    return spots | {id: holders[holder] for id, holder in reversed(house.held)}


def _lines(items: Iterator[str] | list[str]) -> str:
    return "\n".join(f"        {item}" for item in items)


@functools.cache
def _choices(split: str, task_type: str) -> tuple[tuple[int, tuple[tuple[str, tuple[str, ...]], ...]], ...]:
    """Return the floor plans of a split where a task type can be set, each with its objects and their targets."""
    rooms = tables().rooms[task_type]
    numbers = [number for room, numbers in ROOMS.items() if room in rooms for number in numbers]
    fitting = [number for number in numbers if (number in HELD_OUT) == (split == "valid_unseen")]
    found = [(number, tuple(_possible(task_type, floor_plan(number)))) for number in fitting]
    return tuple((number, choices) for number, choices in found if choices)


def _possible(task_type: str, plan: FloorPlan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the types of objects that a task type can ask for in a floor plan, each with its possible targets."""
    known, here = tables(), plan.receptacle_types()
    if task_type == "look_at_obj_in_light":
        if plan.lamp_stand is not None:
            yield from ((type, (LAMP,)) for type in plan.objects)
        return
    appliance, ability = APPLIANCES.get(task_type, ("", ""))
    if appliance and appliance not in here:
        return
    least = 2 if task_type == _TWO else 1
    for type in plan.objects:
        holders = [holder for holder in here if type in known.holds[holder] and holder != appliance]
        targets = tuple(holder for holder in holders if plan.room_for(type, appliance or holder) >= least)
        if targets and (not ability or type in known.able[ability]):
            yield type, targets


def _never_at_first(spec: GameSpec) -> str:
    """Return the type of receptacle in which no object that the task asks for is found at first."""
    return APPLIANCES.get(spec.task_type, (spec.target, ""))[0]


def _free_holder(
    rng: np.random.Generator, plan: FloorPlan, type: str, never_in: str, holder_of: dict[str, Thing]
) -> Thing | None:
    """Return a receptacle with room for one more; the roomier, the likelier. None if all are full."""
    holds = tables().holds
    fitting = [holder for holder in plan.receptacles if type in holds[holder.type] and holder.type != never_in]
    taken = [holder.id for holder in holder_of.values()]
    places = [holder for holder in fitting for _ in range(CAPACITY[holder.type] - taken.count(holder.id))]
    return _pick(rng, places) if places else None


def _beside(rng: np.random.Generator, plan: FloorPlan, type: str, holder: Thing, taken: dict[str, Thing]) -> Thing:
    """Return an object in or on a receptacle, at a place where none of its type is."""
    east, up, north = holder.position
    while True:
        x, z = (round(part + rng.uniform(-0.3, 0.3), 2) for part in (east, north))
        thing = plan.ground.thing(type, (x, round(up + 0.05, 2), z))
        if thing.id not in taken:
            return thing


def _on_counters(
    rng: np.random.Generator, plan: FloorPlan, spec: GameSpec, objects: dict[str, Thing], holder_of: dict[str, Thing]
) -> Iterator[tuple[str, str]]:
    """Yield what stands in a coffee machine or the like and counts as on the counter too, with the counter."""
    for id, holder in holder_of.items():
        if holder.type in ON_COUNTERS and objects[id].type != spec.object and rng.random() < _ON_BOTH:
            counter = _nearest_counter(plan, holder)
            if counter is not None:
                yield id, counter.id


def _nearest_counter(plan: FloorPlan, thing: Thing) -> Thing | None:
    def distance(counter: Thing) -> float:
        return sum(abs(counter.position[axis] - thing.position[axis]) for axis in (0, 2))

    counters = [receptacle for receptacle in plan.receptacles if receptacle.type == "CounterTop"]
    return min(counters, key=distance, default=None)


def _nested(
    rng: np.random.Generator, objects: dict[str, Thing], holder_of: dict[str, Thing]
) -> Iterator[tuple[str, str]]:
    """Yield objects that lie in another one which stands in the same receptacle."""
    known = tables()
    carriers = [thing for thing in objects.values() if thing.type in known.carriers]
    for id, thing in sorted(objects.items()):
        around = [carrier for carrier in carriers if holder_of[carrier.id] is holder_of[id]]
        fitting = [carrier for carrier in around if thing.type in known.holds[carrier.type] and carrier.id != id]
        if fitting and rng.random() < _NESTED:
            yield id, _pick(rng, fitting).id


def _start(rng: np.random.Generator, plan: FloorPlan) -> Spot:
    taken = {receptacle.spot for receptacle in plan.receptacles}
    while True:
        x, z = _pick(rng, plan.ground.points)
        spot = Spot(x, z, int(rng.integers(4)), _HORIZON)
        if spot not in taken:
            return spot


def _pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def what_matters(spec: GameSpec, house: House) -> House:
    """Return the house without what no shortest way to win can need: to the planner, each thing multiplies the states.

    What is left are the objects that the task asks for, what holds them, the appliance, and of the other possible
    targets one of each kind: opening or not, and reached from where something else is reached or not.
    """
    objects = {thing.id: thing for thing in house.objects if thing.type in (spec.object, spec.target)}
    held = tuple(pair for pair in house.held if pair[0] in objects)
    holders = {holder for _, holder in held}
    appliance = APPLIANCES.get(spec.task_type, ("", ""))[0]
    kept = [thing for thing in house.plan.receptacles if thing.id in holders or thing.type == appliance]
    spots = {thing.spot for thing in kept}
    targets = [thing for thing in house.plan.receptacles if thing.type == spec.target]
    kinds = {(thing.opens, thing.spot if thing.spot in spots else None): thing for thing in targets}
    kept += [thing for thing in kinds.values() if thing not in kept]
    plan = msgspec.structs.replace(house.plan, receptacles=tuple(kept), fixtures=())
    return House(plan, tuple(objects.values()), held, (), house.start)
