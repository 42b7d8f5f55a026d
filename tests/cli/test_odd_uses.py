"""Odd but plausible uses of the command line: what a review found, and what must hold from then on."""

import json
import os
import signal
import subprocess
import time

import pytest

from arena.trace import read_episodes

from .test_cli import ARENA, GUESS, arena, here, start_long_run  # noqa: F401 - `here` is a fixture


@pytest.mark.parametrize("text", ["precious one-liner without newline", "one\ntwo", "{}\n"])
def test_play_never_cuts_or_appends_to_a_file_that_is_no_trace(here, text):  # noqa: F811
    (here / "notes.txt").write_text(text)
    done = arena("play", "text/guess-v0", "--agent", "random", "--out", "notes.txt", cwd=here)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert (here / "notes.txt").read_text() == text


def test_play_appends_to_a_trace_and_makes_its_folder(here):  # noqa: F811
    for _ in range(2):
        done = arena("play", "text/guess-v0", "--agent", "random", "--out", "new/t.jsonl", cwd=here)
        assert done.returncode == 0, done.stderr
    assert len(list(read_episodes(here / "new/t.jsonl"))) == 2
    assert arena("play", "text/guess-v0", "--agent", "random", "--out", "new", cwd=here).returncode == 2


@pytest.mark.parametrize("name", ["open/gpt", "''", "a b", "-x", "ü"])
def test_line_up_names_that_would_spoil_episode_ids_are_refused(here, name):  # noqa: F811
    (here / "s.yaml").write_text(GUESS.replace("expert: expert", f"{name}: expert"))
    done = arena("validate", "s.yaml", cwd=here)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_names_with_dots_are_paired_and_resumed(here):  # noqa: F811
    (here / "s.yaml").write_text(GUESS.replace("expert: expert", "gpt-4.1: expert"))
    arena("run", "s.yaml", "--out", "out", cwd=here)
    done = arena("run", "s.yaml", "--out", "out", "--resume", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["pairs"] == 6


@pytest.mark.parametrize("content", ["", "[]", "\x00", "name: x\n"])
def test_a_spoilt_scenario_file_stops_a_resume_in_one_line(here, content):  # noqa: F811
    arena("run", "guess.yaml", "--out", "out", cwd=here)
    (here / "out/scenario.yaml").write_text(content)
    done = arena("run", "guess.yaml", "--out", "out", "--resume", cwd=here)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_a_torn_episode_in_the_middle_of_a_file_is_played_again(here):  # noqa: F811
    arena("run", "guess.yaml", "--out", "out", cwd=here)
    traces = here / "out/traces.jsonl"
    lines = traces.read_bytes().splitlines(keepends=True)
    traces.write_bytes(
        b"".join([*lines[:2], *lines[next(i for i, x in enumerate(lines) if b'"type":"end"' in x) + 1 :]])
    )
    done = arena("run", "guess.yaml", "--out", "out", "--resume", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    whole = [episode.record.episode for episode in read_episodes(traces) if episode.end]
    assert len(whole) == len(set(whole)) == 12


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("description=2024-02-30", None),
        ("seeds=[" + "1" * 5000 + "]", "set seeds"),
        ("seeds=" + "[" * 3000, "not YAML"),
        ("limits.wall_time_s=.inf", "finite"),
        ("limits.wall_time_s=.nan", "finite"),
        ("limits={<<: {steps: 1}}", "merge keys"),
        ("episodes=1000000000", "1000000"),
    ],
)
def test_odd_values_are_taken_or_refused_in_one_line(here, override, message):  # noqa: F811
    done = arena("validate", "guess.yaml", "--set", override, cwd=here)
    if message is None:
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert message in done.stderr


def test_an_alias_does_not_tie_two_line_ups_together(here):  # noqa: F811
    script = "{id: scripted, options: {actions: ['1'], then: repeat}}"
    text = GUESS.replace("{expert: expert, random: random}", f"{{a: &x {script}, b: *x}}")
    (here / "s.yaml").write_text(text)
    done = arena("run", "s.yaml", "--set", "agents.a.options.actions=['2']", "--out", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    acted = {
        e.record.episode.partition("/")[0]: e.steps[1].actions["player"]
        for e in read_episodes(here / "out/traces.jsonl")
    }
    assert acted == {"a": "2", "b": "1"}


@pytest.mark.parametrize("setting", ["agents=foo", "agents.random=foo", "agents.expert.id=random"])
def test_play_refuses_settings_of_agents_that_it_does_not_understand(here, setting):  # noqa: F811
    done = arena("play", "text/guess-v0", "--agent", "random", "--set", setting, cwd=here)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_play_plays_one_episode_whatever_the_settings_say(here):  # noqa: F811
    done = arena("play", "text/guess-v0", "--agent", "random", "--set", "episodes=2", "--set", "seeds=[0,1]", cwd=here)
    assert done.returncode == 0, done.stderr


def test_two_processes_cannot_write_to_one_folder(tmp_path):
    first = start_long_run(tmp_path)
    second = arena("run", "long.yaml", "--out", "out", "--resume", cwd=tmp_path)
    first.kill()
    first.communicate()
    assert (second.returncode, "another process" in second.stderr) == (2, True), second.stderr


def test_a_reader_that_leaves_early_does_not_end_the_run(here):  # noqa: F811
    command = " ".join(f"'{word}'" for word in ARENA) + " run guess.yaml --episodes 50 --out out | head -n 1"
    subprocess.run(["bash", "-c", command], cwd=here, capture_output=True, timeout=60, check=True)
    assert json.loads((here / "out/summary.json").read_text())["completed"] == 50


def test_closed_or_plain_output_does_not_cost_a_run_its_results(here):  # noqa: F811
    command = " ".join(f"'{word}'" for word in ARENA)
    for index, redirect in enumerate([">&-", "2>&-", ">/dev/null"]):
        line = f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {command} run guess.yaml --out out{index} {redirect}"
        done = subprocess.run(["bash", "-c", line], cwd=here, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads((here / f"out{index}/summary.json").read_text())["completed"] == 6


def test_interrupted_before_anything_was_finished_leaves_nothing(tmp_path):
    """While a large game is being generated."""
    (tmp_path / "big.yaml").write_text(
        "name: big\nenv: {id: text/textworld-v0, options: {game: w20-o60-q30}}\nagents: {a: random}\nepisodes: 2\n"
    )
    environment = {**os.environ, "ARENA_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [*ARENA, "run", "big.yaml", "--out", "out"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not (makers := makers_of(process.pid)):
        time.sleep(0.1)
        assert process.poll() is None, process.stdout.read()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Interrupted" in output
    assert not (tmp_path / "out").exists()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{maker}") for maker in makers):
        assert time.monotonic() < deadline, "generators outlive the run"
        time.sleep(0.1)


def makers_of(parent):
    """The processes that generate games for a process."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if b"arena.envs.text._textworld_games" in words and str(parent).encode() in words:
            found.append(pid)
    return found
