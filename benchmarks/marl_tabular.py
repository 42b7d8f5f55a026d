"""Bayesian-network policies with exact gradients: what each graph reaches, one command.

    python -m benchmarks.marl_tabular [--agents 2 3 5] [--seeds 49] [--methods natural gradient]

Nothing is sampled, so only the first logits differ from seed to seed, and the numbers are the same in every run but for
the processor time. What is printed, as tables in Markdown:

* The exact values of `marl/coordination-v0`.
* Natural policy gradient on it, learning rate 0.01, 400 updates.
* Policy gradient as published: learning rate 0.01, 2,000 updates, first states of 1 / n each, which makes the gradient
  2^n / n times that of the uniform distribution.
* Policy gradient in games of one move, learning rate 0.1, 5,000 updates, 100 seeds.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import arena
from arena import TabularModel
from arena.agents.marl._graphs import GRAPHS, named_graph
from arena.agents.marl._tabular import METHODS, Game, Method, Solution, solve

ENV = "marl/coordination-v0"
MATRIX_SEEDS = 100
LEARNING: dict[Method, tuple[int, str]] = {
    "natural": (400, "Natural policy gradient, learning rate 0.01, 400 updates"),
    "gradient": (2000, "Policy gradient as published, learning rate 0.01, 2,000 updates"),
}
"""Updates and title."""

CLIMBING = np.array([[11.0, -30, 0], [-30, 7, 6], [0, 0, 5]])
AGREE = np.zeros((3, 3, 3))
AGREE[range(3), range(3), range(3)] = 3, 2, 1
MATRIX_GAMES = {
    "climbing": CLIMBING,
    "penalty -100": np.array([[10.0, 0, -100], [0, 2, 0], [-100, 0, 10]]),
    "penalty -25": np.array([[10.0, 0, -25], [0, 2, 0], [-25, 0, 10]]),
    "three agents agree": AGREE,
    "differ (XOR)": np.array([[0.0, 1], [1, 0]]),
}
"""Payoffs, one axis an agent. In the last one a product policy is as good as any."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one graph's policies learned, and the processor time it took in seconds."""

    solution: Solution
    seconds: float


def main() -> None:
    """Print the tables."""
    arguments = _arguments()
    torch.set_num_threads(1)
    models = {agents: arena.make(ENV, {"agents": agents}).tabular() for agents in arguments.agents}
    seeds = range(1, arguments.seeds + 1)
    print_values(models)
    for method in arguments.methods:
        iterations, title = LEARNING[method]
        print(f"\n## {title}, {len(seeds)} seeds\n")
        print_learning(models, method, iterations, seeds)
    if "gradient" in arguments.methods:
        print(f"\n## Games of one move, policy gradient, learning rate 0.1, 5,000 updates, {MATRIX_SEEDS} seeds\n")
        print_matrix_games()
    print(f"\nPython {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, one thread.")


def print_values(models: dict[int, TabularModel]) -> None:
    """Print the optimum, and what three fixed policies have of it."""
    print(f"## {ENV}, exact\n")
    rows = []
    for agents, model in models.items():
        game = Game(model)
        ones, even = torch.zeros(1, *game.rewards.shape).double(), torch.full((1, *game.rewards.shape), 1.0).double()
        ones[..., -1] = 1
        ratios = [float(game.evaluate(joint).start) / game.optimum for joint in (ones, even / even.shape[-1])]
        rows.append([agents, f"{game.optimum:.4f}", *(f"{ratio:.4f}" for ratio in ratios)])
    print_table(["n", "J\\*", "all 1: J/J\\*", "uniform: J/J\\*"], rows)


def print_learning(models: dict[int, TabularModel], method: Method, iterations: int, seeds: Sequence[int]) -> None:
    """Print what each graph reaches in the coordination game."""
    rows = []
    for agents, model in models.items():
        rate = 0.01 if method == "natural" else 0.01 * 2**agents / agents
        runs = {name: learn(model, name, method, rate, iterations, seeds) for name in GRAPHS}
        base = runs["empty"].solution.ratios[-1]
        for name, run in runs.items():
            ratios, gaps = run.solution.ratios[-1], run.solution.nash_gaps[-1]
            lead = "" if name == "empty" else lead_of(ratios - base)
            rows.append([agents, name, *summary(ratios), lead, f"{gaps.mean():.3f} ({gaps.max():.3f})"])
            rows[-1].append(f"{run.seconds:.1f}")
    head = [
        "n",
        "graph",
        "J/J\\* mean (sd)",
        "min",
        "share > 0.99",
        "lead on empty (s.e.)",
        "Nash gap mean (max)",
        "CPU-s",
    ]
    print_table(head, rows)


def print_matrix_games() -> None:
    """Print what product policies and complete graphs reach in games of one move."""
    rows = []
    for name, payoffs in MATRIX_GAMES.items():
        model = TabularModel(
            payoffs.shape, np.ones((1, payoffs.size, 1)), payoffs.reshape(1, -1), np.ones(1), discount=0.0
        )
        for graph in ("empty", "complete"):
            run = learn(model, graph, "gradient", 0.1, 5000, range(1, MATRIX_SEEDS + 1))
            rows.append([name, f"{payoffs.max():g}", graph, *summary(run.solution.ratios[-1]), f"{run.seconds:.1f}"])
    print_table(["game", "J\\*", "graph", "J/J\\* mean (sd)", "min", "share > 0.99", "CPU-s"], rows)


def learn(
    model: TabularModel, graph: str, method: Method, learning_rate: float, iterations: int, seeds: Sequence[int]
) -> Run:
    """Return what policies over a named graph learn."""
    begun = time.process_time()
    edges = named_graph(graph, len(model.actions))
    solution = solve(model, edges, method=method, learning_rate=learning_rate, iterations=iterations, seeds=seeds)
    return Run(solution, time.process_time() - begun)


def summary(ratios: NDArray[np.float64]) -> list[str]:
    """Return mean with standard deviation, lowest value, and the share of seeds above 0.99."""
    return [f"{ratios.mean():.4f} ({ratios.std():.4f})", f"{ratios.min():.6f}", f"{(ratios > 0.99).mean():.2f}"]


def lead_of(differences: NDArray[np.float64]) -> str:
    """Return the mean difference between the same seeds, with its standard error."""
    return f"{differences.mean():.3f} ({differences.std() / max(len(differences), 1) ** 0.5:.3f})"


def print_table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print("|", " | ".join(str(cell) for cell in row), "|", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[2, 3, 5], choices=[2, 3, 5], help="sizes of the game")
    parser.add_argument("--seeds", type=int, default=49, help="seeds 1 to this number")
    parser.add_argument("--methods", nargs="+", default=list(LEARNING), choices=METHODS, help="ways to learn")
    return parser.parse_args()


if __name__ == "__main__":
    main()
