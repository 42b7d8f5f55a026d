"""What training costs, and what comes of it, beside BenchMARL on the same game; and how fast the games are.

    python -m benchmarks.marl [--seeds 3] [--steps 60000] [--cycles 25] [--rounds 5]

The first run makes `.venv-peers/benchmarl`. Everything is in processor time, user and system, with one thread. Printed:

* MAPPO on `mpe2.simple_spread_v3` with Arena, on arrays as it is by default and with the library's own environments,
  and with the unmodified `benchmarl` package: with Arena's settings, and with those that it comes with. All train from
  the same seeds for the same number of steps, and take turns of a fifth of them. Building, and evaluating at the end,
  are off the clock. The return is that of 100 greedy episodes, the mean over the agents. Before that, both sides' games
  must show the same to the same actions, to the last bit.
* `marl/coordination-v0` with three agents and one seed, beside what the paper's own code took (marl.md 4.4).
* The games themselves: one by one, batched, and through the adapter beside the library's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import arena
from arena import TrainingJob, installed_version, make_vector
from arena.agents.marl.actor_critic import ActorCritic, ActorCriticOptions, Method
from arena.batching import EpisodeByEpisode
from benchmarks.alfworld import spread
from benchmarks.peer import prepare

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".venv-peers" / "benchmarl"
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements-benchmarl.txt"
SCRIPT = ROOT / "benchmarks" / "peers" / "benchmarl_mappo.py"

SPREAD = "mpe2.simple_spread_v3"
SPEED_TARGET, GAME_TARGET, ADAPTER_TARGET = 4.0, 10_000, 0.8
TURNS, EPISODES, WIDTH = 5, 100, 60
UNIT = 12_000
"""Steps of a turn are a multiple of this, which is a multiple of every side's steps between two updates."""
RANDOM_RETURN = -27.1
"""Of an episode of 25 cycles, the mean over the agents, with random actions (marl.md 3.2)."""
REFERENCE: dict[Method, int] = {"mappo": 413, "autoregressive": 413, "annealed": 253}
"""Environment steps a second of processor time of the paper's code, with graphs that are fixed or learned."""

PEER_ENVIRON = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RL_LOGGING_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": "",
    "SDL_VIDEODRIVER": "dummy",
}

OPTIONS = ActorCriticOptions(
    method="mappo",
    episodes=32,
    rollout=25,
    epochs=10,
    minibatches=4,
    gamma=0.95,
    entropy=(0.01, 0.01),
    evaluate_every=1_000_000_000,
    evaluation_episodes=EPISODES,
)
"""Arena's on simple_spread. It is evaluated once, in the last update."""
BATCH = OPTIONS.episodes * OPTIONS.rollout

SAME_SETTINGS: Mapping[str, Any] = {
    "distinct": True,
    "experiment": {
        "lr": OPTIONS.learning_rate,
        "adam_eps": 1e-5,
        "gamma": OPTIONS.gamma,
        "clip_grad_val": OPTIONS.max_grad_norm,
        "on_policy_collected_frames_per_batch": BATCH,
        "on_policy_n_envs_per_worker": OPTIONS.episodes,
        "on_policy_n_minibatch_iters": OPTIONS.epochs,
        "on_policy_minibatch_size": BATCH // OPTIONS.minibatches,
    },
    "algorithm": {
        "clip_epsilon": OPTIONS.clip,
        "entropy_coef": OPTIONS.entropy[0],
        "lmbda": OPTIONS.gae_lambda,
    },
    "model": {"num_cells": [OPTIONS.hidden, OPTIONS.hidden]},
}
"""Arena's, as far as BenchMARL has them, and a seed of its own for each of its environments."""
OWN_SETTINGS: Mapping[str, Any] = {"distinct": False, "experiment": {}, "algorithm": {}, "model": {}}
"""Its defaults: 6,000 steps and 45 passes of 15 minibatches an update, learning rate 5e-5, two layers of 256 units."""

# -- the sides --------------------------------------------------------------------------------------------------------


class Side(Protocol):
    """A training that takes turns with others."""

    def turn(self) -> tuple[int, float]:
        """Train on; return how many steps were timed, and the seconds of processor time they took."""
        ...

    def returns(self) -> float:
        """Return the mean return of the greedy episodes, once all turns are over."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class ArenaSide:
    """Arena's MAPPO in this process.

    Args:
        seed: Of everything.
        steps: Environment steps in all.
        cycles: Steps of an episode.
        on_arrays: Step all episodes together, and not one by one by the library.
    """

    def __init__(self, seed: int, steps: int, cycles: int, *, on_arrays: bool = True) -> None:
        arguments: dict[str, Any] = {"N": 3, "local_ratio": 0.5, "max_cycles": cycles}
        if not on_arrays:
            arguments["dynamic_rescaling"] = True  # the default, about pictures; only the library knows it
        env = {"module": SPREAD, "arguments": arguments}
        vector = make_vector("marl/pettingzoo-v0", env, seeds=(0,), per_seed=1)
        if isinstance(vector, EpisodeByEpisode) == on_arrays:
            raise AssertionError(f"episodes are those of {type(vector).__name__}")
        vector.close()
        self._trainer = ActorCritic(TrainingJob("marl/pettingzoo-v0", env, (seed,), steps), OPTIONS)
        self._trainer.begin()
        self._updates = self._trainer.updates // TURNS
        self._rows: Sequence[Mapping[str, float]] = ()

    def turn(self) -> tuple[int, float]:
        """Train on; the very last update is not timed, because it ends with the evaluation."""
        timed = min(self._updates, self._trainer.updates - self._trainer.done - 1)
        gc.collect()
        began_s = time.process_time()
        for _ in range(timed):
            self._trainer.update()
        took_s = time.process_time() - began_s
        if self._trainer.done + 1 == self._trainer.updates:
            self._rows = self._trainer.update()
        return timed * BATCH, took_s

    def returns(self) -> float:
        """Return the mean return of the greedy episodes."""
        return float(self._rows[0]["eval_return"])

    def close(self) -> None:
        """Close the environments."""
        self._trainer.close()


class PeerSide:
    """BenchMARL's MAPPO in a process of its own; see `peers/benchmarl_mappo.py`.

    Args:
        seed: Of everything.
        steps: Environment steps in all.
        cycles: Steps of an episode.
        settings: What differs from the package's defaults.
    """

    def __init__(self, seed: int, steps: int, cycles: int, settings: Mapping[str, Any]) -> None:
        self._turn, self._done = steps // TURNS, 0
        asked = {"seed": seed, "steps": steps, "cycles": cycles, "turn": self._turn, "episodes": EPISODES, **settings}
        self._process = subprocess.Popen(
            [str(PEER / "bin" / "python"), str(SCRIPT), json.dumps(asked)],
            env=os.environ | PEER_ENVIRON,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"BenchMARL ended with status {self._process.wait()}; run {SCRIPT.name} by hand to see why"
            )
        return dict(json.loads(line))

    def _go_on(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def turn(self) -> tuple[int, float]:
        """Train on."""
        told = self._go_on()
        self._done += self._turn
        if told["steps"] != self._done:
            raise AssertionError(f"BenchMARL stands at {told['steps']} steps, not at {self._done}")
        return self._turn, float(told["cpu_s"])

    def returns(self) -> float:
        """Return the mean return of the greedy episodes."""
        return statistics.fmean(self._go_on()["returns"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


# -- training beside BenchMARL ----------------------------------------------------------------------------------------


@dataclass
class Row:
    """What one way to train measured.

    Attributes:
        name: As it is printed.
        begin: Makes its side for a seed.
        rates: Steps a second of processor time, one a turn.
        returns: One a seed.
    """

    name: str
    begin: Callable[[int], Side]
    rates: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


def compare_training(seeds: int, steps: int, cycles: int) -> None:
    """Train all sides in turn and print it."""
    check_games(cycles)
    rows = [
        Row("Arena", lambda seed: ArenaSide(seed, steps, cycles)),
        Row("Arena, the library's episodes", lambda seed: ArenaSide(seed, steps, cycles, on_arrays=False)),
        Row("BenchMARL, the same settings", lambda seed: PeerSide(seed, steps, cycles, SAME_SETTINGS)),
        Row("BenchMARL, its own settings", lambda seed: PeerSide(seed, steps, cycles, OWN_SETTINGS)),
    ]
    for seed in range(seeds):
        train(rows, seed)
    by_default, by_library, *peers = rows
    print(f"\nMAPPO, {SPREAD}, {cycles} cycles, {steps:,} steps, seeds 0 to {seeds - 1}, {TURNS} turns each")
    for row in rows:
        print_rates(f"steps/s, {row.name}", row.rates)
    for ours in (by_default, by_library):
        for row in peers:
            ratios = [one / other for one, other in zip(ours.rates, row.rates, strict=True)]
            print_rates(f"{ours.name} / {row.name}", ratios, f"target: {SPEED_TARGET:g}")
    for row in rows:
        print(f"  {'return, ' + row.name:<{WIDTH}}{mean_and_all(row.returns)}")
    if cycles == 25:
        print(f"  {'return, random actions':<{WIDTH}}{RANDOM_RETURN:>10}")


def train(rows: Sequence[Row], seed: int) -> None:
    """Train every side from one seed, in turns, and note what is measured."""
    sides: list[Side] = []
    try:
        for row in rows:
            sides.append(row.begin(seed))
        pairs = list(zip(rows, sides, strict=True))
        for number in range(TURNS):
            for row, side in pairs[number % len(pairs) :] + pairs[: number % len(pairs)]:
                timed, took_s = side.turn()
                row.rates.append(timed / took_s)
        for row, side in pairs:
            row.returns.append(side.returns())
    finally:
        for side in sides:
            side.close()


def check_games(cycles: int) -> None:
    """End the benchmark where the two sides' games differ in an episode of random actions."""
    actions = np.random.default_rng(0).integers(0, 5, (cycles, 3)).tolist()
    command = [str(PEER / "bin" / "python"), str(SCRIPT), json.dumps({"seed": 7, "actions": actions})]
    done = subprocess.run(command, env=os.environ | PEER_ENVIRON, stdout=subprocess.PIPE, text=True, check=True)
    if json.loads(done.stdout) != spread_trace(7, actions):
        raise AssertionError("the games of the two sides do not show the same")


def spread_trace(seed: int, actions: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return what an episode shows to given actions: observations, rewards, and whether it is over."""
    game = spread_game(len(actions))
    first, _ = game.reset(seed=seed)
    agents = list(game.agents)
    shown, rewards, over = [[first[agent].tolist() for agent in agents]], [], []
    for joint in actions:
        seen, received, _, truncated, _ = game.step(dict(zip(agents, joint, strict=True)))
        shown.append([seen[agent].tolist() for agent in agents])
        rewards.append([float(received[agent]) for agent in agents])
        over.append(all(truncated.values()))
    return {"observations": shown, "rewards": rewards, "over": over}


def spread_game(cycles: int) -> Any:
    """Return the library's own environment."""
    from mpe2 import simple_spread_v3

    return simple_spread_v3.parallel_env(N=3, local_ratio=0.5, max_cycles=cycles, continuous_actions=False)


# -- the coordination game --------------------------------------------------------------------------------------------


def compare_methods(rounds: int) -> None:
    """Time three methods on the coordination game in turn and print it."""
    rates: dict[Method, list[float]] = {method: [] for method in REFERENCE}
    for number in range(rounds):
        for method in list(rates) if number % 2 else reversed(list(rates)):
            rates[method].append(game_rate(method))
    print(f"\nmarl/coordination-v0, 3 agents, one seed, 32 episodes of 25 steps an update, {rounds} rounds")
    for method, values in rates.items():
        print_rates("steps/s, " + method, values, f"target: {GAME_TARGET:,}; reference: {REFERENCE[method]}")


def game_rate(method: Method, updates: int = 40) -> float:
    """Return the steps a second of processor time of a whole training of so many updates, all but the last."""
    job = TrainingJob("marl/coordination-v0", {"agents": 3}, (0,), updates * BATCH)
    options = ActorCriticOptions(method=method, evaluate_every=updates, evaluation_episodes=0)
    trainer = ActorCritic(job, options)
    trainer.begin()
    gc.collect()
    began_s = time.process_time()
    for _ in range(updates - 1):
        trainer.update()
    took_s = time.process_time() - began_s
    trainer.close()
    return (updates - 1) * BATCH / took_s


# -- the games --------------------------------------------------------------------------------------------------------


def compare_games(rounds: int) -> None:
    """Time the games one by one and batched, and the adapter beside what it adapts, and print it."""
    print(f"\nGames, {rounds} rounds, steps of all agents a second of processor time")
    for name, target, rate in (
        ("coordination, one by one", 25_000, lambda: scalar_rate("marl/coordination-v0", {"agents": 3}, 2, 5_000)),
        ("coordination, 512 at once", 1_500_000, lambda: batched_rate("marl/coordination-v0", {"agents": 3}, 2, 1_000)),
        ("aloha, 512 at once", 500_000, lambda: batched_rate("marl/aloha-v0", {}, 2, 300)),
        ("mpe2 spread, 512 at once", 0, lambda: batched_rate("marl/pettingzoo-v0", {"module": SPREAD}, 5, 200)),
    ):
        print_rates(name, [rate() for _ in range(rounds)], f"target: {target:,}" if target else "")
    for name, bare, adapter in (
        ("mpe2 spread", BareSpread(), Adapter(SPREAD, 5)),
        ("level-based foraging", BareForaging(), Adapter(f"lbforaging:{FORAGING}", 6)),
    ):
        compare_adapter(name, bare, adapter, rounds)


def scalar_rate(id: str, options: Mapping[str, Any], actions: int, steps: int) -> float:
    """Return the steps a second of one environment, with random actions, resets included."""
    env = arena.make(id, options)
    task = env.taskset(env.spec.splits[0]).task(0)
    env.prepare(task)
    joint = random_actions(env.possible_agents, actions, steps)
    began_s = time.process_time()
    env.reset(task, 0)
    for number, each in enumerate(joint):
        if env.step(each).is_last:
            env.reset(task, number)
    took_s = time.process_time() - began_s
    env.close()
    return steps / took_s


def batched_rate(id: str, options: Mapping[str, Any], actions: int, steps: int, episodes: int = 512) -> float:
    """Return the steps a second of episodes that step together, each counted, with random actions."""
    env = make_vector(id, options, seeds=(0,), per_seed=episodes)
    joint = np.random.default_rng(0).integers(0, actions, (steps, episodes, len(env.agents)))
    began_s = time.process_time()
    env.reset()
    for each in joint:
        env.step(each)
    took_s = time.process_time() - began_s
    env.close()
    return steps * episodes / took_s


def random_actions(agents: Sequence[str], actions: int, steps: int) -> list[dict[str, Any]]:
    """Return joint actions."""
    drawn = np.random.default_rng(0).integers(0, actions, (steps, len(agents))).tolist()
    return [dict(zip(agents, each, strict=True)) for each in drawn]


FORAGING = "Foraging-8x8-2p-3f-v3"


class Player(Protocol):
    """Something that plays one game over and over."""

    def play(self, joint: Iterable[Mapping[str, Any]]) -> float:
        """Step through joint actions, and return the seconds that took."""
        ...


class BareSpread:
    """The library's own environment, as its users step it."""

    def __init__(self) -> None:
        self._env = spread_game(25)

    def play(self, joint: Iterable[Mapping[str, Any]]) -> float:
        """Step through them."""
        env, number = self._env, 0
        began_s = time.process_time()
        env.reset(seed=0)
        for each in joint:
            env.step(each)
            if not env.agents:
                number += 1
                env.reset(seed=number)
        return time.process_time() - began_s


class BareForaging:
    """The library's own environment, without the wrappers that Gymnasium puts around it."""

    def __init__(self) -> None:
        import gymnasium
        import lbforaging

        assert lbforaging is not None
        self._env: Any = gymnasium.make(FORAGING, disable_env_checker=True).unwrapped

    def play(self, joint: Iterable[Mapping[str, Any]]) -> float:
        """Step through them."""
        env, number = self._env, 0
        began_s = time.process_time()
        env.reset(seed=0)
        for each in joint:
            _, _, terminated, truncated, _ = env.step(list(each.values()))
            if terminated or truncated:
                number += 1
                env.reset(seed=number)
        return time.process_time() - began_s


class Adapter:
    """`marl/pettingzoo-v0`.

    Args:
        module: What it adapts.
        actions: Of each agent.
    """

    def __init__(self, module: str, actions: int) -> None:
        self._env = arena.make("marl/pettingzoo-v0", {"module": module})
        self._task = self._env.taskset("train").task(0)
        self._env.prepare(self._task)
        self.agents, self.actions = self._env.possible_agents, actions

    def play(self, joint: Iterable[Mapping[str, Any]]) -> float:
        """Step through them."""
        env, task, number = self._env, self._task, 0
        began_s = time.process_time()
        env.reset(task, 0)
        for each in joint:
            if env.step(each).is_last:
                number += 1
                env.reset(task, number)
        return time.process_time() - began_s


def compare_adapter(
    name: str, bare: BareSpread | BareForaging, adapter: Adapter, rounds: int, steps: int = 2_000
) -> None:
    """Time both in turn and print it."""
    joint = random_actions(adapter.agents, adapter.actions, steps)
    took: dict[str, list[float]] = {"bare": [], "adapter": []}
    for number in range(rounds + 1):
        players: dict[str, Player] = {"bare": bare, "adapter": adapter}
        for which in players if number % 2 else reversed(players):
            gc.collect()
            took[which].append(players[which].play(joint))
    del took["bare"][0], took["adapter"][0]  # the first round warms up
    for which, values in took.items():
        print_rates(f"{name}, {which}", [steps / value for value in values])
    ratios = [one / other for one, other in zip(took["bare"], took["adapter"], strict=True)]
    print_rates("adapter / bare, " + name, ratios, f"target: {ADAPTER_TARGET:g}")


# -- what is printed --------------------------------------------------------------------------------------------------


def print_rates(name: str, values: Iterable[float], target: str = "") -> None:
    """Print median, minimum and maximum."""
    print(f"  {name:<{WIDTH}}{spread(values)}   {target}".rstrip(), flush=True)


def mean_and_all(values: Sequence[float]) -> str:
    """Return the mean and every single value."""
    return f"{statistics.fmean(values):>10.2f}  ({', '.join(f'{value:.2f}' for value in values)})"


def prepare_peer() -> str:
    """Make the virtual environment of the unmodified `benchmarl` package where it is missing; return its versions."""
    python = prepare(PEER, REQUIREMENTS)
    names = ("benchmarl", "torchrl", "torch", "pettingzoo")
    show = f"from importlib.metadata import version as v; print(', '.join(n + ' ' + v(n) for n in {names!r}))"
    return subprocess.run([str(python), "-c", show], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=TURNS * UNIT, help=f"a multiple of {TURNS * UNIT:,}")
    parser.add_argument("--cycles", type=int, default=25, help="steps of an episode of simple_spread")
    parser.add_argument("--rounds", type=int, default=5, help="of everything but training beside BenchMARL")
    given = parser.parse_args()
    if given.seeds and given.steps % (TURNS * UNIT):
        parser.error(f"--steps must be a multiple of {TURNS * UNIT:,}")
    ours = ", ".join(f"{name} {installed_version(name)}" for name in ("arena-rl", "torch", "pettingzoo", "mpe2"))
    print(f"{ours}; Python {platform.python_version()}, {os.cpu_count()} cores", flush=True)
    if given.seeds:
        print(f"peer: {prepare_peer()}", flush=True)
        compare_training(given.seeds, given.steps, given.cycles)
    compare_methods(given.rounds)
    compare_games(given.rounds)


if __name__ == "__main__":
    main()
