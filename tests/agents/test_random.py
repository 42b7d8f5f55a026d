from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from arena import (
    PLAYER,
    Array,
    FreeText,
    Seat,
    SeatSpec,
    Session,
    Tool,
    ToolCall,
    UsageError,
    make,
    make_agent,
    restart,
)


def seat_of(spec, seed=0):
    env = make("text/guess-v0")
    return Seat(PLAYER, env.spec, spec, env.taskset("test").task(0), seed)


def play(spec, count=20, seed=0, step=None):
    agent = make_agent("random")
    agent.begin(seat_of(spec, seed))
    return [agent.act(step or restart("")) for _ in range(count)]


def test_the_module_does_not_shadow_the_standard_library():
    make_agent("random")
    assert random.Random(0).random() == pytest.approx(0.8444218515250481)
    assert sys.modules["random"] is random
    assert "site-packages" not in random.__file__
    assert not random.__file__.endswith("agents/random.py")


def test_is_uniform_over_what_is_legal():
    spec = SeatSpec(FreeText(), FreeText())
    counts = Counter(play(spec, 4000, step=restart("", legal_actions=["a", "b", "c", "d"])))
    assert set(counts) == set("abcd")
    assert all(abs(count - 1000) < 150 for count in counts.values())


SPACES = [
    FreeText(10, min_length=1),
    spaces.Text(5),
    spaces.Discrete(5, start=-2),
    spaces.Box(-1, 1, (2, 3)),
    spaces.Box(0, 255, (4,), np.uint8),
    spaces.MultiBinary(4),
    spaces.MultiDiscrete([3, 2]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_the_space_without_touching_it(space):
    before = repr(space.np_random.bit_generator.state)
    for action in play(SeatSpec(FreeText(), space)):
        assert space.contains(action.numpy() if isinstance(action, Array) else action)
    assert repr(space.np_random.bit_generator.state) == before


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_seed_decides(space):
    spec = SeatSpec(FreeText(), space)
    assert play(spec, seed=7) == play(spec, seed=7)
    assert play(spec, seed=7) != play(spec, seed=8)


def test_seats_of_one_episode_differ():
    spec = SeatSpec(FreeText(), spaces.Discrete(1000))
    agents = [make_agent("random"), make_agent("random")]
    for agent, name in zip(agents, ["white", "black"], strict=True):
        agent.begin(replace(seat_of(spec), agent=name))
    assert agents[0].act(restart("")) != agents[1].act(restart(""))


def test_refuses_what_it_cannot_draw():
    with pytest.raises(UsageError, match="neither an action space nor tools"):
        play(SeatSpec(FreeText(), None))
    with pytest.raises(UsageError, match="cannot draw an action from Dict"):
        play(SeatSpec(FreeText(), spaces.Dict({"a": spaces.Discrete(2)})))


SCHEMA = {
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


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**53 - 1))
def test_tool_calls_are_valid(seed):
    tools = (Tool("weather", "", SCHEMA), Tool("stop", "", {"type": "object"}))
    for call in play(SeatSpec(FreeText(), None, tools), 5, seed=seed):
        assert isinstance(call, ToolCall)
        schema = next(tool.parameters for tool in tools if tool.name == call.name)
        Draft202012Validator(schema).validate(call.arguments)


def test_uses_every_tool_and_sometimes_the_optional_arguments():
    tools = (Tool("weather", "", SCHEMA), Tool("stop", "", {"type": "object"}))
    calls = play(SeatSpec(FreeText(), None, tools), 200)
    assert {call.name for call in calls} == {"weather", "stop"}
    assert {name for call in calls for name in call.arguments} == set(SCHEMA["properties"])


def test_plays_whole_games():
    for seed in range(10):
        env = make("text/guess-v0")
        session = Session(env, env.taskset("test").task(1), seed)
        record = session.open()
        agent = make_agent("random")
        agent.begin(Seat(PLAYER, env.spec, env.seat(PLAYER), session.task, seed))
        while session.acting:
            record = session.step(len(session.journal), {PLAYER: agent.act(record.time_step.seats[PLAYER])})
        assert session.end().outcome == "terminated"
        assert session.refused == 0
