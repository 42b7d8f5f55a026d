"""Runs for other programs: as tables, for whoever analyses or trains, and as predictions, for SWE-bench's own grader.

A table is Parquet, with one row for each seat of an episode. Every run has the columns about the episode. Where the
agent recorded its tokens (`learning/policy` does, as ``token_turns`` beside each action), a row also has them, under
the names that verifiers uses: `prompt_ids`, and `completion_ids` with a mask and log-probabilities of the same length.
An episode that went on in a new context has one row for each context; all else about it stands in each of them.

Predictions are JSON lines: the patches that episodes ended with, as ``prediction`` in the last step's info.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec

from arena.errors import ConfigError, UsageError
from arena.extras import import_extra
from arena.trace import Episode
from arena.types import AgentID

__all__ = ["COLUMNS", "PredictionCounts", "episode_rows", "line_up_of", "write_parquet", "write_predictions"]

COLUMNS: Mapping[str, str] = {
    "episode": "string",
    "env": "string",
    "task": "string",
    "split": "string",
    "seed": "uint64",
    "group": "string",
    "seat": "string",
    "agent": "string",
    "outcome": "string",
    "ending": "string",
    "limit": "string",
    "score": "double",
    "success": "bool",
    "return": "double",
    "turns": "int32",
    "refused": "int32",
    "rewards": "list<double>",
    "context": "int32",
    "contexts": "int32",
    "prompt_ids": "list<int32>",
    "completion_ids": "list<int32>",
    "completion_mask": "list<int8>",
    "completion_logprobs": "list<float>",
    "completion_entropies": "list<float>",
    "turn_starts": "list<int32>",
}
"""Columns and their types, as Arrow writes them."""

_ROWS_OF_A_GROUP = 256


class _Turn(msgspec.Struct):
    """One turn as an agent recorded it; see `learning/policy`."""

    new_context: bool
    given_ids: list[int]
    completion_ids: list[int]
    completion_logprobs: list[float]
    completion_entropies: list[float]
    reward: float = 0.0


def write_parquet(episodes: Iterable[Episode], file: Path) -> int:
    """Write episodes as rows, group by group: only one group is held at a time.

    Args:
        episodes: What to write; those without an end are left out.
        file: Where to; it appears once it is whole.

    Returns:
        The number of rows.

    Raises:
        PrerequisiteError: `pyarrow` is missing.
        ConfigError: An episode's record of tokens is wrong.
    """
    arrow = import_extra("pyarrow", extra="parquet")
    parquet = import_extra("pyarrow.parquet", extra="parquet")
    schema = arrow.schema([(name, _arrow_type(arrow, kind)) for name, kind in COLUMNS.items()])
    part = file.with_name(f"{file.name}.part")
    count = 0
    try:
        with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            rows = chain.from_iterable(episode_rows(one) for one in episodes if one.end is not None)
            for group in _groups(rows):
                writer.write_table(arrow.Table.from_pylist(group, schema))
                count += len(group)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return count


def episode_rows(episode: Episode) -> Iterator[dict[str, Any]]:
    """Yield an episode's rows: for each seat, one for each context that it recorded, or a single one.

    Raises:
        ConfigError: A record of tokens is wrong.
    """
    assert episode.end is not None, "a torn episode has no rows"
    record, end = episode.record, episode.end
    common = {
        "episode": record.episode,
        "env": record.env,
        "task": record.task.id,
        "split": record.task.split,
        "seed": record.seed,
        "group": f"{record.task.split}/{record.task.id}/{record.seed}",
        "outcome": end.outcome,
        "limit": None if end.limit is None else end.limit.kind,
        "score": None if end.score is None else end.score.value,
        "success": None if end.score is None else end.score.success,
        "refused": end.refused,
    }
    for seat, ref in record.seats.items():
        rewards = _rewards(episode, seat)
        row = {
            **common,
            "seat": seat,
            "agent": ref.id,
            "ending": end.endings.get(seat),
            "return": end.returns.get(seat, 0.0),
            "turns": len(rewards),
        }
        contexts = _contexts(episode, seat)
        if not contexts:
            yield {**row, "rewards": rewards}
        for number, turns in enumerate(contexts):
            yield {**row, "context": number, "contexts": len(contexts), **_tokens(turns)}


@dataclass(frozen=True, slots=True)
class PredictionCounts:
    """How many predictions were written.

    Attributes:
        written: Lines of the file.
        repeated: Predictions that were left out, because the instance had one.
        without: Episodes that ended without one.
    """

    written: int
    repeated: int
    without: int


class _Prediction(msgspec.Struct):
    """What an environment says of a patch; see `swe/repo-v0`."""

    instance_id: str
    model_patch: str


def write_predictions(episodes: Iterable[Episode], file: Path, line_up: str | None = None) -> PredictionCounts:
    """Write the patches of one line-up as SWE-bench's predictions, of each instance the first.

    SWE-bench tells the lines of a file apart by their instance alone, and takes the last: so one file holds one model.

    Args:
        episodes: What was played; torn ones are left out.
        file: Where to; it appears once it is whole.
        line_up: Whose; may be absent where only one has predictions. Its name is the model's.

    Raises:
        UsageError: There are no predictions, or those of several line-ups.
        ConfigError: An episode's prediction is wrong.
    """
    found: dict[str, dict[str, str]] = {}
    repeated, without = Counter[str](), Counter[str]()
    for episode in episodes:
        name = line_up_of(episode)
        if episode.end is None or line_up not in (None, name):
            continue
        predictions = _predictions(episode)
        without[name] += not predictions
        for prediction in predictions:
            patches = found.setdefault(name, {})
            repeated[name] += prediction.instance_id in patches
            patches.setdefault(prediction.instance_id, prediction.model_patch)
    name = _only(found, line_up)
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="ascii") as lines:
            for instance, patch in found[name].items():
                line = {"instance_id": instance, "model_name_or_path": name, "model_patch": patch}
                lines.write(json.dumps(line) + "\n")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return PredictionCounts(len(found[name]), repeated[name], without[name])


def line_up_of(episode: Episode) -> str:
    """Return the name of the line-up that played; without one, the ids of its agents."""
    name, mark, _ = episode.record.episode.partition("/")
    return name if mark else "+".join(sorted({ref.id for ref in episode.record.seats.values()}))


def _predictions(episode: Episode) -> list[_Prediction]:
    """Return what the seats' last steps predict: of one episode, hardly ever more than one."""
    last = episode.steps[-1].time_step.seats if episode.steps else {}
    given = [seat.info["prediction"] for seat in last.values() if "prediction" in seat.info]
    try:
        return msgspec.convert(given, list[_Prediction])
    except msgspec.ValidationError as error:
        raise ConfigError(f"episode {episode.record.episode}: its prediction is wrong: {error}") from error


def _only(found: Mapping[str, object], line_up: str | None) -> str:
    """Return the one line-up that has predictions."""
    if not found:
        whose = "no episode" if line_up is None else f"no episode of {line_up!r}"
        raise UsageError(f"{whose} ends with a prediction; those of swe/repo-v0 do")
    if len(found) > 1:
        raise UsageError(
            f"these have predictions: {', '.join(found)}; SWE-bench reads those of one model from a file, "
            "so say which by --agents"
        )
    return next(iter(found))


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while group := list(islice(rows, _ROWS_OF_A_GROUP)):
        yield group


def _arrow_type(arrow: Any, kind: str) -> Any:
    if kind.startswith("list<"):
        return arrow.list_(_arrow_type(arrow, kind[5:-1]))
    return arrow.type_for_alias(kind)


def _rewards(episode: Episode, seat: AgentID) -> list[float]:
    """Return what each action of a seat was paid: up to its next one, so that they add up where others act between."""
    rewards: list[float] = []
    for step in episode.steps:
        if seat in step.actions:
            rewards.append(0.0)
        if rewards and seat in step.time_step.seats:
            rewards[-1] += step.time_step.seats[seat].reward
    return rewards


def _contexts(episode: Episode, seat: AgentID) -> list[list[_Turn]]:
    """Return the turns of each context that a seat's agent recorded, each with its reward; none where it did not."""
    contexts: list[list[_Turn]] = []
    for step in episode.steps:
        for turn in _recorded(episode, seat, step.index, step.decisions.get(seat, {}).get("token_turns")):
            if turn.new_context:
                contexts.append([])
            elif not contexts:
                raise ConfigError(f"{_place(episode, seat, step.index)}: the first turn begins no context")
            contexts[-1].append(turn)
        if contexts and seat in step.time_step.seats:
            contexts[-1][-1].reward += step.time_step.seats[seat].reward
    return contexts


def _recorded(episode: Episode, seat: AgentID, index: int, given: Any) -> list[_Turn]:
    """Return the turns that an agent recorded beside an action, checked."""
    try:
        turns = msgspec.convert(given or [], list[_Turn])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{_place(episode, seat, index)}: {error}") from error
    for turn in turns:
        sizes = {len(turn.completion_ids), len(turn.completion_logprobs), len(turn.completion_entropies)}
        if len(sizes) > 1 or 0 in sizes:
            raise ConfigError(
                f"{_place(episode, seat, index)}: a turn has {sorted(sizes)} tokens and numbers of tokens"
            )
        if not all(0 <= one < 2**31 for one in (*turn.given_ids, *turn.completion_ids)):
            raise ConfigError(f"{_place(episode, seat, index)}: ids of tokens are from 0 to {2**31 - 1}")
    return turns


def _place(episode: Episode, seat: AgentID, index: int) -> str:
    return f"episode {episode.record.episode}, step {index}: the token_turns of {seat} are wrong"


def _tokens(turns: list[_Turn]) -> dict[str, Any]:
    """Return the token columns of one context."""
    first, ids = turns[0], list[int]()
    mask, log_probs, entropies, starts = list[int](), list[float](), list[float](), list[int]()
    for turn in turns:
        given = [] if turn is first else turn.given_ids
        starts.append(len(ids) + len(given))
        ids += given + turn.completion_ids
        mask += [0] * len(given) + [1] * len(turn.completion_ids)
        log_probs += [0.0] * len(given) + turn.completion_logprobs
        entropies += [0.0] * len(given) + turn.completion_entropies
    return {
        "rewards": [turn.reward for turn in turns],
        "prompt_ids": first.given_ids,
        "completion_ids": ids,
        "completion_mask": mask,
        "completion_logprobs": log_probs,
        "completion_entropies": entropies,
        "turn_starts": starts,
    }
