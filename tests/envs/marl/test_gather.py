"""Gather: the vote, what is told, the payments, and policies whose worth can be computed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import Task, make, make_vector
from arena.envs.marl._vectorised import advance, begin
from arena.envs.marl.gather import GatherGame
from tests.envs.marl.simulation import at_random, by_expert, simulate, standard_error

ENV = "marl/gather-v0"
GAME = GatherGame()
GOALS = {(1, 0), (1, 2), (1, 4)}
DOWN, RIGHT, UP, LEFT, STAY = range(5)
SHARE = (0.2, 0.4, 0.4)
"""The probability that an agent is nearest to each goal."""

cells = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=5, max_size=5)


def starts_at(places):
    """An episode whose agents stand on these cells."""
    return begin(GAME, (np.array([[5 * row + column for row, column in places]]) + 0.5) / 15)


def towards(column_of):
    """A policy that goes to a column and to the middle row; `column_of` returns the columns from the observations."""

    def policy(batch, answer, step, rng):
        row, column = np.rint(answer.observations[:, :, 0] * 2), np.rint(answer.observations[:, :, 1] * 4)
        goal = column_of(column, step)
        return np.select([column < goal, column > goal, row < 1, row > 1], [RIGHT, LEFT, DOWN, UP], STAY)

    return policy


def votes():
    """The votes of five agents for the goals, and their probability."""
    for choice in itertools.product(range(3), repeat=5):
        yield choice, math.prod(SHARE[goal] for goal in choice)


# -- values ------------------------------------------------------------------------------------------------------------


def test_the_expert_team_always_gathers():
    found = simulate(ENV, by_expert())
    assert (found["return"] == 10).all()
    assert found["won"].all()


@pytest.mark.parametrize("goal", [0, 1, 2])
def test_to_meet_at_one_goal_whatever_is_told(goal):
    def target(choice):
        return max(range(3), key=lambda one: (choice.count(one), -one))

    expected = sum(chance * (10 if target(choice) == goal else 5) for choice, chance in votes())
    returns = simulate(ENV, towards(lambda column, step: np.full_like(column, 2 * goal)))["return"]
    assert set(np.unique(returns)) == {5, 10}
    assert returns.mean() == pytest.approx(expected, abs=3 * standard_error(returns))


def test_everyone_to_the_nearest_goal():
    nearest = {}

    def column_of(column, step):
        if step == 0:
            nearest["goal"] = np.array([0, 2, 2, 4, 4])[column.astype(int)]
        return nearest["goal"]

    expected = sum(chance * (10 if len(set(choice)) == 1 else -5) for choice, chance in votes())
    returns = simulate(ENV, towards(column_of))["return"]
    assert set(np.unique(returns)) == {-5, 10}
    assert returns.mean() == pytest.approx(expected, abs=3 * standard_error(returns))


def test_random_play_is_worth_next_to_nothing():
    returns = simulate(ENV, at_random)["return"]
    assert abs(returns.mean()) < 0.02
    assert (returns == 0).mean() > 0.99


# -- rules -------------------------------------------------------------------------------------------------------------


@given(cells)
def test_the_target_has_most_votes_and_is_told_to_its_voters(places):
    episodes = starts_at(places)
    chosen = [{0: 0, 1: 1, 2: 1, 3: 2, 4: 2}[column] for _, column in places]
    counts = [chosen.count(goal) for goal in range(3)]
    target = counts.index(max(counts))
    assert episodes["target"][0] == target
    for agent, shown in enumerate(GAME.observe(episodes)[0].tolist()):
        row, column = places[agent]
        told = [0.5, target / 2] if chosen[agent] == target else [-1, -1]
        assert shown == [row / 2, column / 4, *told]


@settings(max_examples=60, deadline=None)
@given(cells, st.integers(0, 2**32), st.floats(0, 1))
def test_an_episode_is_that_of_the_words(places, seed, skill):
    rng = np.random.default_rng(seed)
    episodes, hand = starts_at(places), list(places)
    target = (1, 2 * int(episodes["target"][0]))
    for step in range(1, 9):
        clever = rng.random(5) < skill
        actions = np.where(clever, GAME.expert(episodes, None)[0], rng.integers(0, 5, 5))
        for agent, action in enumerate(actions.tolist()):
            down, right = ((1, 0), (0, 1), (-1, 0), (0, -1), (0, 0))[action]
            row, column = hand[agent]
            hand[agent] = (min(2, max(0, row + down)), min(4, max(0, column + right)))
        (episodes, reward, ended), cut = advance(GAME, episodes, actions[None], np.zeros((1, 0)))
        assert [tuple(cell) for cell in episodes["cell"][0].tolist()] == hand
        assert not cut[0]
        if all(cell == target for cell in hand):
            assert (reward[0], ended[0], episodes["gathered"][0]) == (10, True, True)
            return
        settled = 0
        if step == 8 and set(hand) <= GOALS:
            settled = -5 if target in hand else 5
        assert (reward[0], ended[0], episodes["gathered"][0]) == (settled, step == 8, False)


@pytest.mark.parametrize(
    ("ends", "reward"),
    [
        ([(1, 4)] * 5, 5),
        ([(1, 4)] * 3 + [(1, 2)] * 2, 5),
        ([(1, 0)] * 4 + [(1, 4)], -5),
        ([(1, 0)] * 4 + [(1, 3)], 0),
        ([(1, 4)] * 4 + [(0, 0)], 0),
    ],
)
def test_what_is_paid_when_the_time_is_over(ends, reward):
    """The target is (1, 0): an episode that begins there is moved by hand to where it stands before the last step."""
    episodes = {**starts_at([(0, 0)] * 5), "cell": np.array([ends], np.int8), "steps": np.array([7])}
    outcome, cut = advance(GAME, episodes, np.full((1, 5), STAY), np.zeros((1, 0)))
    assert outcome.rewards[0] == reward
    assert outcome.ended[0]
    assert not cut[0]


def test_endings_of_the_environment():
    env = make(ENV)
    for seed in range(10):
        now = env.reset(Task("train", "train"), seed)
        while now.acting:
            now = env.step({agent: env.expert_action(agent) for agent in now.acting})
        assert {step.ending for step in now.seats.values()} == {"gathered"}
        assert env.score().value == 1.0
        now = env.reset(Task("train", "train"), seed)
        for _ in range(8):
            now = env.step(dict.fromkeys(now.acting, UP))
        assert {(step.ending, step.terminated) for step in now.seats.values()} == {("settled", True)}
        assert env.score().value == 0.0


def test_cells_are_drawn_alike():
    batch = make_vector(ENV, seeds=[8], per_seed=6000)
    batch.reset()
    cell = batch.snapshot()["episode.cell"].reshape(-1, 2)
    counts = np.bincount(cell @ [5, 1], minlength=15)
    assert len(counts) == 15
    assert (np.abs(counts - 2000) < 5 * math.sqrt(2000)).all()


def test_plain_numbers_are_beside_the_observation():
    env = make(ENV)
    told = []
    for step in env.reset(Task("test", "test"), 3).seats.values():
        row, column, goal_row, goal_column = step.observation.tolist()
        assert (step.info["row"], step.info["column"]) == (row * 2, column * 4)
        assert step.info["target"] == (None if goal_row < 0 else goal_column * 4)
        told.append(goal_row >= 0)
    assert 0 < sum(told) < 5
