import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import EnvError, PrerequisiteError, UsageError
from arena.envs._alfred import generator, houses, tables
from arena.envs._alfred.generator import game_file, write_games
from arena.envs._alfred.houses import SPLITS, TASK_TYPES, game_of

pytest.importorskip("alfworld", reason="the extra alfworld is not installed")

ANY_GAME = st.sampled_from(sorted(SPLITS)).flatmap(
    lambda split: st.builds(game_of, st.just(split), st.sampled_from(SPLITS[split]))
)
FILES = ("game.tw-pddl", "initial_state.pddl", "traj_data.json")
SEEDS = (378, 1, 14, 249, 520, 41)
"""One of each task type, in small houses."""
SMALL = game_of("train", 1)
"""A bedroom with six receptacles: quick to make and to play."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder as ``$ALFWORLD_DATA`` names it, with one game of each task type, in their order."""
    out = tmp_path_factory.mktemp("data")
    seen = []
    paths = write_games(out, "train", SEEDS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(SEEDS)) for done in range(len(SEEDS) + 1)]
    return out, paths


def contents(path):
    return {name: (path.parent / name).read_bytes() for name in FILES}


def upstream(path, **wanted):
    """Start a game on ALFWorld's and TextWorld's own engine."""
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld import EnvInfos
    from textworld.envs import PddlEnv

    env = AlfredDemangler(PddlEnv(EnvInfos(won=True, **wanted)))
    env.load(json.loads(path.read_text()))
    return env


@given(st.sampled_from(sorted(SPLITS)), st.data())
def test_the_task_types_wanted_take_turns_and_change_nothing_else_about_a_game(split, data):
    wanted = data.draw(st.lists(st.sampled_from(TASK_TYPES), min_size=1, unique=True))
    first = data.draw(st.sampled_from(SPLITS[split][: -len(wanted)]))
    games = [game_of(split, seed, wanted) for seed in range(first, first + len(wanted))]
    assert {game.task_type for game in games} == set(wanted)
    for game in games:
        assert game_of(split, game.seed, (game.task_type,)) == game
        assert re.fullmatch(r"[A-Za-z0-9_-]+", game.id)
        assert game.id.endswith(f"-{game.object}-None-{game.target}-{game.floor_plan}_{game.seed:06d}")


def test_the_six_official_task_types_in_their_order():
    assert TASK_TYPES == (
        "pick_and_place_simple",
        "look_at_obj_in_light",
        "pick_clean_then_place_in_recep",
        "pick_heat_then_place_in_recep",
        "pick_cool_then_place_in_recep",
        "pick_two_obj_and_place",
    )


def test_splits_are_large_and_share_no_seed_and_unseen_floor_plans_are_in_no_other():
    assert len(SPLITS["train"]) == 100_000
    assert len(set().union(*SPLITS.values())) == sum(map(len, SPLITS.values())) == 120_000
    plans = {
        split: {game_of(split, seeds[index]).floor_plan for index in range(1500)} for split, seeds in SPLITS.items()
    }
    assert plans["valid_unseen"] == tables.HELD_OUT
    assert (
        plans["train"] == plans["valid_seen"] == {n for room in tables.ROOMS.values() for n in room} - tables.HELD_OUT
    )
    for room, numbers in tables.ROOMS.items():
        assert all(plans[split].intersection(numbers) for split in plans), room
    assert {10, 219, 308, 424} < tables.HELD_OUT  # the official valid_unseen


@given(ANY_GAME)
def test_the_object_and_the_target_belong_to_the_floor_plan_and_to_each_other(game):
    known, plan = tables.tables(), tables.floor_plan(game.floor_plan)
    assert game.object in plan.objects
    assert plan.room in known.rooms[game.task_type]
    if game.task_type == "look_at_obj_in_light":
        assert game.target == "DeskLamp"
        assert plan.lamp_stand in plan.receptacles
    else:
        assert game.target in plan.receptacle_types()
        assert game.object in known.holds[game.target]
    needed = {"clean": ("SinkBasin", "Cleanable"), "heat": ("Microwave", "Heatable"), "cool": ("Fridge", "Coolable")}
    if (kind := game.task_type.split("_")[1]) in needed:
        appliance, ability = needed[kind]
        assert appliance in plan.receptacle_types()
        assert game.object in known.able[ability]
        assert game.target != appliance


@given(ANY_GAME, st.integers(0, 3))
@settings(max_examples=40)
def test_a_house_is_one_that_could_be_and_in_which_the_task_is_not_done(game, attempt):
    known, house = tables.tables(), houses.furnish(game, attempt)
    things = {thing.id: thing for thing in (*house.objects, *house.plan.fixtures)}
    holders = {receptacle.id: receptacle for receptacle in house.plan.receptacles}
    assert len(things) == len(house.objects) + len(house.plan.fixtures)
    for id, holder in house.held:
        type = things[id].type
        assert type == "DeskLamp" or type in known.holds[holders[holder].type]
    where = Counter(id for id, _ in house.held)
    assert set(where) == {thing.id for thing in house.objects}
    wanted = [thing.id for thing in house.objects if thing.type == game.object]
    assert len(wanted) >= (2 if game.task_type == "pick_two_obj_and_place" else 1)
    assert all(where[id] == 1 for id in wanted)
    at_first = {holders[holder].type for id, holder in house.held if id in wanted}
    if game.task_type in ("pick_and_place_simple", "pick_two_obj_and_place"):
        assert game.target not in at_first
    for id, carrier in house.nested:
        assert things[id].type in known.holds[things[carrier].type]
        assert {holder for one, holder in house.held if one == id} & {h for one, h in house.held if one == carrier}
    assert house.start not in {receptacle.spot for receptacle in house.plan.receptacles}
    assert (house.start.x, house.start.z) in house.plan.ground.points


@given(ANY_GAME)
@settings(max_examples=20)
def test_a_problem_declares_once_all_that_it_speaks_of(game):
    text = houses.problem_text(game, houses.furnish(game))
    objects, rest = text.split("(:init")
    declared = re.findall(r"^ +(\S+) - \w+$", objects, re.MULTILINE)
    facts = re.findall(r"^ +\((\w+) ([^()?]+)\)$", rest.split("(:goal")[0], re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert len(facts) == len(set(facts)) > 100
    assert {term for _, terms in facts for term in terms.split()} <= set(declared)
    assert set(re.findall(r"\w+Type\b", rest.split("(:goal")[1])) - {"objectType", "receptacleType"} <= set(declared)
    assert text.count("(") == text.count(")")


def test_every_floor_plan_has_receptacles_with_official_names_and_room_for_its_objects():
    known = tables.tables()
    for number in set().union(*tables.ROOMS.values()):
        plan = tables.floor_plan(number)
        fixed = [*plan.receptacles, *plan.fixtures]
        assert len({thing.id for thing in fixed}) == len(fixed)
        for thing in fixed:
            bowl, basin = re.fullmatch(r"([A-Za-z]+)(?:\|[+-]?\d\d\.\d\d){3}(?:\|([A-Za-z]+Basin))?", thing.id).groups()
            assert thing.type == (basin or bowl)
            assert not bowl.endswith("Basin")  # upstream would show it as a basinbasin
        assert all(receptacle.type in tables.CAPACITY for receptacle in plan.receptacles)
        assert all(plan.room_for(type, never_in="") for type in plan.objects)
        assert all(receptacle.type in known.openable for receptacle in plan.receptacles if receptacle.opens)


@pytest.mark.parametrize(
    ("type", "position", "spot"),
    [
        ("Cabinet", (0.68, 2.02, -2.46), "loc|2|-7|2|-30"),
        ("CounterTop", (-0.08, 1.15, 0.0), "loc|3|0|3|30"),
        ("Drawer", (0.95, 0.83, -2.20), "loc|1|-7|1|45"),
        ("Egg", (2.06, 0.60, -2.56), "loc|7|-8|2|60"),
        ("GarbageCan", (-1.94, 0.0, 2.03), "loc|-5|7|3|60"),
        ("Toaster", (-1.84, 0.90, 0.13), "loc|-5|1|3|45"),
    ],
)
def test_things_are_reached_from_where_a_published_problem_of_floor_plan_1_has_it(type, position, spot):
    plan = tables.floor_plan(1)
    thing = plan.ground.thing(type, position)
    listed = {receptacle.id: receptacle for receptacle in plan.receptacles}
    assert listed.get(thing.id, thing).spot.id == spot


@pytest.mark.parametrize(
    ("split", "seed", "task_types", "message"),
    [
        ("trian", 0, TASK_TYPES, "no split 'trian'.*did you mean 'train'"),
        ("train", 100_000, TASK_TYPES, "the seeds 0 to 99999, not 100000"),
        ("train", True, TASK_TYPES, "not True"),
        ("train", 0, ("pick_two",), "no task type 'pick_two'"),
        ("train", 0, (), "no task type is given"),
    ],
)
def test_a_game_that_there_is_not_is_refused_in_one_line(split, seed, task_types, message):
    with pytest.raises(UsageError, match=message) as refused:
        game_of(split, seed, task_types)
    assert "\n" not in str(refused.value)


def test_a_made_up_game_is_not_made():
    with pytest.raises(UsageError, match="has no game"):
        game_file(msgspec.structs.replace(SMALL, object="../../Book"))


def test_no_floor_plan_is_read_by_importing_the_package_that_carries_it(tmp_path):
    code = (
        "import sys; from arena.envs._alfred.houses import game_of; game_of('valid_unseen', 110_000);"
        "assert not {'alfworld', 'textworld'} & set(sys.modules)"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["alfworld", "textworld", "fast_downward"])
def test_a_missing_package_is_named_in_one_line_that_says_how_to_get_it(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    for cached in (tables.tables, tables.floor_plan, houses._choices):
        cached.cache_clear()
    with pytest.raises(PrerequisiteError, match=rf"'{package}' is not installed; run: pip install") as missing:
        write_games(tmp_path, "train", [0])
    assert "\n" not in str(missing.value)


def test_every_game_is_won_by_its_walkthrough_on_the_upstream_engine_and_not_before(tree):
    _, paths = tree
    assert [json.loads(path.with_name("traj_data.json").read_text())["task_type"] for path in paths] == list(TASK_TYPES)
    for path in paths:
        game, env = json.loads(path.read_text()), upstream(path)
        assert list(game) == ["pddl_domain", "grammar", "pddl_problem", "solvable", "walkthrough"]
        assert game["solvable"] is True
        assert game["pddl_problem"] == path.with_name("initial_state.pddl").read_text()
        states = [env.reset(), *(env.step(command)[0] for command in game["walkthrough"])]
        assert [state["won"] for state in states] == [False] * len(game["walkthrough"]) + [True]


def test_the_task_is_told_as_upstream_tells_it(tree):
    for path in tree[1]:
        notes, game = json.loads(path.with_name("traj_data.json").read_text()), json.loads(path.read_text())
        told = [annotation["task_desc"] for annotation in notes["turk_annotations"]["anns"]]
        (sentence,) = re.findall(r"Your task is to: (.*)\.\"", game["grammar"])
        assert f"{sentence.capitalize()}." in told
        assert "UNKNOWN GOAL" not in game["grammar"]
        assert notes["pddl_params"]["object_target"].lower() in sentence


def test_a_game_is_the_same_byte_for_byte_in_any_process_and_company(tree, tmp_path):
    code = (
        "import sys; from pathlib import Path; from arena.envs._alfred.generator import write_games;"
        "write_games(Path(sys.argv[1]), 'train', [1], task_types=(sys.argv[2],))"
    )
    for hash_seed in ("1", "2"):
        out = tmp_path / hash_seed
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(out), SMALL.task_type], check=True, env=environment)
        assert contents(out / SMALL.folder / "game.tw-pddl") == contents(tree[1][1])


def test_writing_again_makes_only_what_is_missing(tree, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(tree[0], out)
    paths = write_games(out, "train", SEEDS)
    before = {path: path.stat().st_mtime_ns for path in paths}
    shutil.rmtree(paths[1].parent)
    seen = []
    assert write_games(out, "train", [*SEEDS, 1], progress=lambda done, total: seen.append((done, total)))[:6] == paths
    assert seen == [(5, 6), (6, 6)]
    assert {path for path in paths if path.stat().st_mtime_ns != before[path]} == {paths[1]}
    assert contents(paths[1]) == contents(tree[1][1])
    assert sorted(entry.name for entry in out.iterdir()) == ["json_2.1.1", "logic"]


def test_two_who_want_the_same_game_at_once_get_the_same_whole_one():
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(game_file, [SMALL, SMALL])
    assert one == other
    assert all(contents(one).values())
    assert one.parts[-5:-3] == ("json_2.1.1", "train")
    assert not list(one.parents[4].glob(".making-*"))


def test_a_process_that_is_killed_leaves_no_process_and_no_half_made_game(tmp_path):
    code = (
        "import sys; from pathlib import Path; from arena.envs._alfred.generator import write_games;"
        "write_games(Path(sys.argv[1]), 'train', range(200), jobs=1)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    while not list(tmp_path.glob("json_2.1.1/train/*/trial_*")):
        assert writer.poll() is None
        time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    while working_below(tmp_path):  # the test's time-out is the limit
        time.sleep(0.05)
    made = list(tmp_path.glob("json_2.1.1/train/*/trial_*"))
    assert all((folder / name).is_file() for folder in made for name in FILES)


def working_below(folder):
    """Return the processes that run in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(folder):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_generator_that_does_not_start_gives_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(EnvError, match=r"game \S+_000001 could not be made: exit code 1: no output") as failed:
        write_games(tmp_path, "train", [1])
    assert "\n" not in str(failed.value)


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # files left open
def test_upstreams_own_environment_finds_the_games_and_its_handcoded_expert_wins_one(tree, monkeypatch):
    out, paths = tree
    monkeypatch.setenv("ALFWORLD_DATA", str(out))
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    most_steps = {"training": {"max_nb_steps_per_episode": 50}}
    data = "$ALFWORLD_DATA/json_2.1.1"
    config = {
        "dataset": {
            "data_path": f"{data}/train",
            "eval_id_data_path": f"{data}/valid_seen",
            "eval_ood_data_path": f"{data}/valid_unseen",
            "num_train_games": -1,
            "num_eval_games": -1,
        },
        "logic": {"domain": "$ALFWORLD_DATA/logic/alfred.pddl", "grammar": "$ALFWORLD_DATA/logic/alfred.twl2"},
        "env": {
            "task_types": [1, 2, 3, 4, 5, 6],
            "domain_randomization": False,
            "expert_type": "handcoded",
            "goal_desc_human_anns_prob": 0,
        },
        "general": {"training_method": "dagger"},
        "dagger": most_steps,
        "rl": most_steps,
    }
    games = AlfredTWEnv(config, train_eval="train")
    assert sorted(games.game_files) == sorted(map(str, paths))
    game = json.loads(paths[0].read_text())
    assert (out / "logic" / "alfred.pddl").read_text() == game["pddl_domain"]
    assert (out / "logic" / "alfred.twl2").read_text().startswith(game["grammar"][:100])
    games.game_files = [str(paths[1])]
    env = games.init_env(batch_size=1)
    _, infos = env.reset()
    done = (False,)
    while not done[0]:
        _, _, done, infos = env.step([infos["extra.expert_plan"][0][0]])
    env.close()
    assert infos["won"][0]


def test_where_a_house_gives_no_game_the_next_is_tried_and_in_the_end_it_is_said(monkeypatch, tmp_path):
    answers = [None, None, ["look"]]
    monkeypatch.setattr(generator, "_way_to_win", lambda game, what_matters: answers.pop(0))
    generator._make(SMALL, tmp_path / "game")
    written = (tmp_path / "game" / "initial_state.pddl").read_text()
    assert written == houses.problem_text(SMALL, houses.furnish(SMALL, attempt=2))
    assert written != houses.problem_text(SMALL, houses.furnish(SMALL))
    monkeypatch.setattr(generator, "_way_to_win", lambda game, what_matters: None)
    with pytest.raises(ValueError, match="no way to win was found in any of 10 houses"):
        generator._make(SMALL, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("maker", "error"),
    [
        ("time.sleep(600)", "it took over 1 s"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was ended by SIGKILL"),
        ("int('x')", "ValueError: invalid literal for int() with base 10: 'x'"),
        ("folder.mkdir()", ""),
    ],
)
def test_what_goes_wrong_in_making_one_game_is_told_and_ends_only_that(maker, error, tmp_path):
    code = (
        "import os, signal, sys, time, msgspec; from arena.envs._alfred import generator, houses\n"
        "def make(spec, folder):\n"
        f"    if spec.seed == 1: {maker}\n"
        "    else: folder.mkdir()\n"
        "generator._make, generator.GENERATION_TIMEOUT_S = make, 1\n"
        "specs = [houses.game_of('train', seed) for seed in (0, 1, 2)]\n"
        "sys.stdout.buffer.write(msgspec.json.encode({o.id: o.error for o in generator._make_all(specs, 2)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert json.loads(done.stdout) == {game_of("train", 0).id: "", SMALL.id: error, game_of("train", 2).id: ""}
    assert (tmp_path / SMALL.id).is_dir() is (error == "")


def test_upstreams_planner_wins_a_whole_game(tree):
    path = tree[1][1]
    env = upstream(path, policy_commands=True)
    state = env.reset()
    plan = state["policy_commands"]
    assert len(plan) == len(json.loads(path.read_text())["walkthrough"])
    for command in plan:
        state, _, _ = env.step(command)
    assert state["won"]
