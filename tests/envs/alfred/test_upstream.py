import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arena import ConfigError, EnvError, PrerequisiteError, UnsupportedError
from arena.envs._alfred import upstream
from arena.envs._alfred.generator import game_file
from arena.envs._alfred.houses import TASK_TYPES, game_of
from arena.envs._alfred.upstream import UpstreamPlay

pytest.importorskip("alfworld", reason="the extra alfworld is not installed")

SIMPLE, LIGHT, CLEAN, HEAT, COOL, TWO = TASK_TYPES
QUICK = [SIMPLE, LIGHT]
ALL = [*QUICK, *(pytest.param(task_type, marks=pytest.mark.slow) for task_type in TASK_TYPES if task_type not in QUICK)]
"""All types; those of kitchens, which upstream is slow in, are for long runs."""
ODD_COMMANDS = ["dance", "", "  look ", "go to", "look\nlook", "LOOK", "go to fridge 99", "look\0", "{1/0}", "\ud800"]

ALFRED_TW_ENV = """
from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv
env = AlfredTWEnv({
    "env": {"goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6], "domain_randomization": False,
            "expert_type": "handcoded"},
    "dataset": {"eval_ood_data_path": "$ALFWORLD_DATA/json_2.1.1/valid_unseen", "num_eval_games": 0},
    "general": {"training_method": "dqn"},
    "rl": {"training": {"max_nb_steps_per_episode": 100}},
}, train_eval="eval_out_of_distribution").init_env(batch_size=1)
said, infos = env.reset()
told = [[said[0], infos["admissible_commands"][0], infos["won"][0]]]
for command in commands:
    said, _, _, infos = env.step([command])
    told.append([said[0], infos["admissible_commands"][0], infos["won"][0]])
env.close()
"""

EXPERT = """
import random
import textworld
from textworld.envs.pddl import PddlEnv
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredExpert
infos = textworld.EnvInfos(won=True, admissible_commands=True)
env = AlfredExpert(AlfredDemangler(PddlEnv(infos), shuffle=False), {kind!r})
env.load({path!r})
random.seed(0)
state = env.reset()
told = []
for _ in range({steps}):
    told.append(state["extra.expert_plan"])
    if state["won"]:
        break
    state, _, _ = env.step(state["extra.expert_plan"][0])
"""


def game(task_type, *, split="valid_unseen", number=0):
    seed = {"train": 0, "valid_seen": 100_000, "valid_unseen": 110_000}[split] + number
    return game_file(game_of(split, seed, (task_type,)))


def run_upstream(script, tmp_path, **values):
    """Return what a script on ALFWorld's packages leaves in `told`."""
    assignments = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    told = tmp_path / "told.json"
    script = f"{assignments}{script}\nimport json\njson.dump(told, open({str(told)!r}, 'w'))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "ALFWORLD_DATA": str(tmp_path), "PYTHONHASHSEED": "0"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return json.loads(told.read_text())


@pytest.fixture
def play():
    plays = []

    def start(path):
        plays.append(UpstreamPlay(path))
        return plays[-1]

    yield start
    for one in plays:
        one.close()


def seen(play, text):
    return [text, list(play.commands()), play.won]


def follow(play, commands):
    return [seen(play, play.begin()), *(seen(play, play.act(command)) for command in commands)]


@pytest.mark.parametrize("task_type", ALL)
def test_it_shows_what_alfworlds_own_environment_shows(task_type, play, tmp_path):
    path = game(task_type)
    trial = tmp_path / "json_2.1.1" / "valid_unseen" / "task" / "trial"
    shutil.copytree(path.parent, trial)
    mine = play(path)
    mine.begin()
    plan = mine.expert_plan("planner")
    odd = [command for command in ODD_COMMANDS if "\ud800" not in command]
    wandering = []
    rng = random.Random(1)
    for _ in range(10):
        wandering.append(rng.choice(mine.commands()))
        mine.act(wandering[-1])
    commands = [*plan[:1], *odd, "inventory", "help", *wandering]
    theirs = run_upstream(ALFRED_TW_ENV, tmp_path, commands=commands)
    assert follow(mine, commands) == theirs
    assert follow(mine, plan)[-1][-1] is True
    assert run_upstream(ALFRED_TW_ENV, tmp_path, commands=plan)[-1][-1] is True


@pytest.mark.parametrize("task_type", ALL)
@pytest.mark.parametrize("kind", ["planner", "handcoded"])
def test_the_experts_are_alfworlds(kind, task_type, play, tmp_path):
    path = game(task_type, split="train")
    theirs = run_upstream(EXPERT.format(kind=kind, path=str(path), steps=4 if kind == "planner" else 12), tmp_path)
    mine = play(path)
    mine.begin()
    for plan in theirs:
        if mine.won:
            break
        assert mine.expert_plan(kind) == plan
        assert mine.expert_plan(kind) == plan
        mine.act(plan[0])


@pytest.mark.parametrize("kind", ["planner", "handcoded"])
def test_asking_an_expert_changes_nothing_and_it_may_be_asked_late(kind, play):
    path = game(LIGHT)
    one, other = play(path), play(path)
    commands = ["go to desk 1", "look", "dance", "go to bed 1", "inventory"]
    calm = follow(one, commands)
    answers = [one.expert_plan(kind)]
    pestered = [seen(other, other.begin())]
    for command in commands:
        other.expert_plan(kind)
        pestered.append(seen(other, other.act(command)))
    answers.append(other.expert_plan(kind))
    assert pestered == calm
    assert answers[0] == answers[1]


def test_the_hand_coded_experts_guesses_are_the_same_in_every_process(play):
    ways = []
    for _ in range(2):
        mine = play(game(TWO))
        mine.begin()
        ways.append([])
        for _ in range(40):
            ways[-1].append(mine.expert_plan("handcoded")[0])
            mine.act(ways[-1][-1])
    assert ways[0] == ways[1]


def test_a_hand_coded_expert_that_has_given_up_says_so_until_the_episode_begins_again(play):
    mine = play(game(LIGHT))
    mine.begin()
    assert mine.expert_plan("handcoded") == ["look"]
    for _ in range(201):
        assert mine.act("inventory") == "You are not carrying anything."
    with pytest.raises(UnsupportedError, match="ALFWorld's handcoded expert knows no way on: Exception: Timeout"):
        mine.expert_plan("handcoded")
    assert mine.expert_plan("planner")
    mine.begin()
    assert mine.expert_plan("handcoded") == ["look"]


def test_the_hand_coded_expert_needs_the_trajectory_and_says_so(play, tmp_path):
    shutil.copy(game(LIGHT), tmp_path / "game.tw-pddl")
    mine = play(tmp_path / "game.tw-pddl")
    mine.begin()
    mine.act("look")
    for content in (None, "{}", '{"task_type": "fly", "pddl_params": {}}'):
        if content is not None:
            (tmp_path / "traj_data.json").write_text(content)
        with pytest.raises(ConfigError, match=r"game\.tw-pddl: .* cannot use the traj_data\.json beside it: \w+"):
            mine.expert_plan("handcoded")
    assert mine.act("inventory") == "You are not carrying anything."


def test_an_episode_can_begin_again_and_a_used_process_plays_another_game(play):
    first, second = game(LIGHT), game(TWO)
    fresh = play(first)
    expected = follow(fresh, ["go to bed 1", "look"])
    assert follow(fresh, ["go to bed 1", "look"]) == expected
    other = play(second)
    follow(other, ["look"])
    other.expert_plan("handcoded")
    process = other._process
    assert process is not fresh._process
    other.close()
    again = play(first)
    assert follow(again, ["go to bed 1", "look"]) == expected
    assert again._process is process


def test_closing_keeps_few_processes_and_is_safe_twice(play):
    path = game(LIGHT)
    plays = [play(path) for _ in range(4)]
    for one in plays:
        one.begin()
    children = [one._process._child for one in plays]
    for one in plays:
        one.close()
        one.close()
    assert len(upstream._idle) == 2
    assert sum(child.poll() is None for child in children) <= 2
    with pytest.raises(EnvError, match="begin again"):
        plays[0].act("look")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_arbitrary_text_does_nothing(text):
    if not hasattr(test_arbitrary_text_does_nothing, "play"):
        test_arbitrary_text_does_nothing.play = UpstreamPlay(game(LIGHT))
        test_arbitrary_text_does_nothing.play.begin()
    mine = test_arbitrary_text_does_nothing.play
    before = mine.commands()
    if text.strip() not in before:
        assert mine.act(text) == "Nothing happens."
        assert mine.commands() == before


def test_text_that_is_no_unicode_does_nothing(play):
    mine = play(game(LIGHT))
    mine.begin()
    assert [mine.act(command) for command in ("\ud800", "\0", "x" * 100_000)] == ["Nothing happens."] * 3


def test_a_process_that_has_planned_is_not_kept_and_one_that_nobody_closes_ends_anyway():
    mine = UpstreamPlay(game(LIGHT))
    mine.begin()
    mine.expert_plan("planner")
    child = mine._process._child
    mine.close()
    assert child.returncode == -signal.SIGKILL
    mine.begin()
    child = mine._process._child
    del mine
    assert child.returncode == -signal.SIGKILL


# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_a_process_that_dies_is_an_error_that_says_how_and_the_next_episode_plays(play):
    mine = play(game(LIGHT))
    text = mine.begin()
    os.kill(mine._process._child.pid, signal.SIGSEGV)
    with pytest.raises(EnvError, match=r"ALFWorld's engine died \(SIGSEGV\) on .*game\.tw-pddl") as error:
        mine.act("look")
    assert "\n" not in str(error.value)
    with pytest.raises(EnvError, match="begin again"):
        mine.act("look")
    assert mine.begin() == text


def test_a_process_that_does_not_answer_is_ended(play, monkeypatch):
    mine = play(game(LIGHT))
    mine.begin()
    child = mine._process._child
    os.kill(child.pid, signal.SIGSTOP)
    monkeypatch.setattr(upstream, "ANSWER_TIMEOUT_S", 0.01)
    with pytest.raises(EnvError, match=r"did not answer within 0\.01 s"):
        mine.act("look")
    assert child.returncode == -signal.SIGKILL


def changed(path, tmp_path, **parts):
    """Return a copy of a game with other parts."""
    data = {**json.loads(path.read_text()), **parts}
    copy = tmp_path / "changed.tw-pddl"
    copy.write_text(json.dumps(data))
    return copy


@pytest.mark.parametrize("place", ['"rhs": "You close the {r.name}."', 'template :: "open {r}"'])
@pytest.mark.parametrize("looked_at_before", [True, False])
def test_nothing_in_a_file_is_evaluated(place, looked_at_before, play, tmp_path, monkeypatch):
    path = game(LIGHT)
    mark = tmp_path / "evaluated"
    evil = f"{{open('{mark}', 'w')}}"
    grammar = json.loads(path.read_text())["grammar"]
    assert place in grammar
    broken = changed(path, tmp_path, grammar=grammar.replace(place, place[:-1].rpartition("{")[0] + evil + '"'))
    if not looked_at_before:
        monkeypatch.setattr(upstream, "load_game", lambda path: None)
    with pytest.raises(ConfigError, match=r"changed\.tw-pddl.* expression .*open"):
        play(broken).begin()
    assert not mark.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"solvable": true}', "\0\1"])
def test_a_corrupt_file_is_one_line_that_names_it(content, tmp_path):
    path = tmp_path / "game.tw-pddl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=str(path)) as error:
        UpstreamPlay(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="nowhere"):
        UpstreamPlay(tmp_path / "nowhere.tw-pddl")


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(upstream, "installed_version", lambda name: None)
    monkeypatch.setitem(sys.modules, "alfworld", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'arena-rl\[alfworld\]'"):
        UpstreamPlay(Path("game.tw-pddl"))


# -- what it leaves alone ---------------------------------------------------------------------------------------------

QUIET = """
import os, random, signal, sys
from pathlib import Path
from arena.envs._alfred.upstream import UpstreamPlay

def state():
    handlers = {one: signal.getsignal(one) for one in signal.valid_signals()}
    return sys.argv[:], sys.stdout, random.getstate(), dict(os.environ), handlers, os.getcwd()

before = state()
play = UpstreamPlay(Path(sys.argv[1]))
play.begin()
play.expert_plan("planner")
play.expert_plan("handcoded")
play.act("look")
play.close()
assert state() == before
assert "alfworld" not in sys.modules and "fast_downward" not in sys.modules
"""


def test_the_calling_process_and_the_home_folder_stay_as_they_were(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ALFWORLD_DATA"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET, str(game(LIGHT))],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def resident_kib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_memory_does_not_grow_over_games_and_episodes(play):
    paths = [game(LIGHT), game(SIMPLE)]
    while upstream._idle:
        upstream._idle.pop().close()

    def episodes(count):
        for number in range(count):
            mine = play(paths[number % 2])
            mine.begin()
            mine.begin()
            process = mine._process
            mine.close()
        return process._child.pid

    before = resident_kib(episodes(4))
    pid = episodes(16)
    assert resident_kib(pid) - before < 4 * 1024
    assert sum("libdownward" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines()) <= 6
