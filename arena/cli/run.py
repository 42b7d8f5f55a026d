"""``arena run``: play a scenario, with a live display, and write what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from arena.cli.folder import hold_folder, is_used
from arena.cli.output import make_console, require_writable
from arena.cli.show import transcript
from arena.errors import ConfigError, UsageError
from arena.extras import versions
from arena.intervals import wilson_interval
from arena.registry import agents
from arena.runner import PlannedEpisode, Progress, plan
from arena.runner import run as run_episodes
from arena.scenario import LineUp, Scenario, load_scenario, load_yaml
from arena.summary import Row, Summary, summarise
from arena.trace import EndRecord, Episode, append_episode, cut_torn_episode, read_episodes
from arena.types import encode_json

__all__ = ["add_to"]

SCENARIO_FILE, SUMMARY_FILE, TRACE_FILE = "scenario.yaml", "summary.json", "traces.jsonl"
TOKEN_VARIABLE = "ARENA_TOKEN"
"""Environment variable that holds a server's bearer token; an argument would be seen by every user of the machine."""
MAY_CHANGE = frozenset(["by", "concurrency", "description", "metrics", "retries"])
"""Keys of a scenario that may be other ones when a run goes on: no episode depends on them."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run")(run)


def run(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a YAML file.")],
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes for each line-up and seed.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Play this line-up or agent only; may be repeated.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Episodes in flight at once.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME-TIME where absent.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run that --out holds.")] = False,
    show: Annotated[bool, typer.Option(help="Show the transcript of the first episode at the end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
    server: Annotated[str | None, typer.Option(metavar="URL", help="Play the episodes on this server.")] = None,
    server_token_file: Annotated[
        Path | None, typer.Option(help="File with the server's bearer token; $ARENA_TOKEN where absent.")
    ] = None,
) -> int:
    """Play a scenario and write DIR/summary.json, DIR/traces.jsonl and DIR/scenario.yaml."""
    overrides = [f"{key}={value}" for key, value in (("episodes", episodes), ("concurrency", concurrency)) if value]
    chosen = _choose(load_scenario(scenario, [*(set_ or []), *overrides]), agent or []).resolve()
    if resume and out is None:
        raise UsageError("--resume needs --out, the folder of the run that is to go on")
    folder = out or Path("runs", f"{chosen.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    console = make_console(stderr=as_json)
    if server is None and server_token_file is not None:
        raise UsageError("--server-token-file needs --server, the server's address")
    remote = None if server is None else _Server(server, _token(server_token_file))
    work = _Work(chosen, folder, resume, console, remote)
    finished = work.play()
    summary = work.summary()
    if as_json:
        sys.stdout.write(encode_json(summary).decode() + "\n")
    else:
        rows = [summary, *summary.comparisons]
        console.print(_table(chosen, rows), *(_breakdown(name, rows) for name in chosen.by))
        _notes(console, summary, folder)
        if show and (first := next(read_episodes(folder / TRACE_FILE), None)):
            console.print(transcript(first))
    return 0 if finished and not any(row.errors for row in [summary, *summary.comparisons]) else 1


def _choose(scenario: Scenario, names: Iterable[str]) -> Scenario:
    """Return the scenario with only the line-ups that are named; a name that is none is taken for an agent's id."""
    line_ups: dict[str, LineUp] = {}
    for name in names:
        if name not in scenario.agents:
            agents.get(name)
        line_ups[name.replace("/", "-")] = scenario.agents.get(name) or LineUp(id=name)
    return scenario.model_copy(update={"agents": line_ups}) if line_ups else scenario


@dataclass(frozen=True)
class _Server:
    """Where episodes are played remotely, and as whom."""

    url: str
    token: str | None = field(repr=False)


def _token(path: Path | None) -> str | None:
    """Return the bearer token that a file or the environment holds."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token file {path}: {error}") from error


class _Work:
    """A run on disk: what is planned, what is done, and the folder that holds it.

    Nothing is written before everything that can be checked has been checked.
    """

    def __init__(
        self, scenario: Scenario, folder: Path, resume: bool, console: Console, server: _Server | None = None
    ) -> None:
        self.scenario, self.folder, self._console, self._server = scenario, folder, console, server
        self.planned = plan(scenario)
        self.progress = Progress(total=len(self.planned), ends={name: {} for name in scenario.agents})
        self.began = time.monotonic()
        self.earlier_s = 0.0
        self._resuming = resume
        if resume and not folder.is_dir():
            raise UsageError(f"there is no run in {folder} to resume")
        if not resume and is_used(folder):
            raise UsageError(f"{folder} is not empty; use another --out, or --resume to go on with that run")
        require_writable(folder)

    def play(self) -> bool:
        """Play what is left and write it; return whether everything has been played."""
        with hold_folder(self.folder):
            self._check_folder()
            todo = [episode for episode in self.planned if episode.id not in self.progress.ends[episode.line_up]]
            try:
                with _display(self._console, self.scenario, self.progress):
                    asyncio.run(_until_stopped(self._episodes(todo)))
            except (KeyboardInterrupt, asyncio.CancelledError):
                kept = (
                    "Finished episodes are kept; go on with --resume."
                    if self.progress.done
                    else "Nothing was finished."
                )
                self._console.print(f"[yellow]Interrupted.[/] {kept}")
                return False
            finally:
                if self.progress.done:
                    summary = msgspec.json.format(encode_json(self.summary()), indent=2) + b"\n"
                    _write(self.folder / SUMMARY_FILE, summary)
        return True

    async def _episodes(self, todo: list[PlannedEpisode]) -> None:
        """Play episodes, here or on the server."""
        known = versions(self.scenario.make_env().spec.extra)
        play = partial(run_episodes, self.scenario, todo, self._record, progress=self.progress, versions=known)
        if self._server is None:
            await play()
            return
        from arena.client import AsyncClient

        config = self.scenario.env
        async with AsyncClient(self._server.url, self._server.token) as client:
            await client.describe(config.id, **config.options)  # whether the server offers what the scenario needs
            await play(remote=client.new_session)

    def _check_folder(self) -> None:
        """Look again at what is in the folder, now that nobody else can change it."""
        if (self.folder / TRACE_FILE).exists() and not self._resuming:
            raise UsageError(f"{self.folder} is not empty; use another --out, or --resume to go on with it")
        if self._resuming:
            self._load()

    def summary(self) -> Summary:
        """Return the summary of what is done."""
        wall_s = self.earlier_s + time.monotonic() - self.began
        return summarise(self.scenario, self.planned, self.progress.ends, wall_s=wall_s)

    def _record(self, planned: PlannedEpisode, episode: Episode) -> None:
        config = self.folder / SCENARIO_FILE
        if not config.exists():
            _write(config, _yaml(self.scenario).encode())
        append_episode(self.folder / TRACE_FILE, episode)
        done = self.progress.done + 1
        if not self._console.is_terminal and done * 10 // self.progress.total > (done - 1) * 10 // self.progress.total:
            self._console.print(f"{done} of {self.progress.total} episodes, {self.progress.steps} steps")

    def _load(self) -> None:
        """Take over the finished episodes of the run in the folder, which must be of the same scenario."""
        config, traces = self.folder / SCENARIO_FILE, self.folder / TRACE_FILE
        if not config.exists() and not traces.exists():
            raise UsageError(f"there is no run in {self.folder} to resume")
        try:
            recorded = load_yaml(config.read_text(encoding="utf-8"), str(config))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.folder} holds no run that could go on: {error}") from error
        if not isinstance(recorded, dict):
            raise ConfigError(f"{config} is no scenario, so the run cannot go on")
        wanted = json.loads(self.scenario.model_dump_json())
        changed = [key for key in wanted if wanted[key] != recorded.get(key) and key not in MAY_CHANGE]
        if changed:
            raise UsageError(f"the run in {self.folder} has other {', '.join(changed)}; use another --out for this one")
        with suppress(OSError, ValueError, TypeError, KeyError):
            self.earlier_s = float(json.loads((self.folder / SUMMARY_FILE).read_bytes())["wall_s"])
        cut_torn_episode(traces)
        line_ups = {episode.id: episode.line_up for episode in self.planned}
        for episode in read_episodes(traces) if traces.exists() and traces.stat().st_size else ():
            line_up = line_ups.get(episode.record.episode)
            if episode.end is not None and line_up is not None:
                self.progress.ends[line_up][episode.record.episode] = episode.end


def _write(path: Path, data: bytes) -> None:
    """Replace a file as a whole: whoever reads it finds the old or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


async def _until_stopped(work: object) -> None:
    """Await the run; SIGTERM ends it the way Ctrl-C does."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _yaml(scenario: Scenario) -> str:
    return yaml.safe_dump(json.loads(scenario.model_dump_json()), sort_keys=False, allow_unicode=True)


# -- the display ------------------------------------------------------------------------------------------------------


def _display(console: Console, scenario: Scenario, progress: Progress) -> Live:
    return Live(
        get_renderable=lambda: _state(scenario, progress), console=console, refresh_per_second=4, transient=True
    )


def _state(scenario: Scenario, progress: Progress) -> Group:
    """Return what the display shows: a bar, counts, and each line-up's success so far."""
    if progress.began is None:
        return Group(Text(f"{scenario.name}: getting ready"))
    elapsed = max(1e-9, time.monotonic() - progress.began)
    left = elapsed / progress.done * (progress.total - progress.done) if progress.done else None
    waiting = progress.prepared < progress.to_prepare
    lines = [
        f"{scenario.name}: {progress.done} of {progress.total} episodes, {progress.playing} in play, "
        f"{progress.steps / elapsed:,.0f} steps/s, {'' if left is None else f'{left:,.0f} s left'}"
        + (f", {progress.prepared} of {progress.to_prepare} tasks prepared" if waiting else ""),
        *(f"  {name}: {_so_far(ends)}" for name, ends in progress.ends.items()),
    ]
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(progress.total, progress.done, width=30), Text(f"{progress.done / progress.total:.0%}"))
    return Group(bar, Text("\n".join(lines)))


def _so_far(ends: dict[str, EndRecord]) -> str:
    verdicts = [end.score.success for end in ends.values() if end.score is not None and end.score.success is not None]
    failed = sum(1 for end in ends.values() if end.score is None)
    errors = f", {failed} failed" if failed else ""
    interval = wilson_interval(sum(verdicts), len(verdicts))
    if interval is None:
        return f"{len(ends)} done{errors}"
    return f"success {sum(verdicts) / len(verdicts):.0%} [{interval[0]:.0%}, {interval[1]:.0%}] of {len(ends)}{errors}"


def _table(scenario: Scenario, rows: list[Row]) -> Table:
    table = Table(title=f"{scenario.name} · {scenario.env.id}", title_justify="left")
    table.add_column("agent")
    for name in ("episodes", "errors", "score [95%]", "success [95%]", "return", "steps", *scenario.metrics, "endings"):
        table.add_column(name, justify="left" if name == "endings" else "right")
    for row in rows:
        table.add_row(
            row.agent,
            f"{row.completed} of {row.episodes}",
            str(row.errors),
            _with_interval(row.score_mean, row.score_ci95),
            _with_interval(row.success_rate, row.success_ci95),
            "–" if row.return_mean is None else f"{row.return_mean:.3g}",
            "–" if row.steps_mean is None else f"{row.steps_mean:.1f}",
            *(_metric(row, name) for name in scenario.metrics),
            ", ".join(f"{name} {count}" for name, count in row.endings.items()) or "–",
        )
    return table


def _breakdown(name: str, rows: list[Row]) -> Table:
    table = Table(title=f"score [95%] by {name}", title_justify="left")
    table.add_column(name)
    table.add_column("episodes", justify="right")
    for row in rows:
        table.add_column(row.agent, justify="right")
    values = list(dict.fromkeys(value for row in rows for value in row.by[name]))
    for value in values:
        groups = [row.by[name].get(value) for row in rows]
        table.add_row(
            Text(value),
            ", ".join(dict.fromkeys(str(group.completed) for group in groups if group is not None)),
            *("–" if group is None else _with_interval(group.score_mean, group.score_ci95) for group in groups),
        )
    return table


def _metric(row: Row, name: str) -> str:
    if name in row.metrics:
        return _with_interval(row.metrics[name].mean, row.metrics[name].ci95)
    totals = {"refused": row.refused, "tokens": row.usage.input_tokens + row.usage.output_tokens}
    return f"{totals[name]:,}" if name in totals else f"{row.usage.cost_usd:.4f}" if name == "cost_usd" else "–"


def _with_interval(mean: float | None, interval: tuple[float, float] | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.3f}" if interval is None else f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _notes(console: Console, summary: Summary, folder: Path) -> None:
    for other in summary.comparisons:
        if other.score_difference is not None:
            difference = _with_interval(other.score_difference, other.score_difference_ci95)
            console.print(f"{summary.agent} − {other.agent}: {difference} in score, on {other.pairs} paired episodes")
    for row in [summary, *summary.comparisons]:
        for code, message in row.error_codes.items():
            console.print(Text(f"{row.agent}: {code}: {message}", style="red"))
    if folder.is_dir():
        console.print(f"{summary.wall_s:.1f} s; results in {folder}", soft_wrap=True)
