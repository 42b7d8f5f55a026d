"""The commands that look at things: what can be played, by whom, and what works on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pydantic
import typer
from rich.table import Table
from rich.text import Text

from arena.agent import Agent
from arena.cli.doctor import extra_works
from arena.cli.making import make_tasks
from arena.cli.output import make_console
from arena.env import Environment
from arena.errors import UnknownIdError, UsageError, did_you_mean
from arena.registry import agents, environments, make, trainers
from arena.scenario import apply_override, load_scenario, scenario_names
from arena.spaces import describe as describe_space
from arena.trainer import Trainer
from arena.training import is_training, load_training, training_names
from arena.types import encode_json

__all__ = ["add_to", "make_environment"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for name, command in (
        ("envs", envs),
        ("describe", describe),
        ("agents", agents_),
        ("scenarios", scenarios),
        ("validate", validate),
    ):
        app.command(name)(command)
    # What a maker can be asked for is only known when it is named.
    app.command("tasks", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(tasks)


def envs(as_json: AsJson = False) -> int:
    """List the environments."""
    specs = [cls.spec for cls in environments]
    rows = [(spec.id, spec.play, _needs(spec.extra), spec.summary) for spec in specs]
    _list(("id", "play", "needs", "summary"), rows, specs if as_json else None)
    _warn(environments.broken)
    return 0


def agents_(as_json: AsJson = False) -> int:
    """List the agents, the trainers, and their options."""
    classes: list[tuple[str, type[Agent] | type[Trainer]]] = [
        *(("agent", one) for one in agents),
        *(("trainer", one) for one in trainers),
    ]
    if as_json:
        _write([{**_plain(cls.spec), "kind": kind, "options": _options(cls.Options)} for kind, cls in classes])
        return 0
    for kind in ("agent", "trainer"):
        rows = [(cls.spec.id, _needs(cls.spec.extra), cls.spec.summary) for what, cls in classes if what == kind]
        _list((kind, "needs", "summary"), rows, None)
    for _, cls in classes:
        _option_table(cls.spec.id, cls.Options)
    _warn({**agents.broken, **trainers.broken})
    return 0


def scenarios(as_json: AsJson = False) -> int:
    """List the scenarios and the trainings that ship with Arena."""
    played = [load_scenario(name) for name in scenario_names()]
    trained = [load_training(name) for name in training_names()]
    if as_json:
        _write(
            [
                *({"kind": "scenario", **one.model_dump(mode="json")} for one in played),
                *({"kind": "training", **one.model_dump(mode="json")} for one in trained),
            ]
        )
        return 0
    rows = [(one.name, one.env.id, ", ".join(one.agents), one.description) for one in played]
    _list(("scenario", "environment", "agents", "description"), rows, None)
    rows = [(one.name, one.env.id, ", ".join(one.learners), one.description) for one in trained]
    _list(("training", "environment", "learners", "description"), rows, None)
    return 0


def describe(
    env: Annotated[str, typer.Argument(help="Environment id.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="An option.")] = None,
    as_json: AsJson = False,
) -> int:
    """Say what an environment promises: seats, spaces, tools, endings, options."""
    made = make_environment(env, set_)
    spec = made.spec
    seats = {agent: _seat(made, agent) for agent in made.possible_agents}
    if as_json:
        makers = {name: {"summary": one.summary, "options": _options(one.Options)} for name, one in made.makers.items()}
        _write({"spec": spec, "seats": seats, "options": _options(made.Options), "makers": makers})
        return 0
    console = make_console()
    page = sys.modules[type(made).__module__].__doc__ or ""
    console.print(Text(spec.id, style="bold"), Text(page.strip()), sep="\n\n")
    table = Table("promise", "value", title="Declared", title_justify="left")
    for name, value in _plain_fields(spec):
        table.add_row(name, value)
    console.print(table)
    for agent, seat in seats.items():
        actions = seat["action_space"] or {"type": "tools only"}
        names = ", ".join(tool["name"] for tool in seat["tools"]) or "none"
        console.print(
            Text(f"seat {agent}: sees {seat['observation_space']['type']}, acts by {actions['type']}; tools: {names}")
        )
    _option_table(spec.id, made.Options)
    for name, maker in made.makers.items():
        console.print(Text(f"arena tasks {spec.id} {name} --out DIR", style="bold"), Text(maker.summary))
        _option_table(name, maker.Options)
    return 0


def tasks(
    context: typer.Context,
    env: Annotated[str, typer.Argument(help="Environment id.")],
    maker: Annotated[str | None, typer.Argument(help="Make tasks by this way instead; `describe` names them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where a maker writes.")] = None,
    split: Annotated[str | None, typer.Option(help="One split; all where absent.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many to list of each split.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="How many to pass over first.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="An option, of the maker where one is named.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List an environment's tasks, or make some: then --NAME VALUE is an option of the maker, as --set NAME=VALUE."""
    if maker is not None and maker.startswith("-"):  # an unknown option, which was taken for a maker
        raise UsageError(
            f"no option {maker}; options of a maker follow its name: arena tasks ENV MAKER --out DIR --NAME VALUE"
        )
    if maker is not None:
        return make_tasks(env, maker, out, {**_given(set_), **_named(context.args)})
    if context.args:
        raise UsageError(f"{context.args[0]!r} is none of this command's options (arena tasks --help)")
    if out is not None:
        raise UsageError("--out is for makers: arena tasks ENV MAKER --out DIR")
    made = make_environment(env, set_)
    if split is not None and split not in made.spec.splits:
        raise UnknownIdError(f"{env} has no split {split!r}{did_you_mean(split, made.spec.splits)}")
    found: list[dict[str, Any]] = []
    for name in [split] if split else made.spec.splits:
        taskset = made.taskset(name)
        listed = list(islice(taskset, offset, offset + count))
        found.append({"split": name, "size": len(taskset), "tasks": listed})
    if as_json:
        _write(found)
        return 0
    console = make_console()
    for part in found:
        console.print(f"[bold]{part['split']}[/]: {part['size']:,} tasks")
        for task in part["tasks"]:
            console.print(Text(f"  {task.id}"))
    return 0


def validate(
    scenario: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped scenario or training.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key.")] = None,
) -> int:
    """Check a scenario without playing it, or a training without training; both where both have the name."""
    overrides = set_ or []
    if not is_training(scenario):
        return _validate_scenario(scenario, overrides)
    if scenario in scenario_names():
        if overrides:
            raise UsageError(f"{scenario} is a scenario and a training; --set needs one, so give the file of one")
        _validate_scenario(scenario, overrides)
    return _validate_training(scenario, overrides)


def _validate_scenario(scenario: str, overrides: list[str]) -> int:
    chosen = load_scenario(scenario, overrides).resolve()
    total = chosen.episodes * len(chosen.seeds) * len(chosen.agents)
    make_console().print(
        Text(f"{scenario} is valid: {total} episodes of {chosen.env.id} by {', '.join(chosen.agents)}")
    )
    return 0


def _validate_training(training: str, overrides: list[str]) -> int:
    chosen = load_training(training, overrides).resolve()
    make_console().print(
        Text(
            f"{training} is valid: {', '.join(chosen.learners)} learn {chosen.env.id} "
            f"for {chosen.steps:,} steps of each of {len(chosen.seeds)} seeds"
        )
    )
    return 0


# -- inside -----------------------------------------------------------------------------------------------------------


def make_environment(env: str, overrides: list[str] | None) -> Environment:
    """Return the environment with the options that ``--set`` gives."""
    return make(env, _given(overrides))


def _given(overrides: list[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for override in overrides or []:
        apply_override(options, override)
    return options


def _named(words: list[str]) -> dict[str, Any]:
    """Return the options that ``--NAME VALUE`` and ``--NAME=VALUE`` give; what is given twice is a list.

    Raises:
        UsageError: A word is neither a name nor the value of one.
    """
    found: dict[str, list[Any]] = {}
    left = list(words)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if not name.startswith("--") or len(name) < 3 or not (equals or left):
            raise UsageError(f"options of a maker are --NAME VALUE; {name!r} is none, or has no value")
        given: dict[str, Any] = {}
        apply_override(given, f"value={value if equals else left.pop(0)}")
        found.setdefault(name[2:].replace("-", "_"), []).append(given["value"])
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _seat(env: Environment, agent: str) -> dict[str, Any]:
    seat = env.seat(agent)
    return {
        "observation_space": describe_space(seat.observation_space),
        "action_space": None if seat.action_space is None else describe_space(seat.action_space),
        "tools": [_plain(tool) for tool in seat.tools],
        "instructions": seat.instructions,
    }


def _options(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _option_table(owner: str, model: type[pydantic.BaseModel]) -> None:
    if not model.model_fields:
        return
    table = Table("option", "default", "meaning", title=f"Options of {owner}", title_justify="left")
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        table.add_row(Text(name), Text(default), Text(field.description or ""))
    make_console().print(table)


def _needs(extra: str | None) -> str:
    if extra is None:
        return "–"
    return f"extra {extra}" if extra_works(extra) else f"extra {extra} (missing)"


def _list(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], data: Any) -> None:
    if data is not None:
        _write(data)
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(Text, row))
    make_console().print(table)


def _warn(broken: Mapping[str, str]) -> None:
    for module, why in broken.items():
        sys.stderr.write(f"arena: {module} cannot be imported: {why}\n")


def _plain(message: Any) -> Any:
    return json.loads(encode_json(message))


def _plain_fields(spec: Any) -> list[tuple[str, str]]:
    return [(name, str(getattr(spec, name))) for name in spec.__struct_fields__ if name not in ("id", "summary")]


def _write(data: Any) -> None:
    sys.stdout.write(encode_json(data).decode() + "\n")
