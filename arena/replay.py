"""Replay: play a recorded episode again and say the first line that differs.

The environment is built anew from the episode's first line and given the recorded actions. Durations, tokens and
versions may differ; task, seed, actions, answers, limits and the score may not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from arena.errors import ArenaError, InvalidActionError, UnsupportedError
from arena.registry import environments, make
from arena.session import Session
from arena.trace import EndRecord, Episode, StepRecord, first_digest, next_digest
from arena.types import decode_json, encode_canonical

__all__ = ["Difference", "replay"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay first left the record.

    Attributes:
        line: Line of the trace file, from 1.
        step: Index of the step; None for the last line of the episode.
        field: What differs, as a dotted path.
        recorded: What the trace says.
        replayed: What happened now.
        edited: The line does not fit its own digest: it, or the episode's first line, was changed after recording.
    """

    line: int
    step: int | None
    field: str
    recorded: Any
    replayed: Any
    edited: bool = False

    def __str__(self) -> str:
        where = "the end" if self.step is None else f"step {self.step}"
        recorded, replayed = _window(repr(self.recorded), repr(self.replayed))
        edited = " (the line, or the episode's first line, was edited after it was recorded)" if self.edited else ""
        return f"line {self.line}, {where}, {self.field}: recorded {recorded}, replayed {replayed}{edited}"


def replay(episode: Episode) -> Difference | None:
    """Return the first difference between a recorded episode and playing it again, or None where all is equal.

    Raises:
        UnknownIdError, ConfigError, PrerequisiteError: The environment cannot be made here.
        UnsupportedError: The environment is not deterministic, so there is nothing to compare.
    """
    record = episode.record
    if not environments.get(record.env).spec.deterministic:
        raise UnsupportedError(f"{record.env} is not deterministic, so its episodes cannot be replayed")
    session = Session(make(record.env, record.options), record.task, record.seed, limits=record.limits)
    try:
        return _replay(session, episode)
    finally:
        session.close()


def _replay(session: Session, episode: Episode) -> Difference | None:
    record = episode.record
    digest = first_digest(record.env, record.options, record.task, record.seed, record.limits)
    for index, recorded in enumerate(episode.steps):
        digest = next_digest(digest, recorded.index, recorded.actions, recorded.time_step)
        difference = _replay_step(session, recorded, episode.line + 1 + index)
        if difference is not None:
            return dataclasses.replace(difference, edited=digest.hex() != recorded.digest)
    end = episode.end
    line = episode.line + 1 + len(episode.steps)
    if end is None:
        return Difference(line, None, "end", "nothing: the file is torn", "an end")
    if end.error is not None:
        return None  # what failed lies outside the environment's answers, all of which agree
    if session.status != "over":
        return Difference(line, None, "outcome", end.outcome, "still running")
    return _compare_ends(end, session.end(), line)


def _replay_step(session: Session, recorded: StepRecord, line: int) -> Difference | None:
    try:
        return _compare(recorded, session.apply(recorded), line)
    except InvalidActionError as error:
        return Difference(line, recorded.index, "actions", recorded.actions, str(error))
    except ArenaError as error:
        return Difference(line, recorded.index, "time_step", recorded.time_step, str(error))


def _compare(recorded: StepRecord, replayed: StepRecord, line: int) -> Difference | None:
    for field in ("time_step", "actions", "limit", "digest"):
        before, now = encode_canonical(getattr(recorded, field)), encode_canonical(getattr(replayed, field))
        if before != now:
            return Difference(line, recorded.index, *_first_difference(field, decode_json(before), decode_json(now)))
    return None


def _compare_ends(recorded: EndRecord, replayed: EndRecord, line: int) -> Difference | None:
    for field in ("outcome", "steps", "endings", "returns", "limit", "score", "digest"):
        before, now = encode_canonical(getattr(recorded, field)), encode_canonical(getattr(replayed, field))
        if before != now:
            return Difference(line, None, *_first_difference(field, decode_json(before), decode_json(now)))
    return None


def _first_difference(path: str, a: Any, b: Any) -> tuple[str, Any, Any]:
    """Return where two unequal pieces of plain data first differ, and what stands there."""
    if type(a) is type(b) is dict:
        key = next(key for key in sorted({*a, *b}) if key not in a or key not in b or _differ(a[key], b[key]))
        return _first_difference(f"{path}.{key}", a.get(key), b.get(key))
    if type(a) is type(b) is list and len(a) == len(b):
        index = next(index for index, (x, y) in enumerate(zip(a, b, strict=True)) if _differ(x, y))
        return _first_difference(f"{path}[{index}]", a[index], b[index])
    return path, a, b


def _differ(a: Any, b: Any) -> bool:
    """Return whether two pieces of plain data are written differently; 1 and 1.0 are."""
    return encode_canonical(a) != encode_canonical(b)


def _window(a: str, b: str, width: int = 120) -> tuple[str, str]:
    """Return both texts, cut to where they first differ when they are long."""
    if len(a) <= width and len(b) <= width:
        return a, b
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, at - 20)
    return _cut(a, start, width), _cut(b, start, width)


def _cut(text: str, start: int, width: int) -> str:
    return ("…" if start else "") + text[start : start + width] + ("…" if start + width < len(text) else "")
