"""Advantages, clipped losses and value scales of proximal policy optimisation, for several seeds and agents at once.

Shapes: T steps, K seeds, B samples, n agents.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["ValueScale", "clip_gradients", "generalised_advantages", "mean_over", "policy_loss", "value_loss"]


def generalised_advantages(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, over: Tensor, gamma: float, lam: float
) -> Tensor:
    """Return advantages by GAE: a truncated step still bootstraps, a terminated one does not, neither goes on.

    Args:
        rewards: (T, ...).
        values: Of what was acted on, (T, ...).
        next_values: Of what the step led to, before any new episode began, (T, ...).
        terminated: The task ended for this agent in this step, (T, ...).
        over: Nothing follows in this episode: terminated or truncated, (T, ...).
        gamma: Discount a step, in [0, 1].
        lam: In [0, 1]; 0 is one-step TD, 1 is Monte Carlo.

    Source:
        Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    keep = gamma * lam * (~over).float()
    advantages = torch.empty_like(deltas)
    following = torch.zeros_like(deltas[0])
    for step in reversed(range(len(deltas))):
        following = deltas[step] + keep[step] * following
        advantages[step] = following
    return advantages


def mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """Return each seed's weighted mean, (K,); 0 where nothing has weight."""
    flat, weighing = values.flatten(1), weights.flatten(1)
    return (flat * weighing).sum(1) / weighing.sum(1).clamp(min=1e-8)


def normalised(advantages: Tensor, weights: Tensor) -> Tensor:
    """Return advantages with mean 0 and standard deviation 1 over what has weight, within each seed, (K, B, n)."""
    shape = (-1, *[1] * (advantages.dim() - 1))
    centred = advantages - mean_over(advantages, weights).view(shape)
    deviation = mean_over(centred**2, weights).sqrt().view(shape)
    return centred / (deviation + 1e-8)


def policy_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss of every action, and where it was clipped.

    Args:
        log_probs: Now, any shape.
        old: When the action was taken.
        advantages: Of the action.
        clip: How far the ratio may go from 1.

    Source:
        Schulman et al. 2017, arXiv:1707.06347, eq. 7; each agent's own ratio, as in Yu et al. 2022, arXiv:2103.01955.
    """
    ratios = (log_probs - old).exp()
    clipped = ratios.clamp(1 - clip, 1 + clip)
    losses = -torch.minimum(ratios * advantages, clipped * advantages)
    return losses, ((ratios - 1).abs() > clip).float().detach()


def value_loss(values: Tensor, old: Tensor, targets: Tensor, clip: float, delta: float) -> Tensor:
    """Return the Huber loss of values that may move by `clip` only, in the scale of `ValueScale`.

    Source:
        Yu et al. 2022, arXiv:2103.01955, section 4.
    """
    moved = old + (values - old).clamp(-clip, clip)
    return torch.maximum(_huber(targets - values, delta), _huber(targets - moved, delta))


def _huber(errors: Tensor, delta: float) -> Tensor:
    size = errors.abs()
    return torch.where(size <= delta, errors**2 / 2, delta * (size - delta / 2))


class ValueScale(nn.Module):
    """Mean and deviation of each seed's returns, learned on the way, in which the critic's outputs are.

    The critic's last layer is not moved along with the scale (as PopArt would): while returns grow tenfold, because the
    critic learns to look beyond a rollout, what it predicts grows with them. Kept still, it lags behind for most of a
    short training, and its error hides every advantage; docs/results/marl.md has the comparison.

    Source:
        Yu et al. 2022, arXiv:2103.01955, section 4 (value normalisation), with a debiased running mean of few updates.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, seeds: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros(seeds))

    def update(self, returns: Tensor, weights: Tensor) -> None:
        """Take note of returns, (K, B, n), where they have weight."""
        self.mean.lerp_(mean_over(returns, weights), 1 - self.decay)
        self.square.lerp_(mean_over(returns**2, weights), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)

    def _both(self, dimensions: int) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (dimensions - 1))
        weight = self.weight.clamp(min=1e-8)
        mean = self.mean / weight
        deviation = (self.square / weight - mean**2).clamp(min=1e-4).sqrt()
        known = self.weight > 0
        return torch.where(known, mean, 0.0).view(shape), torch.where(known, deviation, 1.0).view(shape)

    def normalise(self, returns: Tensor) -> Tensor:
        """Return returns in the critic's scale; seeds come first."""
        mean, deviation = self._both(returns.dim())
        return (returns - mean) / deviation

    def denormalise(self, values: Tensor) -> Tensor:
        """Return values in the scale of rewards; seeds come first."""
        mean, deviation = self._both(values.dim())
        return values * deviation + mean


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale each seed's gradients down to a norm of at most `limit`, and return the norms before, (K,)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
    return norms
