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
from typing import Any

import arena
from arena import Limits, Session, installed_version
from arena.envs._alfred.game import Play, load_game
from arena.envs._alfred.generator import game_file
from arena.envs._alfred.houses import GameSpec, furnish, game_of, problem_text
from arena.envs._alfred.planner import plan
from arena.envs._alfred.tables import tables
from arena.envs._alfred.upstream import UpstreamPlay

ENV = "text/alfworld-v0"
STEPS_TARGET, RESET_TARGET, MEMORY_TARGET_MB = 1000, 200, 1.0
WARM_PASSES = 20
EXPERT_STATES, UPSTREAM_ENVIRONMENTS = 5, 4
MEMORY_SESSIONS, MEMORY_STEPS = 256, 20

Told = tuple[str, tuple[str, ...], bool]
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


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds that a call takes."""
    began = clock()
    call()
    return clock() - began


def play_round(engine: Upstream | Fast, games: Iterable[tuple[Script, Path]], passes: int = 1) -> Times:
    """Load, reset and play every game; steps are those of the last pass over the commands.

    Args:
        engine: Which.
        games: Scripts, with the files to read.
        passes: How often the commands are given; 1 times the first visit of the states.
    """
    times = Times()
    for script, path in games:
        times.load += timed(lambda path=path: engine.load(path))
        first: list[Told] = []
        times.reset += timed(lambda first=first: first.append(engine.begin()))
        times.told += first
        for number in range(passes):
            if number:
                engine.begin()
            said: list[Told] = []
            took = timed(lambda said=said, script=script: said.extend(map(engine.act, script.commands)))
            if number == 0:
                times.told += said
            elif said != times.told[-len(said) :]:
                raise AssertionError(f"{script.path} is told differently when it is played again")
            times.steps += took if number or passes == 1 else 0.0
        times.count += len(script.commands) * max(1, passes - 1)
    return times


def compare_engines(played: list[Script], rounds: int, scratch: Path) -> None:
    """Time both engines in turn and print it."""
    upstream, fast = Upstream(), Fast()
    rows: dict[str, list[Times]] = {"upstream": [], "cold": [], "warm": []}
    for number in range(rounds):
        copies = [scratch / f"{number}-{index}.tw-pddl" for index in range(len(played))]
        for script, copy in zip(played, copies, strict=True):
            shutil.copyfile(script.path, copy)
        turns: list[tuple[str, Callable[[], Times]]] = [
            ("upstream", lambda: play_round(upstream, [(script, script.path) for script in played])),
            ("cold", lambda copies=copies: play_round(fast, zip(played, copies, strict=True))),
            ("warm", lambda: play_round(fast, [(script, script.path) for script in played], WARM_PASSES)),
        ]
        for name, turn in turns if number % 2 else reversed(turns):
            gc.collect()
            rows[name].append(turn())
        if not rows["upstream"][-1].told == rows["cold"][-1].told == rows["warm"][-1].told:
            raise AssertionError("the engines do not tell the same")
    per_step = {name: [one.steps / one.count * 1e6 for one in turns] for name, turns in rows.items()}
    print(
        f"\nEngines alone, {len(played)} games, {rows['cold'][0].count} steps a round, {rounds} rounds, processor time"
    )
    print(f"  ALFWorld, ms a step           {spread(value / 1e3 for value in per_step['upstream'])}")
    print(f"  fast, us a step, cold         {spread(per_step['cold'])}")
    print(f"  fast, us a step, warm         {spread(per_step['warm'])}")
    print(f"  steps/s, ALFWorld             {spread(1e6 / value for value in per_step['upstream'])}")
    print(f"  steps/s, fast, cold           {spread(1e6 / value for value in per_step['cold'])}")
    print(f"  steps/s, fast, warm           {spread(1e6 / value for value in per_step['warm'])}")
    print(f"  ratio of steps/s, cold        {ratio(per_step['upstream'], per_step['cold'])}   target: {STEPS_TARGET:,}")
    print(f"  ratio of steps/s, warm        {ratio(per_step['upstream'], per_step['warm'])}   target: {STEPS_TARGET:,}")
    for what, target in (("reset", f"   target: {RESET_TARGET}"), ("load", "")):
        theirs = [getattr(one, what) / len(played) * 1e3 for one in rows["upstream"]]
        ours = [getattr(one, what) / len(played) * 1e3 for one in rows["cold"]]
        print(f"  {what}, ALFWorld, ms a game    {spread(theirs)}")
        print(f"  {what}, fast, ms a game        {spread(ours)}")
        print(f"  ratio of {what}                {ratio(theirs, ours)}{target}")


# -- through environment and session ----------------------------------------------------------------------------------


def open_session(script: Script, engine: str) -> Session:
    """Return a new session of a script's game."""
    env = arena.make(ENV, {"engine": engine})
    task = env.taskset(script.spec.split).get(script.spec.id)
    return Session(env, task, 0, limits=Limits(steps=len(script.commands) + 1))


def play_sessions(played: list[Script], engine: str) -> Times:
    """Open a session of every game and play it, in elapsed time."""
    times = Times()
    for script in played:
        session = open_session(script, engine)
        times.reset += timed(session.open, time.perf_counter)
        for index, command in enumerate(script.commands, 1):
            times.steps += timed(
                lambda session=session, index=index, command=command: session.step(index, {"player": command}),
                time.perf_counter,
            )
        for record in session.journal:
            seat = record.time_step.seats["player"]
            times.told.append((str(seat.observation), tuple(seat.legal_actions or ()), seat.is_last))
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
    print(f"  engine upstream, ms a step    {spread(value / 1e3 for value in steps['upstream'])}")
    print(f"  engine fast, us a step        {spread(steps['fast'])}")
    print(f"  ratio of steps/s              {ratio(steps['upstream'], steps['fast'])}")
    print(f"  opening, upstream, ms         {spread(opened['upstream'])}")
    print(f"  opening, fast, ms             {spread(opened['fast'])}")
    print(f"  ratio of opening              {ratio(opened['upstream'], opened['fast'])}")


# -- forks and experts ------------------------------------------------------------------------------------------------


def compare_forks(played: list[Script], rounds: int) -> None:
    """Time going on from the middle of an episode in another environment, and print it."""
    took: dict[str, list[float]] = {"upstream": [], "fast": []}
    middle = min(len(script.commands) for script in played) // 2
    for number in range(rounds):
        script = played[number % len(played)]
        told = []
        for engine, times in took.items():
            session = open_session(script, engine)
            session.open()
            for index, command in enumerate(script.commands[:middle], 1):
                session.step(index, {"player": command})
            env = arena.make(ENV, {"engine": engine})
            forks: list[Session] = []
            times.append(
                timed(lambda session=session, env=env, forks=forks: forks.append(session.fork(env)), time.perf_counter)
            )
            record = forks[0].step(middle + 1, {"player": script.commands[middle]})
            told.append(record.time_step.seats["player"])
            forks[0].close()
            session.close()
        if told[0] != told[1]:
            raise AssertionError("the forks do not tell the same")
    print(f"\nForking a session after {middle} steps, {rounds} rounds, elapsed time")
    print(f"  replay on ALFWorld, ms        {spread(value * 1e3 for value in took['upstream'])}")
    print(f"  the fast engine's copy, ms    {spread(value * 1e3 for value in took['fast'])}")
    print(f"  ratio                         {ratio(took['upstream'], took['fast'])}")


def compare_experts(played: list[Script]) -> None:
    """Time what each expert says along the shortest way, and print it."""
    took: dict[str, list[float]] = {"shortest": [], "planner": [], "handcoded": []}
    lengths: dict[str, list[int]] = {"shortest": [], "planner": []}
    for script in played:
        play, upstream = Play(load_game(script.path)), {kind: UpstreamPlay(script.path) for kind in list(took)[1:]}
        play.begin()
        upstream["planner"].begin()
        upstream["handcoded"].begin()
        upstream["handcoded"].expert_plan("handcoded")
        lengths["planner"].append(len(upstream["planner"].expert_plan("planner")))
        lengths["shortest"].append(len(plan(play)))
        for command in plan(play)[:EXPERT_STATES]:
            took["shortest"].append(timed(lambda play=play: plan(play), time.perf_counter))
            took["planner"].append(
                timed(lambda upstream=upstream: upstream["planner"].expert_plan("planner"), time.perf_counter)
            )
            play.act(command)
            plain_s = timed(
                lambda command=command, upstream=upstream: upstream["planner"].act(command), time.perf_counter
            )
            watched_s = timed(
                lambda command=command, upstream=upstream: upstream["handcoded"].act(command), time.perf_counter
            )
            took["handcoded"].append(watched_s - plain_s)
        for engine in upstream.values():
            engine.close()
    print(f"\nExperts, {len(took['shortest'])} states of {len(played)} games, elapsed time for the next command")
    print(f"  shortest, ms                  {spread(value * 1e3 for value in took['shortest'])}")
    print(f"  ALFWorld's planner, ms        {spread(value * 1e3 for value in took['planner'])}")
    print(f"  ALFWorld's hand-coded, ms     {spread(value * 1e3 for value in took['handcoded'])}   adds to a step")
    print(f"  commands to the goal, shortest and planner: {sum(lengths['shortest'])} and {sum(lengths['planner'])}")


# -- memory -----------------------------------------------------------------------------------------------------------


def compare_memory() -> None:
    """Measure each kind of memory in a process of its own and print it."""
    print(f"\nMemory per extra session, {MEMORY_SESSIONS} sessions in a process, {MEMORY_STEPS} steps each, in turn")
    with tempfile.TemporaryDirectory() as folder:
        write_official(Path(folder))
        for name, games, traced in (
            ("one game", 1, False),
            (f"{MEMORY_SESSIONS} games", MEMORY_SESSIONS, False),
            ("one game, tracemalloc", 1, True),
            (f"{MEMORY_SESSIONS} games, tracemalloc", MEMORY_SESSIONS, True),
        ):
            found = json.loads(in_process("sessions", str(games), str(int(traced)), ALFWORLD_DATA=folder))
            print(f"  {name:<30}{found / 1e6:.3f} MB   target: below {MEMORY_TARGET_MB:g} MB")
        path = next(Path(folder).glob("json_2.1.1/*/*/*/game.tw-pddl"))
        found = json.loads(in_process("upstream", str(path)))
        print(f"  ALFWorld, one game, {UPSTREAM_ENVIRONMENTS} more     {found / 1e6:.3f} MB")


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
    """Return the bytes of each session beyond the first; stepped in turn, they must tell what they tell alone."""
    env = arena.make(ENV, {"games": "official"})
    tasks = [env.taskset("train").task(index % games) for index in range(MEMORY_SESSIONS)]
    alone = [told_digest(steps_of(task, number)) for number, task in enumerate(tasks)]
    first = steps_of(tasks[0], 0)
    next(first)
    gc.collect()
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else resident_bytes()
    others = [steps_of(task, number) for number, task in enumerate(tasks[1:], 1)]
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


def steps_of(task: arena.Task, seed: int) -> Iterator[Told]:
    """Yield what a session tells while it is stepped at random."""
    session = Session(arena.make(ENV, {"games": "official"}), task, 0, limits=Limits(steps=MEMORY_STEPS + 1))
    rng, seat = random.Random(seed), session.open().time_step.seats["player"]
    for index in range(1, MEMORY_STEPS + 2):
        legal = tuple(seat.legal_actions or ())
        yield str(seat.observation), legal, seat.is_last
        if not seat.is_last:
            seat = session.step(index, {"player": rng.choice(legal)}).time_step.seats["player"]


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


def spread(values: Iterable[float]) -> str:
    """Return median, minimum and maximum."""
    known = sorted(values)
    return f"{statistics.median(known):10.3f}  (min {known[0]:.3f}, max {known[-1]:.3f})"


def ratio(slow: list[float], quick: list[float]) -> str:
    """Return median, minimum and maximum of the ratios of the rounds."""
    known = sorted(one / other for one, other in zip(slow, quick, strict=True))
    return f"{statistics.median(known):10,.0f}  (min {known[0]:,.0f}, max {known[-1]:,.0f})"


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
