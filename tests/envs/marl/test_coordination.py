"""The coordination game: its exact reference values, and that simulator and tables are the same game."""

import numpy as np
import pytest

from arena import ConfigError, UnsupportedError, make, make_vector
from tests.envs.marl.simulation import at_random, by_expert, simulate, standard_error

ENV = "marl/coordination-v0"

WORTH = {
    2: [3, 0, 2],
    3: [3, 0, 1, 2],
    5: [3, 3, 0, 1, 2, 2],
    10: [3, 3, 3, 3, 0, 0, 1, 2, 2, 2, 2],
}
"""What a joint state is worth, by the number of ones, for each number of agents."""


def model_of(agents):
    return make(ENV, {"agents": agents}).tabular()


def value_of(model, policy):
    """The expected discounted return of a policy (S, joint actions), by solving Bellman's equation."""
    chain = np.einsum("sa,sat->st", policy, model.transitions)
    rewards = (policy * model.rewards).sum(1)
    values = np.linalg.solve(np.eye(len(chain)) - model.discount * chain, rewards)
    return float(model.start @ values)


def best_value_of(model):
    """The best one, by value iteration."""
    values = np.zeros(len(model.start))
    for _ in range(600):
        values = (model.rewards + model.discount * model.transitions @ values).max(1)
    return float(model.start @ values)


def always(model, joint_action):
    policy = np.zeros(model.rewards.shape)
    policy[:, joint_action] = 1.0
    return policy


# -- exact -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agents", "best", "all_ones", "uniform"),
    [(2, 47.8000, 0.6820, 0.5230), (3, 43.1040, 0.7743, 0.4640), (5, 53.7782, 0.6985, 0.4649)],
)
def test_reference_values_of_the_tables(agents, best, all_ones, uniform):
    model = model_of(agents)
    optimum = best_value_of(model)
    size = 2**agents
    assert optimum == pytest.approx(best, abs=1e-4)
    assert value_of(model, always(model, 0)) / optimum == pytest.approx(1.0, abs=1e-9)
    assert value_of(model, always(model, size - 1)) / optimum == pytest.approx(all_ones, abs=1e-4)
    assert value_of(model, np.full((size, size), 1 / size)) / optimum == pytest.approx(uniform, abs=1e-4)


@pytest.mark.parametrize("agents", [2, 3, 5])
def test_tables_are_a_game(agents):
    model = model_of(agents)
    size = 2**agents
    assert model.transitions.shape == (size, size, size)
    assert model.actions == (2,) * agents
    assert (model.transitions > 0).all()
    np.testing.assert_allclose(model.transitions.sum(2), 1.0, atol=1e-12)
    np.testing.assert_allclose(model.start, 1 / size)
    np.testing.assert_array_equal(model.rewards[:, 0], [WORTH[agents][state.bit_count()] for state in range(size)])
    assert (model.rewards == model.rewards[:, :1]).all()
    assert model.discount == 0.95
    stays = (1 - 0.1) ** agents
    np.testing.assert_allclose([model.transitions[0, action, action] for action in range(size)], stays)


def test_tables_show_what_a_batch_shows():
    model = model_of(3)
    batch = make_vector(ENV, {"agents": 3}, seeds=[0], per_seed=500)
    answer = batch.reset()
    state = (answer.state @ [4, 2, 1]).astype(int)
    assert len(set(state.tolist())) == 8
    np.testing.assert_array_equal(model.observations[state], answer.observations)


@pytest.mark.parametrize("agents", [2, 3, 5, 10])
def test_worth_of_a_joint_state(agents):
    assert make(ENV, {"agents": agents}).make_game().worth.tolist() == WORTH[agents]


@pytest.mark.parametrize(("agents", "zero", "one"), [(2, 1.5, 1), (3, 1, 1), (5, 21 / 16, 19 / 16)])
def test_beside_agents_at_random_one_bit_hardly_matters(agents, zero, one):
    rewards = model_of(agents).rewards[:, 0]
    assert rewards[: len(rewards) // 2].mean() == zero
    assert rewards[len(rewards) // 2 :].mean() == one


@pytest.mark.parametrize("agents", [2, 3, 5])
@pytest.mark.parametrize("bit", [0, 1])
def test_nobody_gains_by_leaving_all_zeros_or_all_ones(agents, bit):
    model = model_of(agents)
    together = bit * (2**agents - 1)
    stay = value_of(model, always(model, together))
    assert all(value_of(model, always(model, together ^ (1 << agent))) < stay for agent in range(agents))


def test_many_agents_are_not_made_into_tables():
    with pytest.raises(UnsupportedError, match="up to 5 agents, not for 10"):
        make(ENV, {"agents": 10}).tabular()


def test_other_numbers_of_agents_are_refused():
    with pytest.raises(ConfigError, match="2, 3, 5 or 10") as caught:
        make(ENV, {"agents": 4})
    assert "\n" not in str(caught.value)


# -- simulated ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agents", "optimum", "all_ones"), [(2, 2.450, 1.650), (3, 2.216, 1.704), (5, 2.765, 1.911)])
def test_simulated_reward_of_a_step(agents, optimum, all_ones):
    zeros = simulate(ENV, by_expert(), agents=agents)["return"] / 25
    ones = simulate(ENV, lambda batch, *_: np.ones((len(batch), agents), int), agents=agents)["return"] / 25
    assert zeros.mean() == pytest.approx(optimum, abs=3 * standard_error(zeros) + 5e-4)
    assert ones.mean() == pytest.approx(all_ones, abs=3 * standard_error(ones) + 5e-4)


@pytest.mark.parametrize("agents", [2, 3, 5, 10])
def test_simulated_reward_is_that_of_the_next_state(agents):
    batch = make_vector(ENV, {"agents": agents}, seeds=[3], per_seed=200)
    answer = batch.reset()
    for step in range(25):
        answer = batch.step(at_random(batch, answer, step, np.random.default_rng(step)))
        ones = answer.last_state.sum(1).astype(int)
        np.testing.assert_array_equal(answer.rewards[:, 0], np.array(WORTH[agents])[ones])
    assert answer.truncated.all()
    assert not answer.terminated.any()


@pytest.mark.parametrize("agents", [2, 3, 5])
def test_simulated_transitions_are_those_of_the_tables(agents):
    model, count = model_of(agents), 40_000
    batch = make_vector(ENV, {"agents": agents}, seeds=[11], per_seed=count)
    batch.reset()
    place = 2 ** np.arange(agents)[::-1]
    for joint in (0, 1, 2**agents - 1):
        action = (joint // place) % 2
        answer = batch.step(np.tile(action, (count, 1)))
        seen = np.bincount((answer.state @ place).astype(int), minlength=2**agents) / count
        expected = model.transitions[0, joint]
        assert (np.abs(seen - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()


@pytest.mark.parametrize("agents", [2, 3, 5, 10])
def test_first_bits_are_zero_with_probability_one_in_n(agents):
    bits = make_vector(ENV, {"agents": agents}, seeds=[5], per_seed=20_000).reset().state
    chance = 1 / agents
    assert (np.abs((bits == 0).mean(0) - chance) < 4 * np.sqrt(chance * (1 - chance) / 20_000)).all()


def test_score_is_the_mean_worth_of_a_step():
    found = simulate(ENV, at_random, episodes=50)
    np.testing.assert_allclose(found["score"], found["return"] / 75, rtol=1e-6)
