"""``arena export``: a run's episodes as a table, or as predictions, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.cli.output import make_console, require_writable
from arena.errors import UsageError
from arena.export import PredictionCounts, line_up_of, write_parquet, write_predictions
from arena.trace import read_episodes

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or a trace file.")],
    to: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write, *.parquet or *.jsonl; it must not exist.")
    ],
    agents: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only these agents, by the name that the scenario gives them.")
    ] = None,
) -> int:
    """Write a run's episodes for other programs: a Parquet table, or SWE-bench's predictions as JSON lines.

    The table has the tokens where the agent recorded them. Predictions are the patches that episodes ended with.
    """
    if to.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"--to names a file that ends with .parquet (a table) or .jsonl (predictions), not {to}")
    if to.exists():
        raise UsageError(f"{to} exists already; remove it, or name another file")
    require_writable(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    episodes = read_episodes(run / "traces.jsonl" if run.is_dir() else run)
    if to.suffix == ".jsonl":
        said = _told(write_predictions(episodes, to, agents), to)
    else:
        wanted = (episode for episode in episodes if agents in (None, line_up_of(episode)))
        rows = write_parquet(wanted, to)
        if agents is not None and not rows:
            to.unlink()
            raise UsageError(f"no episode of {agents!r} is in {run}")
        said = f"{rows} rows in {to}"
    make_console().print(said)
    return 0


def _told(counts: PredictionCounts, to: Path) -> str:
    said = f"{counts.written} predictions in {to}"
    if counts.repeated:
        said += f"; {counts.repeated} left out, of instances that had one"
    if counts.without:
        said += f"; {counts.without} episodes ended without one"
    return said
