"""Train every arm of an experiment from every seed, and print what came of it.

    python -m benchmarks.learning EXPERIMENT [--seeds 5] [--jobs 2] [--out runs/learning] [--results FILE]

Each arm and seed is an `arena train` of its own, with one thread and its files in OUT/ARM/seed-N; what several arms
begin with, and arms of several experiments, are trained once. A killed experiment goes on where it was: the same
command again, which waits for trainings that outlived it. What trainings came to is added to FILE, by default the one
that is published; what stands there is not trained again, unless something is to begin with it. What is printed is
Markdown, and, once no arm is missing, written to OUT/EXPERIMENT.md: means over seeds with their 95% interval (Student's
t), and differences to the reference arm, paired by seed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from arena.cli.folder import LOCK_FILE
from arena.learning import read_rows

from . import relations
from .experiments import EXPERIMENTS, Arm
from .recorded import Recorded, numbers
from .report import report

_LEARNER = "learner"
_PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "learning.jsonl"


@dataclass
class Job:
    """One training.

    Attributes:
        arm: The arm.
        seed: The seed.
        folder: Where it is.
        training: Its file's content.
    """

    arm: Arm
    seed: int
    folder: Path
    training: dict[str, Any]

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def file(self) -> Path:
        """The training's file."""
        return self.folder / "training.yaml"

    @property
    def results(self) -> Path:
        """Where `arena train` writes."""
        return self.folder / "results"

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return (self.results / _LEARNER / "final" / "checkpoint.json").is_file()

    @property
    def is_held(self) -> bool:
        """Whether a process is at it."""
        try:
            with (self.results / LOCK_FILE).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def numbers(self) -> dict[str, float]:
        """Return what it came to."""
        return numbers(read_rows(self.results / _LEARNER, self.training["seeds"]))

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, or go on with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(self.training, sort_keys=False), "utf-8")
        command = [sys.executable, "-c", "from arena.cli import main; main()", "train", str(self.file)]
        command += ["--out", str(self.results)]
        if (self.results / "training.yaml").is_file():
            command.append("--resume")
        with (self.folder / "log").open("ab") as log:  # in a session of its own: Ctrl-C is for who started it
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )


def job(arm: Arm, seed: int, out: Path) -> Job:
    """Return the training of an arm from a seed."""
    options = dict(arm.options)
    if arm.base is not None:
        options["start"] = str((_folder(out, arm.base, seed) / "results" / _LEARNER / "final").resolve())
    training = {
        "name": arm.name.replace(".", "-"),
        "env": {"id": arm.env, "options": dict(arm.env_options)},
        "seeds": [seed],
        "steps": arm.steps,
        "learners": {_LEARNER: {"id": "learning/language", "options": {**options, "threads": 1}}},
    }
    return Job(arm, seed, _folder(out, arm, seed), training)


def _folder(out: Path, arm: Arm, seed: int) -> Path:
    return out / arm.name / f"seed-{seed}"


Wanted = tuple[Arm, int]


def stages(wanted: list[Wanted]) -> list[list[Wanted]]:
    """Return arms and seeds with what they begin with, each before those that begin with it."""
    if not wanted:
        return []
    before = {(arm.base.name, seed): (arm.base, seed) for arm, seed in wanted if arm.base is not None}
    return [*stages(list(before.values())), wanted]


def check(jobs: list[Job]) -> None:
    """Refuse to mix what was trained before with what is defined now.

    Raises:
        SystemExit: A training has been begun with another definition.
    """
    for one in jobs:
        if one.file.is_file() and yaml.safe_load(one.file.read_text("utf-8")) != one.training:
            raise SystemExit(f"{one.folder} is of another definition of this arm: remove it, or use another --out")


def run(jobs: list[Job], at_once: int, recorded: Recorded) -> list[Job]:
    """Run jobs, some at once, record what they came to, and return those that failed."""
    for one in jobs:
        if one.is_done:
            recorded.add(one.arm, one.seed, one.numbers())
    waiting, running, failed = [one for one in jobs if not one.is_done], list[tuple[Job, Any]](), list[Job]()
    total, began_s = len(waiting), time.monotonic()
    try:
        while waiting or running:
            free = [one for one in waiting if not one.is_held]
            for one in free[: at_once - len(running)]:
                waiting.remove(one)
                if not one.is_done:
                    running.append((one, one.start()))
            time.sleep(1)
            for one, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((one, process))
                outcome = "done"
                if process.returncode or not one.is_done:
                    failed.append(one)
                    outcome = f"FAILED, see {one.folder / 'log'}"
                else:
                    recorded.add(one.arm, one.seed, one.numbers())
                done = total - len(waiting) - len(running)
                print(f"{done} of {total} after {time.monotonic() - began_s:.0f} s: {one.name}: {outcome}", flush=True)
    finally:
        for _, process in running:
            process.terminate()  # it writes a checkpoint and ends
        for _, process in running:
            process.wait()
    return failed


def main() -> int:
    """Run an experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--seeds", type=_positive, default=5)
    parser.add_argument("--jobs", type=_positive, default=2, help="trainings at once")
    parser.add_argument("--arms", nargs="+", help="these arms only")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--results", type=Path, default=_PUBLISHED, help="what trainings came to, a line for each")
    given = parser.parse_args()
    experiment, seeds = EXPERIMENTS[given.experiment], range(given.seeds)
    arms = {arm.name: arm for arm in experiment.arms}
    if unknown := set(given.arms or ()) - arms.keys():
        parser.error(f"no arm {', '.join(sorted(unknown))} (known: {', '.join(arms)})")
    chosen = [arm for name, arm in arms.items() if given.arms is None or name in given.arms]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that `run` ends what it has started
    recorded = Recorded(given.results)
    wanted = [(arm, seed) for seed in seeds for arm in chosen if recorded.get(arm, seed) is None]
    steps = [[job(arm, seed, given.out) for arm, seed in stage] for stage in stages(wanted)]
    check([one for step in steps for one in step])
    relations.write(given.out / "data")
    os.environ["ARENA_SEARCH_DATA"] = str((given.out / "data").resolve())
    try:
        failed = next((lost for step in steps if (lost := run(step, given.jobs, recorded))), [])
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    whole = {}
    for name, arm in arms.items():
        found = [recorded.get(arm, seed) for seed in seeds]
        if all(found):
            whole[name] = [one for one in found if one is not None]
    if whole:
        text = report(experiment, whole)
        print(text)
        if missing := arms.keys() - whole.keys():
            print(f"not trained from all seeds: {', '.join(sorted(missing))}")
        else:
            (given.out / f"{experiment.name}.md").write_text(text, "utf-8")
    return 1 if failed else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
