"""Directed acyclic graphs between agents: drawn with noise, differentiable, acyclic by construction.

Shapes: n agents, and any leading dimensions for samples. ``adjacency[..., j, i] = 1`` means that agent j is a parent of
agent i, so i acts after j and sees j's action. ``order[..., k]`` is the agent that acts k-th.

A graph is an order and a set of edges along it, each from its own logits and its own stored noise, so that the very
same graph comes out again when the policy is evaluated later, now with gradients.

Sources: Chen et al. 2023, arXiv:2306.01920; Charpentier et al. 2022, arXiv:2203.08509 (order times edges); Prillo and
Eisenschlos 2020, arXiv:2006.16038 (SoftSort); Mena et al. 2018, arXiv:1802.08665 (Gumbel-Sinkhorn).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = [
    "Dag",
    "GraphNoise",
    "before",
    "budgeted",
    "density",
    "draw_noise",
    "index_order",
    "position_of",
    "sinkhorn_order",
    "soft_sort_order",
    "straight_through",
]

Cut = Literal["weakest", "earliest"]
OrderKind = Literal["index", "random", "plackett-luce", "sinkhorn"]


@dataclass(frozen=True, slots=True)
class GraphNoise:
    """What made a graph random: kept beside every sample.

    Attributes:
        order: Gumbel noise, (..., n), or (..., n, n) for Gumbel-Sinkhorn.
        edges: Logistic noise, (..., n, n).
    """

    order: Tensor
    edges: Tensor

    def index(self, key: object) -> GraphNoise:
        """Return the noise of some samples."""
        return GraphNoise(self.order[key], self.edges[key])  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class Dag:
    """A batch of graphs.

    Attributes:
        adjacency: Zeros and ones, (..., n, n); with straight-through gradients where they were asked for.
        order: The agents in the order in which they act, int64 (..., n); a topological order of the graph.
    """

    adjacency: Tensor
    order: Tensor


def draw_noise(rng: np.random.Generator, shape: tuple[int, ...], agents: int, kind: OrderKind) -> GraphNoise:
    """Return fresh noise for graphs of some shape: Gumbel for orders, logistic for edges."""
    per_order = (*shape, agents, agents) if kind == "sinkhorn" else (*shape, agents)
    tiny = float(np.finfo(np.float32).tiny)
    uniform = torch.from_numpy(rng.random(per_order, np.float32)).clamp_(min=tiny)
    odds = torch.from_numpy(rng.random((*shape, agents, agents), np.float32)).clamp_(tiny, 1 - 2.0**-24)
    return GraphNoise(-torch.log(-torch.log(uniform)), torch.logit(odds))


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return `hard` exactly, with the gradient of `soft`: the difference that is added is zero to the last bit."""
    return hard + (soft - soft.detach()) if soft.requires_grad else hard


def index_order(like: Tensor, agents: int) -> Tensor:
    """Return the order 0, 1, ..., n - 1 for every sample of (..., s)."""
    return torch.arange(agents, device=like.device).expand(*like.shape[:-1], agents)


def position_of(order: Tensor) -> Tensor:
    """Return the position of every agent in an order, (..., n)."""
    return torch.argsort(order, dim=-1)


def before(order: Tensor) -> Tensor:
    """Return which agent acts before which: 1 at [j, i] where j does so before i, float32 (..., n, n)."""
    position = position_of(order)
    return (position.unsqueeze(-1) < position.unsqueeze(-2)).float()


def soft_sort_order(scores: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw orders from the Plackett-Luce distribution of scores.

    Args:
        scores: (..., n); a higher one acts earlier.
        noise: Gumbel noise, (..., n); zeros give the most likely order.
        temperature: Of the relaxation, positive; it does not change what is drawn.

    Returns:
        The order (..., n), and `before` of it with gradients through SoftSort, (..., n, n).
    """
    noisy = scores + noise
    order = torch.argsort(noisy, dim=-1, descending=True, stable=True)
    if not noisy.requires_grad:
        return order, before(order)
    ranked = torch.gather(noisy, -1, order)
    soft = torch.softmax(-(ranked.unsqueeze(-1) - noisy.unsqueeze(-2)).abs() / temperature, dim=-1)
    return order, _before_softly(order, soft)


def sinkhorn_order(scores: Tensor, noise: Tensor, temperature: float, iterations: int = 20) -> tuple[Tensor, Tensor]:
    """Draw orders by Gumbel-Sinkhorn and the Hungarian method, as the paper's code does.

    Args:
        scores: (..., n, n): how well position k (row) fits agent j (column).
        noise: Gumbel noise of that shape.
        temperature: Positive.
        iterations: Normalisations of rows and columns.

    Returns:
        As `soft_sort_order`.
    """
    logits = (torch.nn.functional.logsigmoid(scores) + noise) / temperature
    for _ in range(iterations):
        logits = logits - logits.logsumexp(-1, keepdim=True)
        logits = logits - logits.logsumexp(-2, keepdim=True)
    soft = logits.exp()
    # A run that has diverged must not keep the others from going on.
    matrices = np.nan_to_num(soft.detach().reshape(-1, *soft.shape[-2:]).double().numpy())
    found = np.stack([linear_sum_assignment(matrix, maximize=True)[1] for matrix in matrices])
    order = torch.from_numpy(found).reshape(soft.shape[:-1])
    return order, _before_softly(order, soft) if soft.requires_grad else before(order)


def _before_softly(order: Tensor, soft: Tensor) -> Tensor:
    """Return P'MP for hard permutations P with the gradient of soft ones, M strictly upper triangular."""
    agents = order.shape[-1]
    permutation = straight_through(torch.nn.functional.one_hot(order, agents).float(), soft)
    upper = torch.ones(agents, agents).triu(1)
    return permutation.transpose(-1, -2) @ upper @ permutation


def budgeted(
    logits: Tensor, noise: Tensor, dag_order: Tensor, allowed: Tensor, budget: int, temperature: float, cut: Cut
) -> Tensor:
    """Draw edges along an order, at most so many of them.

    Args:
        logits: (..., n, n); an edge is wanted where logit plus noise is positive.
        noise: Logistic noise of that shape; zeros give the likelier choice.
        dag_order: The order, (..., n).
        allowed: `before` of the order, with or without gradients.
        budget: The most edges a graph may have. 0 gives exactly no edges, and no gradients.
        cut: Which edges go first where there are too many: the ``weakest``, with the smallest sums, or those into the
            agents that act ``earliest``, and of these the weakest.
        temperature: Of the relaxation, positive; it does not change what is drawn.

    Returns:
        Adjacency matrices, exactly zeros and ones, (..., n, n).
    """
    if budget <= 0:
        return torch.zeros_like(noise)
    agents = logits.shape[-1]
    noisy = logits + noise
    hard = (noisy > 0).float()
    if budget < agents * (agents - 1) // 2:
        strength = noisy.detach()
        if cut == "earliest":
            strength = torch.sigmoid(strength) + position_of(dag_order).unsqueeze(-2)
        ranked = strength.masked_fill(allowed.detach() < 0.5, -torch.inf).flatten(-2)
        kept = torch.zeros_like(ranked).scatter_(-1, ranked.topk(budget, dim=-1).indices, 1.0)
        hard = hard * kept.view_as(hard)
    edges = straight_through(hard, torch.sigmoid(noisy / temperature)) if noisy.requires_grad else hard
    return edges * allowed


def density(adjacency: Tensor) -> Tensor:
    """Return the mean share of possible edges that are there, in [0, 1], over the last three dimensions."""
    agents = adjacency.shape[-1]
    return adjacency.sum((-1, -2)).mean(-1) * (2.0 / max(1, agents * (agents - 1)))
