"""Learning curves: how a number went while several seeds learned, and pictures of it.

A curve is the mean over the seeds; its band is the mean's 95% interval (Student's t over seeds). matplotlib is imported
where something is drawn; nothing here touches its global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arena.extras import import_extra
from arena.intervals import mean_interval
from arena.trainer import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "draw_curves", "learning_curve", "require_drawing", "save_figure"]

MAX_POINTS = 200
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by people with any kind of colour vision (Okabe and Ito 2008), without the yellow, which is too light."""
DASHES = ("-", "--", ":", "-.")
COLUMNS = 3
FEW_POINTS = 20
"""Points of a curve up to which each is marked: it then is seen how often something was measured."""


@dataclass(frozen=True)
class Curve:
    """A number over training, at P points, for S seeds.

    Attributes:
        steps: Environment steps of a seed, (P,).
        seeds: Each seed's value, (P, S); NaN where it has none.
        mean: Over the seeds that have one, (P,).
        low: Lower end of the mean's interval; the mean itself where there is no interval, (P,).
        high: Upper end, likewise, (P,).
        updates_per_point: Updates whose values were averaged for one point; the last point may have fewer.
    """

    steps: NDArray[np.float64]
    seeds: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    updates_per_point: int


def learning_curve(rows: Sequence[Row], name: str, *, max_points: int = MAX_POINTS) -> Curve | None:
    """Return how a number went; None where no row has it.

    Args:
        rows: Of one learner, each with ``update``, ``seed`` and ``step``.
        name: The number's name.
        max_points: Where it was measured more often than that, neighbouring updates are averaged seed by seed.
    """
    having = [row for row in rows if name in row]
    if not having:
        return None
    updates = sorted({int(row["update"]) for row in having})
    seeds = sorted({int(row["seed"]) for row in having})
    values = np.full((len(updates), len(seeds)), math.nan)
    steps = np.full((len(updates), len(seeds)), math.nan)
    places = {update: place for place, update in enumerate(updates)}
    columns = {seed: column for column, seed in enumerate(seeds)}
    for row in having:
        at = places[int(row["update"])], columns[int(row["seed"])]
        values[at], steps[at] = row[name], row["step"]
    size = -(-len(updates) // max_points)
    values = np.stack([_mean(values[start : start + size]) for start in range(0, len(updates), size)])
    at_steps = np.array([_mean(steps[start : start + size].reshape(-1)) for start in range(0, len(updates), size)])
    mean = _mean(values.T)
    ends = [_interval(point, centre) for point, centre in zip(values, mean, strict=True)]
    low, high = (np.array(side) for side in zip(*ends, strict=True))
    return Curve(at_steps, values, mean, low, high, size)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the first axis of the values that are there; NaN where none is."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0.0).sum(axis=0), there.sum(axis=0)
    means: NDArray[np.float64] = np.divide(total, count, out=np.full(np.shape(total), math.nan), where=count > 0)
    return means


def _interval(values: NDArray[np.float64], mean: float) -> tuple[float, float]:
    there = values[~np.isnan(values)].tolist()
    return mean_interval(there, range(len(there))) or (mean, mean)


# -- pictures ---------------------------------------------------------------------------------------------------------


def require_drawing() -> None:
    """Find out whether pictures can be drawn.

    Raises:
        PrerequisiteError: matplotlib is missing; the message says how to get it.
    """
    import_extra("matplotlib", extra="train")


def draw_curves(title: str, curves: Mapping[str, Mapping[str, Curve]], labels: Mapping[str, str]) -> Figure:
    """Return a figure with one panel for each number, and in it one curve for each learner.

    Args:
        title: Stands above.
        curves: Name of the number → learner → curve; at least one number.
        labels: Name of the number → what stands beside its axis, with its unit.
    """
    figure_module = import_extra("matplotlib.figure", extra="train")
    learners = list(dict.fromkeys(learner for each in curves.values() for learner in each))
    styles = {learner: _style(number) for number, learner in enumerate(learners)}
    columns = min(COLUMNS, len(curves))
    lines = -(-len(curves) // columns)
    figure: Figure = figure_module.Figure(figsize=(max(6.4, 4.8 * columns), 0.9 + 3.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    last = max(float(curve.steps[-1]) for each in curves.values() for curve in each.values())
    for panel, (name, each) in zip(panels, curves.items(), strict=False):
        _draw_panel(panel, each, styles)
        panel.set_xlim(0, 1.02 * last or 1)
        panel.set_ylabel(labels[name])
    for empty in panels[len(curves) :]:
        empty.remove()
    figure.suptitle(title, fontsize=12)
    lines_module = import_extra("matplotlib.lines", extra="train")
    figure.legend(
        [lines_module.Line2D([], [], **styles[learner], linewidth=1.8) for learner in learners],
        learners,
        loc="outside lower center",
        ncols=min(5, len(learners)),
        frameon=False,
        title=_caption(curves),
        title_fontsize=8,
        fontsize=9,
    )
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG; whoever reads the file finds the old picture or the new one."""
    import_extra("matplotlib.backends.backend_agg", extra="train").FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=120)
    part.replace(path)


def _draw_panel(panel: Axes, curves: Mapping[str, Curve], styles: Mapping[str, Mapping[str, Any]]) -> None:
    ticker = import_extra("matplotlib.ticker", extra="train")
    for learner, curve in curves.items():
        style = styles[learner]
        few = len(curve.steps) <= FEW_POINTS
        if curve.seeds.shape[1] > 1:
            panel.plot(curve.steps, curve.seeds, color=style["color"], linewidth=0.6, alpha=0.3, label="_seed")
            panel.fill_between(curve.steps, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
        panel.plot(
            curve.steps, curve.mean, **style, linewidth=1.8, marker="o" if few else None, markersize=4, label=learner
        )
    panel.set_xlabel("environment steps of each seed")
    panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    panel.grid(color="0.9", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _style(number: int) -> dict[str, Any]:
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dash}


def _caption(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    drawn = [curve for each in curves.values() for curve in each.values()]
    seeds = max(curve.seeds.shape[1] for curve in drawn)
    size = max(curve.updates_per_point for curve in drawn)
    averaged = f"; points are averages over up to {size} updates" if size > 1 else ""
    if seeds == 1:
        return f"one seed{averaged}"
    return f"mean of {seeds} seeds, its 95% interval (Student's t), and each seed (thin lines){averaged}"
