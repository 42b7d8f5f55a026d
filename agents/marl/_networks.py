"""Networks of several independent runs in one: every parameter has the run's index first.

Shapes: K seeds (runs), B samples, n agents, a actions, d numbers of an observation, s numbers of a state or context,
h hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["Actor", "Critic", "GraphNet", "SeedLinear", "SeedMLP"]


class SeedLinear(nn.Module):
    """A linear layer for each seed: (K, B, in) to (K, B, out).

    Args:
        generators: One for each seed, from which its weights are drawn.
        inputs: Numbers that go in.
        outputs: Numbers that come out.
        gain: Of the orthogonal initialisation; 0 starts with zero weights.
        bias: What the bias starts with.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], inputs: int, outputs: int, gain: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        weight = torch.zeros(len(generators), inputs, outputs)
        if gain:
            for one, generator in zip(weight, generators, strict=True):
                nn.init.orthogonal_(one, gain, generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.full((len(generators), 1, outputs), bias))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply every seed's layer to its own samples."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class SeedMLP(nn.Sequential):
    """Linear layers with rectified units between them, (K, B, in) to (K, B, out)."""

    def __init__(
        self, generators: Sequence[torch.Generator], sizes: Sequence[int], gain: float, bias: float = 0.0
    ) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers += [SeedLinear(generators, inputs, outputs, math.sqrt(2)), nn.ReLU()]
        layers.append(SeedLinear(generators, sizes[-2], sizes[-1], gain, bias))
        super().__init__(*layers)


class Actor(nn.Module):
    """Conditional policies of all agents: what one sees, who one is, and what one's parents did.

    The parents' actions enter before the non-linearity, as embeddings that are added up (marl.md 4.4: behind a linear
    head they are learned tens of times slower than the rest, and the team commits to a poor equilibrium first)::

        logits_i = head_i(relu(W norm(encode(o_i) + identity_i + sum_j G[j, i] parent[j, a_j, i])))

    Args:
        generators: One for each seed.
        agents: n.
        actions: a.
        observation: d.
        hidden: h.
        conditional: Whether there are embeddings of parents at all.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        agents: int,
        actions: int,
        observation: int,
        hidden: int,
        conditional: bool,
    ) -> None:
        super().__init__()
        seeds = len(generators)
        self.agents, self.actions = agents, actions
        self.encode = SeedMLP(generators, (observation, hidden, hidden), math.sqrt(2))
        self.identity = nn.Parameter(_normal(generators, (agents, hidden), 0.1))
        self.scale = nn.Parameter(torch.ones(seeds, 1, 1, hidden))
        self.shift = nn.Parameter(torch.zeros(seeds, 1, 1, hidden))
        self.mix = SeedLinear(generators, hidden, hidden, math.sqrt(2))
        self.head = nn.Parameter(_orthogonal(generators, agents, hidden, actions, 0.01))
        self.head_bias = nn.Parameter(torch.zeros(seeds, agents, actions))
        if conditional:
            self.parent = nn.Parameter(_normal(generators, (agents, actions, agents, hidden), 0.4))

    def features(self, observations: Tensor) -> Tensor:
        """Return what each agent makes of what it sees and who it is: (K, B, n, d) to (K, B, n, h)."""
        seeds, samples = observations.shape[:2]
        encoded = torch.relu(self.encode(observations.flatten(1, 2)))
        return encoded.view(seeds, samples, self.agents, -1) + self.identity.unsqueeze(1)

    def told(self, actions: Tensor, adjacency: Tensor) -> Tensor:
        """Return the sum of the embeddings of each agent's parents, (K, B, n, h).

        Args:
            actions: What every agent did, as its children see it: int64 (K, B, n).
            adjacency: (K, B, n, n).
        """
        taken = nn.functional.one_hot(actions, self.actions).to(adjacency.dtype)  # K, B, j, a
        masked = adjacency.transpose(-1, -2).unsqueeze(-1) * taken.unsqueeze(2)  # K, B, i, j, a
        seeds, samples = actions.shape[:2]
        inputs = masked.permute(0, 2, 1, 3, 4).reshape(seeds * self.agents, samples, -1)
        weight = self.parent.permute(0, 3, 1, 2, 4).reshape(seeds * self.agents, inputs.shape[-1], -1)
        return torch.bmm(inputs, weight).view(seeds, self.agents, samples, -1).transpose(1, 2)

    def logits(self, features: Tensor, told: Tensor | None, masks: Tensor | None) -> Tensor:
        """Return the logits of every agent's actions, (K, B, n, a).

        Args:
            features: Of `features`.
            told: Of `told`; None where nobody has parents.
            masks: Legal actions, (K, B, n, a); None where all are.
        """
        hidden = self._hidden(features if told is None else features + told)  # K, B, n, h
        seeds, samples, agents, width = hidden.shape
        rows = hidden.transpose(1, 2).reshape(seeds * agents, samples, width)
        scores = torch.baddbmm(self.head_bias.view(seeds * agents, 1, -1), rows, self.head.flatten(0, 1))
        scores = scores.view(seeds, agents, samples, -1).transpose(1, 2)
        return scores if masks is None else scores.masked_fill(~masks, torch.finfo(scores.dtype).min)

    def logits_of(self, agents: int | Tensor, features: Tensor, masks: Tensor | None) -> Tensor:
        """Return the logits of one agent a sample, (K, B, a).

        Args:
            agents: Which one: the same in every sample, or int64 (K, B).
            features: Its features with what it was told, (K, B, h).
            masks: Its legal actions, (K, B, a).
        """
        hidden = self._hidden(features.unsqueeze(2)).squeeze(2)
        if isinstance(agents, int):
            scores = torch.baddbmm(self.head_bias[:, agents].unsqueeze(1), hidden, self.head[:, agents])
        else:
            seeds = torch.arange(len(agents)).unsqueeze(1)
            weights, bias = self.head[seeds, agents], self.head_bias[seeds, agents]
            scores = (hidden.unsqueeze(-2) @ weights).squeeze(-2) + bias
        return scores if masks is None else scores.masked_fill(~masks, torch.finfo(scores.dtype).min)

    def _hidden(self, features: Tensor) -> Tensor:
        normed = nn.functional.layer_norm(features, features.shape[-1:]) * self.scale + self.shift
        return torch.relu(self.mix(normed.flatten(1, 2)).view_as(normed))


class Critic(nn.Module):
    """Values for every agent, (K, B, n): from the state, or from each one's own observation.

    Args:
        generators: One for each seed.
        agents: n.
        inputs: d or s.
        hidden: h.
        central: Whether the state goes in, (K, B, s); otherwise observations, (K, B, n, d).
    """

    def __init__(
        self, generators: Sequence[torch.Generator], agents: int, inputs: int, hidden: int, central: bool
    ) -> None:
        super().__init__()
        self.agents, self.central = agents, central
        outputs = agents if central else 1
        self.net = SeedMLP(generators, (inputs if central else inputs + agents, hidden, hidden, outputs), 1.0)

    def forward(self, seen: Tensor) -> Tensor:
        """Return the values."""
        if self.central:
            return cast(Tensor, self.net(seen))
        seeds, samples = seen.shape[:2]
        who = torch.eye(self.agents).expand(seeds, samples, self.agents, self.agents)
        return cast(Tensor, self.net(torch.cat([seen, who], -1).flatten(1, 2)).view(seeds, samples, self.agents))


class GraphNet(nn.Module):
    """Logits of orders and edges from a context.

    Args:
        generators: One for each seed.
        agents: n.
        context: s.
        hidden: h.
        order: Numbers for the order: n scores, n * n for Gumbel-Sinkhorn, 0 where it is not learned.
        edges: Whether edges are learned.
        edge_bias: What the edges' logits start with; 3 means that 95 of 100 are there.
        prior: How strongly orders start close to 0, 1, ..., n - 1: the scores start with -prior * i.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        agents: int,
        context: int,
        hidden: int,
        order: int,
        edges: bool,
        edge_bias: float,
        prior: float,
    ) -> None:
        super().__init__()
        self.agents = agents
        self.order = SeedMLP(generators, (context, hidden, order), 0.0) if order else None
        self.edges = SeedMLP(generators, (context, hidden, agents * agents), 0.0, edge_bias) if edges else None
        if self.order is not None:
            index = torch.arange(agents, dtype=torch.float32)
            # Gumbel-Sinkhorn: position k should hold agent k, and less so the further away it is.
            bias = -prior * (index if order == agents else (index.unsqueeze(0) - index.unsqueeze(1)).abs().flatten())
            with torch.no_grad():
                cast(SeedLinear, self.order[-1]).bias.copy_(bias.expand(len(generators), 1, order))

    def scores(self, context: Tensor) -> Tensor:
        """Return the scores of orders, (K, B, n) or (K, B, n, n)."""
        assert self.order is not None
        scores = cast(Tensor, self.order(context))
        return scores if scores.shape[-1] == self.agents else _square(scores, self.agents)

    def edge_logits(self, context: Tensor) -> Tensor:
        """Return the logits of edges, (K, B, n, n)."""
        assert self.edges is not None
        return _square(self.edges(context), self.agents)


def _square(flat: Tensor, agents: int) -> Tensor:
    return flat.view(*flat.shape[:-1], agents, agents)


def _normal(generators: Sequence[torch.Generator], shape: tuple[int, ...], deviation: float) -> Tensor:
    return torch.stack([torch.randn(shape, generator=generator) * deviation for generator in generators])


def _orthogonal(generators: Sequence[torch.Generator], agents: int, inputs: int, outputs: int, gain: float) -> Tensor:
    weights = torch.empty(len(generators), agents, inputs, outputs)
    for of_seed, generator in zip(weights, generators, strict=True):
        for one in of_seed:
            nn.init.orthogonal_(one, gain, generator)
    return weights
