"""``arena train`` as a process: what it prints, writes and returns, and what a kill or an interruption leaves."""

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
ARENA = [sys.executable, "-W", "error", "-c", "import tests.toy_trainer; from arena.cli import main; main()"]
WALK = """
name: walk
env: {id: text/guess-v0}
learners:
  fast: toy/walk
  slow: {id: toy/walk, options: {drift: 0.1}}
steps: 1000
seeds: 3
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def arena(*arguments, cwd, **more):
    return subprocess.run(
        [*ARENA, *map(str, arguments)],
        cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def start(*arguments, cwd, **more):
    return subprocess.Popen(
        [*ARENA, *map(str, arguments)],
        cwd=cwd, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def kept(folder):
    """Every file of the learners but what says how long it took, or when."""
    files = [path for name in ("fast", "slow") for path in (folder / name).rglob("*") if path.is_file()]
    ours = [path for path in files if path.name != "checkpoint.json" and "tensorboard" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in ours}


@pytest.fixture
def here(tmp_path):
    (tmp_path / "walk.yaml").write_text(WALK)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "walk.yaml").write_text(WALK)
    done = arena("train", "walk.yaml", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "out", done.stdout


def test_a_training_writes_rows_states_curves_and_a_summary_and_prints_a_table(whole):
    folder, printed = whole
    for name in ("fast", "slow"):
        rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        assert [(row["update"], row["seed"]) for row in rows] == [(u, s) for u in range(1, 101) for s in range(3)]
        assert json.loads((folder / name / "final/walk.json").read_text())["done"] == 100
        assert re.search(rf"{name}: update 50 of 100, 1,500 steps, height \S+ \[.*\], best \S+ \[", printed)
        assert len(re.findall(rf"^{name}: update", printed, re.MULTILINE)) == 10
        assert re.search(rf"│ {name} +│ 3,000 │", printed)
    assert "95% interval of the mean over seeds (Student's t)" in printed
    summary = json.loads((folder / "summary.json").read_text())
    fast, slow = summary["learners"]
    assert fast["headline"]["height"]["mean"] > slow["headline"]["height"]["mean"]
    assert fast["headline"]["height"]["seeds"].keys() == {"0", "1", "2"}
    low, high = fast["headline"]["height"]["ci95"]
    assert low < fast["headline"]["height"]["mean"] < high
    assert fast["env_steps_per_cpu_s"] == pytest.approx(3000 / fast["cpu_s"])
    for picture in ("curves.png", "curves/height.png", "curves/best.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert not any(path.name.startswith(".") for path in folder.rglob("*"))


def test_the_resolved_training_trains_the_same_again_and_json_is_the_summary_alone(here, whole):
    folder, _ = whole
    done = arena("train", folder / "training.yaml", "--out", "again", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((here / "again/summary.json").read_text())
    assert kept(here / "again") == kept(folder)


def test_learners_and_seeds_are_chosen(here):
    done = arena("train", "walk.yaml", "--learner", "slow", "--seeds", 2, "--set", "steps=50", "--out", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    recorded = yaml.safe_load((here / "out/training.yaml").read_text())
    assert (list(recorded["learners"]), recorded["seeds"], recorded["steps"]) == (["slow"], [0, 1], 50)
    assert not (here / "out/fast").exists()


def test_the_report_is_drawn_again_from_the_folder(here):
    arena("train", "walk.yaml", "--out", "out", "--set", "steps=200", cwd=here)
    before = kept(here / "out")
    written = (here / "out/summary.json").read_bytes()
    for name in ("summary.json", "curves.png", "curves/height.png", "fast/walk.txt"):
        (here / "out" / name).unlink()
    done = arena("train", "report", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "out/summary.json").read_bytes() == written
    assert kept(here / "out") == before
    assert (here / "out/curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train wlk.yaml", r"cannot read the training wlk\.yaml"),
        ("train no-such-training", "no training 'no-such-training'"),
        ("train walk.yaml --learner fats", "did you mean 'fast'"),
        ("train walk.yaml --set learners.fast.options.dirft=1", "did you mean 'drift'"),
        ("train walk.yaml --resume", "needs --out"),
        ("train walk.yaml --resume --out nowhere", "no training in nowhere"),
        ("train walk.yaml --out walk.yaml/inside", "cannot write to walk.yaml/inside"),
        ("train walk.yaml out", "results go to --out out"),
        ("train report", "takes its folder and nothing else"),
        ("train report nowhere", "no training in nowhere"),
        ("validate walk.yaml --set learners.fast.id=toy/wlk", "did you mean 'toy/walk'"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_code_2_and_writes_nothing(here, arguments, message):
    done = arena(*arguments.split(), cwd=here)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert [path.name for path in here.iterdir()] == ["walk.yaml"]


def test_a_missing_package_is_named_before_anything_is_trained(here):
    blocked = [*ARENA[:-1], "import sys; sys.modules['matplotlib'] = None; " + ARENA[-1]]
    done = subprocess.run(
        [*blocked, "train", "walk.yaml", "--out", "out"],
        cwd=here, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "arena-rl[train]" in done.stderr
    assert not (here / "out").exists()


def test_what_was_killed_before_it_began_is_begun_again(here):
    """A training that was killed while its first learner prepares leaves its lock, which nobody holds, and no more."""
    (here / "out").mkdir()
    (here / "out/.lock").touch()
    assert "no training" in arena("train", "walk.yaml", "--out", "out", "--resume", cwd=here).stderr
    done = arena("train", "walk.yaml", "--out", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    assert not (here / "out/.lock").exists()


def test_a_folder_belongs_to_one_training_and_one_process(here):
    process = start("train", "walk.yaml", "--out", "out", "--set", "learners.fast.options.wait_s=0.05", cwd=here)
    wait_for(here / "out/fast/metrics.jsonl", process)
    rest = ("--out", "out", "--set", "learners.fast.options.wait_s=0.05")
    busy = arena("train", "walk.yaml", *rest, "--resume", cwd=here)
    assert (busy.returncode, busy.stderr) == (2, "arena: another process is writing to out\n")
    assert "not empty" in arena("train", "walk.yaml", *rest, cwd=here).stderr
    process.kill()
    process.communicate()
    other = arena("train", "walk.yaml", "--out", "out", "--resume", "--seeds", 4, cwd=here)
    assert other.returncode == 2
    assert "other learners, seeds" in other.stderr
    assert arena("train", "walk.yaml", *rest, "--resume", cwd=here).returncode == 0


def wait_for(path, process, size=1):
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_at_chosen_moments_it_ends_like_one_that_was_never_killed(here, whole):
    command = ("train", "walk.yaml", "--out", "out")
    faults = ["kill_update:3", "kill_update:37", "kill_save_before:40", "kill_save:45", "kill_load:40", "kill_save:100"]
    for number, fault in enumerate(faults):
        done = arena(*command, *["--resume"][: min(number, 1)], cwd=here, TOY_FAULT=fault)
        assert done.returncode == -signal.SIGKILL, (fault, done.stdout, done.stderr)
    done = arena(*command, "--resume", cwd=here)
    assert done.returncode == 0, done.stderr
    assert kept(here / "out") == kept(whole[0])


def test_killed_at_any_moment_it_ends_like_one_that_was_never_killed(here, whole):
    waits = ("--set", "learners.fast.options.wait_s=0.02", "--set", "learners.slow.options.wait_s=0.02")
    chance = random.Random(5)
    kills = 0
    for _ in range(5):
        resume = ["--resume"] if (here / "out/training.yaml").exists() else []
        before = changed(here / "out")
        process = start("train", "walk.yaml", "--out", "out", *waits, *resume, cwd=here)
        while changed(here / "out") == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.5))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 3
    done = arena("train", "walk.yaml", "--out", "out", *waits, "--resume", cwd=here)
    assert done.returncode == 0, done.stderr
    assert kept(here / "out") == kept(whole[0])


def changed(folder):
    """When a row was last written."""
    return max((path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")), default=0)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_the_last_update_and_says_how_to_go_on(here, whole, sent):
    waits = ("--set", "learners.fast.options.wait_s=0.02")
    process = start("train", "walk.yaml", "--out", "out", *waits, cwd=here)
    wait_for(here / "out/fast/metrics.jsonl", process, 1000)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Interrupted. Go on with --resume." in output
    assert "Traceback" not in output
    lines = (here / "out/fast/metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])["update"]
    assert last < 100
    assert (here / f"out/fast/checkpoints/{last}").is_dir()
    assert json.loads((here / "out/summary.json").read_text())["learners"][0]["done"] == last
    done = arena("train", "walk.yaml", "--out", "out", *waits, "--resume", cwd=here)
    assert done.returncode == 0, done.stderr
    assert kept(here / "out") == kept(whole[0])


def test_a_second_interruption_ends_an_update_that_takes_long(here):
    process = start("train", "walk.yaml", "--out", "out", "--set", "learners.fast.options.wait_s=600", cwd=here)
    deadline = time.monotonic() + 60
    while not (here / "out/training.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Interrupted." in output
    assert "Traceback" not in output


def test_a_learner_that_fails_is_one_line_and_its_checkpoint_goes_on(here, whole):
    message = "fast: update 52 of 100 failed: seed 2: height is nan; the checkpoint of update 50 is kept"
    done = arena("train", "walk.yaml", "--learner", "fast", "--out", "out", cwd=here, TOY_FAULT="nan:52")
    assert done.returncode == 1
    assert (done.stdout.count(message), done.stdout.count("failed:")) == (1, 1), done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search(r"│ fast +│ 51 of 100 \(failed\) │", done.stdout)
    assert [path.name for path in sorted((here / "out/fast/checkpoints").iterdir())] == ["45", "50"]
    assert json.loads((here / "out/summary.json").read_text())["learners"][0]["failure"] in done.stdout
    again = arena("train", "walk.yaml", "--learner", "fast", "--out", "out", "--resume", cwd=here)
    assert again.returncode == 0, again.stderr
    assert not (here / "out/fast/failure.txt").exists()
    assert kept(here / "out").items() <= kept(whole[0]).items()


def test_the_other_learners_are_trained_where_one_fails(here):
    done = arena(
        "train", "walk.yaml", "--out", "out", "--set", "learners.slow.options.batch=20", cwd=here, TOY_FAULT="nan:52"
    )
    fast, slow = json.loads((here / "out/summary.json").read_text())["learners"]
    assert done.returncode == 1
    assert (fast["done"], slow["done"], slow["failure"]) == (51, 50, None)


def test_a_full_disk_is_one_line_and_what_was_saved_goes_on(here, whole):
    limited = [*ARENA[:-1], "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); " + ARENA[-1]]
    done = subprocess.run(
        [*limited, "train", "walk.yaml", "--out", "out"],
        cwd=here, env=environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )  # fmt: skip
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    again = arena("train", "walk.yaml", "--out", "out", "--resume", cwd=here)
    assert again.returncode == 0, again.stderr
    assert kept(here / "out") == kept(whole[0])


def test_a_terminal_shows_a_bar_numbers_speed_and_time_left_for_every_learner(here):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*ARENA, "train", "walk.yaml", "--out", "out", "--set", "learners.fast.options.wait_s=0.02"],
        cwd=here, env=environment(COLUMNS="150"), stdout=theirs, stderr=theirs,
    )  # fmt: skip
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
    assert "walk: text/guess-v0, 3 seeds" in text
    assert re.search(r"fast .*\d+%  [\d,]+ steps/s, \d+ s left  height -?[\d.]+ \[", text)
    assert re.search(r"slow .* 0%", text)
    assert "update 10 of 100" not in text


def test_what_takes_long_is_told_now_and_then_where_nobody_sees_the_display(here):
    often = [*ARENA[:-1], "import arena.cli.train; arena.cli.train.TELL_EVERY_S = 0.0; " + ARENA[-1]]
    command = ["train", "walk.yaml", "--out", "out"]
    done = subprocess.run([*often, *command], cwd=here, env=environment(), capture_output=True, text=True, check=False)
    assert re.findall("^(.*): walks prepared: 1 of 3$", done.stdout, re.MULTILINE) == ["fast", "slow"]
    shutil.rmtree(here / "out")
    assert "prepared" not in arena(*command, cwd=here).stdout


def test_trainers_and_trainings_are_listed_and_validated(here):
    listed = json.loads(arena("agents", "--json", cwd=here).stdout)
    assert {"toy/walk": "trainer", "random": "agent"}.items() <= {one["id"]: one["kind"] for one in listed}.items()
    assert "drift" in next(one["options"]["properties"] for one in listed if one["id"] == "toy/walk")
    assert "Options of toy/walk" in arena("agents", cwd=here).stdout
    kinds = {one["name"]: one["kind"] for one in json.loads(arena("scenarios", "--json", cwd=here).stdout)}
    assert (kinds["household-quickstart"], kinds["sft"]) == ("scenario", "training")
    assert arena("scenarios", cwd=here).returncode == 0
    done = arena("validate", "walk.yaml", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "fast, slow learn text/guess-v0 for 1,000 steps of each of 3 seeds" in " ".join(done.stdout.split())
