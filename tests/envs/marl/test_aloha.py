"""Slotted Aloha: the reference values of the policies, and that nobody sees more than its own queue."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import make, make_vector
from arena.envs.marl._vectorised import begin
from arena.envs.marl.aloha import INTERFERENCE, AlohaGame, independent_sets
from tests.envs.marl.simulation import at_random, by_expert, simulate, standard_error

ENV = "marl/aloha-v0"
GAME = AlohaGame()
EVEN = np.arange(10) % 2 == 0
IN_BINARY_ORDER = np.array(sorted(independent_sets(), key=lambda members: members @ 2 ** np.arange(10)))
EDGES = {
    *[(0, 1), (1, 2), (2, 3), (3, 4), (5, 6), (6, 7), (7, 8), (8, 9)],
    *[(0, 5), (1, 6), (2, 7), (3, 8), (4, 9)],
    (4, 5),
}


def backlog_of(answer):
    """The queues, read from the observations."""
    return np.rint(answer.observations[:, :, 0] * 5).astype(int)


def always(send):
    return lambda batch, answer, step, rng: np.full((len(batch), 10), send)


def with_probability(chance):
    return lambda batch, answer, step, rng: (rng.random((len(batch), 10)) < chance).astype(int)


def greedy(order_of):
    """Send unless an earlier neighbour does, in an order that depends on the queues."""

    def policy(batch, answer, step, rng):
        backlog = backlog_of(answer)
        return GAME.in_order(backlog > 0, order_of(backlog, rng))

    return policy


def in_colour_order(backlog, rng):
    return np.broadcast_to([*range(0, 10, 2), *range(1, 10, 2)], backlog.shape)


def longest_first(backlog, rng):
    return np.argsort(-backlog + 0.5 * rng.random(backlog.shape), axis=1)


def by_parity_of_the_clock(batch, answer, step, rng):
    return ((backlog_of(answer) > 0) & (EVEN == (step % 2 == 0))).astype(int)


def max_weight(batch, answer, step, rng):
    """Let the set with most messages send; of several the first one, when sets are numbered in binary."""
    backlog = backlog_of(answer)
    return (IN_BINARY_ORDER[(backlog @ IN_BINARY_ORDER.T).argmax(1)] & (backlog > 0)).astype(int)


@pytest.mark.parametrize(
    ("policy", "expected", "collisions", "digits"),
    [
        pytest.param(always(0), 0.00, 0, 2, id="idle"),
        pytest.param(with_probability(0.5), -844.9, 84.6, 1, id="p=0.5"),
        pytest.param(with_probability(0.05), -12.4, 1.3, 1, id="p=0.05"),
        pytest.param(by_expert("colour_class"), 6.20, 0, 2, id="colour_class"),
        pytest.param(greedy(in_colour_order), 6.99, 0, 2, id="colour_order"),
        pytest.param(greedy(longest_first), 8.62, 0, 2, id="longest_first"),
        pytest.param(by_expert("index_order"), 9.23, 0, 2, id="index_order"),
        pytest.param(by_parity_of_the_clock, 9.55, 0, 2, id="parity"),
        pytest.param(max_weight, 9.59, 0, 2, id="max_weight"),
        pytest.param(by_expert("joint"), 9.70, 0, 2, id="joint"),
    ],
)
def test_reference_returns(policy, expected, collisions, digits):
    found = simulate(ENV, policy)
    error = 3 * standard_error(found["return"])
    assert found["return"].mean() == pytest.approx(expected, abs=error + 0.5 * 10**-digits)
    spoilt = found["collisions"]
    assert spoilt.mean() == pytest.approx(collisions, abs=3 * standard_error(spoilt) + (0.05 if collisions else 0))


# -- rules -------------------------------------------------------------------------------------------------------------


def test_neighbours():
    assert {(int(one), int(other)) for one, other in np.argwhere(np.triu(INTERFERENCE))} == EDGES
    assert (INTERFERENCE == INTERFERENCE.T).all()
    assert not INTERFERENCE[np.ix_(EVEN, EVEN)].any()
    assert not INTERFERENCE[np.ix_(~EVEN, ~EVEN)].any()


def by_hand(backlog, actions, draws):
    """A step by the words of the rules: the queues after it, and the reward."""
    after, reward = list(backlog), 0.0
    for one in range(10):
        if actions[one] == 1 and backlog[one] > 0:
            near = [other for other in range(10) if (min(one, other), max(one, other)) in EDGES]
            if any(actions[other] == 1 for other in near):
                reward -= 10
            else:
                reward += 0.1
                after[one] -= 1
    return [min(5, length + (draw < 0.6)) for length, draw in zip(after, draws, strict=True)], reward


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=10, max_size=10),
    st.lists(st.integers(0, 1), min_size=10, max_size=10),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=10, max_size=10),
)
def test_a_step_is_that_of_the_words(backlog, actions, draws):
    episodes = {**begin(GAME, np.zeros((1, 0))), "backlog": np.array([backlog], np.int8)}
    outcome = GAME.step(episodes, np.array([actions]), np.array([draws]), np.zeros(1, bool))
    after, reward = by_hand(backlog, actions, draws)
    assert outcome.episodes["backlog"][0].tolist() == after
    assert outcome.rewards[0] == pytest.approx(reward, abs=1e-9)


def test_messages_come_in_at_their_rate():
    batch = make_vector(ENV, seeds=[2], per_seed=20_000)
    assert (backlog_of(batch.reset()) == 1).all()
    rate = (backlog_of(batch.step(np.zeros((20_000, 10), int))) == 2).mean()
    assert rate == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 200_000))


# -- who sees what -----------------------------------------------------------------------------------------------------


def test_an_agent_sees_its_own_queue_and_nothing_else():
    batch = make_vector(ENV, seeds=[4], per_seed=300)
    answer, rng = batch.reset(), np.random.default_rng(0)
    assert batch.observation_size == 1
    shown = set()
    for step in range(19):
        answer = batch.step(at_random(batch, answer, step, rng))
        queues = batch.snapshot()["episode.backlog"]
        np.testing.assert_array_equal(answer.observations[:, :, 0], (queues / 5).astype(np.float32))
        np.testing.assert_array_equal(answer.state, answer.observations[:, :, 0])
        shown |= set(np.unique(queues).tolist())
    assert shown == {0, 1, 2, 3, 4, 5}


def test_the_colour_class_needs_no_more_than_the_observation():
    batch = make_vector(ENV, seeds=[4], per_seed=300)
    answer = batch.reset()
    for _ in range(30):
        send = batch.expert("colour_class")
        np.testing.assert_array_equal(send, (answer.observations[:, :, 0] > 0) & EVEN)
        answer = batch.step(send)


def test_plain_numbers_are_beside_the_observation():
    env = make(ENV)
    now = env.reset(env.taskset("test").task(0), 1)
    while now.acting:
        now = env.step({agent: env.expert_action(agent, "index_order") for agent in now.acting})
        assert all(step.info == {"backlog": round(float(step.observation[0]) * 5)} for step in now.seats.values())
    score = env.score()
    assert score.metrics["collisions"] == 0
    assert score.success == (score.metrics["transmissions"] > 90)
    assert score.value == pytest.approx(score.metrics["return"] / 10)
