"""What the comparison of servers prints."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from arena import installed_version

__all__ = ["Sample", "print_heading", "print_memory", "print_rows", "quantile"]

_WIDTH = 34


@dataclass
class Sample:
    """What one turn of a row measured.

    Attributes:
        cpu_us: Server processor time per step.
        steps_per_s: Steps per second.
        p50_ms: Median time from request to answer.
        p99_ms: Its 99th percentile.
        load_us: The generator's processor time per step.
        open_cpu_ms: Server processor time per session to connect and to create or reset.
        open_ms: Median time that this took.
        close_cpu_ms: Server processor time per session to end it.
    """

    cpu_us: float
    steps_per_s: float
    p50_ms: float
    p99_ms: float
    load_us: float
    open_cpu_ms: float
    open_ms: float
    close_cpu_ms: float


_COLUMNS: tuple[tuple[str, Callable[[Sample], float], str], ...] = (
    ("CPU us/step", lambda sample: sample.cpu_us, "11.1f"),
    ("steps/s", lambda sample: sample.steps_per_s, "8.0f"),
    ("p50 ms", lambda sample: sample.p50_ms, "7.2f"),
    ("p99 ms", lambda sample: sample.p99_ms, "7.2f"),
    ("open CPU ms", lambda sample: sample.open_cpu_ms, "11.2f"),
    ("open ms", lambda sample: sample.open_ms, "7.1f"),
    ("close CPU ms", lambda sample: sample.close_cpu_ms, "12.2f"),
    ("load us/step", lambda sample: sample.load_us, "12.1f"),
)


def quantile(values: Iterable[float], fraction: float) -> float:
    """Return the value below which this fraction of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def print_heading(versions: str, rounds: int, duration_s: float) -> None:
    """Print what is compared, and where."""
    ours = f"arena {installed_version('arena-rl')}, uvicorn {installed_version('uvicorn')}"
    print(f"{ours}; {versions}; Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{rounds} rounds of {duration_s:g} s; CPU of all processes of a server, user and system")


def print_rows(sessions: int, rows: dict[str, list[Sample]]) -> None:
    """Print the medians of every row, and how it compares with the first one."""
    print(f"\n{sessions} session{'s' * (sessions != 1)}, medians over rounds")
    print(" " * _WIDTH + "".join(f"  {title:>{int(form.split('.')[0])}}" for title, _, form in _COLUMNS))
    for name, samples in rows.items():
        values = [(statistics.median(map(get, samples)), form) for _, get, form in _COLUMNS]
        print(f"{name:<{_WIDTH}}" + "".join(f"  {value:{form}}" for value, form in values))
    base, *others = rows
    print(f"\n{sessions} session{'s' * (sessions != 1)}, ratio to {base!r}: median (min, max)")
    print(" " * _WIDTH + f"  {'CPU':<20}  {'p99':<20}  {'steps/s':<20}")
    for name in others:
        pairs = list(zip(rows[name], rows[base], strict=True))
        ratios = [_ratio(pairs, get) for get in (_COLUMNS[0][1], _COLUMNS[3][1], _COLUMNS[1][1])]
        print(f"{name:<{_WIDTH}}" + "".join(f"  {ratio:<20}" for ratio in ratios).rstrip())


def _ratio(pairs: list[tuple[Sample, Sample]], get: Callable[[Sample], float]) -> str:
    values = [get(ours) / get(theirs) for ours, theirs in pairs]
    return f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


def print_memory(name: str, idle_bytes: int, session_bytes: float, step_bytes: float, steps: int) -> None:
    """Print what a server takes."""
    print(
        f"{name:<{_WIDTH}}  idle {idle_bytes / 2**20:6.0f} MiB   per session {session_bytes / 2**10:6.0f} KiB"
        f"   per step {step_bytes:6.0f} bytes ({steps} steps)"
    )
