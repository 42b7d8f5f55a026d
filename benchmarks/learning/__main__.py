"""Train every arm of an experiment from every seed, and print what came of it.

    python -m benchmarks.learning EXPERIMENT [--seeds 5] [--jobs 2] [--out runs/learning]

Each arm and seed is an `arena train` of its own, with one thread and its files in OUT/ARM/seed-N; what several arms
begin with, and arms of several experiments, are trained once. A killed experiment goes on where it was: the same
command again, which waits for trainings that outlived it. What is printed is Markdown, and, once no arm is missing,
written to OUT/EXPERIMENT.md: means over seeds with their 95% interval (Student's t), and differences to the reference
arm, paired by seed.
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
from .report import report

_LEARNER = "learner"


@dataclass
class Job:
    """One training.

    Attributes:
        name: As it is printed.
        folder: Where it is.
        training: Its file's content.
    """

    name: str
    folder: Path
    training: dict[str, Any]

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
    return Job(f"{arm.name}, seed {seed}", _folder(out, arm, seed), training)


def _folder(out: Path, arm: Arm, seed: int) -> Path:
    return out / arm.name / f"seed-{seed}"


def stages(arms: list[Arm]) -> list[list[Arm]]:
    """Return arms and what they begin with, each before those that begin with it."""
    if not arms:
        return []
    before = {arm.base.name: arm.base for arm in arms if arm.base is not None}
    return [*stages(list(before.values())), arms]


def check(jobs: list[Job]) -> None:
    """Refuse to mix what was trained before with what is defined now.

    Raises:
        SystemExit: A training has been begun with another definition.
    """
    for one in jobs:
        if one.file.is_file() and yaml.safe_load(one.file.read_text("utf-8")) != one.training:
            raise SystemExit(f"{one.folder} is of another definition of this arm: remove it, or use another --out")


def run(jobs: list[Job], at_once: int) -> list[Job]:
    """Run jobs, some at once, and return those that failed."""
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
    given = parser.parse_args()
    experiment, seeds = EXPERIMENTS[given.experiment], range(given.seeds)
    arms = {arm.name: arm for arm in experiment.arms}
    if unknown := set(given.arms or ()) - arms.keys():
        parser.error(f"no arm {', '.join(sorted(unknown))} (known: {', '.join(arms)})")
    chosen = [arm for name, arm in arms.items() if given.arms is None or name in given.arms]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that `run` ends what it has started
    steps = [[job(arm, seed, given.out) for seed in seeds for arm in stage] for stage in stages(chosen)]
    check([one for step in steps for one in step])
    relations.write(given.out / "data")
    os.environ["ARENA_SEARCH_DATA"] = str((given.out / "data").resolve())
    try:
        failed = next((found for step in steps if (found := run(step, given.jobs))), [])
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    jobs = {name: [job(arm, seed, given.out) for seed in seeds] for name, arm in arms.items()}
    whole = {
        name: [read_rows(one.results / _LEARNER, one.training["seeds"]) for one in some]
        for name, some in jobs.items()
        if all(one.is_done for one in some)
    }
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
