"""Advantages, losses, scales and clipping, each against a slow and plain calculation, and each seed by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from arena.agents.marl._ppo import (
    ValueScale,
    clip_gradients,
    generalised_advantages,
    mean_over,
    normalised,
    policy_loss,
    value_loss,
)

from .trained import backward

# -- advantages --------------------------------------------------------------------------------------------------------


def slow_advantage(
    step: int, rewards: Tensor, values: Tensor, following: Tensor, terminated: Tensor, over: Tensor, gamma: float,
    lam: float,
) -> float:  # fmt: skip
    """Return one advantage as the sum of all discounted errors until the episode's last step."""
    total, weight = 0.0, 1.0
    for later in range(step, len(rewards)):
        beyond = 0.0 if terminated[later] else gamma * float(following[later])
        total += weight * (float(rewards[later]) + beyond - float(values[later]))
        if over[later]:
            break
        weight *= gamma * lam
    return total


@given(
    steps=st.integers(1, 12),
    ends=st.lists(st.sampled_from(["", "", "", "terminated", "truncated", "both"]), min_size=24, max_size=24),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_advantages_are_the_sums_of_discounted_errors(
    steps: int, ends: list[str], gamma: float, lam: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values, following = torch.randn(3, steps, 2, dtype=torch.float64, generator=generator)
    chosen = [ends[2 * step : 2 * step + 2] for step in range(steps)]
    terminated = torch.tensor([[end in ("terminated", "both") for end in row] for row in chosen])
    over = torch.tensor([[end != "" for end in row] for row in chosen])
    found = generalised_advantages(rewards, values, following, terminated, over, gamma, lam)
    for column in range(2):
        parts = [each[:, column] for each in (rewards, values, following, terminated, over)]
        expected = [slow_advantage(step, *parts, gamma, lam) for step in range(steps)]
        assert found[:, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_truncated_step_still_counts_what_follows_and_a_terminated_one_does_not() -> None:
    one, yes, no = torch.ones(1), torch.tensor([True]), torch.tensor([False])
    arguments = (one[None], one[None] * 2, one[None] * 10)
    truncated = generalised_advantages(*arguments, no[None], yes[None], 0.9, 0.95)
    terminated = generalised_advantages(*arguments, yes[None], yes[None], 0.9, 0.95)
    assert truncated.item() == pytest.approx(1 + 0.9 * 10 - 2)
    assert terminated.item() == pytest.approx(1 - 2)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_lambda_goes_from_one_step_to_monte_carlo(lam: float) -> None:
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 30.0])
    following, no = torch.tensor([20.0, 30.0, 50.0]), torch.zeros(3, dtype=torch.bool)
    found = generalised_advantages(rewards, values, following, no, no, 0.5, lam)
    expected = [1 + 10 - 10, 2 + 15 - 20, 4 + 25 - 30]
    if lam:
        expected = [1 + 1 + 1 + 50 / 8 - 10, 2 + 2 + 50 / 4 - 20, 4 + 25 - 30]
    assert found.tolist() == pytest.approx(expected)


# -- means over what counts --------------------------------------------------------------------------------------------


def test_a_mean_counts_what_has_weight_only() -> None:
    values = torch.tensor([[[1.0, 100.0], [3.0, 5.0]], [[7.0, 7.0], [7.0, 9.0]]])
    weights = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert mean_over(values, weights).tolist() == [3.0, 0.0]


def test_advantages_are_normalised_within_each_seed_over_the_living() -> None:
    advantages = torch.randn(3, 200, 4) * torch.tensor([1.0, 50.0, 1e-3]).view(3, 1, 1) + 7
    alive = (torch.rand(3, 200, 4) < 0.7).float()
    found = normalised(advantages, alive)
    for seed in range(3):
        living = found[seed][alive[seed].bool()]
        assert living.mean().item() == pytest.approx(0.0, abs=1e-3)
        assert living.std(correction=0).item() == pytest.approx(1.0, abs=1e-2)
        alone = normalised(advantages[seed : seed + 1], alive[seed : seed + 1])
        torch.testing.assert_close(found[seed], alone[0])


def test_what_the_dead_would_have_gained_changes_nothing() -> None:
    advantages, alive = torch.randn(2, 30, 3), (torch.rand(2, 30, 3) < 0.5).float()
    other = torch.where(alive.bool(), advantages, 1e6)
    living = alive.bool()
    torch.testing.assert_close(normalised(advantages, alive)[living], normalised(other, alive)[living])


@pytest.mark.parametrize("advantages", [torch.full((1, 5, 2), 3.0), torch.zeros(1, 1, 1)])
def test_advantages_that_are_all_alike_become_nothing(advantages: Tensor) -> None:
    assert normalised(advantages, torch.ones_like(advantages)).abs().max() < 1e-3


def test_a_seed_that_is_no_number_leaves_the_others_alone() -> None:
    advantages, alive = torch.randn(3, 20, 2), torch.ones(3, 20, 2)
    was = normalised(advantages, alive)
    advantages[1] = torch.nan
    now = normalised(advantages, alive)
    assert torch.equal(was[0], now[0])
    assert torch.equal(was[2], now[2])
    assert now[1].isnan().all()


# -- losses ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 0), st.floats(-5, 5)), min_size=1, max_size=20),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_the_policys_loss_is_the_smaller_of_plain_and_clipped(
    samples: list[tuple[float, float, float]], clip: float
) -> None:
    now, old, advantages = (torch.tensor(each, dtype=torch.float64) for each in zip(*samples, strict=True))
    losses, clipped = policy_loss(now, old, advantages, clip)
    for index, (new, before, advantage) in enumerate(samples):
        ratio = math.exp(new - before)
        near = min(max(ratio, 1 - clip), 1 + clip)
        assert losses[index].item() == pytest.approx(-min(ratio * advantage, near * advantage))
        assert clipped[index].item() == float(abs(ratio - 1) > clip)


def test_a_ratio_that_has_gone_far_enough_has_no_gradient() -> None:
    now = torch.log(torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    losses, _ = policy_loss(now, torch.zeros(5), advantages, 0.2)
    backward(losses.sum())
    assert now.grad is not None
    assert (now.grad != 0).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("delta", [0.5, 10.0])
def test_the_critics_loss_is_the_larger_of_plain_and_clipped(delta: float) -> None:
    values, old, targets = torch.randn(3, 500, dtype=torch.float64) * 3
    huber = nn.HuberLoss(reduction="none", delta=delta)
    near = old + (values - old).clamp(-0.2, 0.2)
    expected = torch.maximum(huber(values, targets), huber(near, targets))
    torch.testing.assert_close(value_loss(values, old, targets, 0.2, delta), expected)


# -- the scale of returns ----------------------------------------------------------------------------------------------


def test_an_unused_scale_changes_nothing() -> None:
    scale, values = ValueScale(2, 0.5), torch.randn(2, 5, 3)
    assert torch.equal(scale.normalise(values), values)
    assert torch.equal(scale.denormalise(values), values)


def test_the_first_returns_set_the_scale() -> None:
    scale, returns = ValueScale(2, 0.9), torch.randn(2, 400, 3) * torch.tensor([2.0, 30.0]).view(2, 1, 1) - 50
    scale.update(returns, torch.ones_like(returns))
    normal = scale.normalise(returns)
    assert normal.mean((1, 2)).tolist() == pytest.approx([0, 0], abs=1e-2)
    assert normal.std((1, 2)).tolist() == pytest.approx([1, 1], abs=2e-2)


def test_the_scale_is_a_running_mean_without_bias() -> None:
    scale, batches = ValueScale(1, 0.7), torch.randn(6, 1, 50, 2) * 4 + 3
    for batch in batches:
        scale.update(batch, torch.ones_like(batch))
    weights = np.array([0.7**age for age in range(5, -1, -1)])
    weights /= weights.sum()
    mean = float((weights * batches.mean((1, 2, 3)).numpy()).sum())
    square = float((weights * (batches**2).mean((1, 2, 3)).numpy()).sum())
    found = scale.denormalise(torch.tensor([[0.0, 1.0]]))[0]
    assert found[0].item() == pytest.approx(mean, abs=1e-4)
    assert (found[1] - found[0]).item() == pytest.approx(math.sqrt(square - mean**2), abs=1e-4)


@given(st.floats(-100, 100), st.floats(0.1, 100), st.integers(0, 2**31))
def test_scaling_there_and_back_changes_nothing(middle: float, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    returns = torch.randn(2, 50, 3, generator=generator) * spread + middle
    scale = ValueScale(2, 0.5)
    scale.update(returns, torch.ones_like(returns))
    back = scale.denormalise(scale.normalise(returns))
    torch.testing.assert_close(back, returns, atol=1e-3 * (abs(middle) + spread), rtol=1e-4)


def test_each_seed_has_its_own_scale_and_the_dead_have_no_part_in_it() -> None:
    returns = torch.randn(3, 40, 2)
    weights = (torch.rand(3, 40, 2) < 0.5).float()
    together = ValueScale(3, 0.5)
    together.update(returns, weights)
    for seed in range(3):
        alone, other = ValueScale(1, 0.5), torch.where(weights.bool(), returns, 1e4)
        alone.update(other[seed : seed + 1], weights[seed : seed + 1])
        torch.testing.assert_close(together.normalise(returns)[seed], alone.normalise(returns[seed : seed + 1])[0])


def test_returns_that_are_all_alike_can_be_scaled() -> None:
    scale, returns = ValueScale(1, 0.5), torch.full((1, 10, 2), 5.0)
    scale.update(returns, torch.ones_like(returns))
    assert scale.normalise(returns).abs().max() < 1e-3
    assert scale.denormalise(torch.ones(1, 1)).isfinite().all()


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients_of(seeds: int) -> list[nn.Parameter]:
    parameters = [
        nn.Parameter(torch.zeros(seeds, 4, 3)),
        nn.Parameter(torch.zeros(seeds, 7)),
        nn.Parameter(torch.zeros(seeds)),
    ]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn(parameter.shape)
    return parameters


def test_gradients_are_clipped_for_each_seed_as_pytorch_does_for_one() -> None:
    parameters = gradients_of(3)
    for parameter in parameters[:2]:
        assert parameter.grad is not None
        parameter.grad[1] *= 100
    expected = []
    for seed in range(3):
        alone = [nn.Parameter(torch.zeros_like(parameter[seed])) for parameter in parameters[:2]]
        for one, parameter in zip(alone, parameters, strict=False):
            assert parameter.grad is not None
            one.grad = parameter.grad[seed].clone()
        norm = nn.utils.clip_grad_norm_(alone, 6.0)
        expected.append((norm, [one.grad for one in alone]))
    norms = clip_gradients(parameters, 6.0)
    assert norms[1] > 100, "the norm is that before clipping"
    for seed, (norm, clipped) in enumerate(expected):
        torch.testing.assert_close(norms[seed], norm)
        for parameter, each in zip(parameters, clipped, strict=False):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad[seed], each)
    assert parameters[2].grad is None


def test_small_gradients_are_left_alone() -> None:
    parameters = gradients_of(2)
    was = [parameter.grad.clone() for parameter in parameters[:2] if parameter.grad is not None]
    clip_gradients(parameters, 1e6)
    for parameter, before in zip(parameters, was, strict=False):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, before)


def test_a_gradient_that_is_no_number_spoils_its_own_seed_only() -> None:
    parameters, others = gradients_of(3), []
    for parameter in parameters[:2]:
        assert parameter.grad is not None
        others.append(parameter.grad[[0, 2]].clone())
        parameter.grad[1].view(-1)[0] = torch.nan
    clip_gradients(parameters, 1e6)
    for parameter, before in zip(parameters, others, strict=False):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad[[0, 2]], before)
