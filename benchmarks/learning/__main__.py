"""Train every arm of an experiment from every seed, and print what came of it.

    python -m benchmarks.learning EXPERIMENT [--seeds 5] [--jobs 2] [--out runs/learning]

Each arm and seed is an `arena train` of its own, with one thread and its files in OUT/ARM/seed-N; what several arms
begin with, and arms of several experiments, are trained once. A killed experiment goes on where it was: the same
command again. What is printed is Markdown, and is written to OUT/EXPERIMENT.md: means over seeds with their 95%
interval (Student's t), and differences to the reference arm, paired by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
    def is_done(self) -> bool:
        """Whether it has ended."""
        return (self.folder / "results" / _LEARNER / "final" / "checkpoint.json").is_file()


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


def run(jobs: list[Job], at_once: int) -> list[Job]:
    """Run jobs, some at once, and return those that failed."""
    waiting, failed = [one for one in jobs if not one.is_done], list[Job]()
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    total, began_s = len(waiting), time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                one = waiting.pop(0)
                running[id(one)] = one, _start(one)
            time.sleep(1)
            for key, (one, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[key]
                if process.returncode or not one.is_done:
                    failed.append(one)
                done = total - len(waiting) - len(running)
                outcome = "FAILED, see " + str(one.folder / "log") if one in failed else "done"
                print(f"{done} of {total} after {time.monotonic() - began_s:.0f} s: {one.name}: {outcome}", flush=True)
    finally:
        for _, process in running.values():
            process.terminate()  # it writes a checkpoint and ends
        for _, process in running.values():
            process.wait()
    return failed


def _start(one: Job) -> subprocess.Popen[bytes]:
    one.folder.mkdir(parents=True, exist_ok=True)
    file, results = one.folder / "training.yaml", one.folder / "results"
    file.write_text(yaml.safe_dump(one.training, sort_keys=False), "utf-8")
    command = [sys.executable, "-c", "from arena.cli import main; main()", "train", str(file), "--out", str(results)]
    if (results / "training.yaml").is_file():
        command.append("--resume")
    with (one.folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def rows_of(one: Job) -> list[dict[str, float]]:
    """Return the numbers of a training that has ended."""
    lines = (one.folder / "results" / _LEARNER / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main() -> int:
    """Run an experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--arms", nargs="+", help="these arms only")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that `run` ends what it has started
    experiment, seeds = EXPERIMENTS[given.experiment], range(given.seeds)
    arms = [one for one in experiment.arms if given.arms is None or one.name in given.arms]
    for stage in stages(arms):
        if failed := run([job(arm, seed, given.out) for seed in seeds for arm in stage], given.jobs):
            break
    jobs = {arm.name: [job(arm, seed, given.out) for seed in seeds] for arm in arms}
    whole = {name: [rows_of(one) for one in some] for name, some in jobs.items() if all(one.is_done for one in some)}
    if whole:
        text = report(experiment, whole)
        (given.out / f"{experiment.name}.md").write_text(text, "utf-8")
        print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
