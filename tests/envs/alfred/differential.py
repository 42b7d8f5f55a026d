"""Both engines side by side: they are given the same commands, and all that they say is compared.

Also ways to play that meet every kind of command, and houses written by hand.
"""

import itertools
import json
import random
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

from arena.envs._alfred.game import Play, load_game
from arena.envs._alfred.planner import plan
from arena.envs._alfred.tables import tables
from arena.envs._alfred.upstream import UpstreamPlay

KINDS = (
    *("close", "clean", "cool", "examine object", "examine receptacle", "go", "heat", "help", "inventory", "look"),
    *("move", "open", "slice", "take", "use"),
)
"""The kinds of commands, one for each action of ALFRED's domain."""
TREATMENTS = {
    "clean": ("cleanable", "sinkbasintype"),
    "cool": ("coolable", "fridgetype"),
    "heat": ("heatable", "microwavetype"),
}
KNIVES = ("knifetype", "butterknifetype")
_SELDOM = ("go", "help", "look", "inventory")
_BABBLED = 2
_TIDY = 0.7
"""How often what was opened on an errand is closed again."""
_ASIDE = 0.3
"""How often the expert looks aside."""


class Both:
    """A game that both engines play.

    Attributes:
        path: The game file.
        fast: The engine that is tested.
        said: The commands so far, each with its feedback; the first text comes with None.
        kinds: How often each kind of command was carried out.
        refused: How many commands did nothing.
        told: All texts.
        offered: All commands that were admissible at some point.
    """

    def __init__(self, path):
        self.path = path
        self.fast, self._upstream = Play(load_game(path)), UpstreamPlay(path)
        self.said = []
        self.kinds = Counter()
        self.refused = 0
        self.told, self.offered = [], set()
        self._receptacles = {
            name for id, name in self.fast.game.names.items() if self.fast.game.types[id] == "receptacle"
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._upstream.close()

    def name(self, id):
        """Return what something is called."""
        return self.fast.game.names[id]

    @property
    def commands(self):
        """What is admissible now."""
        return self.fast.commands()

    def begin(self):
        """Start the game, or start it again, in both engines."""
        self.said = []
        self._compare(None, self.fast.begin(), self._upstream.begin())

    def act(self, command):
        """Give both engines a command, compare what they say, and return it."""
        is_admissible = command.strip() in self.commands
        feedback = self.fast.act(command)
        self._compare(command, feedback, self._upstream.act(command))
        if is_admissible:
            self.kinds[self._kind(command.strip())] += 1
        else:
            self.refused += 1
        return feedback

    def _kind(self, command):
        verb, _, rest = command.partition(" ")
        if verb == "examine":
            return "examine receptacle" if rest in self._receptacles else "examine object"
        return verb

    def _compare(self, command, fast, upstream):
        self.said.append((command, fast))
        self.told.append(fast)
        self.offered.update(self.commands)
        sides = {
            "text": (fast, upstream),
            "commands": (self.fast.commands(), self._upstream.commands()),
            "won": (self.fast.won, self._upstream.won),
        }
        for what, (ours, theirs) in sides.items():
            if ours != theirs:
                raise AssertionError(self._difference(what, ours, theirs))

    def _difference(self, what, ours, theirs):
        if what == "commands":
            ours, theirs = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
            what = "commands that only one side has"
        played = [repr(command) for command, _ in self.said if command is not None]
        return (
            f"{what} of {self.path} after {len(played)} commands\n  fast:     {ours!r}\n  upstream: {theirs!r}\n"
            f"  commands: [{', '.join(played)}]\n  last told: {self.said[-1][1]!r}"
        )


# -- ways to play -----------------------------------------------------------------------------------------------------


def win(both, rng):
    """Do what the fast engine's planner says, now and then with a look aside that does no harm."""
    for command in plan(both.fast):
        if rng.random() < _ASIDE:
            kinds = ("go",) if command.startswith("go") else ("look", "inventory", "examine", "help")
            both.act(rng.choice([one for one in both.commands if one.startswith(kinds)]))
        both.act(command)
    assert both.fast.won, f"the plan for {both.path} does not win"


def roam(both, rng, steps):
    """Play at random, more often what changes something than what does not."""
    for _ in range(steps):
        rare = [one for one in both.commands if not one.startswith(_SELDOM)]
        both.act(rng.choice(rare if rare and rng.random() < 0.6 else both.commands))


def babble(both, rng, steps):
    """Type what is not admissible here, or is only after its blanks are gone."""
    for _ in range(steps):
        both.act(_babbled(both, rng))


def run_errands(both, rng, steps):
    """Do things that take several commands in order until enough steps are taken: heat, slice, use and so on."""
    end = len(both.said) + steps
    errands = [_slice, _use, *(partial(_treat, verb) for verb in TREATMENTS)]
    rng.shuffle(errands)
    for errand in itertools.cycle(errands):
        if len(both.said) >= end:
            return
        if not errand(both, rng):
            roam(both, rng, 1 if errand is errands[-1] else 0)


def _treat(verb, both, rng):
    """Heat, cool or clean something; return whether there is something, and where to do it."""
    able, station_type = TREATMENTS[verb]
    stations = sorted(id for id, type in both.fast.facts("receptacletype") if type == station_type)
    if not stations or (found := _one_that_is(able, both, rng)) is None:
        return False
    station = rng.choice(stations)
    _take(both, rng, *found)
    _go(both, station)
    both.act(f"{verb} {both.name(found[0])} with {both.name(station)}")
    both.act(f"examine {both.name(found[0])}")
    return True


def _slice(both, rng):
    """Slice something; it need not be seen, but the place where it is must have a receptacle to go to."""
    facts = both.fast.facts
    knives = {id for id, type in facts("objecttype") if type in KNIVES}
    reachable = sorted(row for row in facts("inreceptacle") if row[0] in knives)
    blocks = sorted(
        (id, receptacle)
        for (id,), (receptacle, place) in itertools.product(facts("sliceable"), facts("receptacleatlocation"))
        if (id, place) in facts("objectatlocation")
    )
    if not reachable or not blocks:
        return False
    knife, holder = rng.choice(reachable)
    sliced, block = rng.choice(blocks)
    _take(both, rng, knife, holder)
    _go(both, block)
    both.act(f"slice {both.name(sliced)} with {both.name(knife)}")
    return True


def _use(both, rng):
    if (found := _one_that_is("toggleable", both, rng)) is None:
        return False
    _go(both, found[1])
    for verb in ("use", "examine", "use", "examine"):
        both.act(f"{verb} {both.name(found[0])}")
    return True


def _one_that_is(property, both, rng):
    """Return an object with a property and the receptacle that it is in, or None."""
    found = sorted(row for row in both.fast.facts("inreceptacle") if row[:1] in both.fast.facts(property))
    return rng.choice(found) if found else None


def _go(both, receptacle):
    for command in (f"go to {both.name(receptacle)}", f"open {both.name(receptacle)}"):
        if command in both.commands:
            both.act(command)


def _take(both, rng, object, holder):
    _empty_hands(both, rng)
    _go(both, holder)
    both.act(f"take {both.name(object)} from {both.name(holder)}")
    if f"close {both.name(holder)}" in both.commands and rng.random() < _TIDY:
        both.act(f"close {both.name(holder)}")


def _empty_hands(both, rng):
    for _, held in sorted(both.fast.facts("holds")):
        types = {type for id, type in both.fast.facts("objecttype") if id == held}
        kinds = {kind for kind, type in both.fast.facts("cancontain") if type in types}
        fitting = sorted(id for id, kind in both.fast.facts("receptacletype") if kind in kinds)
        if fitting:
            place = rng.choice(fitting)
            _go(both, place)
            both.act(f"move {both.name(held)} to {both.name(place)}")


ODD = (
    *("", " ", "\n", "look\n", "\tlook ", "\u2028inventory\u2003", "look look", "LOOK", "Look", "look.", "look\0"),
    *("go", "go to", "go to ", "go to nowhere 1", "go to fridge", "go  to fridge 1", "open", "take", "take from"),
    *("{r}", "{}", "{r.name}", "go to {r.name}", "go to [{r.name}]", "#look.feedback#", "[{#overview(r)#}]", "%s"),
    *("None", "null", "0", "-1", "'", '"', "`", ";", "&", "go to cabinet 1; look", "look && inventory", "//look"),
    *("go to frïdge 1", "\uff4c\uff4f\uff4f\uff4b", "подойди", "看", "🍎", "look\u200b", "\ufefflook", "look\x1c"),
    *("\ud800", "look " * 2000, "a" * 100_000, "GotoLocation agent1", "look()", "help me", "examine 1", "\\n"),
)
"""Commands that no game has, but for blanks around them."""


def _babbled(both, rng):
    known = rng.choice(both.commands)
    elsewhere = rng.sample(sorted(name for name in both.fast.game.names.values()), 2)
    return rng.choice(
        (
            *rng.sample(ODD, 6),
            known.upper(),
            f"  {known}\n",
            known.replace(" ", "  ", 1) if " " in known else known + known,
            known[:-1],
            f"{known} please",
            f"take {elsewhere[0]} from {elsewhere[1]}",
            f"move {elsewhere[0]} to {elsewhere[1]}",
            f"{rng.choice(('open', 'use', 'examine', 'go to', 'slice'))} {elsewhere[0]}",
        )
    )


def played(path, number, steps):
    """Play a game for at least so many steps: a third of the numbers to win and beyond, the others on errands.

    Raises:
        AssertionError: The engines differ; the message says where.
    """
    rng = random.Random(f"play {number}")
    with Both(path) as both:
        both.begin()
        if number % 3:
            run_errands(both, rng, steps - _BABBLED)
        else:
            win(both, rng)
        babble(both, rng, _BABBLED)
        roam(both, rng, steps + 1 - len(both.said))
        return both


def play_all(paths, steps, *, jobs=2):
    """Play every game, several at once; return the plays, and what differed."""
    plays, differences = [], []

    def one(numbered):
        try:
            plays.append(played(numbered[1], numbered[0], steps))
        except AssertionError as difference:
            differences.append(str(difference))

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, enumerate(paths)))
    return plays, differences


# -- houses by hand ---------------------------------------------------------------------------------------------------


@cache
def domain():
    """The text of ALFRED's domain."""
    return tables().domain


@cache
def grammar(task="put some apple in fridge"):
    """The text of ALFRED's grammar for a task."""
    return tables().grammar.replace("UNKNOWN GOAL", task)


def changed(text, *changes):
    """Return a text with each of these pairs replaced; it must have what is replaced."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


class House:
    """A problem that is written fact by fact. The type of a thing is the beginning of its id.

    Attributes:
        objects: Types of all that there is, by id.
        facts: What holds at the beginning.
    """

    def __init__(self, start):
        self.objects = {"agent1": "agent"}
        self.facts = []
        self.fact("atlocation", "agent1", self._location(start))

    def declare(self, **objects):
        """Let there be objects, given with their types."""
        self.objects |= objects
        return self

    def fact(self, *atom):
        """Let a fact hold."""
        self.facts.append(atom)
        return self

    def receptacle(self, id, location, *properties):
        """Add a receptacle."""
        kind = "sinkbasin" if id.endswith("sinkbasin") else id.partition("_bar_")[0]
        self.objects |= {id: "receptacle", f"{kind}type": "rtype"}
        self.fact("receptacletype", id, f"{kind}type")
        self.fact("receptacleatlocation", id, self._location(location))
        return self.having(id, properties)

    def thing(self, id, holder, location, *properties):
        """Add an object; `holder` and `location` can be None."""
        kind = id.partition("_bar_")[0]
        self.objects |= {id: "object", f"{kind}type": "otype"}
        self.fact("objecttype", id, f"{kind}type")
        if holder is not None:
            self.fact("inreceptacle", id, holder)
        if location is not None:
            self.fact("objectatlocation", id, self._location(location))
        return self.having(id, properties)

    def fits(self, objects, receptacles):
        """Let every receptacle of these types hold objects of those types."""
        for kind, receptacle in itertools.product(objects.split(), receptacles.split()):
            self.objects |= {f"{kind}type": "otype", f"{receptacle}type": "rtype"}
            self.fact("cancontain", f"{receptacle}type", f"{kind}type")
        return self

    def problem(self, goal):
        """Return the problem's text."""
        objects = "\n".join(f"{id} - {type}" for id, type in self.objects.items())
        facts = "\n".join(f"({' '.join(fact)})" for fact in self.facts)
        return f"(define (problem house) (:domain alfred)\n(:objects\n{objects})\n(:init\n{facts})\n(:goal {goal}))"

    def _location(self, letter):
        self.objects[f"loc_bar_{letter}"] = "location"
        return f"loc_bar_{letter}"

    def having(self, id, properties):
        """Let something have properties."""
        for property in properties:
            self.fact(property, id)
        return self


FOOD = ("pickupable", "heatable", "coolable", "cleanable", "sliceable")
HOT = "(ishot apple_bar_1)"


def kitchen(start="z"):
    """Return a small house with all that ALFRED's domain knows; the agent starts near nothing.

    At a: cabinet 1, drawer 1 and countertop 2, on which are apple 2 and knife 1; in the drawer is butterknife 1.
    At b: countertop 1, on which are desklamp 1, bowl 1, pen 1 and statue 1, and fridge 1, in which is apple 1.
    At c: microwave 1, which is open, and sinkbasin 1. Numbers count down in the order of the ids.
    """
    house = House(start)
    house.receptacle("cabinet_bar_1", "a", "openable").receptacle("countertop_bar_1", "a")
    house.receptacle("drawer_bar_1", "a", "openable")
    house.receptacle("countertop_bar_2", "b").receptacle("fridge_bar_1", "b", "openable")
    house.receptacle("microwave_bar_1", "c", "openable", "opened").receptacle("sink_bar_1_bar_sinkbasin", "c")
    house.thing("apple_bar_1", "countertop_bar_1", "a", *FOOD).thing("apple_bar_2", "fridge_bar_1", "b", *FOOD)
    house.thing("knife_bar_1", "countertop_bar_1", "a", "pickupable", "cleanable")
    house.thing("butterknife_bar_1", "drawer_bar_1", "a", "pickupable", "cleanable", "sliceable")
    house.thing("desklamp_bar_1", "countertop_bar_2", "b", "toggleable")
    house.thing("bowl_bar_1", "countertop_bar_2", "b", "pickupable", "isreceptacleobject")
    house.thing("pen_bar_1", "countertop_bar_2", "b", "pickupable")
    house.fact("inreceptacleobject", "pen_bar_1", "bowl_bar_1")
    house.thing("statue_bar_1", "countertop_bar_2", "b", "pickupable")
    house.thing("mug_bar_1", None, "a", "pickupable", "heatable", "coolable")
    house.thing("egg_bar_1", None, None, "pickupable", "heatable")
    house.thing("window_bar_1", None, "d").thing("sink_bar_1", None, "c")
    return house.fits("apple knife butterknife mug bowl", "cabinet countertop drawer fridge microwave sinkbasin")


def write_game(folder, problem, *, rules=None, texts=None, **more):
    """Write a game file into a folder of its own below `folder`, and return its path.

    Args:
        folder: Where.
        problem: The problem's text.
        rules: The domain's text, by default ALFRED's.
        texts: The grammar's text, by default ALFRED's.
        more: Further keys of the file.
    """
    path = Path(tempfile.mkdtemp(prefix="game-", dir=folder)) / "game.tw-pddl"
    data = {"pddl_domain": rules or domain(), "grammar": texts or grammar(), "pddl_problem": problem, "solvable": True}
    path.write_text(json.dumps(data | more))
    return path


def counted(plays):
    """Return how often each kind of command was carried out in all."""
    return sum((both.kinds for both in plays), Counter())
