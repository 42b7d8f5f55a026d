import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import arena
from arena import ConfigError, EnvError, Limits, PrerequisiteError, Session, UnknownIdError, UnsupportedError, stream
from arena.envs.text import _textworld_games as games
from arena.envs.text._textworld_commands import playable

pytest.importorskip("textworld", reason="the extra text is not installed")

SMALL = "w2-o3-q4"
LOSABLE = {"game": "tw-cooking", "cooking": {"recipe": 1, "take": 0}, "reward": "dense"}


def new_session(options=None, *, index=0, split="test", **limits):
    env = arena.make("text/textworld-v0", options)
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


def random_policy(seed):
    rng = stream(seed, "policy")
    return lambda session: str(rng.choice(session.journal[-1].time_step.seats["player"].legal_actions))


@pytest.mark.parametrize(
    "options",
    [
        {"game": SMALL},
        {"game": "w4-o6-q8"},
        {"game": "w2-o3-q4-b2"},
        {"game": "tw-simple", "simple": {"rewards": "balanced", "goal": "brief"}},
        {"game": "tw-coin_collector", "coin_collector": {"level": 3}},
        {"game": "tw-treasure_hunter", "treasure_hunter": {"level": 11}},
        {"game": "tw-cooking", "cooking": {"recipe": 2, "take": 1, "go": 6, "open": True, "cook": True, "cut": True}},
        {"game": "tw-cooking", "cooking": {"recipe": 1, "take": 1, "cut": True, "drop": True}},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
@pytest.mark.parametrize("reward", ["dense", "progress"])
def test_the_expert_wins_every_family_of_games_and_the_rewards_of_a_won_game_sum_to_one(options, reward):
    session = new_session({**options, "reward": reward}, steps=100)
    steps = play(session, expert)
    assert steps[-1].ending == "won"
    assert sum(step.reward for step in steps) == pytest.approx(1.0)
    assert session.end().score.value == 1.0


def test_sparse_reward_is_one_on_winning_and_nothing_before():
    steps = play(new_session({"game": SMALL}), expert)
    assert [step.reward for step in steps] == [0.0] * (len(steps) - 1) + [1.0]


def test_a_lost_game_is_a_termination_that_is_not_won_and_keeps_what_it_scored():
    session = new_session(LOSABLE)
    food = {record for record in session.open().time_step.seats["player"].legal_actions if record.startswith("eat ")}
    steps = play(session, lambda s: sorted(food)[0])
    assert (steps[-1].terminated, steps[-1].truncated, steps[-1].ending) == (True, False, "lost")
    score = session.end().score
    assert (score.success, score.metrics["lost"], score.metrics["won"]) == (False, 1.0, 0.0)


def test_running_out_of_steps_is_a_truncation_and_neither_won_nor_lost():
    session = new_session({"game": SMALL}, steps=3)
    steps = play(session, lambda s: "look")
    assert (steps[-1].terminated, steps[-1].truncated, steps[-1].ending) == (False, True, "steps_limit")
    assert session.end().score.success is False
    assert session.end().limit.limit == 3


def test_sixteen_interleaved_sessions_give_the_transcripts_of_solo_runs():
    def digests(sessions, order):
        policies = [random_policy(number) for number in range(16)]
        for session in sessions:
            session.open()
        while any(session.acting for session in sessions):
            for number in order(16):
                if sessions[number].acting:
                    sessions[number].step(len(sessions[number].journal), {"player": policies[number](sessions[number])})
        return [session.journal[-1].digest for session in sessions]

    def make():
        return [new_session({"game": SMALL}, index=number % 4, steps=12) for number in range(16)]

    shuffle = random.Random(5)
    solo = []
    for number, session in enumerate(make()):
        play(session, random_policy(number))
        solo.append(session.journal[-1].digest)
    together = make()
    assert digests(together, lambda n: shuffle.sample(range(n), n)) == solo
    for session in together:
        session.close()
    assert len(set(solo)) == 16


def test_the_expert_finds_its_way_back_after_wandering_off():
    for number in range(3):
        session = new_session({"game": SMALL}, steps=60)
        wander = random_policy(number)
        play(session, lambda s, w=wander: w(s) if len(s.journal) < 8 else expert(s))
        assert session.end().endings == {"player": "won"}


def test_asking_the_expert_changes_nothing():
    calm, pestered = new_session({"game": SMALL}, steps=10), new_session({"game": SMALL}, steps=10)
    policy = random_policy(1)
    play(calm, policy)
    policy = random_policy(1)

    def ask_first(session):
        for _ in range(2):
            session.expert_action("player")
        return policy(session)

    play(pestered, ask_first)
    assert [r.digest for r in pestered.journal] == [r.digest for r in calm.journal]


def test_an_expert_that_knows_no_way_on_says_so():
    session = new_session({"game": "tw-cooking", "cooking": {"recipe": 1, "take": 1, "drop": True}})
    session.open()
    session.step(1, {"player": "look"})
    with pytest.raises(UnsupportedError, match="no way to win"):
        session.expert_action("player")
    session.close()


def test_observations_show_what_the_options_ask_for_and_no_banner_or_prompt():
    observe = ["description", "inventory", "objective", "score", "commands"]
    first = play(new_session({"game": SMALL, "observe": observe}, steps=1), expert)[0].observation
    for heading in ("Description: -= ", "Inventory: You are carrying", "Objective: ", "Score: 0 of 1", "Commands: "):
        assert heading in first
    plain = play(new_session({"game": SMALL}, steps=2), expert)
    for step in plain:
        assert "$$$" not in step.observation
        assert ">" not in step.observation
        assert not step.observation.endswith(("0/1", "0/2"))


def test_without_listed_commands_nothing_is_listed_and_the_game_is_the_same():
    listed = play(new_session({"game": SMALL}), expert)
    bare = play(new_session({"game": SMALL, "list_commands": False}), expert)
    assert [s.observation for s in bare] == [s.observation for s in listed]
    assert {s.legal_actions for s in bare} == {None}
    assert all(s.legal_actions for s in listed[:-1])


HOSTILE = [
    "save", "restore", "script", "transcript on", "quit", "q", "restart", "undo", "superbrief", "tw-print max_score",
    "look. go south", "look then go south", "look, go south", "look\nlook", "go south\rlook", "lo\0ok", "\0", "\\h",
    "\x15", "é" * 100, "x" * 900, "", "   ", "take all", "get in chest", "*", "🙂", "restrict commands", "oops",
]  # fmt: skip


def test_hostile_text_costs_a_step_and_changes_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calm, pestered = new_session({"game": SMALL}, steps=500), new_session({"game": SMALL}, steps=500)
    good = iter(play(calm, expert)[1:])
    plan = iter([record.actions["player"] for record in calm.journal[1:]])
    pestered.open()
    for command in plan:
        for text in HOSTILE:
            step = pestered.step(len(pestered.journal), {"player": text}).time_step.seats["player"]
            assert step.observation == "That's not a verb I recognise."
            assert step.reward == 0.0
        answer = pestered.step(len(pestered.journal), {"player": command}).time_step.seats["player"]
        expected = next(good)
        assert (answer.reward, answer.ending, answer.legal_actions) == (
            expected.reward, expected.ending, expected.legal_actions,
        )  # fmt: skip
    assert pestered.end().endings == {"player": "won"}
    assert list(tmp_path.iterdir()) == []
    pestered.close()


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_only_one_plain_command_that_begins_with_a_verb_of_play_is_ever_passed_on(text):
    command = playable(text)
    assert command == "" or set(command) <= set("abcdefghijklmnopqrstuvwxyz0123456789' -")
    assert command.split(" ")[0] not in {"save", "script", "restore", "quit", "restart", "undo", "get", "pick"}
    assert playable(command) == command


def test_every_admissible_command_is_playable():
    for options in ({"game": "w4-o6-q8"}, {"game": "tw-cooking", "cooking": {"recipe": 2, "take": 2, "cook": True}}):
        for step in play(new_session(options, steps=40), random_policy(3)):
            for command in step.legal_actions or ():
                assert playable(command) == command.lower()


def test_splits_have_disjoint_seeds_and_tasks_are_found_by_id():
    env = arena.make("text/textworld-v0")
    seeds = {split: set(env.taskset(split).seeds) for split in env.spec.splits}
    assert not seeds["train"] & seeds["test"]
    assert not seeds["train"] & seeds["valid"]
    assert not seeds["valid"] & seeds["test"]
    assert env.taskset("test").get("w2-o3-q4_110007") == env.taskset("test").task(7)
    for wrong in ("w2-o3-q4_7", "w2-o3-q5_110007", "w2-o3-q4_", "../x_110007", "w2-o3-q4_²", "w2-o3-q4_-1", ""):
        with pytest.raises(UnknownIdError):
            env.taskset("test").get(wrong)


def test_a_task_of_other_options_or_another_split_is_refused():
    env = arena.make("text/textworld-v0")
    task = arena.make("text/textworld-v0", {"game": "w4-o6-q8"}).taskset("test").task(0)
    for wrong in (task, arena.Task("w2-o3-q4_5", "test", {"seed": 5}), arena.Task("x", "nowhere", {"seed": "../.."})):
        with pytest.raises(UnknownIdError):
            env.reset(wrong, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "w0-o3-q4"}, "a game is named like w2-o3-q4"),
        ({"game": "w50-o3-q4"}, "at most 20 for the rooms"),
        ({"game": "../../etc/passwd"}, "a game is named like"),
        ({"gmae": "w2-o3-q4"}, "did you mean 'game'"),
        ({"reward": "densse"}, "'sparse', 'dense' or 'progress'"),
        ({"game": "tw-cooking", "cooking": {"recipe": 1, "take": 2}}, "at most recipe"),
        ({"game": "tw-cooking", "cooking": {"go": 5}}, "1, 6, 9 or 12"),
        ({"cooking": {"recipe": 2}}, "the game is w2-o3-q4 and not tw-cooking"),
        ({"game": "tw-coin_collector", "coin_collector": {"level": 160}}, "allowed are 1 to 150 and 201 to 233"),
        ({"game": "tw-treasure_hunter", "treasure_hunter": {"level": 31}}, "allowed are 1 to 30"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        arena.make("text/textworld-v0", options)
    assert "\n" not in str(error.value)


def test_the_same_seed_gives_the_same_file_in_another_process_on_another_day(tmp_path):
    code = (
        "import arena; e = arena.make('text/textworld-v0', {'game': 'tw-cooking', 'cooking': {'cut': True}});"
        "e.prepare(e.taskset('train').task(3))"
    )
    stories = []
    for place, zone, seed in (("a", "UTC-14", "1"), ("b", "UTC+12", "2")):
        environment = {**os.environ, "ARENA_CACHE_DIR": str(tmp_path / place), "TZ": zone, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True, cwd=tmp_path)
        (story,) = (tmp_path / place).rglob("game.z8")
        stories.append(story.read_bytes())
        assert sorted(path.name for path in story.parent.iterdir()) == ["game.json", "game.z8"]
    assert stories[0] == stories[1]


def test_a_generator_that_fails_leaves_nothing_behind_and_says_what_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("ARENA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(games, "GENERATION_TIMEOUT_S", 0.05)
    env = arena.make("text/textworld-v0")
    with pytest.raises(EnvError, match=r"generating the TextWorld game w2-o3-q4_110000 took over 0\.05 s"):
        env.prepare(env.taskset("test").task(0))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_game_that_can_only_be_made_badly_is_replaced_by_one_that_can_be_won():
    """TextWorld's own game for this seed holds a 'box' and a 'TextWorld limited edition box'."""
    env = arena.make("text/textworld-v0", {"game": "w4-o6-q8"})
    session = Session(env, env.taskset("test").get("w4-o6-q8_112112"), 0)
    play(session, expert)
    assert session.end().score.success is True


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'arena-rl\[text\]'"):
        play(new_session({"game": SMALL}), expert)


def test_generation_and_play_leave_global_randomness_alone():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    play(new_session({"game": SMALL}, steps=5), random_policy(0))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def resident_kib():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])


def test_memory_and_files_do_not_grow_over_two_thousand_resets():
    env = arena.make("text/textworld-v0", {"game": SMALL, "list_commands": False})
    tasks = [env.taskset("test").task(index) for index in range(4)]

    def resets(count):
        for number in range(count):
            env.reset(tasks[number // 25 % 4], 0)
            env.step({"player": "look"})

    resets(200)
    memory, files = resident_kib(), len(os.listdir("/proc/self/fd"))
    resets(2000)
    assert resident_kib() - memory < 8 * 1024
    assert len(os.listdir("/proc/self/fd")) <= files
    env.close()


def test_two_processes_may_make_the_same_game_at_once(tmp_path):
    code = "import arena; e = arena.make('text/textworld-v0'); e.prepare(e.taskset('test').task(1))"
    environment = {**os.environ, "ARENA_CACHE_DIR": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(list(tmp_path.rglob("game.z8"))) == 1
    assert not list(tmp_path.rglob(".making-*"))


def test_game_ids_are_safe_file_names():
    for options in (SMALL, *games.CHALLENGES):
        env = arena.make("text/textworld-v0", {"game": options})
        for split in env.spec.splits:
            task = env.taskset(split).task(0)
            assert set(task.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
            assert json.loads(json.dumps(task.data)) == task.data
