"""What came of an experiment, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from arena.intervals import mean_interval

from .experiments import Experiment

__all__ = ["MAIN", "STEPS", "last", "report"]

MAIN, STEPS = "held_out_success", "step"
Rows = Sequence[Mapping[str, float]]


def report(experiment: Experiment, found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the table of an experiment.

    Args:
        experiment: Which.
        found: By arm, the numbers of each seed.
    """
    seeds = len(next(iter(found.values())))
    head = ["arm", "held-out success [95%]", f"minus {experiment.reference} [95%]"]
    head += [*experiment.columns.values(), "env steps"]
    lines = [f"# {experiment.title}", "", f"{seeds} seeds each. {experiment.remark}", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reference = found.get(experiment.reference)
    for name, of_arm in found.items():
        cells = [name, _interval([one[MAIN] for one in of_arm])]
        if reference is None or name == experiment.reference:
            cells.append("")
        else:
            pairs = zip(of_arm, reference, strict=True)
            cells.append(_interval([one[MAIN] - other[MAIN] for one, other in pairs], sign=True))
        cells += [_mean([one.get(column, float("nan")) for one in of_arm]) for column in experiment.columns]
        cells.append(f"{statistics.fmean(one[STEPS] for one in of_arm):,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "By seed: " + "; ".join(_by_seed(name, of_arm) for name, of_arm in found.items()) + ".", ""]
    return "\n".join(lines)


def last(rows: Rows, column: str) -> float:
    """Return a number of the last evaluation; of a number of updates the mean over the last ten that have it.

    With ``first:`` before its name it is that of the first.
    """
    if column.startswith("first:"):
        return next((row[name] for row in rows if (name := column.removeprefix("first:")) in row), float("nan"))
    found = [row[column] for row in rows if column in row]
    if not found:
        return float("nan")
    return found[-1] if column.startswith("held_out") else statistics.fmean(found[-10:])


def _interval(values: Sequence[float], *, sign: bool = False) -> str:
    interval = mean_interval(values, range(len(values)))
    mark = "+" if sign else ""
    text = f"{statistics.fmean(values):{mark}.3f}"
    return text if interval is None else f"{text} [{interval[0]:{mark}.3f}, {interval[1]:{mark}.3f}]"


def _mean(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return "–" if mean != mean else f"{mean:.3g}"


def _by_seed(name: str, of_arm: Sequence[Mapping[str, float]]) -> str:
    return f"{name} " + ", ".join(f"{one[MAIN]:.3f}" for one in of_arm)
