"""Shortest plans for the six household tasks: what an expert would do, from any state of an episode.

The search is A* over states that hold only what matters to the goal: objects of the wanted type, what is in hand, the
lamps, and the receptacles where these are or can be put. Of receptacles, and of places to stand, that differ in nothing
that matters, one is kept: a plan that visits others can be rewritten to visit that one, and gets no longer. The lower
bound adds up trips, each from where the one before has ended; it is nearly always exact, and finite only where there is
a plan, so the search tries little more than what can be done along the plan itself.

The goal and the state are read from the episode. The rules are those of ALFRED's domain: heating, cooling, cleaning and
using a lamp need nothing to be open, nothing need ever be closed again, hands carry one object, and of an object that
was in two receptacles, as official games have it on stoves, one stays behind when it is taken.

Source: Hart, Nilsson and Raphael 1968, A formal basis for the heuristic determination of minimum cost paths.
"""

from __future__ import annotations

import abc
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from math import inf
from typing import NamedTuple, TypeAlias

from arena import UnsupportedError, UsageError

from .game import Play
from .goals import GO, OPEN, PUT, TAKE, USE, LookGoal, PlaceGoal, Receptacle, Setting, grouped, setting_of

__all__ = ["plan"]

_NOTHING = -1
_NO_TYPES: frozenset[str] = frozenset()

_Trip: TypeAlias = tuple[float, int, int]
"""How many commands it takes, for which object, and the receptacle where that is taken."""


def plan(play: Play, agent: str | None = None) -> list[str]:
    """Return the fewest commands by which an agent reaches the goal while nobody else acts; [] where it holds.

    The episode does not change. Among shortest plans the choice is always the same.

    Args:
        play: The episode, in any state.
        agent: Who acts, the first one by default. What others hold is out of reach, but one of them may be waiting with
            it for a lamp to be used.

    Raises:
        UnsupportedError: The agent cannot reach the goal, or it is none of the goals of the six tasks.
        UsageError: There is no such agent.
    """
    agent = agent or play.agents[0]
    if agent not in play.agents:
        raise UsageError(f"there is no agent {agent!r}; there are {', '.join(play.agents)}")
    if play.won:
        return []
    model = _model(play, agent)
    steps = _shortest(model)
    if steps is None:
        raise UnsupportedError(f"{agent} cannot reach the goal of {play.game.path} from here")
    return model.commands(steps)


def _model(play: Play, agent: str) -> _Model:
    house = setting_of(play)
    goal = house.goal
    return (
        _PlaceModel(house, goal, play, agent) if isinstance(goal, PlaceGoal) else _LookModel(house, goal, play, agent)
    )


class _State(NamedTuple):
    """A moment of a plan, in a model's numbers.

    Attributes:
        here: The location of the agent.
        held: The object in hand, or `_NOTHING`.
        closed: The receptacles that are closed, as bits.
        ready: The objects that are treated, or used, as the goal wants it, as bits.
        places: Where each object is: in no receptacle, in one, or seldom in more.
    """

    here: int
    held: int
    closed: int
    ready: int
    places: tuple[tuple[int, ...], ...]


class _Step(NamedTuple):
    """A command of a plan; one that goes names any receptacle of the location."""

    action: str
    receptacle: int
    object: int = _NOTHING


class _Model(abc.ABC):
    """The part of a house that matters to a goal, with numbers for names.

    Args:
        house: The house.
        play: The episode, whose state is where plans start.
        agent: Who acts.
        objects: Ids of the objects that the goal is about; what is in hand is added.
        ready: Ids of the objects that are treated or used already.

    Attributes:
        objects: Ids.
        movable: Objects that can be taken.
        receptacles: Those that are kept.
        site: The location of each receptacle.
        inside: The receptacles of each location.
        accepts: The receptacles that can take each object, as bits.
        awaited: Numbers of the locations where others wait for something to be done.
        start: The state of the episode.
    """

    def __init__(
        self,
        house: Setting,
        play: Play,
        agent: str,
        objects: Sequence[str],
        ready: Collection[str],
        awaited: Collection[str] = (),
    ) -> None:
        self.game = play.game
        held = [object for holder, object in sorted(play.facts("holds")) if holder == agent]
        self.objects = list(dict.fromkeys([*objects, *held]))
        contents = grouped((place, object) for object, place in play.facts("inreceptacle") if object in self.objects)
        standing = {who: place for who, place in play.facts("atlocation")}
        if agent not in standing:
            raise UnsupportedError(f"{agent} is nowhere in the house of {play.game.path}")
        here = standing[agent]
        closed = {one.id for one in chain(*house.receptacles.values()) if one.opens} - _ids(play, "opened")
        types = [house.types.get(id, _NO_TYPES) for id in self.objects]

        kept = dict(self._kept(house, {here, *awaited}, contents.keys(), closed, _NO_TYPES.union(*types)))
        self.receptacles = [one for found in kept.values() for one in found]
        self.site = [number for number, found in enumerate(kept.values()) for _ in found]
        self.inside = [[n for n, site in enumerate(self.site) if site == number] for number in range(len(kept))]
        self.movable = [number for number, id in enumerate(self.objects) if id in house.pickupable]
        self.accepts = [_bits(not one.isdisjoint(place.holds) for place in self.receptacles) for one in types]
        locations = list(kept)
        self.awaited = {locations.index(place) for place in awaited}
        self.start = _State(
            here=locations.index(here),
            held=self.objects.index(held[0]) if held else _NOTHING,
            closed=_bits(one.id in closed for one in self.receptacles),
            ready=_bits(id in ready for id in self.objects),
            places=tuple(
                tuple(n for n, one in enumerate(self.receptacles) if id in contents.get(one.id, ()))
                for id in self.objects
            ),
        )
        self._arrivals: dict[tuple[int, int, int], list[float]] = {}

    @abc.abstractmethod
    def purpose(self, receptacle: Receptacle) -> tuple[bool, ...]:
        """Return what a receptacle is good for, other than to put things down."""

    @abc.abstractmethod
    def bound(self, state: _State) -> float:
        """Return how many commands the goal is away, or fewer; 0 where it holds, infinity where it is out of reach."""

    @abc.abstractmethod
    def readying(self, state: _State) -> Iterator[_Step]:
        """Yield the steps that treat or use an object here."""

    def _kept(
        self,
        house: Setting,
        taken: Collection[str],
        occupied: Collection[str],
        closed: Collection[str],
        types: frozenset[str],
    ) -> Iterator[tuple[str, list[Receptacle]]]:
        """Yield the locations that are kept, with their receptacles: of those that differ in nothing, the first.

        Args:
            house: The house.
            taken: Locations that are like no other, because agents stand there.
            occupied: Ids of receptacles that are like no other, because objects that matter are there.
            closed: Ids of the receptacles that must be opened.
            types: Types of the objects that matter.
        """
        seen = set()
        for location in sorted({*house.receptacles, *taken}):
            kept, traits = [], set()
            for one in house.receptacles.get(location, ()):
                purpose, holds = self.purpose(one), one.holds & types
                trait = (purpose, holds, one.id in closed and bool(holds))
                if one.id in occupied or ((holds or any(purpose)) and trait not in traits):
                    kept.append(one)
                    traits.add(trait if one.id not in occupied else one.id)
            if location in taken or (kept and frozenset(traits) not in seen):
                yield location, kept
            seen.add(frozenset(traits))

    def steps(self, state: _State) -> Iterator[tuple[_Step, _State]]:
        """Yield each step that may help, and where it leads."""
        here, held, closed, ready, places = state
        for site, receptacles in enumerate(self.inside):
            if site != here and receptacles:
                yield _Step(GO, receptacles[0]), _State(site, held, closed, ready, places)
        for place in self.inside[here]:
            if closed >> place & 1:
                yield _Step(OPEN, place), _State(here, held, closed ^ 1 << place, ready, places)
            elif held == _NOTHING:
                for object in self.movable:
                    if place in places[object]:
                        left = tuple(one for one in places[object] if one != place)
                        after = (*places[:object], left, *places[object + 1 :])
                        yield _Step(TAKE, place, object), _State(here, object, closed, ready, after)
            elif self.accepts[held] >> place & 1:
                after = (*places[:held], tuple(sorted({*places[held], place})), *places[held + 1 :])
                yield _Step(PUT, place, held), _State(here, _NOTHING, closed, ready, after)
        for step in self.readying(state):
            yield step, _State(here, held, closed, ready | 1 << step.object, places)

    def arrivals(self, state: _State, free: int) -> list[float]:
        """Return for each location how many commands it takes to stand there with empty hands, or fewer.

        Args:
            state: The state.
            free: Receptacles, as bits, whose opening is not counted.
        """
        here, held, closed, _, _ = state
        closed &= ~free
        key = (here, held, closed)
        arrivals = self._arrivals.get(key)
        if arrivals is None:
            arrivals = self._arrivals[key] = self._arriving(here, held, closed)
        return arrivals

    def _arriving(self, here: int, held: int, closed: int) -> list[float]:
        if held == _NOTHING:
            return [float(site != here) for site in range(len(self.inside))]
        by_way = [inf] * len(self.inside)
        for place, site in enumerate(self.site):
            if self.accepts[held] >> place & 1:
                by_way[site] = min(by_way[site], 1 + (site != here) + (closed >> place & 1))
        least = min(by_way) + 1
        return [min(cost, least) for cost in by_way]

    def commands(self, steps: Sequence[_Step]) -> list[str]:
        """Return the texts of a plan's commands; one that goes names the receptacle where something is done then."""
        return [
            self._command(step if step.action != GO else _Step(GO, following.receptacle))
            for step, following in zip(steps, [*steps[1:], steps[-1]], strict=True)
        ]

    def _command(self, step: _Step) -> str:
        receptacle = self.receptacles[step.receptacle]
        names = {"?r": receptacle.id, "?lend": receptacle.location}
        if step.object != _NOTHING:
            names["?o"] = self.objects[step.object]
        program = self.game.program
        rule = next(rule for rule in program.rules if rule.name == step.action)
        values = rule.initial.copy()
        for slot, (name, _) in zip(rule.parameters, program.domain.actions[step.action].parameters, strict=True):
            values[slot] = names.get(name, name)
        return rule.command(self.game.initial, values, self.game.labels)


class _PlaceModel(_Model):
    """What matters where objects must be brought to a receptacle."""

    def __init__(self, house: Setting, goal: PlaceGoal, play: Play, agent: str) -> None:
        self.goal = goal
        objects = [id for id in house.objects(goal.object_type) if id in house.suited]
        ready = _ids(play, goal.treatment.makes) if goal.treatment else objects
        super().__init__(house, play, agent, objects, ready)
        self._wanted = range(len(objects))
        self._loose = [object for object in self._wanted if object in self.movable]
        self._targets = [n for n, one in enumerate(self.receptacles) if goal.receptacle_type in one.types]
        self._tools = {self.site[n]: n for n, one in enumerate(self.receptacles) if self._is_tool(one)}

    def purpose(self, receptacle: Receptacle) -> tuple[bool, ...]:
        return self.goal.receptacle_type in receptacle.types, self._is_tool(receptacle)

    def readying(self, state: _State) -> Iterator[_Step]:
        treatment = self.goal.treatment
        if treatment and state.here in self._tools and state.held in self._wanted and not state.ready >> state.held & 1:
            yield _Step(treatment.action, self._tools[state.here], state.held)

    def bound(self, state: _State) -> float:
        least = inf
        for target in self._targets:
            there = sum(state.ready >> one & 1 for one in self._wanted if target in state.places[one])
            if there >= self.goal.count:
                return 0
            least = min(least, self._filling(state, target, self.goal.count - there))
        return least

    def _filling(self, state: _State, target: int, missing: int) -> float:
        """Return a bound for bringing one or two more objects to a receptacle.

        What is in hand goes there first, or it is put down and matters no more. Each object then takes a trip; the
        second one begins where the first has ended.
        """
        _, held, closed, ready, places = state
        free = 1 << target | sum(1 << place for place in {place for one in self._wanted for place in places[one]})
        arrivals, end, opening = self.arrivals(state, free), self.site[target], closed >> target & 1
        closed &= ~(1 << target)
        there = [ready >> one & 1 and target in places[one] for one in self._wanted]
        firsts, laters = [], []
        for object in self._loose:
            for place in () if there[object] else places[object]:
                site = self.site[place]
                fetch = 1 + (closed >> place & 1) + self._carry(state, object, site, target, place)
                firsts.append((arrivals[site] + fetch, object, place))
                laters.append(((site != end) + fetch - opening, object, place))
        least = _cheapest_pair(firsts, laters, closed) if missing == 2 else min(firsts, default=(inf,))[0]
        if held in self._wanted and not there[held]:
            kept = self._carry(state, held, state.here, target)
            if missing == 2:
                kept += min((cost for cost, object, _ in laters if object != held), default=inf)
            least = min(least, kept)
        return least

    def _carry(self, state: _State, object: int, site: int, target: int, left: int = _NOTHING) -> float:
        """Return how many commands it takes from having an object in hand to having it in a receptacle, treated.

        What was in two receptacles stays in the other one when it is taken; then it must only be treated.

        Args:
            state: The state.
            object: The object.
            site: Where it is in hand.
            target: The receptacle.
            left: The receptacle that it was taken from.
        """
        if target in state.places[object] and target != left:
            return 1 + (site not in self._tools) if self._tools else inf
        if not self.accepts[object] >> target & 1:
            return inf
        end, opening = self.site[target], state.closed >> target & 1
        if state.ready >> object & 1:
            return opening + 1 + (site != end)
        if site in self._tools or end in self._tools:
            return opening + 2 + (site != end)
        return opening + 4 if self._tools else inf

    def _is_tool(self, receptacle: Receptacle) -> bool:
        return self.goal.treatment is not None and self.goal.treatment.tool_type in receptacle.types


def _cheapest_pair(firsts: list[_Trip], laters: list[_Trip], closed: int) -> float:
    """Return the least cost of a trip and a later one for another object; what is closed is opened once."""
    laters.sort()
    least = inf
    for first, object, place in firsts:
        for later, other, holder in laters:
            if first + later - 1 >= least:
                break
            if other != object:
                least = min(least, first + later - (closed >> place & 1 if place == holder else 0))
    return least


class _LookModel(_Model):
    """What matters where an object must be held at a lamp."""

    def __init__(self, house: Setting, goal: LookGoal, play: Play, agent: str) -> None:
        wanted = house.objects(goal.object_type)
        lamps = [id for id in house.objects(goal.lamp_type) if id in house.suited]
        standing = {who: place for who, place in play.facts("atlocation")}
        waiting = {standing[who] for who, object in play.facts("holds") if who != agent and object in wanted}
        super().__init__(house, play, agent, [*wanted, *lamps], _ids(play, "istoggled"), waiting)
        self._wanted = range(len(wanted))
        self._lamps = [self.objects.index(id) for id in lamps]

    def purpose(self, receptacle: Receptacle) -> tuple[bool, ...]:
        return ()

    def readying(self, state: _State) -> Iterator[_Step]:
        for lamp in self._lamps:
            for place in state.places[lamp]:
                if self.site[place] == state.here and not state.ready >> lamp & 1:
                    yield _Step(USE, place, lamp)

    def bound(self, state: _State) -> float:
        takes = [(0.0, state.here)] if state.held in self._wanted else list(self._takes(state, self._wanted))
        least = inf
        for lamp in self._lamps:
            use = 1 - (state.ready >> lamp & 1)
            if lamp == state.held and self.accepts[lamp]:
                least = min(least, use + min(takes, default=(inf, 0))[0])
            for place in state.places[lamp]:
                site = self.site[place]
                least = min(least, use + min((cost + (end != site) for cost, end in takes), default=inf))
            for viewer in self.awaited:
                least = min(least, use + self._bringing(state, lamp, viewer, bool(use)))
        return least

    def _takes(self, state: _State, objects: Iterable[int], free: int = 0) -> Iterator[tuple[float, int]]:
        """Yield what it costs to take each of some objects, and where one stands then.

        Args:
            state: The state.
            objects: The objects.
            free: Receptacles, as bits, whose opening is not counted.
        """
        offers = [place for object in objects if object in self.movable for place in state.places[object]]
        arrivals = self.arrivals(state, free | sum(1 << place for place in set(offers)))
        for place in offers:
            site = self.site[place]
            yield arrivals[site] + 1 + (state.closed >> place & 1), site

    def _bringing(self, state: _State, lamp: int, viewer: int, is_unused: bool) -> float:
        """Return a bound for having a lamp where somebody else stands with an object, without using it.

        If it is there already, one must go where it can be used: seldom it is in another place too.
        """
        sites = {self.site[place] for place in state.places[lamp]}
        if viewer in sites:
            return is_unused and state.here not in sites
        fitting = [place for place in self.inside[viewer] if self.accepts[lamp] >> place & 1]
        put = 1 + min((state.closed >> place & 1 for place in fitting), default=inf)
        free = sum(1 << place for place in fitting)
        takes = [(0.0, state.here)] if lamp == state.held else self._takes(state, [lamp], free)
        return put + min((cost + (site != viewer) for cost, site in takes), default=inf)


def _ids(play: Play, predicate: str) -> set[str]:
    return {id for (id,) in play.facts(predicate)}


def _bits(claims: Iterable[bool]) -> int:
    return sum(1 << number for number, holds in enumerate(claims) if holds)


def _shortest(model: _Model) -> list[_Step] | None:
    """Return a shortest plan, or None where there is none."""
    order = count()
    ways: dict[_State, tuple[int, _State, _Step | None]] = {model.start: (0, model.start, None)}
    bound = model.bound(model.start)
    frontier = [(bound, bound, next(order), 0, model.start)]
    while frontier:
        total, _, _, length, state = heapq.heappop(frontier)
        if total == length:
            return _steps_to(state, ways)
        if total == inf:
            return None
        if length > ways[state][0]:
            continue
        length += 1
        for step, after in model.steps(state):
            if after not in ways or length < ways[after][0]:
                ways[after] = (length, state, step)
                bound = model.bound(after)
                heapq.heappush(frontier, (length + bound, bound, next(order), length, after))
    return None


def _steps_to(state: _State, ways: Mapping[_State, tuple[int, _State, _Step | None]]) -> list[_Step]:
    steps = []
    while (step := ways[state][2]) is not None:
        steps.append(step)
        state = ways[state][1]
    return steps[::-1]
