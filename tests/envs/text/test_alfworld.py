import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from typing import get_args

import pytest

import arena
from arena import (
    ConfigError,
    EnvError,
    Limits,
    PrerequisiteError,
    Session,
    Task,
    UnknownIdError,
    UnsupportedError,
    UsageError,
)
from arena.envs._alfred import layout, upstream
from arena.envs._alfred.game import load_game
from arena.envs._alfred.houses import TASK_TYPES, game_of
from arena.envs._alfred.tasks import GameMaker, TaskType, game_path
from arena.testing import check_env

pytest.importorskip("alfworld", reason="the extra alfworld is not installed")

ENV = "text/alfworld-v0"
SIMPLE, LIGHT, CLEAN, HEAT, COOL, TWO = TASK_TYPES
QUICK = {"task_types": [LIGHT]}
"""Games that ALFWorld's own engine is quick in."""
ARENA = [sys.executable, "-W", "error", "-c", "from arena.cli import main; main()"]


def new_session(options=None, *, index=0, split="valid_unseen", **limits):
    env = arena.make(ENV, options)
    return Session(env, env.taskset(split).task(index), 0, limits=Limits(**limits))


def play(session, policy):
    session.open()
    while session.acting:
        session.step(len(session.journal), {"player": policy(session)})
    session.end()
    session.close()
    return [record.time_step.seats["player"] for record in session.journal]


def expert(session):
    return session.expert_action("player")


def expert_of(kind):
    return lambda session: session.expert_action("player", kind)


def random_policy(seed):
    rng = random.Random(seed)
    return lambda session: rng.choice(session.journal[-1].time_step.seats["player"].legal_actions)


def told(text):
    """A policy that gives commands one after the other."""
    commands = iter(text)
    return lambda session: next(commands)


def commands_of(session):
    return [record.actions["player"] for record in session.journal[1:]]


# -- playing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "task_type"),
    [("train", LIGHT), ("valid_seen", SIMPLE), *(("valid_unseen", task_type) for task_type in TASK_TYPES)],
)
def test_the_expert_wins_every_type_by_a_way_that_is_no_longer_than_alfworlds_planners(split, task_type):
    session = new_session({"task_types": [task_type]}, split=split)
    steps = play(session, expert)
    assert [step.reward for step in steps] == [0.0] * (len(steps) - 1) + [1.0]
    assert (steps[-1].ending, steps[-1].terminated, steps[-1].truncated) == ("won", True, False)
    score = session.end().score
    assert (score.value, score.success) == (1.0, True)
    assert score.metrics == {"won": 1.0, "commands": len(steps) - 1, "ineffective": 0.0}
    assert len(steps) - 1 <= len(load_game(game_path(session.env.options, session.task)).walkthrough)


def test_the_expert_finds_its_way_from_wherever_it_is_asked():
    for number, task_type in enumerate(TASK_TYPES):
        session = new_session({"task_types": [task_type]}, steps=80)
        wander = random_policy(number)
        play(session, lambda s, w=wander: w(s) if len(s.journal) < 12 else expert(s))
        assert session.end().endings == {"player": "won"}


def test_running_out_of_steps_is_a_truncation_and_not_a_win():
    session = new_session(steps=3)
    steps = play(session, lambda s: "look")
    assert (steps[-1].terminated, steps[-1].truncated, steps[-1].ending) == (False, True, "steps_limit")
    assert session.end().score == arena.Score(0.0, False, {"won": 0.0, "commands": 3.0, "ineffective": 0.0})


def test_without_limits_an_episode_has_fifty_steps():
    env = arena.make(ENV, QUICK)
    session = Session(env, env.taskset("train").task(0), 0)
    assert len(play(session, lambda s: "inventory")) == 51


def test_what_is_not_admissible_does_nothing_and_is_counted():
    session = new_session(QUICK, steps=6)
    steps = play(session, told(["dance", "", "LOOK", "look\nlook", " look ", "open sesame"]))
    texts = [step.observation for step in steps[1:]]
    assert texts == ["Nothing happens."] * 4 + [texts[4], "Nothing happens."]
    assert texts[4].startswith("You are in the middle of a room.")
    assert session.end().score.metrics == {"won": 0.0, "commands": 6.0, "ineffective": 5.0}
    assert {step.legal_actions for step in steps[:-1]} == {steps[0].legal_actions}


def test_observations_show_what_the_game_prints_and_the_commands_where_they_are_wanted():
    plain, shown = (play(new_session({**QUICK, **more}), expert) for more in ({}, {"observe": ["commands"]}))
    assert plain[0].observation.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.")
    assert "\n\nYour task is to: " in plain[0].observation
    for one, other in zip(plain[:-1], shown[:-1], strict=True):
        assert other.observation == f"{one.observation}\n\nCommands: {', '.join(one.legal_actions)}"


def test_a_house_is_the_same_for_every_seed_and_the_same_again_in_a_used_environment():
    env = arena.make(ENV, QUICK)
    task, other = (env.taskset("train").task(index) for index in (0, 1))
    texts = [env.reset(task, seed).seats["player"].observation for seed in (0, 1)]
    env.reset(other, 0)
    env.step({"player": "look"})
    texts.append(env.reset(task, 2).seats["player"].observation)
    assert len(set(texts)) == 1
    env.close()


# -- engines ----------------------------------------------------------------------------------------------------------


def test_both_engines_give_the_same_episodes():
    rng = random.Random(3)
    commands = [*play_and_list(QUICK, random_policy(1), 15), "dance", "", "look", "inventory", "help"]
    rng.shuffle(commands)
    episodes = []
    for engine in ("fast", "upstream"):
        session = new_session({**QUICK, "engine": engine}, steps=len(commands))
        episodes.append((play(session, told(commands)), session.end().score))
    assert episodes[0] == episodes[1]
    won = [play(new_session({**QUICK, "engine": engine}), expert) for engine in ("fast", "upstream")]
    assert won[0] == won[1]
    assert won[0][-1].ending == "won"


def play_and_list(options, policy, count):
    session = new_session(options, steps=count)
    play(session, policy)
    return commands_of(session)


@pytest.mark.parametrize("engine", ["fast", "upstream"])
def test_a_restored_state_goes_on_as_the_episode_did_also_in_another_environment(engine):
    options = {**QUICK, "engine": engine}
    env, other = arena.make(ENV, options), arena.make(ENV, options)
    task = env.taskset("valid_unseen").task(0)
    other.reset(env.taskset("valid_unseen").task(1), 0)
    env.reset(task, 0)
    for command in ("dance", env.expert_action("player"), "inventory"):
        env.step({"player": command})
    env.step({"player": env.expert_action("player")})
    state = env.snapshot()
    way = []
    while not way or not way[-1].is_last:
        way.append(env.step({"player": env.expert_action("player")}))
    score = env.score()
    for again in (env, other, env):
        again.restore(state)
        assert [again.step({"player": again.expert_action("player")}) for _ in way] == way
        assert again.score() == score
    env.close()
    other.close()


@pytest.mark.slow
def test_the_upstream_engine_keeps_the_contract():
    options = {**QUICK, "engine": "upstream"}
    tasks = [arena.make(ENV, options).taskset("valid_unseen").task(0)]
    check_env(ENV, options=options, tasks=tasks, seeds=(0,), max_steps=8).raise_if_failed()


# -- experts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["fast", "upstream"])
@pytest.mark.parametrize("kind", ["planner", "handcoded"])
def test_alfworlds_own_experts_win_whichever_engine_plays(kind, engine):
    session = new_session({**QUICK, "engine": engine})
    play(session, expert_of(kind))
    assert session.end().score.success is True
    if kind == "planner":
        shortest = new_session(QUICK)
        play(shortest, expert)
        assert len(commands_of(session)) >= len(commands_of(shortest))
    else:
        assert commands_of(session)[0] == "look"


@pytest.mark.parametrize("kind", ["planner", "handcoded"])
def test_an_expert_beside_the_fast_engine_says_what_it_says_in_upstreams(kind):
    sessions = [new_session({**QUICK, "engine": engine}, steps=9) for engine in ("fast", "upstream")]
    asked = []
    for session in sessions:
        session.open()
        asked.append([])
        while session.acting:
            asked[-1].append(session.expert_action("player", kind))
            command = asked[-1][-1] if len(session.journal) % 3 else "inventory"
            session.step(len(session.journal), {"player": command})
        session.close()
    assert asked[0] == asked[1]
    assert len(set(asked[0])) > 1


def test_alfworlds_planner_is_asked_again_only_where_its_plan_has_been_left(monkeypatch):
    ask, asked = upstream.UpstreamPlay.expert_plan, []
    monkeypatch.setattr(upstream.UpstreamPlay, "expert_plan", lambda self, kind: asked.append(kind) or ask(self, kind))
    session, planner = new_session(QUICK), expert_of("planner")
    play(session, lambda s: "dance" if len(s.journal) == 2 else planner(s))
    assert session.end().score.success is True
    assert asked == ["planner", "planner"]


def test_a_hand_coded_expert_that_gave_up_looks_around_and_a_planner_without_a_plan_is_an_error(monkeypatch):
    def no_way(self, kind):
        raise UnsupportedError("no way")

    monkeypatch.setattr(upstream.UpstreamPlay, "expert_plan", no_way)
    session = new_session(QUICK, steps=3)
    play(session, expert_of("handcoded"))
    assert commands_of(session) == ["look"] * 3
    assert session.end().score.success is False
    session = new_session(QUICK)
    session.open()
    with pytest.raises(UnsupportedError, match="no way"):
        session.expert_action("player", "planner")
    session.close()


def test_an_experts_process_that_dies_costs_one_answer():
    env = arena.make(ENV, QUICK)
    env.reset(env.taskset("valid_unseen").task(0), 0)
    assert env.expert_action("player", "handcoded") == "look"
    os.kill(env._beside.engine._process._child.pid, signal.SIGKILL)
    env.step({"player": "look"})
    with pytest.raises(EnvError, match="died"):
        env.expert_action("player", "handcoded")
    assert env.expert_action("player", "handcoded") in env.step({"player": "inventory"}).seats["player"].legal_actions
    env.close()


def test_an_unknown_expert_is_refused_before_anything_is_played(tmp_path):
    session = new_session(QUICK)
    session.open()
    with pytest.raises(UnsupportedError, match=r"no expert 'hand-coded' \(did you mean 'handcoded'"):
        session.expert_action("player", "hand-coded")
    session.close()
    command = ["run", "alfworld-quickstart", "--out", "out", "--set", "agents.expert={id: expert, options: {kind: p}}"]
    done = subprocess.run([*ARENA, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "has no expert 'p'" in done.stderr
    assert not any(tmp_path.iterdir())


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_the_options_offer_exactly_the_six_types():
    assert get_args(TaskType) == TASK_TYPES


def test_types_take_turns_and_those_left_out_never_come():
    env = arena.make(ENV)
    assert {task.data["task_type"] for task in (env.taskset("train").task(i) for i in range(6))} == set(TASK_TYPES)
    some = arena.make(ENV, {"task_types": [COOL, SIMPLE]}).taskset("train")
    assert {some.task(index).data["task_type"] for index in range(20)} == {COOL, SIMPLE}
    again = arena.make(ENV, {"task_types": [SIMPLE, COOL]}).taskset("train")
    assert [some.task(index) for index in range(20)] == [again.task(index) for index in range(20)]


def test_generated_tasks_are_found_by_id_and_only_in_their_split():
    env = arena.make(ENV)
    for split in env.spec.splits:
        tasks = env.taskset(split)
        for index in (0, 1, 7, len(tasks) - 1):
            assert tasks.get(tasks.task(index).id) == tasks.task(index)
    tasks = env.taskset("train")
    right = tasks.task(5).id
    other = arena.make(ENV, {"task_types": [COOL]}).taskset("train").task(5).id
    for wrong in (other, right[:-1], right + "0", f"x_{5:06d}", "../" + right, "_", "", "²", f"{right}\n"):
        with pytest.raises(UnknownIdError):
            tasks.get(wrong)
    with pytest.raises(UnknownIdError, match=f"with that seed it is '{right}'"):
        tasks.get(other)


def test_a_task_that_is_not_one_of_the_options_or_says_something_else_is_refused():
    env = arena.make(ENV, QUICK)
    task = env.taskset("train").task(0)
    other = arena.make(ENV, {"task_types": [COOL]}).taskset("train").task(0)
    for wrong in (
        other,
        Task(task.id, "valid_seen", task.data),
        Task(task.id, "../train", task.data),
        Task(task.id, "train", {**task.data, "task_type": COOL}),
        Task(task.id, "train", {**task.data, "seed": 1}),
        Task(task.id, "train", {**task.data, "game": "../../etc/passwd"}),
        Task("../../etc/passwd", "train", task.data),
    ):
        with pytest.raises(UnknownIdError):
            env.reset(wrong, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": "official-ish"}, "'generated' or 'official'"),
        ({"task_types": []}, "at least 1 item"),
        ({"task_types": [SIMPLE, SIMPLE]}, "every type must be given once"),
        ({"task_types": ["pick_up"]}, "'pick_and_place_simple'"),
        ({"engine": "slow"}, "'fast' or 'upstream'"),
        ({"data": "/etc"}, "unknown option 'data'"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        arena.make(ENV, options)
    assert "\n" not in str(error.value)


# -- official games ---------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder in the official layout with three games of valid_unseen and none of the other splits."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    layout._listed.cache_clear()
    for task_type in (SIMPLE, LIGHT, TWO):
        made = arena.make(ENV, {"task_types": [task_type]})
        task = made.taskset("valid_unseen").task(0)
        spec = game_of("valid_unseen", task.data["seed"], (task.data["task_type"],))
        trial = tmp_path / "data" / "json_2.1.1" / "valid_unseen" / spec.family / spec.trial
        shutil.copytree(game_path(made.options, task).parent, trial)
    return tmp_path / "data" / "json_2.1.1"


OFFICIAL = {"games": "official"}


def test_official_games_are_played_by_their_paths_below_the_data(data):
    env = arena.make(ENV, OFFICIAL)
    tasks = list(env.taskset("valid_unseen"))
    assert {task.data["task_type"] for task in tasks} == {SIMPLE, LIGHT, TWO}
    assert [task.data["game"] for task in tasks] == sorted(task.data["game"] for task in tasks)
    for index, task in enumerate(tasks):
        assert (data / task.data["game"]).is_file()
        assert env.taskset("valid_unseen").get(task.id) == task
        assert env.taskset("valid_unseen").task(index) == task
        session = Session(arena.make(ENV, OFFICIAL), task, 0)
        play(session, expert)
        assert session.end().score.success is True


def test_official_games_of_other_types_are_left_out_and_refused(data):
    everything = {task.data["task_type"]: task for task in arena.make(ENV, OFFICIAL).taskset("valid_unseen")}
    env = arena.make(ENV, {**OFFICIAL, "task_types": [LIGHT]})
    assert list(env.taskset("valid_unseen")) == [everything[LIGHT]]
    with pytest.raises(UnknownIdError, match="is a pick_two_obj_and_place, which the option task_types leaves out"):
        env.reset(everything[TWO], 0)
    with pytest.raises(PrerequisiteError, match="no ALFWorld games of the types pick_cool_then_place_in_recep in"):
        len(arena.make(ENV, {**OFFICIAL, "task_types": [COOL]}).taskset("valid_unseen"))


def test_what_a_client_sends_never_becomes_a_path(data, tmp_path):
    env = arena.make(ENV, OFFICIAL)
    task = env.taskset("valid_unseen").task(0)
    outside = tmp_path / "game.tw-pddl"
    shutil.copy(data / task.data["game"], outside)
    for wrong in (
        Task(task.id, "valid_unseen", {**task.data, "game": str(outside)}),
        Task(task.id, "valid_unseen", {**task.data, "game": "../../game.tw-pddl"}),
        Task(task.id, "valid_seen", task.data),
        Task(str(outside), "valid_unseen", task.data),
        Task(task.data["game"], "valid_unseen", task.data),
    ):
        with pytest.raises((UnknownIdError, PrerequisiteError)):
            env.reset(wrong, 0)


def test_a_corrupt_game_is_one_line_that_names_the_file_and_the_others_are_played(data):
    env = arena.make(ENV, OFFICIAL)
    first, second, _ = env.taskset("valid_unseen")
    whole = (data / first.data["game"]).read_bytes()
    (data / first.data["game"]).write_bytes(whole[: len(whole) // 2])
    layout._listed.cache_clear()
    assert len(env.taskset("valid_unseen")) == 3
    for call in (lambda: env.reset(first, 0), lambda: env.prepare(first)):
        with pytest.raises(ConfigError, match=str(data / first.data["game"])) as error:
            call()
        assert "\n" not in str(error.value)
    assert env.reset(second, 0).acting == ("player",)
    env.close()


@pytest.mark.parametrize("kind", ["shortest", "planner", "handcoded"])
def test_a_game_that_is_won_from_the_start_ends_with_the_first_command(data, kind):
    env = arena.make(ENV, OFFICIAL)
    task = env.taskset("valid_unseen").task(0)
    game = json.loads((data / task.data["game"]).read_text())
    problem = game["pddl_problem"].partition("(:goal")[0] + "(:goal (and (atLocation agent1 agent1))))"
    start = re.search(r"\(atLocation agent1 (\S+)\)", problem)[1]
    problem = problem.replace("(atLocation agent1 agent1)", f"(atLocation agent1 {start})")
    (data / task.data["game"]).write_text(json.dumps({**game, "pddl_problem": problem}))
    assert env.reset(task, 0).acting == ("player",)
    step = env.step({"player": env.expert_action("player", kind)}).seats["player"]
    assert (step.ending, step.reward) == ("won", 1.0)
    env.close()


def arena_command(*arguments, cwd, data):
    environment = {**os.environ, "ALFWORLD_DATA": str(data)}
    return subprocess.run(
        [*ARENA, *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_a_run_without_the_official_data_is_one_line_and_writes_nothing(tmp_path):
    done = arena_command("run", "alfworld-official", "--out", "out", cwd=tmp_path, data=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"arena: no ALFWorld games in {tmp_path}/json_2.1.1/valid_unseen; get the official ones")
    assert list(tmp_path.iterdir()) == []


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_quickstart_shows_the_expert_at_its_best_and_chance_near_nothing_over_all_types(tmp_path):
    done = arena_command("run", "alfworld-quickstart", "--episodes", 6, "--out", "out", cwd=tmp_path, data=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["success_rate"] == 1.0
    assert summary["comparisons"][0]["success_rate"] <= 0.2
    assert {name: group["score_mean"] for name, group in summary["by"]["task_type"].items()} == {
        task_type: 1.0 for task_type in TASK_TYPES
    }
    replayed = arena_command("replay", "out/traces.jsonl", cwd=tmp_path, data=tmp_path)
    assert "12 of 12 episodes replayed equal" in replayed.stdout


def test_games_that_are_made_as_files_are_played_as_official_ones(tmp_path):
    made = arena_command(
        "tasks", ENV, "generate", "--out", "games", "--set", "games=2", "--set", "splits=[valid_unseen]",
        "--set", f"task_types=[{LIGHT}]", cwd=tmp_path, data=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "2 games are in games" in made.stdout
    run = ["run", "alfworld-official", "--episodes", 2, "--out", "out"]
    done = arena_command(*run, cwd=tmp_path, data=tmp_path / "games")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["completed"], summary["success_rate"]) == (2, 1.0)


def test_more_games_than_a_split_has_are_refused_before_any_is_made(tmp_path):
    maker = GameMaker(GameMaker.Options(splits=("valid_seen",), games=10, first=9_995))
    with pytest.raises(UsageError, match="split 'valid_seen' has 10000 games; passing over 9995 leaves 5"):
        maker.make(tmp_path / "games", lambda done, total: None)
    assert not (tmp_path / "games").exists()


def test_progress_of_making_counts_the_games_of_all_splits(tmp_path):
    seen = []
    options = GameMaker.Options(splits=("train", "valid_seen"), games=1, task_types=(LIGHT,))
    GameMaker(options).make(tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (1, 2), (2, 2)]
