from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
from gymnasium import spaces

from arena import PLAYER, FreeText, Seat, SeatSpec, Session, Tool, ToolCall, UsageError, make, make_agent, restart


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


def test_draws_what_is_listed_by_its_number():
    """Transcripts of seeded random play stay as they are: one draw for the space, then one for each action."""
    spec, legal = SeatSpec(FreeText(), FreeText()), ["a", "b", "c", "d"]
    rng = seat_of(spec, seed=3).rng()
    rng.integers(2**31)
    assert play(spec, 20, seed=3, step=restart("", legal_actions=legal)) == [
        legal[int(rng.integers(4))] for _ in range(20)
    ]


def test_the_seed_decides():
    for spec in (SeatSpec(FreeText(), FreeText(10, min_length=1)), SeatSpec(FreeText(), spaces.Box(-1, 1, (2, 3)))):
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


def test_calls_tools_where_there_is_nothing_else():
    tools = (Tool("stop", "", {"type": "object"}),)
    assert play(SeatSpec(FreeText(), None, tools), 2) == [ToolCall("stop", {})] * 2


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
