"""Hostile and odd values that arrive from a file or a wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium import spaces

from arena import (
    Array,
    FreeText,
    Limit,
    Limits,
    SeatSpec,
    UsageError,
    restart,
)
from arena.replay import _compare, replay
from arena.spaces import rebuild, restore
from arena.trace import EndRecord, StepRecord, read_episodes
from arena.types import Task, decode_json, encode_canonical, encode_json

from .test_session import TASK, Echo, opened, say

GOLDEN = Path(__file__).parents[1] / Path("golden/text__guess-v0/steps_limit.jsonl")


# -- arrays and spaces ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2**70, 0), (2**62, 0, 2**62), (1,) * 100])
def test_hostile_shape_is_a_usage_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        Array("int8", shape, b"x" if 0 not in shape else b"").numpy()


@pytest.mark.parametrize(
    "data",
    [
        {"type": "dict", "spaces": [1]},
        {"type": "discrete", "n": 10**30, "start": 0},
        {"type": "multi_binary", "n": [10**30]},
    ],
    ids=str,
)
def test_hostile_space_is_a_usage_error(data: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        rebuild(data)


def test_hostile_element_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        restore(spaces.Discrete(3), 2**70)
    with pytest.raises(UsageError):
        restore(spaces.Discrete(3), True)
    with pytest.raises(UsageError):
        restore(spaces.Dict({"a": spaces.Discrete(3)}), {"a": 1, "b": 2})


@pytest.mark.parametrize("space", [spaces.MultiBinary(5), spaces.Discrete(3, dtype=np.int32)], ids=str)
def test_rebuilt_space_equals_the_space(space: spaces.Space[Any]) -> None:
    from arena.spaces import describe

    assert rebuild(describe(space)) == space


# -- test_replay ---------------------------------------------------------------------------------


class Sees(Echo):
    """Observes an array of two."""

    def seat(self, agent: str) -> SeatSpec:
        return SeatSpec(spaces.Box(0, 9, (2,)), FreeText(20))

    def begin(self, task: Any, seed: int) -> Any:
        super().begin(task, seed)
        return restart(np.ones(2, np.float32))


def test_array_observations_can_be_compared() -> None:
    record = opened(Sees()).journal[0]
    assert _compare(decode_json(encode_json(record), StepRecord), record, 2) is None


def test_arrays_and_integer_rewards_do_not_look_edited() -> None:
    from arena.trace import first_digest, next_digest

    session = opened(Sees())
    record = decode_json(encode_json(session.journal[0]), StepRecord)
    start = first_digest("toys/echo-v0", session.env.options.model_dump(mode="json"), TASK, 1, session.limits)
    assert next_digest(start, 0, record.actions, record.time_step).hex() == record.digest


def test_written_record_is_read_as_the_same_bytes() -> None:
    session = opened(steps=1)
    say(session, "one")
    for record, cls in ((session.journal[-1], StepRecord), (session.end(), EndRecord)):
        assert encode_json(decode_json(encode_json(record), cls)) == encode_json(record)


def test_changed_limits_are_found() -> None:
    (episode,) = read_episodes(GOLDEN)
    episode.steps[-1] = msgspec.structs.replace(episode.steps[-1], limit=Limit("steps", 99.0, 1.0))
    assert replay(episode) is not None
    (episode,) = read_episodes(GOLDEN)
    assert episode.end is not None
    episode.end = msgspec.structs.replace(episode.end, limit=None)
    assert replay(episode) is not None
    (episode,) = read_episodes(GOLDEN)
    episode.record = msgspec.structs.replace(episode.record, limits=Limits(steps=77))
    assert replay(episode) is not None


def test_equal_tasks_have_equal_digests_however_their_split_was_made():
    made = "".join(["tr", "ain"])
    assert encode_canonical(Task("a", made)) == encode_canonical(Task("a")) == encode_canonical(Task("a", "train"))
