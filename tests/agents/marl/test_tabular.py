from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from arena import TabularModel, UsageError, make
from arena.agents.marl._graphs import named_graph
from arena.agents.marl._tabular import (
    BayesianNetwork,
    Game,
    Logits,
    Method,
    nash_gap,
    natural_gradient,
    policy_gradient,
    published_loss,
    solve,
)

Floats = NDArray[np.float64]
SEEDS = range(1, 50)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small systems are solved faster by one thread, above all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- games, written out a second time ----------------------------------------------------------------------------------


def coordination(agents: int) -> TabularModel:
    """The coordination game from its rules alone: a bit becomes what its agent chose with probability 0.9."""
    tuples = list(itertools.product((0, 1), repeat=agents))
    leeway = {2: 1, 3: 1, 5: 2}[agents]

    def reward(state: tuple[int, ...]) -> float:
        zeros, ones = state.count(0), state.count(1)
        if abs(zeros - ones) <= leeway:
            return 1.0 if zeros < ones else 0.0
        return 3.0 if zeros > ones else 2.0

    def chance(chosen: tuple[int, ...], following: tuple[int, ...]) -> float:
        return math.prod(0.9 if a == b else 0.1 for a, b in zip(chosen, following, strict=True))

    transitions = np.array([[[chance(a, t) for t in tuples] for a in tuples] for _ in tuples])
    rewards = np.array([[reward(s)] * len(tuples) for s in tuples])
    return TabularModel((2,) * agents, transitions, rewards, np.full(len(tuples), 1 / len(tuples)), 0.95)


def random_game(seed: int, actions: Sequence[int] = (2, 3, 2), states: int = 3, same: bool = False) -> TabularModel:
    """A game in which the next state depends on everything, or on the joint action only."""
    rng = np.random.default_rng(seed)
    joint = math.prod(actions)
    transitions = rng.dirichlet(np.ones(states), (1 if same else states, joint))
    rewards = rng.standard_normal((states, joint))
    full = np.broadcast_to(transitions, (states, joint, states))
    return TabularModel(tuple(actions), full, rewards, rng.dirichlet(np.ones(states)), 0.9)


def matrix_game(payoffs: Floats) -> TabularModel:
    """A game of one move."""
    rewards = payoffs.reshape(1, -1)
    return TabularModel(payoffs.shape, np.ones((1, rewards.size, 1)), rewards, np.ones(1), 0.0)


def random_graph(seed: int, agents: int) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    edges = np.triu(rng.random((agents, agents)) < 0.6, 1)
    order = rng.permutation(agents)
    return edges[np.ix_(order, order)].astype(np.int8)


# -- slow twins: one policy, one number at a time ----------------------------------------------------------------------


def joint_by_hand(network: BayesianNetwork, logits: Sequence[Floats]) -> Floats:
    """The joint policy (S, J) of logits (S, P, A): the product of conditionals, each found by counting."""
    states = len(logits[0])
    joint = np.ones((states, math.prod(network.actions)))
    for column, chosen in enumerate(itertools.product(*(range(a) for a in network.actions))):
        for agent in network.agents:
            parents = [j for j in network.agents if network.graph[j, agent]]
            told = list(itertools.product(*(range(network.actions[j]) for j in parents)))
            row = logits[agent][:, told.index(tuple(chosen[j] for j in parents))]
            odds = np.exp(row - row.max(-1, keepdims=True))
            joint[:, column] *= odds[:, chosen[agent]] / odds.sum(-1)
    return joint


def value_by_hand(model: TabularModel, joint: Floats) -> float:
    """The value of a joint policy (S, J), by applying it until nothing changes."""
    value = np.zeros(len(model.start))
    for _ in range(400):
        value = (joint * (model.rewards + model.discount * model.transitions @ value)).sum(-1)
    return float(model.start @ value)


def one(logits: Logits, number: int = 0) -> list[Floats]:
    return [table[number].numpy() for table in logits]


def constant(game: Game, joint_action: int) -> Tensor:
    joint = torch.zeros(1, *game.rewards.shape).double()
    joint[..., joint_action] = 1
    return joint


CASES = [(seed, same) for seed in range(4) for same in (False, True)]


def case(seed: int, same: bool = False) -> tuple[TabularModel, Game, BayesianNetwork, Logits]:
    model = random_game(seed, same=same)
    network = BayesianNetwork(random_graph(seed, 3), model.actions)
    return model, Game(model), network, network.initial_logits(3, [seed, seed + 100])


# -- T1: what is known of the game -------------------------------------------------------------------------------------


@pytest.mark.parametrize("agents", [2, 3, 5])
def test_the_environment_gives_the_game_that_its_rules_describe(agents: int) -> None:
    given, expected = make("marl/coordination-v0", {"agents": agents}).tabular(), coordination(agents)
    assert given.actions == expected.actions
    assert given.discount == expected.discount
    for name in ("transitions", "rewards", "start"):
        assert getattr(given, name) == pytest.approx(getattr(expected, name), abs=1e-14)


@pytest.mark.parametrize(
    ("agents", "optimum", "ones", "uniform"),
    [(2, 47.8000, 0.6820, 0.5230), (3, 43.1040, 0.7743, 0.4640), (5, 53.7782, 0.6985, 0.4649)],
)
def test_anchors_of_the_coordination_game(agents: int, optimum: float, ones: float, uniform: float) -> None:
    game = Game(coordination(agents))
    assert game.optimum == pytest.approx(optimum, abs=1e-4)
    even = torch.full((1, *game.rewards.shape), 1 / 2**agents).double()
    ratios = [
        float(game.evaluate(joint).start) / game.optimum for joint in (constant(game, 0), constant(game, -1), even)
    ]
    assert ratios == pytest.approx([1, ones, uniform], abs=1e-4)


@pytest.mark.parametrize("agents", [2, 3, 5])
def test_all_ones_is_a_trap(agents: int) -> None:
    # Nobody gains by leaving it alone, with any graph in which nobody answers to another.
    game = Game(coordination(agents))
    network = BayesianNetwork(named_graph("empty", agents), game.actions)
    assert float(nash_gap(game, network, network.logits_of(constant(game, -1)))) == pytest.approx(0, abs=1e-9)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "same"), CASES)
def test_values_are_those_of_the_slow_twin(seed: int, same: bool) -> None:
    model, game, network, logits = case(seed, same)
    values = game.evaluate(network.log_joint(logits).exp())
    for number in range(2):
        assert float(values.start[number]) == pytest.approx(
            value_by_hand(model, joint_by_hand(network, one(logits, number))), abs=1e-12
        )
    assert (values.visits.sum(-1) * (1 - model.discount)).tolist() == pytest.approx([1, 1])
    assert ((network.log_joint(logits).exp() * values.action).sum(-1) - values.state).abs().max() < 1e-12


@pytest.mark.parametrize(("seed", "same"), CASES)
def test_the_optimum_is_that_of_value_iteration(seed: int, same: bool) -> None:
    model = random_game(seed, same=same)
    value = np.zeros(3)
    for _ in range(400):
        value = (model.rewards + model.discount * model.transitions @ value).max(-1)
    assert Game(model).optimum == pytest.approx(float(model.start @ value), abs=1e-12)


# -- policies ----------------------------------------------------------------------------------------------------------

actions_of_agents = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@settings(deadline=None)
@given(actions_of_agents, st.integers(0, 10**6), st.floats(0, 200))
def test_the_joint_is_the_product_of_its_conditionals_and_sums_to_one(
    actions: list[int], seed: int, scale: float
) -> None:
    network = BayesianNetwork(random_graph(seed, len(actions)), actions)
    logits = tuple(scale * table for table in network.initial_logits(2, [seed]))
    joint = network.log_joint(logits).exp()
    assert joint.sum(-1).numpy() == pytest.approx(1, abs=1e-12)
    assert joint[0].numpy() == pytest.approx(joint_by_hand(network, one(logits)), abs=1e-12)


@settings(deadline=None)
@given(actions_of_agents, st.integers(0, 10**6), st.floats(0, 1), st.randoms(use_true_random=False))
def test_a_complete_graph_in_any_order_can_be_any_joint_policy(
    actions: list[int], seed: int, zeros: float, random: Any
) -> None:
    rng = np.random.default_rng(seed)
    order = list(range(len(actions)))
    random.shuffle(order)
    network = BayesianNetwork(named_graph("complete", len(actions))[np.ix_(order, order)], actions)
    table = rng.random((2, 3, math.prod(actions))) * (rng.random((2, 3, math.prod(actions))) > zeros)
    table[..., 0] += 1e-3
    joint = torch.tensor(table / table.sum(-1, keepdims=True))
    assert (network.log_joint(network.logits_of(joint)).exp() - joint).abs().max() < 1e-12


def test_a_product_policy_cannot_agree_on_one_of_two() -> None:
    network = BayesianNetwork(named_graph("empty", 2), (2, 2))
    agree = torch.tensor([0.5, 0, 0, 0.5]).double().reshape(1, 1, 4)
    assert network.log_joint(network.logits_of(agree)).exp().flatten().tolist() == pytest.approx([0.25] * 4)


def test_a_seed_begins_and_ends_the_same_alone_and_among_others() -> None:
    run: dict[str, Any] = {"method": "natural", "learning_rate": 0.01, "iterations": 100}
    graph = named_graph("complete", 3)
    batch = solve(coordination(3), graph, seeds=[4, 7, 9], **run)
    alone = solve(coordination(3), graph, seeds=[7], **run)
    assert batch.values[-1, 1] == pytest.approx(alone.values[-1, 0], abs=1e-12)
    for table, other in zip(batch.logits, alone.logits, strict=True):
        assert table[1].numpy() == pytest.approx(other[0].numpy(), abs=1e-12)
    network = BayesianNetwork(graph, (2, 2, 2))
    first, again = network.initial_logits(8, [4, 7]), network.initial_logits(8, [7])
    assert all(torch.equal(a[1], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], first[0][1])


# -- T5: gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "same"), CASES)
def test_the_gradient_is_that_of_automatic_differentiation(seed: int, same: bool) -> None:
    _, game, network, logits = case(seed, same)
    leaves = tuple(table.clone().requires_grad_() for table in logits)
    game.evaluate(network.log_joint(leaves).exp()).start.sum().backward()
    for leaf, gradient in zip(leaves, policy_gradient(game, network, logits), strict=True):
        assert leaf.grad is not None
        assert (leaf.grad - gradient).abs().max() < 1e-10
        assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize(("seed", "same"), CASES)
def test_the_gradient_is_that_of_finite_differences(seed: int, same: bool) -> None:
    model, game, network, logits = case(seed, same)
    step = 1e-5
    for agent, gradient in enumerate(policy_gradient(game, network, logits)):
        for place in np.ndindex(*gradient.shape[1:]):
            there = []
            for sign in (1, -1):
                moved = [table.copy() for table in one(logits)]
                moved[agent][place] += sign * step
                there.append(value_by_hand(model, joint_by_hand(network, moved)))
            assert float(gradient[0][place]) == pytest.approx((there[0] - there[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize(("seed", "same"), CASES)
def test_the_published_loss_has_the_gradient_of_minus_the_value(seed: int, same: bool) -> None:
    _, game, network, logits = case(seed, same)
    leaves = tuple(table.clone().requires_grad_() for table in logits)
    published_loss(game, network, leaves).sum().backward()
    for leaf, gradient in zip(leaves, policy_gradient(game, network, logits), strict=True):
        assert leaf.grad is not None
        assert (leaf.grad + gradient).abs().max() < 1e-12


@pytest.mark.parametrize(("seed", "same"), CASES)
def test_fisher_information_times_the_natural_gradient_is_the_gradient(seed: int, same: bool) -> None:
    model, game, network, logits = case(seed, same)
    joint = network.log_joint(logits).exp()
    frequency = (game.evaluate(joint).visits * (1 - model.discount))[..., None] * joint
    gradients, directions = policy_gradient(game, network, logits), natural_gradient(game, network, logits)
    for agent in network.agents:
        told = network.arrange(frequency, agent).sum((-2, -1))
        policy = logits[agent].softmax(-1)
        fisher = torch.diag_embed(policy) - policy[..., :, None] * policy[..., None, :]
        product = told[..., None] * (fisher @ directions[agent][..., None])[..., 0]
        assert (product - gradients[agent]).abs().max() < 1e-12


def test_the_natural_gradient_is_right_where_probabilities_underflow() -> None:
    # Agent 2 is told 1's action and not 0's, which all but surely go together: given what never happens, that agent 1
    # did 1, agent 0 did 1, so that a 1 of agent 2 is worth 4.
    rewards = np.zeros((2, 2, 2))
    rewards[1, 1, 1] = 4
    game = Game(matrix_game(rewards))
    network = BayesianNetwork([[0, 1, 0], [0, 0, 1], [0, 0, 0]], (2, 2, 2))
    first = torch.tensor([[[[800.0, 0.0]]]]).double()
    second = torch.tensor([[[[5000.0, 0.0], [0.0, 0.0]]]]).double()
    third = torch.zeros(1, 1, 2, 2).double()
    direction = natural_gradient(game, network, (first, second, third))
    assert direction[2][0, 0, 1].tolist() == pytest.approx([-2, 2])
    assert direction[1][0, 0, 1].tolist() == pytest.approx([-1, 1])
    assert all(bool(torch.isfinite(table).all()) for table in direction)


# -- the Nash gap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["empty", "chain", "complete"])
@pytest.mark.parametrize("seed", range(3))
def test_the_nash_gap_is_the_best_of_all_deterministic_conditionals(seed: int, graph: str) -> None:
    model = random_game(seed, actions=(2, 2, 2), states=2)
    game, network = Game(model), BayesianNetwork(named_graph(graph, 3), model.actions)
    logits = network.initial_logits(2, [seed])
    value = value_by_hand(model, joint_by_hand(network, one(logits)))
    gains = []
    for agent in network.agents:
        rows = 2 * network.table_shape(agent)[0]
        for choice in itertools.product((0, 1), repeat=rows):
            tables = one(logits)
            tables[agent] = 1e4 * np.eye(2)[list(choice)].reshape(tables[agent].shape)
            gains.append(value_by_hand(model, joint_by_hand(network, tables)) - value)
    assert float(nash_gap(game, network, logits)) == pytest.approx(max(gains), abs=1e-9)


def test_one_agent_alone_lacks_what_is_left_to_the_optimum() -> None:
    model = random_game(5, actions=(4,))
    game, network = Game(model), BayesianNetwork([[0]], (4,))
    logits = network.initial_logits(3, [1, 2, 3])
    values = game.evaluate(network.log_joint(logits).exp()).start
    assert nash_gap(game, network, logits).numpy() == pytest.approx((game.optimum - values).numpy(), abs=1e-9)


def test_an_equilibrium_of_the_complete_graph_need_not_be_optimal() -> None:
    # The second agent answers the first one's 1 badly, which it is never asked.
    game = Game(matrix_game(np.array([[1.0, 0.0], [0.0, 2.0]])))
    network = BayesianNetwork(named_graph("complete", 2), (2, 2))
    logits = (torch.tensor([[[[900.0, 0.0]]]]).double(), torch.tensor([[[[900.0, 0.0], [900.0, 0.0]]]]).double())
    assert float(nash_gap(game, network, logits)) == pytest.approx(0, abs=1e-9)
    assert game.optimum == 2


# -- T2, T3: natural gradient ------------------------------------------------------------------------------------------

PRODUCT_AT_MOST = {2: 0.95, 3: 0.92, 5: 0.92}
NATURAL_GAP = {2: 0.05, 3: 0.08, 5: 0.08}


def ratios(agents: int, graph: str, method: Method) -> Floats:
    model = make("marl/coordination-v0", {"agents": agents}).tabular()
    # The published program gives each first state 1 / n, which makes its gradient 2^n / n times larger.
    rate, iterations = (0.01, 400) if method == "natural" else (0.01 * 2**agents / agents, 2000)
    edges = named_graph(graph, agents)
    return solve(model, edges, method=method, learning_rate=rate, iterations=iterations, seeds=SEEDS).ratios[-1]


@pytest.mark.parametrize("agents", [2, 3, 5])
def test_natural_gradient_is_optimal_with_the_complete_graph_and_trapped_with_the_empty_one(agents: int) -> None:
    complete, empty = (ratios(agents, graph, "natural") for graph in ("complete", "empty"))
    assert complete.min() >= 0.9999
    assert complete.max() <= 1 + 1e-9
    assert empty.mean() <= PRODUCT_AT_MOST[agents]
    assert (complete - empty).mean() >= NATURAL_GAP[agents]


def test_natural_gradient_with_the_complete_graph_never_gets_worse() -> None:
    run = solve(
        coordination(3),
        named_graph("complete", 3),
        method="natural",
        learning_rate=0.01,
        iterations=60,
        seeds=range(5),
        measurements=61,
    )
    assert run.iterations.tolist() == list(range(61))
    assert np.diff(run.values, axis=0).min() > -1e-9
    assert run.nash_gaps[0].min() > 1
    assert run.nash_gaps[-1].max() < run.nash_gaps[0].min()


# -- T4: gradient, as published ----------------------------------------------------------------------------------------

GRADIENT_GAP = {2: 0.03, 3: 0.03, 5: 0.01}
COMPLETE_AT_LEAST = {2: 0.97, 3: 0.92, 5: 0.89}


@pytest.mark.parametrize("agents", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_gradient_as_published_is_better_with_the_complete_graph(agents: int) -> None:
    complete, empty = (ratios(agents, graph, "gradient") for graph in ("complete", "empty"))
    assert complete.mean() >= COMPLETE_AT_LEAST[agents]
    assert (complete - empty).mean() >= GRADIENT_GAP[agents]


# -- games of one move -------------------------------------------------------------------------------------------------

CLIMBING = np.array([[11.0, -30, 0], [-30, 7, 6], [0, 0, 5]])


def penalty(cost: float) -> Floats:
    return np.array([[10, 0, cost], [0, 2, 0], [cost, 0, 10.0]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payoffs", "product", "complete"),
    [(CLIMBING, 7.35, 10.02), (penalty(-100), 4.80, 9.68), (penalty(-25), 6.72, 9.92), (np.eye(2)[::-1], 0.998, 0.998)],
    ids=["climbing", "penalty-100", "penalty-25", "xor"],
)
def test_games_of_one_move(payoffs: Floats, product: float, complete: float) -> None:
    # Means of 100 seeds that another program measured; within four standard errors.
    for graph, expected in (("empty", product), ("complete", complete)):
        run = solve(
            matrix_game(payoffs),
            named_graph(graph, 2),
            method="gradient",
            learning_rate=0.1,
            iterations=5000,
            seeds=range(100),
        )
        error = run.values[-1].std() / 10
        assert run.values[-1].mean() == pytest.approx(expected, abs=4 * error * math.sqrt(2) + 0.002)


# -- what is refused ---------------------------------------------------------------------------------------------------

GAME = random_game(0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (replace(GAME, actions=(2, 2)), "joint actions do not go with"),
        (replace(GAME, discount=1.0), "below 1, not 1.0"),
        (replace(GAME, rewards=np.full_like(GAME.rewards, np.nan)), "rewards"),
        (replace(GAME, transitions=2 * GAME.transitions), "transitions"),
        (replace(GAME, start=np.array([1.5, -0.5, 0.0])), "start"),
    ],
)
def test_models_that_are_no_games_are_refused(model: TabularModel, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Game(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "newton"}, "known: gradient, natural"),
        ({"learning_rate": 0.0}, "positive"),
        ({"learning_rate": math.nan}, "positive"),
        ({"learning_rate": 1e308}, "range of numbers"),
        ({"iterations": -1}, "at least 0 iterations"),
        ({"measurements": 0}, "1 measurement"),
        ({"seeds": []}, "1 seed"),
        ({"seeds": [-1]}, "a seed is"),
        ({"graph": named_graph("chain", 2)}, "3 by 3"),
    ],
)
def test_runs_that_are_not_possible_are_refused(change: dict[str, Any], message: str) -> None:
    run: dict[str, Any] = {"graph": named_graph("chain", 3), "method": "natural", "learning_rate": 0.1}
    with pytest.raises(UsageError, match=message):
        solve(GAME, **{**run, "iterations": 3, "seeds": [0], **change})
