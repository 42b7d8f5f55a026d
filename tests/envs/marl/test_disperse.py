"""Disperse: the rules by hand, the reference values, and who sees which need."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import Task, make, make_vector
from arena.envs.marl._vectorised import advance, begin
from arena.envs.marl.disperse import DisperseGame
from tests.envs.marl.simulation import at_random, by_expert, simulate, standard_error

ENV = "marl/disperse-v0"
GAME = DisperseGame()


def split_evenly(batch, answer, step, rng):
    return np.tile(np.arange(12) % 4, (len(batch), 1))


# -- reference values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [at_random, split_evenly])
def test_without_coordination_half_is_missing(policy):
    returns = simulate(ENV, policy)["return"]
    assert returns.mean() == pytest.approx(-4.51, abs=3 * standard_error(returns) + 5e-3)


def test_an_even_split_is_worth_what_it_is_by_computation():
    expected = -9 * sum(need - 3 for need in range(6, 13)) / 7 / 12
    returns = simulate(ENV, split_evenly)["return"]
    assert returns.mean() == pytest.approx(expected, abs=3 * standard_error(returns))


def test_nobody_is_missing_where_all_go_to_the_needy_hospital():
    found = simulate(ENV, by_expert())
    assert (found["return"] == 0).all()
    assert (found["missing"] == 0).all()
    assert found["won"].all()
    assert (found["score"] == 1).all()


# -- rules -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_an_episode_is_that_of_the_words(seed, skill):
    rng = np.random.default_rng(seed)
    first, draws = rng.random(12), rng.random((10, 2))
    episodes = begin(GAME, first[None])
    last = [int(draw * 4) for draw in first]
    needs = [0, 0, 0, 0]
    for step in range(10):
        for agent, shown in enumerate(GAME.observe(episodes)[0].tolist()):
            here = last[agent]
            assert shown[:4] == [float(place == here) for place in range(4)]
            assert shown[4] == pytest.approx(needs[here] / 12)
            assert shown[5:] == [float(other == here) for other in last]
        clever = rng.random(12) < skill
        last = np.where(clever, GAME.expert(episodes, None)[0], rng.integers(0, 4, 12)).tolist()
        missing = sum(max(0, need - last.count(place)) for place, need in enumerate(needs))
        (episodes, reward, ended), cut = advance(GAME, episodes, np.array([last]), draws[step : step + 1])
        assert reward[0] == pytest.approx(-missing / 12)
        assert math.copysign(1, reward[0]) == (-1 if missing else 1)
        assert (bool(ended[0]), bool(cut[0])) == (False, step == 9)
        needs = [0, 0, 0, 0]
        needs[int(draws[step, 0] * 4)] = 6 + int(draws[step, 1] * 7)


def test_needs_are_six_to_twelve_at_any_hospital():
    batch = make_vector(ENV, seeds=[1], per_seed=14_000)
    batch.reset()
    assert not batch.snapshot()["episode.need"].any()
    batch.step(np.zeros((14_000, 12), int))
    state = batch.snapshot()
    needs, places = np.bincount(state["episode.need"], minlength=13), np.bincount(state["episode.needy"])
    assert not needs[:6].any()
    assert (np.abs(needs[6:] - 2000) < 5 * math.sqrt(2000)).all()
    assert (np.abs(places - 3500) < 5 * math.sqrt(3500)).all()


def test_a_need_that_nobody_sees_is_not_in_the_state():
    batch = make_vector(ENV, seeds=[1], per_seed=200)
    batch.reset()
    answer = batch.step(np.zeros((200, 12), int))
    elsewhere = batch.snapshot()["episode.needy"] != 0
    assert elsewhere.any()
    assert not elsewhere.all()
    unseen = answer.state[elsewhere]
    assert (unseen == unseen[0]).all()


def test_the_environment_is_cut_off_after_ten_steps():
    env = make(ENV)
    now = env.reset(Task("train", "train"), 4)
    for _ in range(10):
        assert now.acting
        now = env.step(dict.fromkeys(now.acting, 2))
        step = now.seats["agent_3"]
        assert step.info["hospital"] == 2
        assert step.info["present"] == list(range(12))
        assert step.info["need"] == pytest.approx(12 * step.observation[4])
    assert {(step.ending, step.truncated) for step in now.seats.values()} == {("out_of_steps", True)}
    score = env.score()
    assert score.success == (score.metrics["missing"] == 0)
    assert score.value == pytest.approx(1 - score.metrics["missing"] / 108)
