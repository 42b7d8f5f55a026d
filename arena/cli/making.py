"""Making tasks: ``arena tasks ENV MAKER --out DIR``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from arena.cli.output import make_console, require_writable
from arena.errors import UnknownIdError, UsageError, did_you_mean
from arena.registry import environments, parse_options

__all__ = ["make_tasks"]


def make_tasks(env: str, maker: str, out: Path | None, given: Mapping[str, Any]) -> int:
    """Run one of an environment's makers and print what it made.

    Raises:
        UnknownIdError: No such environment, or no such maker of it.
        UsageError: The folder is missing or cannot be written to, or an option is wrong.
    """
    makers = environments.get(env).makers
    if maker not in makers:
        what = f"{env} has no maker {maker!r}" if makers else f"{env} has no makers of tasks"
        raise UnknownIdError(f"{what}{did_you_mean(maker, makers)}")
    if out is None:
        raise UsageError(f"say where the tasks go: arena tasks {env} {maker} --out DIR")
    cls = makers[maker]
    made = cls(parse_options(f"{env} {maker}", cls.Options, given))
    require_writable(out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"cannot make tasks in {out}: it is a file")
    bar = Progress(
        TextColumn(maker), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=make_console(stderr=True)
    )
    with bar:
        task = bar.add_task(maker, total=None)
        said = made.make(out, lambda done, total: bar.update(task, completed=done, total=total))
    make_console().print(said, soft_wrap=True, markup=False)
    return 0
