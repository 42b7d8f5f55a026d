"""Sets of instances by name: files in the folder that the operator names, public data sets, and one that is made."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from arena import ConfigError, cache_dir, did_you_mean
from arena.sandbox import Guarantee

from ._instances import Instance, Instances
from ._sample import SAMPLE, sample_instances
from ._synthesis import Synthesis

__all__ = ["DATA_VARIABLE", "NAME", "instances_of", "mirrors"]

DATA_VARIABLE: Final = "ARENA_SWE_DATA"
"""Environment variable that names the folder with the operator's sets: ``NAME/SPLIT.jsonl`` or ``.parquet``."""
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_MIRRORS: Final = "mirrors"
_QUICKSTART: Final = "quickstart"
_QUICKSTART_PACKAGES: Final = ("inflection==0.5.1", "parse==1.20.2", "toolz==1.0.0")
_QUICKSTART_EACH: Final = 12
_RECIPE: Final = 1
"""Changes when the same packages give other instances."""
_HUB = {
    "swe-gym": ("SWE-Gym/SWE-Gym", {"train": "train"}),
    "swe-gym-lite": ("SWE-Gym/SWE-Gym-Lite", {"train": "train"}),
    "swe-bench-lite": ("SWE-bench/SWE-bench_Lite", {"dev": "dev", "test": "test"}),
    "swe-bench-verified": ("SWE-bench/SWE-bench_Verified", {"test": "test"}),
    "r2e-gym-lite": ("R2E-Gym/R2E-Gym-Lite", {"train": "train"}),
}
"""Public data sets by the name that they have here, which `datasets` loads where the folder has no such set."""


def instances_of(name: str, split: str, unenforced: Sequence[Guarantee] = ()) -> Sequence[Instance]:
    """Return the instances of a set's split; none where it has no such split.

    Names are compared with what is there, and never made part of a path.

    Raises:
        ConfigError: There is no such set, or a row is no instance.
        PrerequisiteError: It is a public data set, and `datasets` is missing.
        EnvError: It has to be made, and the package index cannot be reached.
        SandboxError: It has to be made, and sandboxes lack a guarantee that is not among `unenforced`.
    """
    if name == SAMPLE:
        return sample_instances(split)
    folders = _folders()
    if name in folders or name == _QUICKSTART:
        folder = folders.get(name) or _quickstart(unenforced)
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        for ending in ("jsonl", "parquet"):
            if (path := files.get(f"{split}.{ending}")) is not None:
                return _read(path, path.stat().st_mtime_ns)
        return ()
    if name in _HUB:
        hub, splits = _HUB[name]
        return _load(hub, splits[split]) if split in splits else ()
    known = sorted({*folders, *_HUB, SAMPLE, _QUICKSTART})
    raise ConfigError(f"no set of instances {name!r}{did_you_mean(name, known)}; ${DATA_VARIABLE} names their folder")


def mirrors() -> Path | None:
    """Return the operator's folder of mirrors, if there is one."""
    data = os.environ.get(DATA_VARIABLE)
    return Path(data, _MIRRORS) if data else None


@lru_cache(maxsize=16)
def _read(path: Path, changed_ns: int) -> Instances:
    return Instances.read(path)


@lru_cache(maxsize=16)
def _load(name: str, split: str) -> Instances:
    return Instances.load(name, split)


def _folders() -> dict[str, Path]:
    data = os.environ.get(DATA_VARIABLE)
    if not data:
        return {}
    try:
        found = sorted(Path(data).absolute().iterdir())
    except OSError as error:
        raise ConfigError(f"${DATA_VARIABLE} is {data!r}: {error.strerror}") from None
    return {
        path.name: path for path in found if path.name != _MIRRORS and re.fullmatch(NAME, path.name) and path.is_dir()
    }


def _quickstart(unenforced: Sequence[Guarantee]) -> Path:
    """Return the folder of the set that is made at its first use; a killed process's work is gone on with."""
    folder = cache_dir("swe", "sets") / f"{_QUICKSTART}-{_RECIPE}"
    done = folder / "complete"
    if not done.is_file():
        with folder.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.is_file():
                options = Synthesis.Options(
                    package=_QUICKSTART_PACKAGES, n=_QUICKSTART_EACH, unenforced=tuple(unenforced)
                )
                Synthesis(options).make(folder, _tell)
                done.touch()
    return folder


def _tell(done: int, total: int) -> None:
    sys.stderr.write(f"swe/repo-v0: tasks made: {done} of {total}\n")
    sys.stderr.flush()
