"""The command line as a process: what it prints, writes and returns."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from arena.scenario import scenario_names
from arena.trace import read_episodes

ARENA = [sys.executable, "-W", "error", "-c", "from arena.cli import main; main()"]
GUESS = """
name: guess
env: {id: text/guess-v0}
agents: {expert: expert, random: random}
tasks: {split: train}
episodes: 6
metrics: [guesses]
"""


def arena(*arguments, cwd, **kwargs):
    return subprocess.run(
        [*ARENA, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **kwargs
    )


@pytest.fixture
def here(tmp_path):
    (tmp_path / "guess.yaml").write_text(GUESS)
    return tmp_path


def test_a_run_writes_summary_traces_and_the_resolved_scenario_and_prints_a_table(here):
    done = arena("run", "guess.yaml", "--out", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "expert" in done.stdout
    assert "6 of 6" in done.stdout
    summary = json.loads((here / "out/summary.json").read_text())
    keys = "scenario env agent episodes completed errors score_mean score_ci95 success_rate steps_mean wall_s versions"
    assert set(keys.split()) <= set(summary)
    assert (summary["scenario"], summary["agent"], summary["episodes"], summary["completed"]) == (
        "guess",
        "expert",
        6,
        6,
    )
    assert summary["score_mean"] == 1.0
    assert 0 < summary["score_ci95"][0] < 1.0
    assert [other["agent"] for other in summary["comparisons"]] == ["random"]
    episodes = list(read_episodes(here / "out/traces.jsonl"))
    assert len({episode.record.episode for episode in episodes}) == 12
    assert all(episode.end.score is not None for episode in episodes)
    resolved = yaml.safe_load((here / "out/scenario.yaml").read_text())
    assert resolved["env"]["options"] == {"max_guesses": 8}
    assert arena("validate", "out/scenario.yaml", cwd=here).returncode == 0


def test_the_resolved_scenario_plays_the_same_episodes_again(here):
    arena("run", "guess.yaml", "--out", "a", cwd=here)
    arena("run", "a/scenario.yaml", "--out", "b", "--concurrency", 4, cwd=here)
    digests = [
        {e.record.episode: e.end.digest for e in read_episodes(here / run / "traces.jsonl")} for run in ("a", "b")
    ]
    assert digests[0] == digests[1]


def test_json_prints_the_summary_and_nothing_else(here):
    done = arena("run", "guess.yaml", "--out", "out", "--json", cwd=here)
    printed, written = json.loads(done.stdout), json.loads((here / "out/summary.json").read_text())
    for part in (printed, written):
        part.pop("wall_s")
    assert printed == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run gess.yaml", r"cannot read the scenario gess\.yaml"),
        ("run textworld-quikstart", "did you mean 'textworld-quickstart'"),
        ("run guess.yaml --agent randm", "no agent 'randm' .did you mean 'random'"),
        ("run guess.yaml --set env.id=text/gess-v0", "did you mean 'text/guess-v0'"),
        ("run guess.yaml --set env.options.max_gueses=3", "did you mean 'max_guesses'"),
        ("run guess.yaml --set env.options.max_guesses=0", "greater than or equal to 1, got 0"),
        ("run guess.yaml --set limts.steps=3", "did you mean 'limits'"),
        ("run guess.yaml --set limits.step=3", "did you mean 'steps'"),
        ("run guess.yaml --set limits.steps=-3", "greater than 0, got -3"),
        ("run guess.yaml --set agents.expert.option.x=1", "did you mean 'options'"),
        ("run guess.yaml --set tasks.split=tran", "did you mean 'train'"),
        ("run guess.yaml --set tasks.ids=[range-17]", "did you mean 'range-16'"),
        ("run guess.yaml --set metrics=[gueses]", "did you mean 'guesses'"),
        ("run guess.yaml --set by=[gueses]", "cannot be broken down by 'gueses' .did you mean 'guesses'"),
        ("run guess.yaml --set agents={a: {seats: {white: {id: random}}}}", "seats are given for white; .* has player"),
        ("run guess.yaml --set seeds=[-1]", "seeds lie between 0 and"),
        ("run guess.yaml --set nonsense", "takes KEY=VALUE"),
        ("run guess.yaml --episodes -1", "--episodes"),
        ("run guess.yaml --epsiodes 1", "--episodes"),
        ("run guess.yaml --resume", "needs --out"),
        ("run guess.yaml --out nowhere --resume", "no run in nowhere"),
        ("run guess.yaml --out guess.yaml", "is not empty"),
        ("rnu guess.yaml", "did you mean 'run'"),
        ("replay nothing.jsonl", "cannot read the trace nothing.jsonl"),
        ("replay guess.yaml", r"guess\.yaml:1: not a valid message"),
        ("show nothing.jsonl", "cannot read the trace"),
        ("describe text/gues-v0", "did you mean 'text/guess-v0'"),
        ("tasks text/guess-v0 --split tst", "did you mean 'test'"),
        ("tasks text/guess-v0 generate --out made", "text/guess-v0 has no makers of tasks"),
        ("tasks text/alfworld-v0 generat --out made", "did you mean 'generate'"),
        ("tasks text/alfworld-v0 generate", "say where the tasks go"),
        ("tasks text/alfworld-v0 generate --out made --set gaems=3", "did you mean 'games'"),
        ("tasks text/alfworld-v0 generate --out guess.yaml", "guess.yaml"),
        ("tasks text/guess-v0 --out made", "--out is for makers"),
        ("play text/guess-v0 --agent expert --seat white=random", "a seat of player"),
        ("play text/guess-v0 --agent expert --task range-11", "did you mean"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_code_2_and_writes_nothing(here, arguments, message):
    words = re.findall(r"\S+={.*}|\S+", arguments)
    done = arena(*words, cwd=here)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr, re.IGNORECASE), done.stderr
    assert [path.name for path in here.iterdir()] == ["guess.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "key 'name' is given twice"),
        ("a: [1,\n", "not YAML"),
        ("- 1\n", "a scenario is a mapping"),
        ("", "a scenario is a mapping"),
        ("name: !!python/object/apply:os.system [id]\n", "not YAML"),
        ("1: x\n", "is not text"),
        ("name: a\nenv: {id: text/guess-v0}\nagents: {}\n", "agents"),
        ("env: {id: text/guess-v0}\nagents: {a: random}\n", "name is missing"),
        ("name: a\nenv: {id: text/guess-v0}\nagents: {a: {options: {}}}\n", "either an agent's `id`"),
        ("name: a\nenv: {id: text/guess-v0}\nagents: {a: random}\nepisodes: 1.5\n", "episodes"),
        ("name: a\nenv: {id: text/guess-v0}\nagents: {a: random}\nlimits: {steps: 2020-01-01}\n", "limits.steps"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    done = arena("validate", "s.yaml", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr


def test_results_that_cannot_be_written_are_noticed_before_anything_is_played(here):
    done = arena("run", "guess.yaml", "--out", "guess.yaml/inside", cwd=here)
    assert done.returncode == 2
    assert "cannot write to guess.yaml/inside" in done.stderr


def test_a_second_run_into_the_same_folder_needs_resume_and_the_same_scenario(here):
    arena("run", "guess.yaml", "--out", "out", cwd=here)
    before = (here / "out/traces.jsonl").read_bytes()
    assert arena("run", "guess.yaml", "--out", "out", cwd=here).returncode == 2
    other = arena("run", "guess.yaml", "--out", "out", "--resume", "--episodes", 7, cwd=here)
    assert "other episodes" in other.stderr
    again = arena("run", "guess.yaml", "--out", "out", "--resume", cwd=here)
    assert again.returncode == 0
    assert (here / "out/traces.jsonl").read_bytes() == before


SLOW = GUESS.replace("guess\n", "slow\n", 1) + "limits: {steps: 400}\n"


def start_long_run(folder):
    text = SLOW.replace("episodes: 6", "episodes: 3000").replace(
        "{id: text/guess-v0}", "{id: text/guess-v0, options: {max_guesses: 1000}}"
    )
    (folder / "long.yaml").write_text(text)
    process = subprocess.Popen(
        [*ARENA, "run", "long.yaml", "--out", "out"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    traces = folder / "out/traces.jsonl"
    while not traces.exists() or traces.stat().st_size < 200_000:
        time.sleep(0.05)
        assert process.poll() is None, process.stdout.read()
    return process


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_every_finished_episode_and_says_how_to_go_on(tmp_path, sent):
    process = start_long_run(tmp_path)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--resume" in output
    assert "Traceback" not in output
    episodes = list(read_episodes(tmp_path / "out/traces.jsonl"))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert all(episode.end is not None for episode in episodes)
    assert summary["interrupted"] is True
    assert summary["completed"] + summary["comparisons"][0]["completed"] == len(episodes) < 6000


def test_a_killed_run_resumes_and_ends_like_one_that_was_never_killed(tmp_path):
    process = start_long_run(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    with (tmp_path / "out/traces.jsonl").open("ab") as file:
        file.write(b'{"type":"episode","env":"text/gue')  # a write that the kill cut off
    done = arena("run", "long.yaml", "--out", "out", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fresh = arena("run", "long.yaml", "--out", "fresh", cwd=tmp_path)
    assert fresh.returncode == 0
    runs = [
        [(e.record.episode, e.end.digest) for e in read_episodes(tmp_path / run / "traces.jsonl")]
        for run in ("out", "fresh")
    ]
    assert sorted(runs[0]) == sorted(runs[1])
    assert len(set(runs[0])) == len(runs[0]) == 6000


def test_replay_says_all_equal_and_locates_a_changed_action_and_a_changed_seed(here):
    arena("run", "guess.yaml", "--out", "out", cwd=here)
    assert "12 of 12 episodes replayed equal" in arena("replay", "out", cwd=here).stdout
    lines = (here / "out/traces.jsonl").read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if json.loads(line).get("index") == 1)
    step = json.loads(lines[number])
    step["actions"]["player"] = "1" if step["actions"]["player"] != "1" else "2"
    (here / "a.jsonl").write_text("\n".join([*lines[:number], json.dumps(step), *lines[number + 1 :]]) + "\n")
    done = arena("replay", "a.jsonl", cwd=here)
    assert done.returncode == 1
    assert f"line {number + 1}, step 1" in done.stdout
    head = json.loads(lines[0])
    (here / "b.jsonl").write_text("\n".join([json.dumps({**head, "seed": head["seed"] + 1}), *lines[1:]]) + "\n")
    done = arena("replay", "b.jsonl", "--json", cwd=here)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["episodes"], report["equal"]) == (12, 11)
    assert report["differences"][head["episode"]]["edited"] is True


def test_show_prints_the_episode_that_is_asked_for(here):
    arena("run", "guess.yaml", "--out", "out", cwd=here)
    first, second = (arena("show", "out", "--episode", which, cwd=here).stdout for which in ("1", "random/0/0"))
    assert "expert/0/0" in first
    assert "is right!" in first
    assert "random/0/0" in second
    assert arena("show", "out", "--episode", "99", cwd=here).returncode == 2


def test_scores_are_broken_down_by_what_the_scenario_names(here):
    done = arena("run", "guess.yaml", "--out", "out", "--set", "by=[guesses]", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "by guesses" in done.stdout
    summary = json.loads((here / "out/summary.json").read_text())
    for row in [summary, *summary["comparisons"]]:
        groups = row["by"]["guesses"]
        assert list(groups) == sorted(groups, key=int)
        assert sum(group["completed"] for group in groups.values()) == row["completed"]
        total = sum(group["completed"] * group["score_mean"] for group in groups.values())
        assert total == pytest.approx(row["completed"] * row["score_mean"])


def test_the_lists_are_readable_by_machines(here):
    envs = json.loads(arena("envs", "--json", cwd=here).stdout)
    assert {"text/guess-v0", "text/textworld-v0"} <= {env["id"] for env in envs}
    described = json.loads(arena("describe", "text/guess-v0", "--json", cwd=here).stdout)
    assert described["seats"]["player"]["action_space"]["type"] == "free_text"
    assert "max_guesses" in described["options"]["properties"]
    tasks = json.loads(arena("tasks", "text/textworld-v0", "--split", "test", "--count", 2, "--json", cwd=here).stdout)
    assert [task["id"] for task in tasks[0]["tasks"]] == ["w2-o3-q4_110000", "w2-o3-q4_110001"]
    assert {"chat", "expert", "human", "random", "scripted"} <= {
        a["id"] for a in json.loads(arena("agents", "--json", cwd=here).stdout)
    }
    doctor = json.loads(arena("doctor", "--json", cwd=here).stdout)
    assert doctor["environments"]["works"] is True
    for command in ("envs", "agents", "scenarios", "doctor", "--help"):
        assert arena(command, cwd=here).returncode == 0


NEED_DATA = ("search-r1", "swe-gym-lite", "swe-quickstart")


@pytest.mark.parametrize("name", [name for name in scenario_names() if name not in NEED_DATA])
def test_every_shipped_scenario_is_valid(name, tmp_path):
    done = arena("validate", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_scenario_of_search_r1_is_valid_where_its_questions_are(tmp_path):
    done = arena("validate", "search-r1", cwd=tmp_path)
    assert done.returncode == 2
    assert "ARENA_SEARCH_DATA" in done.stderr
    folder = tmp_path / "search-r1"
    folder.mkdir()
    row = {"id": "test_0", "data_source": "nq", "prompt": [{"role": "user", "content": "Question: who?"}]}
    row |= {"question": "who?", "reward_model": {"style": "rule", "ground_truth": {"target": ["she"]}}}
    (folder / "test.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "retriever.json").write_text(json.dumps({"url": "http://127.0.0.1:8000/retrieve"}))
    done = arena("validate", "search-r1", cwd=tmp_path, env={**os.environ, "ARENA_SEARCH_DATA": str(tmp_path)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["swe-gym-lite", "swe-quickstart"])
def test_scenarios_of_repositories_are_valid_where_their_instances_are(name, tmp_path):
    folder = tmp_path / name.removeprefix("swe-" if name == "swe-quickstart" else "")
    folder.mkdir()
    row = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "0" * 40, "problem_statement": "?", "version": "1"}
    row |= {"patch": "", "test_patch": "", "FAIL_TO_PASS": ["t.py::x"], "PASS_TO_PASS": []}
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps(row))
    done = arena("validate", name, cwd=tmp_path, env={**os.environ, "ARENA_SWE_DATA": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_the_quickstart_separates_the_expert_from_chance_on_real_games_and_replays_equal(tmp_path):
    done = arena(
        "run", "textworld-quickstart", "--episodes", 8, "--out", "out", "--show", cwd=tmp_path, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["success_rate"] == 1.0
    assert summary["comparisons"][0]["success_rate"] <= 0.5
    assert "*** The End ***" in done.stdout
    assert "16 of 16 episodes replayed equal" in arena("replay", "out", cwd=tmp_path).stdout


def test_an_episode_can_be_played_by_hand(here):
    done = arena(
        "play",
        "text/guess-v0",
        "--task",
        "range-10",
        "--out",
        "mine.jsonl",
        cwd=here,
        input="0\n5\n3\n8\n1\n2\n4\n6\n7\n9\n10\n",
    )
    assert "I think of a number from 1 to 10" in done.stdout
    assert done.returncode == 0, done.stderr
    (episode,) = read_episodes(Path(here, "mine.jsonl"))
    assert episode.record.seats["player"].id == "human"
    assert episode.end.refused == 1


def test_a_terminal_shows_episodes_success_speed_and_time_left_while_a_run_goes_on(tmp_path):
    (tmp_path / "long.yaml").write_text(SLOW.replace("episodes: 6", "episodes: 2000"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*ARENA, "run", "long.yaml", "--out", "out"], cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how a terminal says that its other side has gone
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"slow: \d+ of 4000 episodes, \d+ in play, [\d,]+ steps/s, [\d,]+ s left", text)
    assert re.search(r"expert: success 100% \[\d+%, 100%\] of \d+", text)
