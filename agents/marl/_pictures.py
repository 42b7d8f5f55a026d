"""Pictures of what became of the graph between agents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arena import Row

from ._graphs import draw_training

__all__ = ["draw_graphs"]


def draw_graphs(folder: Path, rows: Sequence[Row], seeds: Sequence[int]) -> list[Path]:
    """Draw edges, positions and density over training, and return the picture's path.

    Args:
        folder: Where it goes.
        rows: Those in which the graph was measured.
        seeds: Of the runs.
    """
    agents = sum(name.startswith("position_") for name in rows[0])
    of_seed = {seed: [row for row in rows if row["seed"] == seed] for seed in seeds}
    times = min(len(measured) for measured in of_seed.values())
    steps = np.array([row["step"] for row in of_seed[seeds[0]][:times]])
    edges: NDArray[np.float64] = np.array(
        [
            [
                [[row[f"edge_{parent}_{child}"] for child in range(agents)] for parent in range(agents)]
                for row in (of_seed[seed][time] for seed in seeds)
            ]
            for time in range(times)
        ]
    )
    positions: NDArray[np.float64] = np.array(
        [
            [[of_seed[seed][time][f"position_{agent}"] for agent in range(agents)] for seed in seeds]
            for time in range(times)
        ]
    )
    path = folder / "graph.png"
    draw_training(steps, edges, positions=positions).savefig(path, dpi=120)
    return [path]
