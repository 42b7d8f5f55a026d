"""What must hold for any seed, any play, any message: found by Hypothesis rather than thought up."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import arena.errors
import arena.trace
import arena.types
from arena import (
    PLAYER,
    Array,
    ConfigError,
    Decision,
    FreeText,
    InvalidActionError,
    Limit,
    Limits,
    OutOfOrderError,
    ResetNeededError,
    Score,
    SeatStep,
    Session,
    Task,
    TimeStep,
    Tool,
    ToolCall,
    Usage,
    UsageError,
    make,
    python_stream,
    stream,
)
from arena.errors import ErrorRecord
from arena.replay import Difference, replay
from arena.seeding import MAX_SEED, derive_seed
from arena.spaces import describe, rebuild, restore
from arena.testing import golden
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord, StepRecord, read_episodes
from arena.types import Action, decode_json, decode_msgpack, encode_json, encode_msgpack

ENV = "text/guess-v0"
TASKS = [task for split in ("train", "test") for task in make(ENV).taskset(split)]

seeds = st.integers(0, MAX_SEED)
tasks = st.sampled_from(TASKS)
plays = st.lists(st.integers(0, 10_000), max_size=30)
"""Arbitrary legal play: each number picks from the legal actions."""

# -- play -------------------------------------------------------------------------------------------------------------


def opened(task: Task, seed: int, **options: int) -> Session:
    session = Session(make(ENV, options), task, seed, limits=Limits(invalid_actions=None))
    session.open()
    return session


def legal(session: Session, pick: int) -> dict[str, Action]:
    actions = session.journal[-1].time_step.seats[PLAYER].legal_actions or ("1",)
    return {PLAYER: actions[pick % len(actions)]}


def play(session: Session, picks: Sequence[int]) -> list[str]:
    for pick in picks:
        if session.status == "running":
            session.step(len(session.journal), legal(session, pick))
    return digests(session)


def digests(session: Session) -> list[str]:
    return [record.digest for record in session.journal]


@given(tasks, seeds, plays)
def test_same_task_seed_and_play_give_the_same_transcript(task: Task, seed: int, picks: list[int]) -> None:
    one, other = opened(task, seed, max_guesses=40), opened(task, seed, max_guesses=40)
    assert play(one, picks) == play(other, picks)
    assert encode_msgpack([r.time_step for r in one.journal]) == encode_msgpack([r.time_step for r in other.journal])


@given(tasks, seeds, plays, st.data())
def test_expert_and_fork_at_any_step_change_nothing(
    task: Task, seed: int, picks: list[int], data: st.DataObject
) -> None:
    session = opened(task, seed, max_guesses=40)
    calm = play(opened(task, seed, max_guesses=40), picks)
    for pick in picks:
        if session.status == "running":
            session.expert_action(PLAYER)
            fork = session.fork(make(ENV, {"max_guesses": 40}))
            fork.step(len(fork.journal), legal(fork, pick + 1))
            session.step(len(session.journal), legal(session, pick))
    assert digests(session) == calm
    at = data.draw(st.integers(0, len(calm) - 1))
    assert play(session.fork(make(ENV, {"max_guesses": 40}), at=at), picks[at:]) == calm


json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
json_values = st.recursive(
    json_scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
junk = (
    st.none()
    | st.floats()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.lists(st.integers(), max_size=2)
    | st.builds(ToolCall, st.text(max_size=5))
    | st.sampled_from(["0", "00", "01", "-1", "1.0", " 1", "1\n", "\uff11", "9" * 9, "higher", "\ud800"])
    | st.builds(np.array, st.lists(st.floats(), max_size=3))
)


@settings(max_examples=60)
@given(tasks, seeds, plays, st.lists(st.lists(junk, max_size=4), max_size=30))
def test_refused_actions_change_nothing(task: Task, seed: int, picks: list[int], pests: list[list[Any]]) -> None:
    pestered = opened(task, seed, max_guesses=40)
    for pick, pest in zip(picks, [*pests, *[[]] * len(picks)], strict=False):
        for action in pest:
            _refused(pestered, action)
        if pestered.status == "running":
            pestered.step(len(pestered.journal), legal(pestered, pick))
    calm = opened(task, seed, max_guesses=40)
    assert play(calm, picks) == digests(pestered)
    assert calm.env.score() == pestered.env.score()


def _refused(session: Session, action: Any) -> None:
    listed = session.journal[-1].time_step.seats[PLAYER].legal_actions or ()
    if session.status == "running" and not (isinstance(action, str) and action in listed):
        with pytest.raises(InvalidActionError) as caught:
            session.step(len(session.journal), {PLAYER: action})
        assert "\n" not in str(caught.value)


requests = st.lists(st.tuples(st.integers(-2, 4), st.integers(0, 9)), max_size=40)


@given(tasks, seeds, requests)
def test_steps_are_in_order_and_exactly_once(task: Task, seed: int, sent: list[tuple[int, int]]) -> None:
    """Requests are duplicated, reordered, early and late; the journal is that of the ones that count."""
    session = opened(task, seed, max_guesses=6)
    taken: list[dict[str, Action]] = [{}]
    for offset, pick in sent:
        _check_answer(session, taken, max(-1, len(taken) - offset + 1), {PLAYER: str(pick)})
    calm = opened(task, seed, max_guesses=6)
    for index, actions in enumerate(taken[1:], 1):
        calm.step(index, actions)
    assert digests(calm) == digests(session)
    assert [record.actions for record in session.journal] == taken


def _check_answer(session: Session, taken: list[dict[str, Action]], index: int, actions: dict[str, Action]) -> None:
    """Send a request, and compare the answer with what the list of steps taken says that it must be."""
    running, journal = session.status == "running", list(session.journal)
    if 1 <= index < len(taken) and actions == taken[index]:
        assert session.step(index, actions) is journal[index]
    elif index == len(taken) and running and str(actions[PLAYER]) in map(str, range(1, session.task.data["size"] + 1)):
        assert session.step(index, actions).index == index
        taken.append(actions)
    else:
        late = index >= len(taken)
        expected = (
            ResetNeededError if late and not running else InvalidActionError if index == len(taken) else OutOfOrderError
        )
        with pytest.raises(expected):
            session.step(index, actions)
        assert session.journal == journal


# -- messages ---------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**53)
objects = st.dictionaries(texts, json_values, max_size=3)
_DTYPES = sorted(arena.types._DTYPES)


@st.composite
def ndarrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Return an array of any allowed dtype, also of floats that are not finite."""
    dtype: np.dtype[Any] = np.dtype(draw(st.sampled_from(_DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = math.prod(shape)
    if dtype.kind == "f":
        special = st.sampled_from([math.nan, math.inf, -math.inf, -0.0]) | st.floats(width=16)
        return np.array(draw(st.lists(special, min_size=size, max_size=size)), dtype).reshape(shape)
    if dtype.kind == "b":
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype).reshape(shape)
    info = np.iinfo(dtype)
    elements = st.lists(st.integers(int(info.min), int(info.max)), min_size=size, max_size=size)
    return np.array(draw(elements), dtype).reshape(shape)


arrays = ndarrays().map(Array.of)
calls = st.builds(ToolCall, texts, objects)
actions = texts | st.integers(-(2**63), 2**63 - 1) | calls | arrays
joint = st.dictionaries(texts, actions, max_size=3)
legals = st.none() | st.lists(texts | st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple)
usages = st.builds(Usage, counts, counts, numbers, counts, counts)
seat_steps = st.builds(SeatStep, json_values, numbers, st.booleans(), st.booleans(), st.none() | texts, legals, objects)
time_steps = st.builds(TimeStep, st.dictionaries(texts, seat_steps, max_size=2), st.lists(texts, max_size=2).map(tuple))
scores = st.builds(
    Score, numbers, st.none() | st.booleans(), st.dictionaries(texts, numbers), st.dictionaries(texts, numbers)
)
kinds = st.sampled_from(["steps", "wall_time", "step_time", "tokens", "cost", "invalid_actions"])
limits = st.builds(Limit, kinds, numbers, numbers)
positive = st.none() | st.integers(1, 2**53)
positive_s = st.none() | st.floats(1e-3, 1e9)
all_limits = st.builds(
    Limits,
    steps=positive,
    wall_time_s=positive_s,
    step_time_s=positive_s,
    tokens=positive,
    cost_usd=positive_s,
    invalid_actions=positive,
)
any_tasks = st.builds(Task, texts, texts, objects)
refs = st.builds(AgentRef, texts, objects)
errors = st.builds(ErrorRecord, code=texts, message=texts, retryable=st.booleans(), details=objects)
per_seat = st.dictionaries(texts, numbers, max_size=2)

MESSAGES: dict[type[msgspec.Struct], st.SearchStrategy[Any]] = {
    Array: arrays,
    ToolCall: calls,
    Tool: st.builds(Tool, texts, texts, objects),
    SeatStep: seat_steps,
    TimeStep: time_steps,
    Task: any_tasks,
    Score: scores,
    Usage: usages,
    Decision: st.builds(Decision, actions, st.none() | usages, objects),
    Limit: limits,
    Limits: all_limits,
    ErrorRecord: errors,
    AgentRef: refs,
    EpisodeRecord: st.builds(
        EpisodeRecord,
        env=texts,
        task=any_tasks,
        seed=seeds,
        episode=texts,
        options=objects,
        limits=all_limits,
        seats=st.dictionaries(texts, refs, max_size=2),
        attempt=counts,
        versions=st.dictionaries(texts, texts, max_size=2),
    ),
    StepRecord: st.builds(
        StepRecord,
        index=counts,
        time_step=time_steps,
        digest=texts,
        actions=joint,
        limit=st.none() | limits,
        env_s=numbers,
        agent_s=per_seat,
        usage=st.none() | usages,
        decisions=st.dictionaries(texts, objects, max_size=2),
    ),
    EndRecord: st.builds(
        EndRecord,
        outcome=st.sampled_from(["terminated", "truncated", "failed"]),
        steps=counts,
        endings=st.dictionaries(texts, texts, max_size=2),
        returns=per_seat,
        score=st.none() | scores,
        error=st.none() | errors,
        limit=st.none() | limits,
        refused=counts,
        wall_s=numbers,
        env_s=numbers,
        agent_s=numbers,
        usage=usages,
        digest=texts,
    ),
}


def test_every_message_type_is_tried() -> None:
    modules = (arena.types, arena.trace, arena.errors)
    structs = {
        cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, msgspec.Struct) and cls.__module__ == module.__name__ and not name.startswith("_")
    }
    assert structs == set(MESSAGES)


def _or_usage_error(call: Callable[[], Any]) -> Any:
    """Return what a call returns, None where it raises a UsageError of one line; nothing else may be raised."""
    try:
        return call()
    except UsageError as error:
        message = str(error)
    assert "\n" not in message
    return None


@settings(max_examples=40)
@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_message_survives_the_wire(cls: type[msgspec.Struct], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[cls])
    line = encode_json(message)
    assert b"\n" not in line
    assert decode_json(line, cls) == message
    assert decode_msgpack(encode_msgpack(message), cls) == message
    assert encode_json(decode_json(line, cls)) == line
    assert encode_msgpack(decode_json(line, cls)) == encode_msgpack(message)


@given(actions)
def test_action_survives_the_wire_as_what_it_is(action: Action) -> None:
    for decoded in (decode_json(encode_json(action), Action), decode_msgpack(encode_msgpack(action), Action)):
        assert decoded == action
        assert type(decoded) is type(action)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@given(noise=st.binary(max_size=60) | json_values.map(encode_json) | json_values.map(encode_msgpack))
def test_noise_is_no_message(cls: type[msgspec.Struct], noise: bytes) -> None:
    for decode in (decode_json, decode_msgpack):
        message = _or_usage_error(partial(decode, noise, cls))
        assert message is None or isinstance(message, cls)


@given(ndarrays())
def test_array_comes_back_as_it_was(array: np.ndarray[Any, Any]) -> None:
    for message in (
        Array.of(array),
        decode_json(encode_json(array), Array),
        decode_msgpack(encode_msgpack(array), Array),
    ):
        again = message.numpy()
        assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert again.flags.writeable
        assert again.flags.owndata


@given(ndarrays())
def test_array_of_any_layout_is_sent_in_c_order(array: np.ndarray[Any, Any]) -> None:
    swapped = array.T.astype(array.dtype.newbyteorder(">"))
    assert Array.of(swapped).numpy().tobytes() == np.ascontiguousarray(array.T).tobytes()


dtype_names = st.sampled_from(
    [*_DTYPES, "object", "O", "datetime64", "complex128", "str", "U3", "V8", "float128", "", "void"]
)


@given(dtype_names | st.text(max_size=6), st.lists(st.integers(-3, 2**20), max_size=4), st.binary(max_size=64))
def test_hostile_array_is_a_usage_error(dtype: str, shape: list[int], data: bytes) -> None:
    array = _or_usage_error(lambda: Array(dtype, tuple(shape), data).numpy())
    if array is not None:
        assert array.shape == tuple(shape)
        assert array.nbytes == len(data)


@pytest.mark.parametrize(
    "bad", [np.array([object()]), np.array(["x"]), np.array([1j]), np.array(["2020"], "datetime64[D]")]
)
def test_array_of_other_things_cannot_be_sent(bad: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        Array.of(bad)


# -- spaces -----------------------------------------------------------------------------------------------------------


def _box(bounds: tuple[float, float], shape: list[int], dtype: str) -> spaces.Box:
    low, high = sorted(bounds)
    return spaces.Box(np.full(shape, low, dtype), np.full(shape, high, dtype), dtype=np.dtype(dtype).type)


shapes = st.lists(st.integers(1, 3), min_size=1, max_size=2)
leaves = (
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-5, 5))
    | st.builds(lambda shape: spaces.MultiBinary(shape), shapes)
    | st.builds(lambda n: spaces.MultiBinary(n), st.integers(1, 5))
    | st.builds(lambda nvec: spaces.MultiDiscrete(nvec), st.lists(st.integers(1, 5), min_size=1, max_size=3))
    | st.builds(lambda length: spaces.Text(length, charset="abcäö"), st.integers(1, 6))
    | st.builds(lambda a, b: FreeText(max(a, b), min_length=min(a, b)), st.integers(0, 9), st.integers(1, 9))
    | st.builds(
        _box, st.tuples(st.integers(0, 9), st.integers(0, 9)), shapes, st.sampled_from(["uint8", "int32", "int64"])
    )
    | st.builds(
        _box,
        st.tuples(st.sampled_from([-1.5, -math.inf, 0.0]), st.sampled_from([0.5, math.inf])),
        shapes,
        st.sampled_from(["float32", "float64"]),
    )
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
any_spaces: st.SearchStrategy[spaces.Space[Any]] = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(names, inner, min_size=1, max_size=3).map(spaces.Dict)
        | st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
    ),
    max_leaves=5,
)


@settings(max_examples=60)
@given(any_spaces, st.integers(0, 2**31 - 1))
def test_space_and_its_elements_survive_the_wire(space: spaces.Space[Any], seed: int) -> None:
    data = describe(space)
    again = rebuild(decode_json(encode_json(data)))
    assert describe(again) == data
    assert again.__class__ is space.__class__
    space.seed(seed)
    for _ in range(3):
        element = space.sample()
        for decoded in (decode_json(encode_json(element)), decode_msgpack(encode_msgpack(element))):
            restored = restore(again, decoded)
            assert space.contains(restored)
            assert encode_msgpack(restored) == encode_msgpack(element)
            assert _types(restored) == _types(element)


def _types(element: Any) -> Any:
    """Return the types inside an element: a restored one has exactly those that the environment gave."""
    if isinstance(element, Mapping):
        return {name: _types(sub) for name, sub in element.items()}
    if isinstance(element, tuple):
        return tuple(map(_types, element))
    return (type(element), getattr(element, "dtype", None), getattr(element, "shape", None))


@given(
    leaves,
    st.none() | st.booleans() | st.floats() | texts | st.binary() | st.lists(st.integers(0, 3)) | objects | arrays,
)
def test_stranger_is_no_element(space: spaces.Space[Any], value: Any) -> None:
    element = _or_usage_error(lambda: restore(space, value))
    assert element is None or space.contains(element)


@given(st.text())
def test_free_text_holds_what_utf8_holds(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        assert text not in FreeText()
    else:
        assert text in FreeText()
    assert text not in FreeText(3) or len(text) <= 3


# -- streams ----------------------------------------------------------------------------------------------------------


@given(seeds, st.lists(texts | st.integers(), max_size=3), st.lists(texts | st.integers(), max_size=3))
def test_streams_of_other_names_are_others(seed: int, one: list[str | int], other: list[str | int]) -> None:
    assume(not any("\x1f" in part for part in [*one, *other] if isinstance(part, str)))
    assert (derive_seed(seed, *one) == derive_seed(seed, *other)) == (one == other)
    assert 0 <= derive_seed(seed, *one) <= MAX_SEED


@given(seeds)
def test_streams_are_fresh_each_time(seed: int) -> None:
    assert stream(seed, "env").integers(2**60) == stream(seed, "env").integers(2**60)
    assert python_stream(seed, "env").random() == python_stream(seed, "env").random()


@given(
    st.integers(max_value=-1) | st.integers(min_value=MAX_SEED + 1) | st.floats() | st.booleans() | st.none() | texts
)
def test_other_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(UsageError, match="a seed is an integer"):
        derive_seed(seed, "env")


# -- traces -----------------------------------------------------------------------------------------------------------


def recorded() -> Episode:
    return golden.record(ENV, {"max_guesses": 5}, TASKS[1], 3, ["1", "16", "2", "3", "4"])


EPISODE = recorded()
LINES = EPISODE.lines().splitlines(keepends=True)


def test_untouched_trace_is_reproduced() -> None:
    assert len(EPISODE.steps) == 6
    assert replay(EPISODE) is None


def changed(record: EpisodeRecord | None = None, steps: list[StepRecord] | None = None) -> Difference | None:
    return replay(Episode(record or EPISODE.record, steps or EPISODE.steps, EPISODE.end))


@given(st.integers(1, 5), st.integers(0, 17).map(str) | texts)
def test_changed_action_is_found_on_its_line(index: int, action: str) -> None:
    assume({PLAYER: action} != EPISODE.steps[index].actions)
    steps = list(EPISODE.steps)
    steps[index] = msgspec.structs.replace(steps[index], actions={PLAYER: action})
    difference = changed(steps=steps)
    assert difference is not None
    assert (difference.line, difference.step) == (index + 2, index)
    assert "\n" not in str(difference)


@given(seeds)
def test_changed_seed_is_found_at_the_first_step(seed: int) -> None:
    assume(seed != EPISODE.record.seed)
    difference = changed(msgspec.structs.replace(EPISODE.record, seed=seed))
    assert difference is not None
    assert (difference.line, difference.step) == (2, 0)


@given(any_tasks | st.builds(Task, texts, texts, st.just({"size": 16})) | tasks)
def test_changed_task_is_found_at_the_first_step(task: Task) -> None:
    assume(task != EPISODE.record.task)
    difference = changed(msgspec.structs.replace(EPISODE.record, task=task))
    assert difference is not None
    assert (difference.line, difference.step) == (2, 0)


@given(st.integers(1, 1000))
def test_changed_option_is_found_at_the_first_step(guesses: int) -> None:
    assume(guesses != 5)
    difference = changed(msgspec.structs.replace(EPISODE.record, options={"max_guesses": guesses}))
    assert difference is not None
    assert (difference.line, difference.step) == (2, 0)


def timeless(record: Any) -> Any:
    """Return a record without what a replay may change."""
    if isinstance(record, StepRecord):
        return msgspec.structs.replace(record, env_s=0.0, agent_s={}, usage=None, decisions={})
    return msgspec.structs.replace(record, env_s=0.0, agent_s=0.0, wall_s=0.0, usage=Usage(), refused=0)


_DIRECTORY = tempfile.TemporaryDirectory(prefix="arena-properties-")


@settings(max_examples=300)
@given(st.integers(1, len(LINES) - 1), st.data())
def test_changed_byte_is_found_on_its_line(number: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(LINES[number]) - 1))
    line = bytearray(LINES[number])
    byte = data.draw(st.sampled_from(b'0123456789abcdefx."{}[],:\n\\ \xff') | st.integers(0, 255))
    assume(line[position] != byte)
    line[position] = byte
    path = _scratch(b"".join([*LINES[:number], bytes(line), *LINES[number + 1 :]]))
    try:
        (episode,) = read_episodes(path)
    except ConfigError as error:
        found = str(error)
    else:
        _check_difference(episode, number)
        return
    assert found.startswith(f"{path}:{number + 1}: ")


def _check_difference(episode: Episode, number: int) -> None:
    """Check that replay finds the line with the changed byte, unless the change means nothing."""
    records = [episode.record, *episode.steps, episode.end]
    originals = [EPISODE.record, *EPISODE.steps, EPISODE.end]
    difference = replay(episode)
    if records[number] is not None and timeless(records[number]) == timeless(originals[number]):
        assert difference is None
    else:
        assert difference is not None
        assert difference.line == number + 1


def _scratch(content: bytes) -> Path:
    path = Path(_DIRECTORY.name) / "trace.jsonl"
    path.write_bytes(content)
    return path
