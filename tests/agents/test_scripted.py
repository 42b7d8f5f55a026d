from __future__ import annotations

import pytest

from arena import PLAYER, AgentError, ConfigError, Seat, ToolCall, make, make_agent, restart

STEP = restart("go")


def begin(**options):
    env = make("text/guess-v0")
    agent = make_agent("scripted", options)
    seat = Seat(PLAYER, env.spec, env.seat(PLAYER), env.taskset("test").task(0), 0)
    agent.begin(seat)
    return agent, seat


def test_plays_text_numbers_and_tool_calls_in_order_and_then_stops():
    agent, _ = begin(actions=["look", 3, {"name": "move", "arguments": {"to": "e4"}}, {"name": "resign"}])
    played = [agent.act(STEP) for _ in range(4)]
    assert played == ["look", 3, ToolCall("move", {"to": "e4"}), ToolCall("resign", {})]
    with pytest.raises(AgentError, match="the script of 4 actions is used up"):
        agent.act(STEP)


@pytest.mark.parametrize(("then", "expected"), [("repeat", "abab"), ("last", "abbb")])
def test_goes_on_as_told(then, expected):
    agent, _ = begin(actions=["a", "b"], then=then)
    assert "".join(agent.act(STEP) for _ in range(4)) == expected


def test_begins_again_with_each_episode():
    agent, seat = begin(actions=["a", "b"])
    assert agent.act(STEP) == "a"
    agent.begin(seat)
    assert agent.act(STEP) == "a"


@pytest.mark.parametrize("action", [True, 1.5, None, ["a"], {"arguments": {}}, {"name": "a", "args": {}}])
def test_refuses_what_is_no_action(action):
    with pytest.raises(ConfigError, match="actions"):
        make_agent("scripted", {"actions": [action]})


def test_refuses_to_go_on_with_nothing():
    with pytest.raises(ConfigError, match="then: repeat needs at least one action"):
        make_agent("scripted", {"then": "repeat"})
    agent, _ = begin()
    with pytest.raises(AgentError, match="script of 0 actions"):
        agent.act(STEP)
