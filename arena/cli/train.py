"""``arena train``: train learners, with a live display, and write what came of it; draw the report again."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import typer
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from arena.cli.doctor import extra_works
from arena.cli.folder import hold_folder, is_used
from arena.cli.output import make_console, require_writable
from arena.curves import require_drawing
from arena.errors import ConfigError, PrerequisiteError, UsageError
from arena.extras import DISTRIBUTION
from arena.intervals import mean_interval
from arena.learning import FAILURE_FILE, Progress, TrainingError, learn, write_whole
from arena.registry import trainers
from arena.scenario import load_yaml
from arena.training import Training, load_training, validate_training
from arena.training_report import draw_training
from arena.training_summary import FinalNumber, TrainingSummary, summarise_training
from arena.types import encode_json

__all__ = ["add_to"]

TRAINING_FILE, SUMMARY_FILE = "training.yaml", "summary.json"
TELL_EVERY_S = 10.0
"""Seconds between two lines about what a trainer is doing, where nobody sees the display."""
MAY_CHANGE = frozenset(["checkpoint_every", "description"])
"""Keys of a training that may be other ones when it goes on: no number depends on them."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    training: Annotated[str, typer.Argument(help="Name of a shipped training, or a YAML file; or the word `report`.")],
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="With `report`: results to draw.")] = None,
    learner: Annotated[list[str] | None, typer.Option(help="Train this learner only; may be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Train with the seeds 0 to N-1.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME-TIME where absent.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the training that --out holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
) -> int:
    """Train learners and write DIR/summary.json, curves, metrics and checkpoints; or draw them again: train report DIR.

    The training is written to DIR/training.yaml, a learner's numbers to DIR/LEARNER/metrics.jsonl, what it learned to
    DIR/LEARNER/final.
    """
    if training == "report":
        return _report(folder, [bool(learner), seeds is not None, bool(set_), out is not None, resume], as_json)
    if folder is not None:
        raise UsageError(f"one training at a time; results go to --out {folder}")
    overrides = [*(set_ or []), *([] if seeds is None else [f"seeds={seeds}"])]
    chosen = load_training(training, overrides).choose(learner or []).resolve()
    if resume and out is None:
        raise UsageError("--resume needs --out, the folder of the training that is to go on")
    place = out or Path("runs", f"{chosen.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    _check_packages(chosen)
    console = make_console(stderr=as_json)
    finished = _Work(chosen, place, resume, console).train()
    return _conclude(chosen, place, console, as_json, finished=finished)


def _check_packages(training: Training) -> None:
    """Find out whether everything that training needs is installed: not only what its first learner needs.

    Raises:
        PrerequisiteError: Something is missing; the message says how to get it.
    """
    require_drawing()
    for name, config in training.learners.items():
        extra = trainers.get(config.id).spec.extra
        if extra is not None and not extra_works(extra):
            raise PrerequisiteError(f"learner {name} needs more packages; run: pip install '{DISTRIBUTION}[{extra}]'")


def _report(folder: Path | None, others: Sequence[bool], as_json: bool) -> int:
    """Summarise and draw the results in a folder again."""
    if folder is None or any(others):
        raise UsageError("the report of a training takes its folder and nothing else: arena train report DIR")
    training = _recorded(folder).resolve()
    require_drawing()
    require_writable(folder)
    _conclude(training, folder, make_console(stderr=as_json), as_json, finished=True)
    return 0


def _conclude(training: Training, folder: Path, console: Console, as_json: bool, *, finished: bool) -> int:
    """Write and print what came of a training, and return the exit code."""
    summary = summarise_training(training, folder)
    if folder.is_dir():
        write_whole(folder / SUMMARY_FILE, msgspec.json.format(encode_json(summary), indent=2) + b"\n")
    if as_json:
        sys.stdout.write(encode_json(summary).decode() + "\n")
    else:
        console.print(_table(summary))
    if folder.is_dir():
        pictures = draw_training(training, folder)
        drawn = f", curves in {pictures[0]}" if pictures else ""
        console.print(Text(f"results in {folder}{drawn}"), soft_wrap=True)
    return 0 if finished and summary.is_complete else 1


def _recorded(folder: Path) -> Training:
    """Return the training whose results a folder holds.

    Raises:
        UsageError: It holds none.
    """
    path = folder / TRAINING_FILE
    if not path.exists():
        raise UsageError(f"there is no training in {folder}")
    try:
        data = load_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is no training")
    return validate_training(data, str(path))


class _Work:
    """A training on disk. Nothing is written before everything that can be checked has been checked."""

    def __init__(self, training: Training, folder: Path, resume: bool, console: Console) -> None:
        self.training, self.folder, self._resuming, self._console = training, folder, resume, console
        if resume and not folder.is_dir():
            raise UsageError(f"there is no training in {folder} to resume")
        if not resume and is_used(folder):
            raise UsageError(f"{folder} is not empty; use another --out, or --resume to go on with that training")
        require_writable(folder)
        self.progress = {name: self._progress(name) for name in training.learners}
        self._stop = threading.Event()
        self._printed = time.monotonic()

    def train(self) -> bool:
        """Train what is left; return whether nothing was interrupted."""
        with hold_folder(self.folder), self._stopping():
            self._check_folder()
            try:
                with self._display():
                    for name in self.training.learners:
                        if not self._learn(name):
                            break
            except KeyboardInterrupt:
                self._stop.set()
            if self._stop.is_set() and any(each.done < each.updates for each in self.progress.values()):
                kept = "Go on with --resume." if (self.folder / TRAINING_FILE).exists() else "Nothing was kept."
                self._console.print(f"[yellow]Interrupted.[/] {kept}")
                return False
        return True

    def _learn(self, name: str) -> bool:
        """Train one learner as far as it goes; return whether the next one is due."""
        trainer = self.training.make_trainer(name)
        every = self.training.checkpoint_interval(trainer)
        trainer.close()
        try:
            return learn(
                partial(self.training.make_trainer, name),
                self.folder / name,
                checkpoint_every=every,
                progress=self.progress[name],
                ready=self._write_training,
                advanced=partial(self._advanced, name),
                told=partial(self._told, name),
                stop=self._stop.is_set,
            )
        except TrainingError as error:
            said = f"{name}: {error} (traceback in {self.folder / name / FAILURE_FILE})"
            self._console.print(Text(said, style="red"), soft_wrap=True)
            return not self._stop.is_set()

    def _told(self, name: str) -> None:
        """Say what a trainer has been doing for long, now and then, where nobody sees the display."""
        now = self.progress[name]
        silent_s = time.monotonic() - max(self._printed, now.doing_since)
        if not self._console.is_terminal and silent_s >= TELL_EVERY_S:
            self._say(f"{name}: {now.doing}")

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)
        self._printed = time.monotonic()

    def _progress(self, name: str) -> Progress:
        trainer = self.training.make_trainer(name)
        trainer.close()
        return Progress(trainer.updates)

    def _advanced(self, name: str) -> None:
        """Say how far a learner is, every tenth of the way, where nobody sees the display."""
        now = self.progress[name]
        if not self._console.is_terminal and now.done * 10 // now.updates > (now.done - 1) * 10 // now.updates:
            trainer = self.training.make_trainer(name)
            said = _so_far(now, trainer.headline)
            trainer.close()
            self._say(f"{name}: update {now.done} of {now.updates}, {now.steps:,} steps{said and ', '}{said}")

    def _write_training(self) -> None:
        path = self.folder / TRAINING_FILE
        if not path.exists():
            text = yaml.safe_dump(json.loads(self.training.model_dump_json()), sort_keys=False, allow_unicode=True)
            write_whole(path, text.encode())

    def _check_folder(self) -> None:
        """Refuse to mix two trainings in one folder."""
        if not self._resuming:
            if (self.folder / TRAINING_FILE).exists():
                raise UsageError(f"{self.folder} is not empty; use another --out, or --resume to go on with it")
            return
        recorded = json.loads(_recorded(self.folder).model_dump_json())
        wanted = json.loads(self.training.model_dump_json())
        changed = [key for key in wanted if wanted[key] != recorded.get(key) and key not in MAY_CHANGE]
        if changed:
            raise UsageError(f"the training in {self.folder} has other {', '.join(changed)}; use another --out")

    def _display(self) -> Live:
        headlines = {}
        for name in self.progress:
            trainer = self.training.make_trainer(name)
            headlines[name] = tuple(trainer.headline)
            trainer.close()

        def show() -> Group:
            asked = "  stopping after this update; Ctrl-C again stops at once" if self._stop.is_set() else ""
            seeds = _counted(len(self.training.seeds), "seed")
            title = Text(f"{self.training.name}: {self.training.env.id}, {seeds}{asked}")
            return Group(title, _bars(self.progress, headlines))

        return Live(get_renderable=show, console=self._console, refresh_per_second=4, transient=True)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Let the first Ctrl-C or SIGTERM end training after the current update, and the second at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


# -- the display ------------------------------------------------------------------------------------------------------


def _bars(progress: Mapping[str, Progress], headlines: Mapping[str, Sequence[str]]) -> Table:
    """Return what the display shows of each learner: a bar, its speed, and its numbers so far."""
    lines = Table.grid(padding=(0, 2))
    for name, now in progress.items():
        lines.add_row(
            Text(name),
            ProgressBar(now.updates, now.done, width=24),
            Text(f"{now.done / now.updates:.0%}", justify="right"),
            Text("; ".join(filter(None, [_pace(now), now.doing]))),
            Text(_so_far(now, headlines[name])),
        )
    return lines


def _pace(now: Progress) -> str:
    if now.done == now.updates:
        return "done"
    if now.began is None:
        return ""
    elapsed, done = max(1e-9, time.monotonic() - now.began), now.done - now.before
    if not done:
        return "first update"
    left = elapsed / done * (now.updates - now.done)
    return f"{(now.steps - now.steps_before) / elapsed:,.0f} steps/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"


def _so_far(now: Progress, headline: Sequence[str]) -> str:
    shown = []
    for name in headline:
        values = now.latest.get(name)
        if values:
            mean = sum(values.values()) / len(values)
            shown.append(f"{name} {_with_interval(mean, mean_interval(list(values.values()), list(values)))}")
    return ", ".join(shown)


def _table(summary: TrainingSummary) -> Table:
    names = list(dict.fromkeys(name for one in summary.learners for name in one.headline))
    title = f"{summary.training} · {summary.env} · {_counted(len(summary.seeds), 'seed')}"
    caption = f"in brackets: {summary.interval}"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("learner", overflow="fold")
    incomplete = ["updates"] if not summary.is_complete else []
    for name in (*incomplete, "steps", *names, "steps/CPU-s"):
        table.add_column(name, justify="right", overflow="fold")
    for one in summary.learners:
        speed = one.env_steps_per_cpu_s
        table.add_row(
            one.learner,
            *(f"{one.done} of {one.updates}{' (failed)' if one.failure else ''}" for _ in incomplete),
            f"{one.steps:,}",
            *(_number(one.headline.get(name)) for name in names),
            "–" if speed is None else f"{speed:,.0f}",
        )
    return table


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _number(number: FinalNumber | None) -> str:
    return "–" if number is None else _with_interval(number.mean, number.ci95, between="\n")


def _with_interval(mean: float, interval: tuple[float, float] | None, *, between: str = " ") -> str:
    return f"{mean:.4g}" if interval is None else f"{mean:.4g}{between}[{interval[0]:.4g}, {interval[1]:.4g}]"
