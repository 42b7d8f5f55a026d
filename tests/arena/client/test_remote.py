"""The client against the real server: what holds in process holds over the wire."""

import asyncio

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import arena
from arena import Limits, Session, ToolCall, Usage
from arena.agent import Agent, AgentSpec
from arena.client import AsyncClient, RemoteSeat, RemoteSession, RemoteWatch
from arena.errors import (
    InvalidActionError,
    ModelError,
    OutOfOrderError,
    ResetNeededError,
    SessionGoneError,
    UnauthorizedError,
    UnknownIdError,
    UsageError,
)
from arena.play import play_episode, settled
from arena.protocol import SeatTerms
from arena.trace import StepRecord
from arena.types import PLAYER, decode_json

GUESS = "text/guess-v0"


@pytest.fixture(scope="module")
def client(server):
    with arena.connect(server) as client:
        yield client


def local(seed=1, limits=None, **options):
    env = arena.make(GUESS, options)
    return Session(env, env.taskset("test").task(0), seed, limits=limits)


def remote(client, seed=1, limits=None, **options):
    return client.session(GUESS, task="range-10", split="test", seed=seed, limits=limits, options=options)


def told(session):
    """Return what must be the same here and there: all but measured times."""
    end = session.end()
    steps = [(r.index, r.time_step, r.digest, r.actions, r.limit, r.usage, r.decisions) for r in session.journal]
    verdict = (end.outcome, end.steps, end.endings, end.returns, end.score, end.limit, end.refused, end.usage)
    return steps, (*verdict, end.digest, None if end.error is None else end.error.code)


def drive(session, actions):
    """Play actions of any kind and return what was refused."""
    refused = []
    session.open()
    for action in actions:
        if not session.acting:
            break
        try:
            session.step(len(session.journal), {PLAYER: action})
        except InvalidActionError as error:
            refused.append(type(error))
    if session.status == "running":
        session.truncate("wall_time", 1.0, 1.0)
    return refused


# -- the same as in process -------------------------------------------------------------------------------------------

GUESSES = st.integers(1, 10).map(str)
ODDITIES = st.sampled_from(
    ["", "11", "ü", "\ud800", 3, 2**70, -(2**70), None, 1.5, ToolCall("x"), ToolCall("x", {"a": float("nan")}),
     ToolCall("x", {"a": (1, 2)}), np.zeros(2), np.array(["a"]), [1]]
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    actions=st.lists(GUESSES | ODDITIES, max_size=12),
    most=st.integers(1, 5),
    patience=st.integers(1, 4),
)
def test_in_process_and_over_the_wire_are_the_same(client, seed, actions, most, patience):
    limits = Limits(steps=most, invalid_actions=patience)
    here, there = local(seed, limits), remote(client, seed, limits)
    assert drive(here, actions) == drive(there, actions)
    assert told(here) == told(there)
    there.close()


def test_what_deciding_cost_is_counted_as_in_process(client):
    for limits in (None, Limits(tokens=12)):
        here, there = local(1, limits), remote(client, 1, limits)
        for session in (here, there):
            session.open()
            session.spend(Usage(input_tokens=3))
            session.step(1, {PLAYER: "1"}, usage=Usage(output_tokens=2), decisions={PLAYER: {"why": "first"}})
            with pytest.raises(InvalidActionError):
                session.step(2, {PLAYER: "x"}, usage=Usage(output_tokens=5))
            session.spend(Usage(requests=1))
            if session.status == "running":
                session.truncate("cost", 1.0, 1.0)
        assert told(here) == told(there)
        there.close()


def test_a_refused_action_that_cannot_be_sent_is_explained_in_its_own_words(client):
    session = remote(client)
    with pytest.raises(InvalidActionError, match="NoneType is no action"):
        session.act(None)
    assert session.refused == 1
    session.close()


def test_a_step_that_is_repeated_is_answered_and_other_indices_are_refused(client):
    session = remote(client)
    first = session.step(1, {PLAYER: "1"})
    assert session.step(1, {PLAYER: "1"}) is first
    with pytest.raises(OutOfOrderError):
        session.step(1, {PLAYER: "2"})
    with pytest.raises(OutOfOrderError):
        session.step(5, {PLAYER: "2"})
    assert len(session.journal) == 2
    session.close()
    with pytest.raises(ResetNeededError):
        session.step(2, {PLAYER: "2"})


def test_a_fork_equals_its_parent_so_far_and_leaves_it_untouched(client):
    with remote(client) as session:
        for action in ("1", "2", "3"):
            session.act(action)
        with session.fork() as late, session.fork(at=1) as early:
            assert late.journal == session.journal
            assert [r.digest for r in early.journal] == [r.digest for r in session.journal[:2]]
            early.act("2")
            assert early.journal[2].digest == session.journal[2].digest
            early.act("9")
            assert early.journal[3].digest != session.journal[3].digest
            assert len(session.journal) == 4
        with pytest.raises(UsageError):
            session.fork(at=9)


def test_an_owner_can_go_on_from_the_capability(client, server):
    session = remote(client, max_guesses=5)
    session.act("1")
    with arena.connect(server) as other:
        again = other.attach(session.capability)
        assert isinstance(again, RemoteSession)
        assert (again.journal, again.acting, again.seed) == (session.journal, (PLAYER,), 1)
        assert (again.task, again.limits, again.env.options) == (session.task, session.limits, {"max_guesses": 5})
        again.act("2")
    assert session.read()[0].actions == {PLAYER: "2"}
    session.close()


def test_what_is_left_of_a_closed_session_is_its_trace_and_its_verdict(client, server):
    session = client.session("test/match-v0", seats={"left": SeatTerms(), "right": SeatTerms()})
    session.close()
    with arena.connect(server) as other:
        again = other.attach(session.capability)
        assert again.status == "closed"
        assert again.trace() == session.trace()
        assert again.end() == session.end()
        with pytest.raises(SessionGoneError):
            other.attach(session.seat_capabilities["left"])


def test_a_capability_of_nobody_is_refused(client):
    with pytest.raises(UnauthorizedError):
        client.attach("x.owner.y")


def test_a_trace_is_what_replay_reads(client):
    session = remote(client)
    while session.acting:
        session.act(session.expert_action(PLAYER))
    end = session.end()
    lines = session.trace().splitlines()
    assert decode_json(lines[1], type=StepRecord).digest == session.journal[0].digest
    assert len(lines) == len(session.journal) + 2
    session.close()
    assert session.end() is end


def test_what_the_server_offers_can_be_listed(client):
    assert GUESS in [spec.id for spec in client.environments()]
    assert client.describe(GUESS, max_guesses=3).options == {"max_guesses": 3}
    page = client.tasks(GUESS, split="test", start=1, stop=3)
    assert ([task.id for task in page.tasks], page.total) == (["range-50", "range-100"], 3)


def test_wrong_names_are_refused_with_what_is_allowed(client):
    with pytest.raises(UnknownIdError, match="guess-v0"):
        client.session("text/gess-v0")
    with pytest.raises(UsageError, match="max_guesses"):
        client.session(GUESS, options={"max_gueses": 3})
    with pytest.raises(UnknownIdError, match="range-10"):
        client.session(GUESS, task="range-11", split="test")


def test_an_environment_that_fails_is_an_error_and_no_score(client):
    session = client.session("test/odd-v0")
    with pytest.raises(arena.EnvError, match="told to"):
        session.act("raise")
    assert session.status == "failed"
    assert (session.end().outcome, session.end().score) == ("failed", None)
    session.close()


def test_a_session_that_was_closed_elsewhere_is_gone(client, server):
    session = remote(client)
    with arena.connect(server) as other:
        other.attach(session.capability).close()
    with pytest.raises(SessionGoneError):
        session.act("1")
    assert session.end().score is None


def test_many_sessions_step_in_one_request(client):
    sessions = [remote(client, seed) for seed in range(5)]
    records = client.step_many([(session, {PLAYER: "5"}) for session in sessions])
    assert [session.journal[1] for session in sessions] == records
    for session in sessions:
        session.close()


# -- several seats ----------------------------------------------------------------------------------------------------


def test_seats_are_played_by_those_who_hold_them_and_watched_by_others(client, server):
    match = client.session("test/match-v0", seats={"left": SeatTerms(), "right": SeatTerms()})
    watch = client.attach(match.watch)
    seats = [client.attach(match.seat_capabilities[name]) for name in ("left", "right")]
    assert isinstance(watch, RemoteWatch)
    assert all(isinstance(seat, RemoteSeat) for seat in seats)
    import threading

    def player(seat):
        seat.observe()
        while seat.status == "running":
            assert seat.due
            seat.act(1)

    threads = [threading.Thread(target=player, args=(seat,)) for seat in seats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(watch.records()) == 4
    assert (watch.status, watch.end.returns) == ("over", {"left": 3.0, "right": 3.0})
    assert len(match.read()) == 3
    assert match.end().returns == watch.end.returns
    assert seats[0].latest.step.ending == "done"
    match.close()


def test_a_seat_sees_its_own_observations_only(client):
    game = client.session("test/nim-v0", seats={"first": SeatTerms(), "second": SeatTerms()})
    first, second = (client.attach(game.seat_capabilities[name]) for name in ("first", "second"))
    first.observe()
    assert first.act(2).step.observation == "5 stones; you took 2"
    seen = second.observe()
    assert [record.step.observation for record in seen] == ["7 stones; you took 0", "5 stones; you took 0"]
    assert (seen[1].action, second.due, first.due) == (None, True, False)
    with pytest.raises(InvalidActionError, match="no action"):
        second.act(None)
    game.close()


# -- playing agents ---------------------------------------------------------------------------------------------------


class Script(Agent):
    spec = AgentSpec(id="test-script", summary="A script.")

    def __init__(self, actions):
        super().__init__()
        self.actions = iter(actions)

    def act(self, step):
        return next(self.actions)


class Fails(Agent):
    spec = AgentSpec(id="test-fails", summary="Fails.")

    def act(self, step):
        raise ModelError("overloaded", retryable=True, usage={"input_tokens": 7})


def played(agent_of, server, **wanted):
    """Play an episode here and on the server and return what both tell."""

    async def there():
        async with AsyncClient(server) as client:
            env = arena.make(GUESS)
            session = client.new_session(env, env.taskset("test").task(0), 1, wanted.get("limits") or Limits())
            await play_episode(session, {PLAYER: agent_of()})
            await settled(session.end())
            return session

    here = local(1, **wanted)
    asyncio.run(play_episode(here, {PLAYER: agent_of()}))
    session = asyncio.run(there())
    session.end = lambda: session._end
    return told(here), told(session)


@pytest.mark.parametrize("agent", ["random", "expert"])
def test_agents_play_the_same_episode_here_and_there(agent, server):
    here, there = played(lambda: arena.make_agent(agent), server)
    assert here == there


def test_refusals_and_limits_are_the_same_here_and_there(server):
    here, there = played(lambda: Script(["x", "1", None, "y", "z"]), server, limits=Limits(invalid_actions=3))
    assert here == there


def test_an_agent_that_fails_costs_what_it_spent_and_scores_nothing(server):
    here, there = played(Fails, server)
    assert here == there
    assert there[1][-1] == "MODEL"
