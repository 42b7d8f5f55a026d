"""The official data of ALFWorld on this machine: which games there are, read as they were downloaded.

The folder is ``json_2.1.1`` below the one that the environment variable ``ALFWORLD_DATA`` names, else below
``~/.cache/alfworld``, where ``alfworld-download`` puts it; never one that an option or a client names. A game is
``<split>/<task>/<trial>/game.tw-pddl`` with ``traj_data.json`` beside it. As in ALFWorld's `AlfredTWEnv`, a trial
counts as a game unless its path below the split says ``movable`` or ``Sliced``, its game file is missing, or that file
lacks ``solvable`` or says that it is false. Where that reader stops at a corrupt file, this one goes on:

* A corrupt game file counts as a game, and the error comes when it is played: a set that shrinks by itself would give
  other averages.
* A corrupt ``traj_data.json`` gives no type, which the task's folder then names; where that names none, the trial is no
  game.

The verdicts are kept below the cache, with the times and sizes of the files that they are about, so that only new and
changed files are read; this process keeps a listing until the split's folder gets or loses a task.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from arena import PrerequisiteError, UnknownIdError, cache_dir, did_you_mean

from .tables import TASK_TYPES

__all__ = ["SPLITS", "GameEntry", "data_folder", "find_game", "find_games"]

SPLITS = ("train", "valid_seen", "valid_unseen")
DATA_VARIABLE = "ALFWORLD_DATA"

_GAME, _TRAJECTORY = "game.tw-pddl", "traj_data.json"
_UNSUPPORTED = ("movable", "Sliced")
_VERSION = 1
"""Changed whenever the same file would get another verdict than before."""
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]")

_log = logging.getLogger(__name__)


class GameEntry(msgspec.Struct, frozen=True):
    """A game of the official data.

    Attributes:
        id: ``<task>-<trial>``, the task's id: letters, digits, `-` and `_` only.
        split: The split.
        game: The game file's path below ``json_2.1.1``.
        task_type: One of `TASK_TYPES`.
        path: The game file.
    """

    id: str
    split: str
    game: str
    task_type: str
    path: Path


class _Stamp(msgspec.Struct, frozen=True, array_like=True):
    """Which version of a file was read: its time of change in nanoseconds and its size; 0 and -1 where it is absent."""

    changed_ns: int
    size: int


class _Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What was found in a trial's folder.

    Attributes:
        stamps: The versions of the trajectory and of the game file.
        task_type: The type that the trajectory names; empty where it names none.
        flaw: Why this is no game; empty where it is one.
    """

    stamps: tuple[_Stamp, _Stamp]
    task_type: str
    flaw: str


class _Index(msgspec.Struct):
    """The verdicts about a split, by the trial's path below it."""

    version: int
    verdicts: dict[str, _Verdict]


class _Trajectory(msgspec.Struct):
    """The part of a `traj_data.json` that is looked at."""

    task_type: str


class _Solvable(msgspec.Struct):
    """The part of a game file that is looked at."""

    solvable: Any = msgspec.UNSET


def data_folder() -> Path:
    """Return the folder with the official data, whether or not it is there."""
    named = os.environ.get(DATA_VARIABLE) or "~/.cache/alfworld"
    return Path(named).expanduser().absolute() / "json_2.1.1"


def find_games(split: str, task_types: Collection[str] = TASK_TYPES) -> Sequence[GameEntry]:
    """Return the games of a split that are of these types, sorted by path.

    Raises:
        UnknownIdError: There is no such split.
        PrerequisiteError: There are no such games here; the message says how to get some.
    """
    games = _games(split)
    wanted = tuple(game for game in games.values() if game.task_type in task_types)
    if not wanted:
        what = f"of the types {', '.join(sorted(task_types))} " if games else ""
        raise PrerequisiteError(
            f"no ALFWorld games {what}in {data_folder() / split}; get the official ones (pip install alfworld && "
            f"alfworld-download; {DATA_VARIABLE} names their folder), play generated ones (option games=generated), "
            "or make some (arena tasks text/alfworld-v0 generate --out DIR)"
        )
    return wanted


def find_game(split: str, id: str) -> GameEntry:
    """Return the game of a split with this id.

    Raises:
        UnknownIdError: There is no such split, or no such game in it.
    """
    games = _games(split)
    if id not in games:
        raise UnknownIdError(f"no game {id!r} in {data_folder() / split}{did_you_mean(id, [*games][:1000])}")
    return games[id]


def _games(split: str) -> Mapping[str, GameEntry]:
    if split not in SPLITS:
        raise UnknownIdError(f"no split {split!r} (known: {', '.join(SPLITS)})")
    folder = data_folder() / split
    return _listed(folder, _stamp(folder).changed_ns)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return _Stamp(0, -1)
    return _Stamp(status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _listed(folder: Path, changed_ns: int) -> Mapping[str, GameEntry]:
    """Return the games of a split's folder by id; `changed_ns` is when it last got or lost a task."""
    verdicts = _verdicts(folder)
    _warn(folder, verdicts)
    games: dict[str, GameEntry] = {}
    for trial, verdict in verdicts.items():
        if not verdict.flaw:
            game = f"{folder.name}/{trial}/{_GAME}"
            id = _id(trial, games)
            games[id] = GameEntry(id, folder.name, game, verdict.task_type, folder.parent / game)
    return games


def _id(trial: str, taken: Collection[str]) -> str:
    """Return a trial's id; where folders have odd names, another one than those that are taken."""
    id = _OTHER_CHARACTERS.sub("_", trial.replace("/", "-"))
    return id if id not in taken else f"{id}-{hashlib.sha256(trial.encode()).hexdigest()[:8]}"


def _warn(folder: Path, verdicts: dict[str, _Verdict]) -> None:
    """Say how many games a user may miss; unsolvable ones are left out of the official figures, too."""
    flaws = Counter(verdict.flaw for verdict in verdicts.values() if verdict.flaw not in ("", _UNSOLVABLE, _OTHER_TYPE))
    if flaws:
        counts = ", ".join(f"{count} x {flaw}" for flaw, count in sorted(flaws.items()))
        _log.warning("%s: %d trials are no games (%s)", folder, flaws.total(), counts)


# -- verdicts ---------------------------------------------------------------------------------------------------------

_OTHER_TYPE = "another task type"
_UNSOLVABLE = "not solvable"
_NO_GAME = f"no {_GAME}"
_UNCHECKED = f"{_GAME} without 'solvable'"
_NO_TYPE = f"{_TRAJECTORY} that cannot be read"


def _verdicts(folder: Path) -> dict[str, _Verdict]:
    """Return the verdicts about the trials of a split in the order of their paths, reading what is new or changed."""
    kept = cache_dir("alfworld", "index") / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:20]}.json"
    known = _read(kept)
    found: dict[str, _Verdict] = {}
    for trial in _trials(folder):
        stamps = _stamp(folder / trial / _TRAJECTORY), _stamp(folder / trial / _GAME)
        old = known.get(trial)
        found[trial] = old if old is not None and old.stamps == stamps else _judge(folder / trial, stamps)
    if found != known:
        _write(kept, found)
    return found


def _trials(folder: Path) -> Iterator[str]:
    """Yield the trials of a split that have a trajectory, sorted, as paths below the split."""
    found = [path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/{_TRAJECTORY}")]
    return (one for one in sorted(found) if one.isprintable() and not any(word in one for word in _UNSUPPORTED))


def _judge(trial: Path, stamps: tuple[_Stamp, _Stamp]) -> _Verdict:
    task_type = _task_type(trial)
    if task_type not in TASK_TYPES:
        return _Verdict(stamps, "", _OTHER_TYPE if task_type else _NO_TYPE)
    if stamps[1].size < 0:
        return _Verdict(stamps, task_type, _NO_GAME)
    try:
        solvable = msgspec.json.decode((trial / _GAME).read_bytes(), type=_Solvable).solvable
    except (OSError, msgspec.DecodeError, RecursionError):  # the error comes when it is played
        return _Verdict(stamps, task_type, "")
    if solvable is msgspec.UNSET:
        return _Verdict(stamps, task_type, _UNCHECKED)
    return _Verdict(stamps, task_type, "" if solvable else _UNSOLVABLE)


def _task_type(trial: Path) -> str:
    """Return the type that a trial's trajectory names, else its task's folder; empty where that names none, too."""
    try:
        return msgspec.json.decode((trial / _TRAJECTORY).read_bytes(), type=_Trajectory).task_type
    except (OSError, msgspec.DecodeError, RecursionError):
        named = trial.parent.name.partition("-")[0]
        return named if named in TASK_TYPES else ""


def _read(kept: Path) -> dict[str, _Verdict]:
    try:
        index = msgspec.json.decode(kept.read_bytes(), type=_Index)
    except (OSError, msgspec.DecodeError):
        return {}
    return index.verdicts if index.version == _VERSION else {}


def _write(kept: Path, verdicts: dict[str, _Verdict]) -> None:
    """Write the verdicts so that whoever reads them at the same time finds whole ones."""
    with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=kept.stem, delete=False) as scratch:
        scratch.write(msgspec.json.encode(_Index(_VERSION, verdicts)))
    os.replace(scratch.name, kept)
