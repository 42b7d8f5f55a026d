"""``arena play``, ``arena show`` and ``arena replay``: one episode at a time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from arena.cli.output import make_console, require_writable
from arena.cli.show import transcript
from arena.errors import ArenaError, ConfigError, UsageError
from arena.extras import versions
from arena.registry import environments
from arena.replay import Difference, replay
from arena.runner import Progress, plan, run
from arena.scenario import Scenario, apply_override, validate_scenario
from arena.trace import Episode, append_episode, cut_torn_episode, read_episodes
from arena.types import encode_json

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("play")(play)
    app.command("show")(show)
    app.command("replay")(replay_)


def play(
    env: Annotated[str, typer.Argument(help="Environment id.")],
    agent: Annotated[str, typer.Option(help="Who plays the first seat, or every seat given with --seat.")] = "human",
    seat: Annotated[list[str] | None, typer.Option(metavar="SEAT=AGENT", help="Who plays another seat.")] = None,
    task: Annotated[str | None, typer.Option(help="Task id; drawn with the seed where absent.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the tasks.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Root seed.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="A scenario's key.")] = None,
    out: Annotated[Path | None, typer.Option(help="Append the trace to this file.")] = None,
) -> int:
    """Play one episode, by default yourself; seats without an agent are played at random."""
    scenario = _one_episode(env, agent, seat or [], task, split, seed, set_ or []).resolve()
    if out is not None:
        if out.is_dir():
            raise UsageError(f"{out} is a folder; --out names a trace file")
        require_writable(out)
        cut_torn_episode(out)
        out.parent.mkdir(parents=True, exist_ok=True)
    episodes: list[Episode] = []
    work = run(
        scenario,
        plan(scenario),
        lambda planned, episode: episodes.append(episode),
        progress=Progress(),
        versions=versions(environments.get(env).spec.extra),
    )
    asyncio.run(work)
    (episode,) = episodes
    if out is not None:
        _append(out, episode)
    console = make_console()
    if agent != "human":
        console.print(transcript(episode))
    end = episode.end
    if end is not None and end.error is not None:
        raise ArenaError.from_record(end.error)
    if agent == "human" and end is not None and end.score is not None:
        console.print(Text(f"{end.outcome} after {end.steps} steps, score {end.score.value:g}", style="bold"))
    return 0


def _one_episode(
    env: str, agent: str, seats: list[str], task: str | None, split: str | None, seed: int, overrides: list[str]
) -> Scenario:
    """Return the scenario of one episode."""
    spec = environments.get(env).spec
    data: dict[str, Any] = {
        "name": "play",
        "env": {"id": env},
        "agents": {},
        "tasks": {"split": split or spec.splits[-1], "ids": [task] if task else []},
    }
    for override in overrides:
        apply_override(data, override)
    agents = data["agents"] if isinstance(data["agents"], dict) else {"": data["agents"]}
    given = agents.get(agent, {})
    if not isinstance(given, dict) or {*agents} - {agent} or {*given} - {"options"}:
        raise UsageError(f"here --set agents takes only agents.{agent}.options.NAME=VALUE")
    data |= {"episodes": 1, "seeds": [seed], "retries": 0}
    possible = validate_scenario({**data, "agents": {"nobody": agent}}, "play").make_env().possible_agents
    sitting = {**dict.fromkeys(possible, "random"), possible[0]: agent}
    for pair in seats:
        name, equals, id = pair.partition("=")
        if not equals or name not in possible:
            raise UsageError(f"--seat takes SEAT=AGENT with a seat of {', '.join(possible)}, not {pair!r}")
        sitting[name] = id
    options = given.get("options", {})
    data["agents"] = {
        "play": {"seats": {s: {"id": id, "options": options if id == agent else {}} for s, id in sitting.items()}}
    }
    return validate_scenario(data, "play")


def _append(path: Path, episode: Episode) -> None:
    try:
        append_episode(path, episode)
    except OSError as error:
        raise ConfigError(f"cannot write the trace {path}: {error.strerror or error}") from error


def show(
    trace: Annotated[Path, typer.Argument(help="A trace file, or the folder of a run.")],
    episode: Annotated[str | None, typer.Option(help="The episode's id, or its number in the file from 1.")] = None,
) -> int:
    """Print episodes as transcripts: the first one, or the one that --episode names."""
    known = []
    for number, found in enumerate(read_episodes(_trace_file(trace)), 1):
        name = found.record.episode
        if episode in (None, str(number), name):
            make_console().print(transcript(found))
            return 0
        known.append(name)
    raise UsageError(f"{trace} holds no episode {episode!r}; it holds {len(known)}: {', '.join(known[:10])} …")


def replay_(
    trace: Annotated[Path, typer.Argument(help="A trace file, or the folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Play recorded episodes again and compare; exit code 1 where one differs."""
    path = _trace_file(trace)
    console = make_console(stderr=as_json)
    differences: dict[str, Difference] = {}
    count = 0
    for episode in read_episodes(path):
        count += 1
        difference = replay(episode)
        if difference is not None:
            differences[episode.record.episode] = difference
            console.print(Text(f"{path}: episode {episode.record.episode}: {difference}", style="red"), soft_wrap=True)
    if as_json:
        report = {"episodes": count, "equal": count - len(differences), "differences": differences}
        sys.stdout.write(encode_json(report).decode() + "\n")
    else:
        console.print(f"{count - len(differences)} of {count} episodes replayed equal")
    return 1 if differences else 0


def _trace_file(path: Path) -> Path:
    return path / "traces.jsonl" if path.is_dir() else path
