"""Random actions are legal, uniform and reproducible, and drawing them changes nobody's space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from arena import (
    Action,
    ActionSampler,
    Array,
    FreeText,
    SeatSpec,
    SeatStep,
    Tool,
    ToolCall,
    UsageError,
    restart,
    stream,
)
from arena.sampling import sample_action, sample_element


def by_sampler(seat: SeatSpec, seed: int, step: SeatStep) -> Iterator[Action]:
    sampler = ActionSampler(seat, stream(seed, "policy"))
    while True:
        yield sampler.sample(step)


def by_function(seat: SeatSpec, seed: int, step: SeatStep) -> Iterator[Action]:
    rng = stream(seed, "policy")
    while True:
        yield sample_action(rng, seat, step)


Way = Callable[[SeatSpec, int, SeatStep], Iterator[Action]]
ways = pytest.mark.parametrize("way", [by_sampler, by_function])


def draw(way: Way, seat: SeatSpec, count: int = 20, seed: int = 0, step: SeatStep | None = None) -> list[Action]:
    return [action for action, _ in zip(way(seat, seed, step or restart("")), range(count), strict=False)]


def in_space(space: spaces.Space[Any]) -> SeatSpec:
    return SeatSpec(FreeText(), space)


def state(space: spaces.Space[Any]) -> str:
    return repr(space.np_random.bit_generator.state)


@ways
def test_is_uniform_over_what_is_legal(way: Way) -> None:
    step = restart("", legal_actions=["a", "b", "c", "d"])
    counts = Counter(map(str, draw(way, in_space(FreeText()), 4000, step=step)))
    assert set(counts) == set("abcd")
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_listed_actions_are_drawn_by_their_number() -> None:
    legal, rng = ["a", "b", "c"], stream(5, "policy")
    expected = [legal[int(rng.integers(3))] for _ in range(20)]
    assert draw(by_function, in_space(FreeText()), seed=5, step=restart("", legal_actions=legal)) == expected


SPACES: list[spaces.Space[Any]] = [
    FreeText(10, min_length=1),
    spaces.Text(5),
    spaces.Discrete(5, start=-2),
    spaces.Box(-1, 1, (2, 3)),
    spaces.Box(0, 255, (4,), np.uint8),
    spaces.MultiBinary(4),
    spaces.MultiDiscrete([3, 2]),
]
each_space = pytest.mark.parametrize("space", SPACES, ids=str)


@ways
@each_space
def test_samples_the_space_without_touching_it(way: Way, space: spaces.Space[Any]) -> None:
    before = state(space)
    for action in draw(way, in_space(space)):
        assert space.contains(action.numpy() if isinstance(action, Array) else action)
    assert state(space) == before


@ways
@each_space
def test_the_generator_decides(way: Way, space: spaces.Space[Any]) -> None:
    assert draw(way, in_space(space), seed=7) == draw(way, in_space(space), seed=7)
    assert draw(way, in_space(space), seed=7) != draw(way, in_space(space), seed=8)


@each_space
def test_element_is_drawn_whatever_is_listed(space: spaces.Space[Any]) -> None:
    before, rng = state(space), stream(0, "policy")
    elements = [sample_element(rng, in_space(space)) for _ in range(10)]
    assert all(space.contains(element.numpy() if isinstance(element, Array) else element) for element in elements)
    assert state(space) == before


def test_a_space_that_samples_in_its_own_way_is_sampled_so() -> None:
    class Word(spaces.Text):
        def sample(self, mask: Any = None, probability: Any = None) -> str:
            return "word"

    assert draw(by_sampler, in_space(Word(10)), 3) == ["word"] * 3
    assert draw(by_function, in_space(Word(10)), 3) == ["word"] * 3


@ways
def test_refuses_what_it_cannot_draw(way: Way) -> None:
    with pytest.raises(UsageError, match="neither an action space nor tools"):
        draw(way, SeatSpec(FreeText(), None))
    with pytest.raises(UsageError, match="cannot draw an action from Dict"):
        draw(way, in_space(spaces.Dict({"a": spaces.Discrete(2)})))


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "maxLength": 4},
        "days": {"type": "integer", "exclusiveMinimum": 0, "maximum": 3},
        "rate": {"type": "number", "minimum": 0.5, "maximum": 0.75},
        "cold": {"type": "number", "exclusiveMaximum": -200},
        "unit": {"enum": ["C", "F"]},
        "deep": {"type": "object", "properties": {"x": {"type": ["integer", "null"]}}, "required": ["x"]},
        "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        "either": {"anyOf": [{"type": "null"}, {"const": "yes"}]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = (Tool("weather", "", SCHEMA), Tool("stop", "", {"type": "object"}))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**53 - 1))
def test_tool_calls_are_valid(seed: int) -> None:
    for call in draw(by_sampler, SeatSpec(FreeText(), None, TOOLS), 5, seed=seed):
        assert isinstance(call, ToolCall)
        schema = next(tool.parameters for tool in TOOLS if tool.name == call.name)
        Draft202012Validator(schema).validate(call.arguments)


@ways
def test_uses_every_tool_and_sometimes_the_optional_arguments(way: Way) -> None:
    calls = [call for call in draw(way, SeatSpec(FreeText(), None, TOOLS), 200) if isinstance(call, ToolCall)]
    assert {call.name for call in calls} == {"weather", "stop"}
    assert {name for call in calls for name in call.arguments} == set(SCHEMA["properties"])


@ways
def test_tools_and_the_action_space_have_equal_chances(way: Way) -> None:
    seat, step = SeatSpec(FreeText(), FreeText(), TOOLS), restart("", legal_actions=["go"])
    counts = Counter(a.name if isinstance(a, ToolCall) else str(a) for a in draw(way, seat, 3000, step=step))
    assert set(counts) == {"weather", "stop", "go"}
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_element_of_a_seat_without_a_space_is_a_call() -> None:
    assert isinstance(sample_element(stream(0, "policy"), SeatSpec(FreeText(), None, TOOLS)), ToolCall)
