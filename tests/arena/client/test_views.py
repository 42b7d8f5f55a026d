"""The views over the wire: the suites of Gymnasium and PettingZoo, and the same episodes as in process."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import arena
from arena import Limits, Session, UsageError
from arena.testing.pettingzoo import check_pettingzoo
from arena.views.gymnasium import GymnasiumView


@pytest.fixture(scope="module")
def client(server):
    with arena.connect(server) as client:
        yield client


@pytest.fixture
def only_remarks():
    with warnings.catch_warnings():
        for remark in ("We recommend agents to be named", "Observation is not a NumPy", ".*not a Box"):
            warnings.filterwarnings("ignore", message=remark)
        yield


@pytest.mark.usefixtures("only_remarks")
def test_gymnasiums_own_checks_pass(client):
    check_env(client.gymnasium("text/guess-v0"), skip_render_check=True)


@pytest.mark.parametrize("api", ["aec", "parallel"])
@pytest.mark.parametrize("env", ["test/match-v0", "test/nim-v0", "text/guess-v0"])
def test_pettingzoos_own_checks_and_our_clauses_pass(client, env, api):
    report = check_pettingzoo(lambda: client.pettingzoo(env, api=api), steps=40, max_cycles=100)
    report.raise_if_failed()


def test_an_episode_is_the_one_that_is_played_in_process(client):
    def begin(seed):
        env = arena.make("text/guess-v0", {"max_guesses": 3})
        session = Session(env, env.taskset("test").get("range-50"), seed, limits=Limits(steps=5))
        session.open()
        return session

    env = arena.make("text/guess-v0", {"max_guesses": 3})
    here = GymnasiumView(env.spec, {"player": env.seat("player")}, begin)
    there = client.gymnasium(
        "text/guess-v0", options={"max_guesses": 3}, task="range-50", split="test", limits=Limits(steps=5)
    )
    assert there.instructions == here.instructions
    for seed in (4, None, None):
        assert here.reset(seed=seed) == there.reset(seed=seed)
        for action in ("1", "fly", "50", "2"):
            assert here.step(action) == there.step(action)
    here.close()
    there.close()


def test_a_finished_or_dropped_episode_is_closed_on_the_server(client):
    env = client.gymnasium("text/guess-v0")
    env.reset(seed=1)
    capability = env._session.capability
    env.reset(seed=2)
    assert client.attach(capability).status == "closed"
    capability = env._session.capability
    env.close()
    assert client.attach(capability).status == "closed"


def test_several_seats_need_the_other_view(client):
    with pytest.raises(UsageError, match="PettingZoo"):
        client.gymnasium("test/nim-v0")
    turns = client.pettingzoo("text/guess-v0")
    turns.reset(seed=1)
    turns.step("5")
    assert turns.agent_selection == "player"
    assert np.isfinite(turns.rewards["player"])
    turns.close()
