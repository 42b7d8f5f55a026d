"""ALFWorld's own engine and Arena's side by side: the same games, the same commands, one command.

    python -m benchmarks.alfworld [--games 6] [--steps 50] [--rounds 5]

Games are generated, of all six types in turn. Every step that is timed includes the admissible commands and whether the
game is won, and the transcripts of both sides must be equal, or the benchmark ends. What is measured:

* The engines alone, in processor time of this process: ALFWorld's `AlfredDemangler` around TextWorld's `PddlEnv`, asked
  for nothing but feedback, admissible commands and `won`, against `Play`. The fast engine remembers what is possible in
  states that it has met, so it is timed in games that were just read (cold) and in games played before (warm).
* Both engines through `text/alfworld-v0` and a session, in elapsed time, because there ALFWorld's runs in a process of
  its own.
* Going back to a state in the middle, and the experts.
* Memory: sessions of one game and of as many games, opened in a fresh process, stepped in turn, each of which must tell
  what it tells alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import arena
from arena import PLAYER, Limits, Session, installed_version
from arena.envs._alfred.game import Play, load_game
from arena.envs._alfred.generator import game_file
from arena.envs._alfred.houses import GameSpec, furnish, game_of, problem_text
from arena.envs._alfred.planner import plan
from arena.envs._alfred.tables import tables
from arena.envs._alfred.upstream import UpstreamPlay
from arena.trace import StepRecord

ENV = "text/alfworld-v0"
STEPS_TARGET, RESET_TARGET, MEMORY_TARGET_MB = 1000, 200, 1.0
WARM_PASSES = 20
EXPERT_STATES, UPSTREAM_ENVIRONMENTS = 5, 4
MEMORY_SESSIONS, MEMORY_STEPS = 256, 20

T = TypeVar("T")
Told: TypeAlias = tuple[str, tuple[str, ...], bool]
"""What an engine says: text, admissible commands, whether the game is won."""


class Upstream:
    """ALFWorld's engine in this process, as its own environment uses it."""

    def __init__(self) -> None:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs.pddl import PddlEnv

        wanted = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
        self._env: Any = AlfredDemangler(PddlEnv(wanted), shuffle=False)

    def load(self, path: Path) -> None:
        """Read a game."""
        self._env.load(str(path))

    def begin(self) -> Told:
        """Start the game."""
        return self._told(self._env.reset())

    def act(self, command: str) -> Told:
        """Give a command."""
        return self._told(self._env.step(command)[0])

    def _told(self, state: Any) -> Told:
        return state["feedback"], tuple(state["admissible_commands"]), state["won"]


class Fast:
    """Arena's engine."""

    def __init__(self) -> None:
        self._play: Play | None = None

    def load(self, path: Path) -> None:
        """Read a game."""
        self._play = Play(load_game(path))

    def begin(self) -> Told:
        """Start the game."""
        assert self._play is not None
        return self._play.begin(), self._play.commands(), self._play.won

    def act(self, command: str) -> Told:
        """Give a command."""
        assert self._play is not None
        return self._play.act(command), self._play.commands(), self._play.won


@dataclass
class Script:
    """A game and commands for it, which do not win."""

    spec: GameSpec
    path: Path
    commands: list[str]


@dataclass
class Times:
    """Seconds of one round, summed over the games."""

    load: float = 0.0
    reset: float = 0.0
    steps: float = 0.0
    count: int = 0
    told: list[Told] = field(default_factory=list)


Turn: TypeAlias = tuple[str, Upstream | Fast, list[tuple[Script, Path]], int]
"""A row's name, its engine, its games with their files, and how often they are played again."""


# -- what is played ---------------------------------------------------------------------------------------------------


def scripts(games: int, steps: int) -> list[Script]:
    """Return games with the commands of one random player each, who mostly does what changes something."""
    made = []
    for index in range(games):
        spec = game_of("train", index)
        path = game_file(spec)
        attempts = (random_commands(path, steps, seed) for seed in range(100))
        made.append(Script(spec, path, next(commands for commands in attempts if commands)))
    return made


def random_commands(path: Path, steps: int, seed: int) -> list[str]:
    """Return so many commands, a tenth of them not admissible; none where they win, as a session ends then."""
    rng, play, commands = random.Random(seed), Play(load_game(path)), list[str]()
    play.begin()
    while len(commands) < steps:
        admissible = play.commands()
        rare = [one for one in admissible if not one.startswith(("go", "help", "look", "inventory"))]
        command = rng.choice(rare if rare and rng.random() < 0.6 else admissible)
        commands.append(command if rng.random() < 0.9 else f"{command} now")
        play.act(commands[-1])
        if play.won:
            return []
    return commands


# -- the engines alone ------------------------------------------------------------------------------------------------


def timed(call: Callable[..., T], *arguments: Any, clock: Callable[[], float] = time.process_time) -> tuple[float, T]:
    """Return the seconds that a call takes, and what it returns."""
    began = clock()
    result = call(*arguments)
    return clock() - began, result


def elapsed(call: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Return the seconds that pass during a call, whoever uses them, and what it returns."""
    return timed(call, *arguments, clock=time.perf_counter)


def play_round(engine: Upstream | Fast, games: Iterable[tuple[Script, Path]], *, warm_passes: int = 0) -> Times:
    """Load, begin and play every game.

    Args:
        engine: Which.
        games: Scripts, with the files to read.
        warm_passes: How often the game is then played again; if it is, only these steps are timed.
    """
    times = Times()
    for script, path in games:
        load_s, _ = timed(engine.load, path)
        reset_s, first = timed(engine.begin)
        steps_s, told = timed(all_told, engine, script.commands)
        times.told += [first, *told]
        for _ in range(warm_passes):
            if engine.begin() != first:
                raise AssertionError(f"{script.path} begins differently when it is played again")
            again_s, again = timed(all_told, engine, script.commands)
            if again != told:
                raise AssertionError(f"{script.path} is told differently when it is played again")
            times.steps += again_s
        times.load += load_s
        times.reset += reset_s
        times.steps += 0.0 if warm_passes else steps_s
        times.count += len(script.commands) * (warm_passes or 1)
    return times


def all_told(engine: Upstream | Fast, commands: list[str]) -> list[Told]:
    """Give the commands and return what is said."""
    return [engine.act(command) for command in commands]


def compare_engines(played: list[Script], rounds: int, scratch: Path) -> None:
    """Time both engines in turn and print it."""
    upstream, fast = Upstream(), Fast()
    rows: dict[str, list[Times]] = {"upstream": [], "cold": [], "warm": []}
    known = [(script, script.path) for script in played]
    for number in range(rounds):
        new = [(script, scratch / f"{number}-{index}.tw-pddl") for index, script in enumerate(played)]
        for script, copy in new:
            shutil.copyfile(script.path, copy)
        turns: list[Turn] = [
            ("upstream", upstream, known, 0),
            ("cold", fast, new, 0),
            ("warm", fast, known, WARM_PASSES),
        ]
        for name, engine, games, passes in turns if number % 2 else reversed(turns):
            gc.collect()
            rows[name].append(play_round(engine, games, warm_passes=passes))
        if not rows["upstream"][-1].told == rows["cold"][-1].told == rows["warm"][-1].told:
            raise AssertionError("the engines do not tell the same")
    steps = {name: [one.steps / one.count * 1e6 for one in turns] for name, turns in rows.items()}
    count = rows["cold"][0].count
    print(f"\nEngines alone, {len(played)} games, {count} steps a round, {rounds} rounds, processor time")
    print_row("a step, ALFWorld, us", steps["upstream"])
    print_row("a step, fast, cold, us", steps["cold"])
    print_row("a step, fast, warm, us", steps["warm"])
    for name, values in steps.items():
        print_row(f"steps/s, {name}", [1e6 / value for value in values])
    print_ratio("steps/s, cold", steps["upstream"], steps["cold"], STEPS_TARGET)
    print_ratio("steps/s, warm", steps["upstream"], steps["warm"], STEPS_TARGET)
    for what, target in (("reset", RESET_TARGET), ("load", None)):
        theirs = [getattr(one, what) / len(played) * 1e3 for one in rows["upstream"]]
        ours = [getattr(one, what) / len(played) * 1e3 for one in rows["cold"]]
        print_row(f"{what}, ALFWorld, ms", theirs)
        print_row(f"{what}, fast, ms", ours)
        print_ratio(what, theirs, ours, target)


# -- through environment and session ----------------------------------------------------------------------------------


def new_session(script: Script, engine: str) -> Session:
    """Return a new session of a script's game."""
    env = arena.make(ENV, {"engine": engine})
    task = env.taskset(script.spec.split).get(script.spec.id)
    return Session(env, task, 0, limits=Limits(steps=len(script.commands) + 1))


def told_by(record: StepRecord) -> Told:
    """Return what a session's step says."""
    seat = record.time_step.seats[PLAYER]
    return str(seat.observation), tuple(map(str, seat.legal_actions or ())), seat.is_last


def play_sessions(played: list[Script], engine: str) -> Times:
    """Open a session of every game and play it, in elapsed time."""
    times = Times()
    for script in played:
        session = new_session(script, engine)
        took_s, _ = elapsed(session.open)
        times.reset += took_s
        for index, command in enumerate(script.commands, 1):
            took_s, _ = elapsed(session.step, index, {PLAYER: command})
            times.steps += took_s
        times.told += map(told_by, session.journal)
        times.count += len(script.commands)
        session.close()
    return times


def compare_sessions(played: list[Script], rounds: int) -> None:
    """Time sessions of both engines in turn and print it."""
    rows: dict[str, list[Times]] = {"upstream": [], "fast": []}
    for number in range(rounds):
        for name in list(rows) if number % 2 else reversed(list(rows)):
            gc.collect()
            rows[name].append(play_sessions(played, name))
        if rows["upstream"][-1].told != rows["fast"][-1].told:
            raise AssertionError("the environment does not tell the same with both engines")
    steps = {name: [one.steps / one.count * 1e6 for one in turns] for name, turns in rows.items()}
    opened = {name: [one.reset / len(played) * 1e3 for one in turns] for name, turns in rows.items()}
    print(f"\nThrough {ENV} and a session, the same commands, {rounds} rounds, elapsed time")
    print_row("a step, engine upstream, us", steps["upstream"])
    print_row("a step, engine fast, us", steps["fast"])
    print_ratio("steps/s", steps["upstream"], steps["fast"])
    print_row("opening, engine upstream, ms", opened["upstream"])
    print_row("opening, engine fast, ms", opened["fast"])
    print_ratio("opening", opened["upstream"], opened["fast"])


# -- forks and experts ------------------------------------------------------------------------------------------------


def compare_forks(played: list[Script], rounds: int) -> None:
    """Time going on from the middle of an episode in another environment, and print it."""
    took: dict[str, list[float]] = {"upstream": [], "fast": []}
    middle = min(len(script.commands) for script in played) // 2
    for number in range(rounds):
        script = played[number % len(played)]
        told = []
        for engine, times in took.items():
            session = new_session(script, engine)
            session.open()
            for index, command in enumerate(script.commands[:middle], 1):
                session.step(index, {PLAYER: command})
            took_s, fork = elapsed(session.fork, arena.make(ENV, {"engine": engine}))
            times.append(took_s * 1e3)
            told.append(told_by(fork.step(middle + 1, {PLAYER: script.commands[middle]})))
            fork.close()
            session.close()
        if told[0] != told[1]:
            raise AssertionError("the forks do not tell the same")
    print(f"\nForking a session after {middle} steps, {rounds} rounds, elapsed time")
    print_row("replay on ALFWorld, ms", took["upstream"])
    print_row("the fast engine's copy, ms", took["fast"])
    print_ratio("forks", took["upstream"], took["fast"])


def compare_experts(played: list[Script]) -> None:
    """Time a step along the shortest way, and an expert's word on the next one, and print it."""
    took: dict[str, list[float]] = {"fast": [], "shortest": [], "upstream": [], "planner": [], "handcoded": []}
    lengths = {"shortest": 0, "planner": 0}
    for script in played:
        play, planner, handcoded = Play(load_game(script.path)), UpstreamPlay(script.path), UpstreamPlay(script.path)
        play.begin()
        planner.begin()
        handcoded.begin()
        handcoded.expert_plan("handcoded")
        commands = plan(play)
        lengths["shortest"] += len(commands)
        lengths["planner"] += len(planner.expert_plan("planner"))
        for command in commands[:EXPERT_STATES]:
            took["shortest"].append(elapsed(plan, play)[0])
            took["planner"].append(elapsed(planner.expert_plan, "planner")[0])
            took["fast"].append(elapsed(play.act, command)[0] + elapsed(play.commands)[0])
            took["upstream"].append(elapsed(planner.act, command)[0])
            took["handcoded"].append(elapsed(handcoded.act, command)[0])
        planner.close()
        handcoded.close()
    took["planner"] = [step_s + word_s for step_s, word_s in zip(took["upstream"], took["planner"], strict=True)]
    took["shortest"] = [step_s + word_s for step_s, word_s in zip(took["fast"], took["shortest"], strict=True)]
    names = ("fast", "fast, with Arena's plan", "ALFWorld", "with its planner", "with its hand-coded expert")
    print(f"\nA step along the shortest way, {len(took['fast'])} steps of {len(played)} games, elapsed time")
    for name, values in zip(names, took.values(), strict=True):
        print_row(f"{name}, ms", [value * 1e3 for value in values])
    print(f"  commands to the goal: {lengths['shortest']} by Arena's plans, {lengths['planner']} by ALFWorld's planner")


# -- memory -----------------------------------------------------------------------------------------------------------


def compare_memory() -> None:
    """Measure each kind of memory in a process of its own and print it."""
    print(f"\nMemory per extra session, {MEMORY_SESSIONS} sessions in a process, {MEMORY_STEPS} steps each, in turn")
    with tempfile.TemporaryDirectory() as folder:
        write_official(Path(folder))
        for name, games, traced in (
            ("one game, resident", 1, False),
            (f"{MEMORY_SESSIONS} games, resident", MEMORY_SESSIONS, False),
            ("one game, traced", 1, True),
            (f"{MEMORY_SESSIONS} games, traced", MEMORY_SESSIONS, True),
        ):
            size = float(in_process("sessions", str(games), str(int(traced)), ALFWORLD_DATA=folder))
            print(f"  {name + ', MB':<32}{size / 1e6:>10.3f}   target: below {MEMORY_TARGET_MB:g}")
        path = next(Path(folder).glob("json_2.1.1/*/*/*/game.tw-pddl"))
        size = float(in_process("upstream", str(path)))
        print(f"  {'ALFWorld, an environment, MB':<32}{size / 1e6:>10.3f}")


def write_official(folder: Path) -> None:
    """Write games in the official layout without letting ALFWorld's planner check them, which takes minutes."""
    for index in range(MEMORY_SESSIONS):
        spec = game_of("train", index)
        path = folder / spec.folder / "game.tw-pddl"
        path.parent.mkdir(parents=True)
        text = tables().grammar.replace("UNKNOWN GOAL", spec.family)
        problem = problem_text(spec, furnish(spec))
        game = {"pddl_domain": tables().domain, "grammar": text, "pddl_problem": problem, "solvable": True}
        path.write_text(json.dumps(game))
        path.with_name("traj_data.json").write_text(json.dumps({"task_type": spec.task_type}))


def in_process(*arguments: str, **environment: str) -> str:
    """Return what this module prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.alfworld", "--memory", *arguments]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def session_memory(games: int, traced: bool) -> float:
    """Return the bytes of each session beyond the first.

    They are stepped in turn, and each must tell what it tells alone.
    """
    env = arena.make(ENV, {"games": "official"})
    tasks = [env.taskset("train").task(index % games) for index in range(MEMORY_SESSIONS)]
    alone = [told_digest(told_at_random(task, number)) for number, task in enumerate(tasks)]
    first = told_at_random(tasks[0], 0)
    next(first)
    gc.collect()
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else resident_bytes()
    others = [told_at_random(task, number) for number, task in enumerate(tasks[1:], 1)]
    told: list[list[Told]] = [[] for _ in others]
    for _ in range(MEMORY_STEPS + 1):
        for one, steps in zip(told, others, strict=True):
            one.append(next(steps))
    digests = list(map(told_digest, told))
    del told
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if traced else resident_bytes()
    if digests != alone[1:]:
        raise AssertionError("sessions that take turns do not tell what they tell alone")
    return (after - before) / len(others)


def told_at_random(task: arena.Task, seed: int) -> Iterator[Told]:
    """Yield what a session tells while it is stepped at random; once it is over, its last words again."""
    session = Session(arena.make(ENV, {"games": "official"}), task, 0, limits=Limits(steps=MEMORY_STEPS + 1))
    rng, told = random.Random(seed), told_by(session.open())
    for index in range(1, MEMORY_STEPS + 2):
        yield told
        _, commands, is_over = told
        if not is_over:
            told = told_by(session.step(index, {PLAYER: rng.choice(commands)}))


def told_digest(told: Iterable[Told]) -> int:
    """Return a number for a transcript."""
    return hash(tuple(told))


def upstream_memory(path: Path) -> float:
    """Return the bytes of each environment of ALFWorld's beyond the first, with a game that was just begun."""
    kept = [Upstream() for _ in range(UPSTREAM_ENVIRONMENTS + 1)]
    kept[0].load(path)
    kept[0].begin()
    gc.collect()
    before = resident_bytes()
    for one in kept[1:]:
        one.load(path)
        one.begin()
    gc.collect()
    return (resident_bytes() - before) / UPSTREAM_ENVIRONMENTS


def resident_bytes() -> int:
    """Return the memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- what is printed --------------------------------------------------------------------------------------------------


def print_row(name: str, values: Iterable[float]) -> None:
    """Print median, minimum and maximum."""
    print(f"  {name:<32}{spread(values)}")


def print_ratio(name: str, slow: list[float], quick: list[float], target: int | None = None) -> None:
    """Print median, minimum and maximum of the ratios of the rounds."""
    ratios = [one / other for one, other in zip(slow, quick, strict=True)]
    wanted = f"   target: {target:,}" if target else ""
    print(f"  {'ratio of ' + name:<32}{spread(ratios)}{wanted}")


def spread(values: Iterable[float]) -> str:
    """Return median, minimum and maximum, each with as many digits as say something."""
    known = sorted(values)
    numbers = (statistics.median(known), known[0], known[-1])
    middle, least, most = (f"{number:,.{3 if number < 10 else 1 if number < 100 else 0}f}" for number in numbers)
    return f"{middle:>10}  (min {least}, max {most})"


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # ALFWorld's packages warn of their own code
    if given.memory:
        kind, *rest = given.memory
        print(
            session_memory(int(rest[0]), bool(int(rest[1]))) if kind == "sessions" else upstream_memory(Path(rest[0]))
        )
        return
    versions = ", ".join(f"{name} {installed_version(name)}" for name in ("arena-rl", "alfworld", "textworld"))
    print(f"{versions}; Python {platform.python_version()}, {os.cpu_count()} cores")
    played = scripts(given.games, given.steps)
    with tempfile.TemporaryDirectory() as scratch:
        compare_engines(played, given.rounds, Path(scratch))
    compare_sessions(played, given.rounds)
    compare_forks(played, given.rounds)
    compare_experts(played)
    compare_memory()


if __name__ == "__main__":
    main()
