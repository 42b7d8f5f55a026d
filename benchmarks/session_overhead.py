"""What a session and the runner add to an environment's own cost, measured side by side in one run.

    python benchmarks/session_overhead.py [--rounds 21]

Two questions, each answered by playing the very same episodes bare and through Arena, in turn, several times:

* TextWorld: `textworld.start`, `reset` and `step` called directly with the same information requested, against the
  runner playing `text/textworld-v0`. The figure is the ratio of the times; the target is at most 1.10.
* `text/guess-v0`, whose own step is a comparison: a loop over `Environment.step`, against `Session.step`, against the
  runner with an agent. The figures are microseconds added per step; the target is at most 30 for session and runner.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arena
from arena import Agent, Limits, SeatStep, Session, Task, register_agent, stream
from arena.play import play_episode

TEXTWORLD = "text/textworld-v0"
GAMES, COMMANDS = 6, 60
INFOS = ("feedback", "objective", "won", "lost", "score", "max_score", "admissible_commands")


@register_agent("benchmark-script", summary="Reads its actions from a list; the cheapest agent there is.")
class Script(Agent):
    """Plays a fixed list of actions."""

    def __init__(self, actions: list[str]) -> None:
        super().__init__()
        self.actions = iter(actions)

    def act(self, step: SeatStep) -> str:
        """Return the next action."""
        return next(self.actions)


def textworld_scripts() -> list[tuple[Task, Path, list[str]]]:
    """Return games with the commands of one random player each."""
    from arena.envs.text._textworld_games import game_file

    env = arena.make("text/textworld-v0")
    scripts = []
    for index in range(GAMES):
        task = env.taskset("test").task(index)
        env.prepare(task)
        rng, commands = stream(index, "policy"), []
        step = env.reset(task, 0).seats["player"]
        while len(commands) < COMMANDS and not step.is_last:
            commands.append(str(rng.choice(step.legal_actions)))
            step = env.step({"player": commands[-1]}).seats["player"]
        scripts.append((task, game_file(env._game(task), task.split), commands))
    env.close()
    return scripts


def textworld_bare(scripts: list[tuple[Task, Path, list[str]]]) -> int:
    """Play the scripts on TextWorld itself and return the number of steps."""
    import textworld

    infos = textworld.EnvInfos(**dict.fromkeys(INFOS, True), extras=["walkthrough"])
    steps = 0
    for _, path, commands in scripts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            game = textworld.start(str(path), infos)
            game.reset()
        for command in commands:
            game.step(command)
            steps += 1
        game.close()
    return steps


def through_runner(env_id: str, options: dict[str, Any], scripts: list[tuple[Task, list[str]]], seed: int) -> int:
    """Play the scripts through session and runner and return the number of steps."""

    async def play() -> int:
        steps = 0
        for task, actions in scripts:
            session = Session(arena.make(env_id, options), task, seed, limits=Limits(steps=10_000))
            await play_episode(session, {"player": Script(actions)})
            steps += len(session.journal) - 1
            session.close()
        return steps

    return asyncio.run(play())


GUESS = {"max_guesses": 1000}


def guess_bare(task: Task, actions: list[str], seed: int, episodes: int) -> int:
    """Loop over `Environment.step` and return the number of steps."""
    steps = 0
    for _ in range(episodes):
        env = arena.make("text/guess-v0", GUESS)
        env.reset(task, seed)
        for action in actions:
            env.step({"player": action})
            steps += 1
    return steps


def guess_session(task: Task, actions: list[str], seed: int, episodes: int) -> int:
    """Loop over `Session.step` and return the number of steps."""
    steps = 0
    for _ in range(episodes):
        session = Session(arena.make("text/guess-v0", GUESS), task, seed, limits=Limits(steps=10_000))
        session.open()
        for index, action in enumerate(actions, 1):
            session.step(index, {"player": action})
            steps += 1
    return steps


def timed(call: Callable[[], int]) -> float:
    """Return the seconds of processor time per step of one call."""
    gc.collect()
    began = time.process_time()
    steps = call()
    return (time.process_time() - began) / steps


def spread(values: list[float]) -> str:
    """Return median, minimum and maximum."""
    return f"{statistics.median(values):.2f}  (min {min(values):.2f}, max {max(values):.2f})"


def main() -> None:
    """Run both comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds

    scripts = textworld_scripts()
    plain = [(task, commands) for task, _, commands in scripts]
    assert textworld_bare(scripts) == through_runner(TEXTWORLD, {}, plain, 0)
    bare_ms, arena_ms = [], []
    sides = [(bare_ms, lambda: textworld_bare(scripts)), (arena_ms, lambda: through_runner(TEXTWORLD, {}, plain, 0))]
    for number in range(rounds):
        for times, play in sides if number % 2 else reversed(sides):
            times.append(timed(play) * 1e3)
    ratios = [ours / bare for bare, ours in zip(bare_ms, arena_ms, strict=True)]
    print(f"TextWorld, {GAMES} games, {sum(len(c) for _, c in plain)} steps a round, {rounds} rounds, processor time")
    print(f"  bare, ms a step              {spread(bare_ms)}")
    print(f"  session + runner / bare      {spread(ratios)}   target: at most 1.10")
    print(f"  the same, fastest rounds     {min(arena_ms) / min(bare_ms):.2f}")

    task = arena.make("text/guess-v0").taskset("train").task(3)
    seed, wrong = 1, ["1", "2", "3", "4"] * 100  # the secret of seed 1 is none of these
    bare_us, session_us, runner_us = [], [], []
    for _ in range(rounds):
        bare = timed(lambda: guess_bare(task, wrong, seed, 20)) * 1e6
        bare_us.append(bare)
        session_us.append(timed(lambda: guess_session(task, wrong, seed, 20)) * 1e6 - bare)
        scripts_ = [(task, [*wrong, "40"])] * 20
        runner_us.append(timed(lambda s=scripts_: through_runner("text/guess-v0", GUESS, s, seed)) * 1e6 - bare)
    print(f"text/guess-v0, {20 * len(wrong)} steps a round, {rounds} rounds, processor time")
    print(f"  bare, us a step              {spread(bare_us)}")
    print(f"  session adds, us a step      {spread(session_us)}")
    print(f"  session + runner add, us     {spread(runner_us)}   target: at most 30")


if __name__ == "__main__":
    main()
