from __future__ import annotations

import pytest

from arena import PLAYER, Seat, Session, UsageError, make, make_agent


def test_wins_every_game():
    for seed in range(20):
        env = make("text/guess-v0")
        session = Session(env, env.taskset("test").task(2), seed)
        record = session.open()
        agent = make_agent("expert")
        seat = Seat(PLAYER, env.spec, env.seat(PLAYER), session.task, seed, lambda s=session: s.expert_action(PLAYER))
        agent.begin(seat)
        while session.acting:
            action = agent.act(record.time_step.seats[PLAYER])
            record = session.step(len(session.journal), {PLAYER: action})
        assert session.end().score.success


def test_refuses_a_seat_without_expert_in_one_line():
    env = make("text/guess-v0")
    agent = make_agent("expert")
    with pytest.raises(UsageError, match=r"text/guess-v0 has no expert to play seat 'player'") as raised:
        agent.begin(Seat(PLAYER, env.spec, env.seat(PLAYER), env.taskset("test").task(0), 0))
    assert "\n" not in str(raised.value)


def test_declares_what_it_needs():
    spec = type(make_agent("expert")).spec
    assert (spec.id, spec.needs_expert, spec.deterministic, spec.exclusive) == ("expert", True, True, False)
