"""``arena golden``: record an environment's golden traces, and record them anew after an intended change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from arena.cli.inspect import make_environment
from arena.cli.output import make_console
from arena.cli.show import transcript
from arena.errors import UsageError
from arena.testing import golden
from arena.types import Limits

__all__ = ["add_to"]

ROOT = Path("tests", "golden")


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("golden")(record)


def record(
    env: Annotated[str, typer.Argument(help="Environment id.")],
    case: Annotated[str | None, typer.Argument(help="Name of the file, for instance the ending that it shows.")] = None,
    play: Annotated[str, typer.Option(help="Who plays: expert, random, or script.")] = "expert",
    action: Annotated[list[str] | None, typer.Option(help="An action of the script; may be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the task.")] = None,
    task: Annotated[str | None, typer.Option(help="Task id; the split's first where absent.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Root seed of the episode.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Limit of steps.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="An option.")] = None,
    root: Annotated[Path, typer.Option(help="Folder of the golden traces.")] = ROOT,
    update: Annotated[bool, typer.Option(help="Play the actions of all of the environment's files again.")] = False,
) -> int:
    """Record one episode as tests/golden/ENV/CASE.jsonl, or with --update every file of the environment anew."""
    console = make_console()
    made = make_environment(env, set_)
    folder = golden.directory(root, env)
    if update:
        changed = golden.update(sorted(folder.glob("*.jsonl")))
        console.print(Text("\n".join(f"changed: {path}" for path in changed) or "nothing has changed"))
        return 0
    if case is None or not case.replace("_", "").replace("-", "").isalnum():
        raise UsageError(f"a case is named by letters, digits, - and _, for instance 'won', not {case!r}")
    policies: dict[str, golden.Policy | Sequence[str]] = {
        "expert": golden.as_expert,
        "random": golden.at_random(seed),
        "script": list(action or []),
    }
    if play not in policies:
        raise UsageError(f"--play is {play!r}; allowed are {', '.join(policies)}")
    taskset = made.taskset(split or made.spec.splits[-1])
    episode = golden.record(
        env,
        made.options.model_dump(mode="json"),
        taskset.get(task) if task else taskset.task(0),
        seed,
        policies[play],
        limits=Limits(steps=steps),
    )
    golden.write(folder / f"{case}.jsonl", episode)
    console.print(transcript(episode))
    return 0
