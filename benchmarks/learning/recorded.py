"""What trainings came to, kept as lines of one file, so that an experiment can be gone on with on another machine.

The numbers of an arm and a seed are taken for done where its definition, and that of what it begins with, are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .experiments import EXPERIMENTS, Arm
from .report import MAIN, STEPS, last

__all__ = ["Recorded", "digest", "numbers"]

_COLUMNS = sorted({MAIN, *(column for one in EXPERIMENTS.values() for column in one.columns)})


def digest(arm: Arm) -> str:
    """Return what changes when an arm, or what it begins with, is defined anew."""
    base = None if arm.base is None else digest(arm.base)
    content = [arm.name, arm.env, arm.env_options, arm.options, arm.episodes, base]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def numbers(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what is reported of a training's metrics."""
    found = {column: last(rows, column) for column in _COLUMNS}
    found[STEPS] = rows[-1]["step"]
    return {column: value for column, value in found.items() if value == value}


class Recorded:
    """The file.

    Args:
        path: Made when the first line is added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        self._found: dict[tuple[str, int], dict[str, Any]] = {}
        for line in lines:
            row = json.loads(line)
            self._found[row["definition"], row["seed"]] = row["numbers"]

    def get(self, arm: Arm, seed: int) -> dict[str, float] | None:
        """Return an arm's numbers from a seed, if it was trained as it is defined now."""
        return self._found.get((digest(arm), seed))

    def add(self, arm: Arm, seed: int, found: Mapping[str, float]) -> None:
        """Add a line, if the same is not there."""
        key = digest(arm), seed
        if key in self._found:
            return
        self._found[key] = dict(found)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            row = {"arm": arm.name, "definition": key[0], "seed": seed, "numbers": self._found[key]}
            file.write(json.dumps(row, sort_keys=True) + "\n")
