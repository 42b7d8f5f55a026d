"""Shortest plans, against all that the engine can do in small houses, and against upstream's planner in full ones."""

import itertools
import json
import os
import random
import subprocess
import sys
from collections import deque
from math import inf

import pytest

from arena import UnsupportedError, UsageError
from arena.envs._alfred.game import Play, load_game
from arena.envs._alfred.generator import game_file
from arena.envs._alfred.houses import furnish, game_of, problem_text
from arena.envs._alfred.planner import _model, plan
from arena.envs._alfred.tables import TASK_TYPES, tables

pytest.importorskip("alfworld", reason="the extra alfworld is not installed")

FLUENTS = ("atlocation", "opened", "inreceptacle", "holds", "isclean", "ishot", "iscool", "istoggled")
IDLE = ("look", "inventory", "help", "examine")
RECEPTACLES = ("CounterTop", "Cabinet", "Fridge", "Microwave", "SinkBasin")
TOOLS = {"clean": "SinkBasin", "heat": "Microwave", "cool": "Fridge"}


def write_game(path, problem):
    game = {"pddl_domain": tables().domain, "grammar": tables().grammar, "pddl_problem": problem}
    path.write_text(json.dumps(game))
    return load_game(path)


def problem_of(receptacles, objects, facts, goal):
    """Return a problem text; `receptacles` and `objects` give the type of each, as ids begin with it."""
    things = {one: "receptacle" for one in receptacles} | {one: "object" for one in objects}
    things |= {f"{type}Type": "rtype" for type in receptacles.values()}
    things |= {f"{type}Type": "otype" for type in objects.values()}
    things |= {f"l{number}": "location" for number in range(len(receptacles) + 1)}
    declared = " ".join(f"{name} - {type}" for name, type in things.items())
    facts = [f"(receptacleType {one} {type}Type)" for one, type in receptacles.items()] + facts
    facts = [f"(objectType {one} {type}Type)" for one, type in objects.items()] + facts
    return f"(define (problem p) (:domain alfred) (:objects agent1 - agent {declared}) (:init {' '.join(facts)}) {goal}"


def goal_of(task_type, target="", object="Apple"):
    return tables().goals[task_type].format(obj=object, recep=target, toggle="DeskLamp").replace("#", "-")


def random_problem(rng, task_type):
    """Return a small house with all that can be odd: shared places, closed doors, what is fixed or in two places."""
    target = rng.choice(RECEPTACLES)
    treatment = next((one for one in TOOLS if f"_{one}_" in task_type), None)
    types = [target, *([TOOLS[treatment]] if treatment and rng.random() < 0.9 else [])]
    types += rng.choices(RECEPTACLES, k=rng.choice((1, 2)))
    receptacles = {f"{type}_bar_{number}": type for number, type in enumerate(types)}
    kinds = ["Apple"] * rng.choice((2, 2, 3) if task_type == "pick_two_obj_and_place" else (1, 1, 2))
    kinds += ["DeskLamp"] * rng.choice((1, 1, 2)) if task_type == "look_at_obj_in_light" else []
    kinds += ["Book"] * rng.choice((0, 0, 1))
    objects = {f"{kind}_bar_{number}": kind for number, kind in enumerate(kinds)}
    places = rng.randint(2, len(types))
    facts = [f"(atLocation agent1 l{rng.randint(0, places)})"]
    for one, type in receptacles.items():
        facts.append(f"(receptacleAtLocation {one} l{rng.randrange(places)})")
        if type in ("Cabinet", "Fridge", "Microwave") and rng.random() < 0.8:
            facts += [f"(openable {one})", *([f"(opened {one})"] if rng.random() < 0.3 else [])]
    for type, kind in itertools.product(sorted(set(types)), sorted(set(kinds))):
        facts += [f"(canContain {type}Type {kind}Type)"] if rng.random() < 0.8 else []
    for one, kind in objects.items():
        inside = rng.sample(sorted(receptacles), 2 if rng.random() < 0.15 else 1)
        facts += [f"(inReceptacle {one} {place})" for place in inside]
        facts += [f"(pickupable {one})"] if rng.random() < (0.2 if kind == "DeskLamp" else 0.9) else []
        facts += [f"(toggleable {one})"] if kind == "DeskLamp" and rng.random() < 0.9 else []
        facts += [f"({tool}able {one})" for tool in TOOLS if rng.random() < (0.9 if tool == treatment else 0.1)]
        facts += [f"({rng.choice(('isClean', 'isHot', 'isCool'))} {one})"] if rng.random() < 0.1 else []
    return problem_of(receptacles, objects, facts, goal_of(task_type, target))


def facts_of(play):
    return tuple(play.facts(predicate) for predicate in FLUENTS)


def what_can_be_reached(play, agent, limit):
    """Return every state that an agent can bring about, each with the fewest commands to the goal; None: too many."""
    numbers, states, won, before = {facts_of(play): 0}, [play.snapshot()], [play.won], [[]]
    for number, state in enumerate(states):
        play.restore(state)
        for command in play.commands(agent):
            if command.startswith(IDLE):
                continue
            play.restore(state)
            play.act(command, agent)
            facts = facts_of(play)
            if facts not in numbers:
                numbers[facts] = len(states)
                states.append(play.snapshot())
                won.append(play.won)
                before.append([])
            before[numbers[facts]].append(number)
        if len(states) > limit:
            return None
    lengths = {number: 0 for number, is_won in enumerate(won) if is_won}
    waiting = deque(lengths)
    while waiting:
        number = waiting.popleft()
        for one in before[number]:
            if one not in lengths:
                lengths[one] = lengths[number] + 1
                waiting.append(one)
    return [(state, lengths.get(number)) for number, state in enumerate(states)]


def wander(play, rng, steps, agent=None):
    for _ in range(steps):
        commands = play.commands(agent)
        useful = [one for one in commands if not one.startswith((*IDLE, "go"))]
        play.act(rng.choice(useful if useful and rng.random() < 0.6 else commands), agent)


def follow(play, commands, agent=None):
    for command in commands:
        assert command in play.commands(agent)
        play.act(command, agent)


def length_of_plan(play, agent):
    try:
        return len(plan(play, agent))
    except UnsupportedError:
        return None


def lower_bound(play, agent):
    model = _model(play, agent)
    return model.bound(model.start)


@pytest.mark.parametrize("task_type", TASK_TYPES)
@pytest.mark.parametrize("agents", [("agent1",), ("agent1", "agent2")], ids=["alone", "beside another agent"])
def test_plans_are_as_short_as_they_can_be_from_every_state_of_small_houses(task_type, agents, tmp_path):
    checked = 0
    for seed in itertools.count():
        if seed >= 6 and checked >= 500:
            break
        rng = random.Random(f"{task_type}{seed}{agents}")
        play = Play(write_game(tmp_path / f"{seed}.tw-pddl", random_problem(rng, task_type)), agents)
        for other in agents[:-1]:
            wander(play, rng, rng.randrange(25), other)
        for state, length in what_can_be_reached(play, agents[-1], limit=1200) or ():
            play.restore(state)
            assert length_of_plan(play, agents[-1]) == length
            bound = lower_bound(play, agents[-1])
            assert bound == inf if length is None else bound <= length
            checked += bool(length)
            if length and rng.random() < 0.02:
                follow(play, plan(play, agents[-1]), agents[-1])
                assert play.won


@pytest.fixture(scope="module", params=range(12))
def full_game(request, tmp_path_factory):
    spec = game_of("train", 1000 + request.param)
    path = tmp_path_factory.mktemp("full") / "game.tw-pddl"
    return write_game(path, problem_text(spec, furnish(spec)))


def test_plans_win_full_games_from_the_start_and_from_wherever_an_agent_has_wandered(full_game):
    rng, play = random.Random(0), Play(full_game)
    follow(play, plan(play))
    assert play.won
    assert plan(play) == []
    for _ in range(5):
        play.begin()
        wander(play, rng, rng.randrange(60))
        left = len(plan(play))
        while left:
            follow(play, plan(play)[:1])
            left -= 1
            assert len(plan(play)) == left
        assert play.won


def test_planning_changes_nothing(full_game):
    rng, play = random.Random(1), Play(full_game)
    for _ in range(20):
        before, possible = play.snapshot(), play.commands()
        plan(play)
        assert play.snapshot() == before
        assert play.commands() == possible
        wander(play, rng, 3)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_plans_are_no_longer_than_those_of_upstreams_planner(task_type):
    game = load_game(game_file(game_of("valid_unseen", 110_000, (task_type,))))
    assert game.walkthrough
    assert len(plan(Play(game))) <= len(game.walkthrough)


# What is shown counts down in the order of the ids: Apple_bar_1 is "apple 2".
KITCHEN = {"CounterTop_bar_1": "CounterTop", "Fridge_bar_1": "Fridge"}
FRUIT = {"Apple_bar_1": "Apple", "Apple_bar_2": "Apple"}
KITCHEN_FACTS = [
    "(receptacleAtLocation CounterTop_bar_1 l1)",
    "(receptacleAtLocation Fridge_bar_1 l2)",
    "(openable Fridge_bar_1)",
    "(canContain CounterTopType AppleType)",
    "(canContain FridgeType AppleType)",
    "(inReceptacle Apple_bar_1 CounterTop_bar_1)",
    "(inReceptacle Apple_bar_2 CounterTop_bar_1)",
    "(pickupable Apple_bar_1)",
    "(pickupable Apple_bar_2)",
    "(atLocation agent1 l0)",
]


def kitchen(tmp_path, goal, *, agents=None, without="nothing", more=()):
    facts = [fact for fact in [*KITCHEN_FACTS, *more] if without not in fact]
    objects = FRUIT | {"DeskLamp_bar_1": "DeskLamp"}
    return Play(write_game(tmp_path / "game.tw-pddl", problem_of(KITCHEN, objects, facts, goal)), agents)


TWO = ("pick_two_obj_and_place", "Fridge")


def test_a_plan_names_what_it_goes_to_and_opens_what_is_closed(tmp_path):
    assert plan(kitchen(tmp_path, goal_of(*TWO))) == [
        "go to countertop 1",
        "take apple 2 from countertop 1",
        "go to fridge 1",
        "open fridge 1",
        "move apple 2 to fridge 1",
        "go to countertop 1",
        "take apple 1 from countertop 1",
        "go to fridge 1",
        "move apple 1 to fridge 1",
    ]


@pytest.mark.parametrize(
    "missing",
    ["(canContain FridgeType", "(receptacleAtLocation Fridge", "(inReceptacle Apple_bar_2", "(pickupable Apple_bar_1)"],
)
def test_a_goal_out_of_reach_is_an_error(missing, tmp_path):
    with pytest.raises(UnsupportedError, match=r"^agent1 cannot reach the goal of .*game\.tw-pddl from here$"):
        plan(kitchen(tmp_path, goal_of(*TWO), without=missing))


def test_an_agent_without_a_place_can_do_nothing(tmp_path):
    with pytest.raises(UnsupportedError, match="agent1 is nowhere"):
        plan(kitchen(tmp_path, goal_of(*TWO), without="(atLocation"))


def test_what_another_agent_holds_is_out_of_reach(tmp_path):
    play = kitchen(tmp_path, goal_of(*TWO), agents=("agent1", "agent2"))
    follow(play, ["go to countertop 1", "take apple 2 from countertop 1"], "agent2")
    with pytest.raises(UnsupportedError, match="agent1 cannot reach"):
        plan(play, "agent1")
    assert plan(play, "agent2")[0] == "go to fridge 1"
    follow(play, ["go to fridge 1", "open fridge 1", "move apple 2 to fridge 1"], "agent2")
    assert len(plan(play)) == 4


def test_whoever_looks_must_hold_the_thing_but_anybody_can_use_the_lamp(tmp_path):
    lamp = ["(inReceptacle DeskLamp_bar_1 Fridge_bar_1)", "(toggleable DeskLamp_bar_1)"]
    play = kitchen(tmp_path, goal_of("look_at_obj_in_light"), agents=("agent1", "agent2"), more=lamp)
    alone = ["go to countertop 1", "take apple 2 from countertop 1", "go to fridge 1", "use desklamp 1"]
    assert plan(play) == alone
    follow(play, alone[2:], "agent2")
    assert plan(play) == alone[:3]
    play.begin()
    follow(play, alone[:3], "agent2")
    assert plan(play) == alone[2:]
    follow(play, alone[2:])
    assert play.won


def test_a_lamp_can_be_brought_to_whoever_waits_with_the_thing(tmp_path):
    more = ["(inReceptacle DeskLamp_bar_1 Fridge_bar_1)", "(toggleable DeskLamp_bar_1)", "(pickupable DeskLamp_bar_1)"]
    more += ["(opened Fridge_bar_1)", "(canContain CounterTopType DeskLampType)"]
    play = kitchen(tmp_path, goal_of("look_at_obj_in_light"), agents=("agent1", "agent2"), more=more)
    follow(play, ["go to fridge 1", "take desklamp 1 from fridge 1"])
    follow(play, ["go to countertop 1", "take apple 2 from countertop 1"], "agent2")
    assert plan(play) == ["go to countertop 1", "move desklamp 1 to countertop 1", "use desklamp 1"]


def test_an_object_that_was_in_two_places_stays_in_one_of_them(tmp_path):
    more = ["(inReceptacle Apple_bar_1 Fridge_bar_1)", "(coolable Apple_bar_1)"]
    play = kitchen(tmp_path, goal_of("pick_cool_then_place_in_recep", "CounterTop"), more=more)
    commands = plan(play)
    assert commands == ["go to fridge 1", "open fridge 1", "take apple 2 from fridge 1", "cool apple 2 with fridge 1"]
    follow(play, commands)
    assert play.won


def test_an_unknown_agent_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no agent 'agent9'; there are agent1"):
        plan(kitchen(tmp_path, goal_of(*TWO)), "agent9")


@pytest.mark.parametrize(
    "goal",
    [
        "(:goal (exists (?o - object ?r - receptacle) (and (inReceptacle ?o ?r) (isSliced ?o)"
        " (objectType ?o AppleType) (receptacleType ?r FridgeType)))))",
        "(:goal (exists (?o - object) (and (inReceptacle ?o Fridge_bar_1) (objectType ?o AppleType)"
        " (receptacleType Fridge_bar_1 FridgeType)))))",
        "(:goal (forall (?o - object) (inReceptacle ?o Fridge_bar_1))))",
        "(:goal (exists (?o - object ?a - agent) (and (holds ?a ?o) (objectType ?o AppleType)))))",
    ],
    ids=["sliced", "a certain receptacle", "all objects", "holding only"],
)
def test_other_goals_than_those_of_the_six_tasks_are_refused(goal, tmp_path):
    with pytest.raises(
        UnsupportedError, match=r"^the goal of .*game\.tw-pddl is none that can be planned for: [^\n]*$"
    ):
        plan(kitchen(tmp_path, goal))


def test_a_receptacle_in_two_places_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="fridge_bar_1 stands in two places"):
        plan(kitchen(tmp_path, goal_of(*TWO), more=["(receptacleAtLocation Fridge_bar_1 l0)"]))


def test_rules_that_are_not_alfreds_are_refused(tmp_path):
    play = kitchen(tmp_path, goal_of(*TWO))
    data = json.loads(play.game.path.read_text())
    for part in ("pddl_domain", "grammar"):
        data[part] = data[part].replace("OpenObject", "PushObject")
    (tmp_path / "other.tw-pddl").write_text(json.dumps(data))
    with pytest.raises(UnsupportedError, match="'openobject' is missing or another action"):
        plan(Play(load_game(tmp_path / "other.tw-pddl")))


def test_the_choice_among_shortest_plans_does_not_depend_on_the_interpreters_hash_seed(tmp_path):
    path = kitchen(tmp_path, goal_of(*TWO)).game.path
    program = (
        "import sys; from pathlib import Path; from arena.envs._alfred.game import Play, load_game;"
        "from arena.envs._alfred.planner import plan; print(plan(Play(load_game(Path(sys.argv[1])))))"
    )
    plans = {
        subprocess.run(
            [sys.executable, "-c", program, str(path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert plans == {f"{plan(Play(load_game(path)))}\n"}
