"""Bayesian-network policies in games that are known exactly: values, gradients, the Nash gap, and learning with them.

The joint policy over a graph is the product of the agents' conditionals, pi(a | s) = prod_i pi_i(a_i | s, a_pa(i)),
where pa(i) are the agents whose actions i is told before it acts (see `_graphs`). Each conditional is a softmax with a
logit for each state, each assignment of the parents' actions and each action. The empty graph gives product policies,
the complete graph all joint policies.

Nothing is sampled: values are solutions of linear systems, and gradients closed formulas. K policies, one for each
seed, are worked on at once and never meet.

Letters in shapes: K policies, S states, J joint actions in C order, P assignments of one agent's parents in C order
with parents ascending, A actions of one agent. Numbers are float64.

Source: Chen and Zhang 2023, arXiv:2306.01920. The formulas are derived anew, and checked against automatic
differentiation and finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arena import TabularModel, UsageError, stream

from ._graphs import check_graph

__all__ = [
    "METHODS",
    "BayesianNetwork",
    "Game",
    "Logits",
    "Method",
    "Solution",
    "Values",
    "nash_gap",
    "natural_gradient",
    "policy_gradient",
    "published_loss",
    "solve",
]

Logits: TypeAlias = tuple[Tensor, ...]
"""For each agent (K, S, P, A)."""

Method: TypeAlias = Literal["gradient", "natural"]

METHODS: tuple[Method, ...] = ("gradient", "natural")
"""Along what the logits are moved: `policy_gradient` or `natural_gradient`."""

_INDIFFERENT = 1e-10
"""A best response changes an action for more than this only, in units of the policy's largest value."""


@dataclass(frozen=True, slots=True)
class Values:
    """What K joint policies are worth.

    Attributes:
        state: Expected discounted reward from each state, (K, S).
        action: The same after a joint action, (K, S, J).
        visits: Expected discounted number of visits to each state, (K, S); it sums to 1 / (1 - discount). Times
            (1 - discount) it is the discounted state distribution.
        start: Expected discounted reward from the first state, J in the literature, (K,).
    """

    state: Tensor
    action: Tensor
    visits: Tensor
    start: Tensor


class Game:
    """A model made ready for the evaluation of many policies at once.

    Args:
        model: The game. Where its transitions do not depend on the state, they are kept once.

    Raises:
        UsageError: The model's shapes, probabilities or discount are not possible.
    """

    def __init__(self, model: TabularModel) -> None:
        transitions = _checked_transitions(model)
        self.actions, self.discount = model.actions, model.discount
        self.rewards = torch.tensor(model.rewards, dtype=torch.float64)
        self.start = torch.tensor(model.start, dtype=torch.float64)
        self._transitions = torch.tensor(transitions, dtype=torch.float64)

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.start)

    @cached_property
    def optimum(self) -> float:
        """The highest expected discounted reward that any joint policy has, found by policy iteration."""
        choice = self.rewards.argmax(-1)[None]
        while True:
            values = self.evaluate(torch.nn.functional.one_hot(choice, self.rewards.shape[-1]).double())
            better = _improve(values.action, choice)
            if torch.equal(better, choice):
                return float(values.start)
            choice = better

    def evaluate(self, joint: Tensor) -> Values:
        """Return what joint policies (K, S, J) are worth; differentiable.

        V = (I - discount P)^-1 r and visits = start^T (I - discount P)^-1, from one factorisation.
        """
        rewards = (joint * self.rewards).sum(-1)
        factors = torch.linalg.lu_factor(torch.eye(self.states).double() - self.discount * self._next(joint))
        state = torch.linalg.lu_solve(*factors, rewards[..., None])[..., 0]
        start = self.start.expand(len(joint), -1)[..., None]
        visits = torch.linalg.lu_solve(*factors, start, adjoint=True)[..., 0]
        return Values(state, self._after(state), visits, (state * self.start).sum(-1))

    def _next(self, joint: Tensor) -> Tensor:
        """Return the probability of each next state under joint policies, (K, S, S)."""
        if self._transitions.dim() == 2:
            return torch.bmm(joint, self._transitions.expand(len(joint), -1, -1))
        return torch.einsum("ksj,sjt->kst", joint, self._transitions)

    def _after(self, state: Tensor) -> Tensor:
        """Return the value after each joint action, (K, S, J), given the values of states (K, S)."""
        if self._transitions.dim() == 2:
            following = torch.bmm(state[:, None], self._transitions.T.expand(len(state), -1, -1))
        else:
            following = torch.einsum("sjt,kt->ksj", self._transitions, state)
        return self.rewards + self.discount * following


class BayesianNetwork:
    """How conditionals make up a joint policy.

    Args:
        graph: Who is told whose action, (n, n), without a cycle.
        actions: Number of actions of each agent, (n,).

    Attributes:
        parents: The parents of each agent, ascending.

    Raises:
        UsageError: The graph is none, or of another number of agents.
    """

    def __init__(self, graph: ArrayLike, actions: Sequence[int]) -> None:
        self.actions = tuple(actions)
        self.graph = check_graph(graph, len(self.actions))
        self.parents = tuple(tuple(int(j) for j in np.flatnonzero(column)) for column in self.graph.T)

    @property
    def agents(self) -> range:
        """The agents' numbers."""
        return range(len(self.actions))

    def table_shape(self, agent: int) -> tuple[int, int]:
        """Return an agent's P and A."""
        return math.prod(self.actions[parent] for parent in self.parents[agent]), self.actions[agent]

    def initial_logits(self, states: int, seeds: Sequence[int]) -> Logits:
        """Return standard normal logits, each seed's from its own random stream."""
        streams = [stream(seed, "logits") for seed in seeds]
        shapes = [(states, *self.table_shape(agent)) for agent in self.agents]
        return tuple(torch.tensor(np.stack([each.standard_normal(shape) for each in streams])) for shape in shapes)

    def log_joint(self, logits: Logits) -> Tensor:
        """Return the logarithm of the joint policy, (K, S, J); differentiable."""
        return self.product([table.log_softmax(-1) for table in logits])

    def logits_of(self, joint: Tensor) -> Logits:
        """Return logits whose conditionals are those of joint policies (K, S, J).

        With the complete graph they make up the same joint policy; with another one, the closest in the sense of the
        Kullback-Leibler divergence from `joint`. Conditionals after what never happens are uniform, and impossible
        actions get the smallest probability that float64 has.
        """
        marginals = (self.arrange(joint, agent).sum(-1) for agent in self.agents)
        return tuple(marginal.clamp_min(torch.finfo(torch.float64).tiny).log() for marginal in marginals)

    def product(self, tables: Sequence[Tensor]) -> Tensor:
        """Return the sum over agents of tables of logarithms (K, S, P, A), (K, S, J): a product of conditionals."""
        total = self.spread(tables[0], 0)
        for agent in self.agents[1:]:
            total = total + self.spread(tables[agent], agent)
        return total.expand(*total.shape[:2], *self.actions).flatten(2)

    def arrange(self, joint: Tensor, agent: int) -> Tensor:
        """Return a table of joint actions (K, S, J) as one agent sees it, (K, S, P, A, joint actions of the others)."""
        seen = (*self.parents[agent], agent)
        axes = [*seen, *(other for other in self.agents if other not in seen)]
        table = joint.reshape(*joint.shape[:2], *self.actions).permute(0, 1, *(axis + 2 for axis in axes))
        return table.reshape(*joint.shape[:2], *self.table_shape(agent), -1)

    def spread(self, table: Tensor, agent: int) -> Tensor:
        """Return an agent's table (K, S, P, A) with an axis for every agent, of size 1 where the action is not seen."""
        seen = (*self.parents[agent], agent)
        table = table.reshape(*table.shape[:2], *(self.actions[i] for i in seen))
        table = table.permute(0, 1, *(int(axis) + 2 for axis in np.argsort(seen)))
        return table.reshape(*table.shape[:2], *(self.actions[i] if i in seen else 1 for i in self.agents))


def policy_gradient(game: Game, network: BayesianNetwork, logits: Logits) -> Logits:
    """Return the gradient of `Values.start` with respect to the logits.

    For agent i: visits(s) pi(a_pa(i) = p | s) pi_i(a | s, p) (Q_i(s, p, a) - V_i(s, p)), where Q_i is the value of the
    joint action expected when i is told p and does a, and V_i its mean over a.
    """
    joint = network.log_joint(logits).exp()
    values = game.evaluate(joint)
    weighted = joint * values.visits[..., None] * (values.action - values.state[..., None])
    return tuple(_centred(logits[i], network.arrange(weighted, i).sum(-1)) for i in network.agents)


def natural_gradient(game: Game, network: BayesianNetwork, logits: Logits) -> Logits:
    """Return the natural gradient of each agent's logits: (Q_i(s, p, a) - V_i(s, p)) / (1 - discount).

    It is the gradient times the pseudo-inverse of the policy's Fisher information under the discounted state
    distribution, so that how often a state or the parents' actions occur does not enter (Kakade 2001). With the
    complete graph it is that of one agent that decides in n steps; with the empty graph, that of independent learners.
    """
    log_joint = network.log_joint(logits)
    action = game.evaluate(log_joint.exp()).action
    directions = []
    for agent, table in enumerate(logits):
        expected = (_told(network, log_joint, agent) * network.arrange(action, agent)).sum(-1)
        mean = (table.softmax(-1) * expected).sum(-1, keepdim=True)
        directions.append((expected - mean) / (1 - game.discount))
    return tuple(directions)


def published_loss(game: Game, network: BayesianNetwork, logits: Logits) -> Tensor:
    """Return the loss of the authors' program for each policy, (K,), with the model's own distribution of first states.

    It is minus the sum over s and a of visits(s) Q(s, a) pi(a | s), differentiable through pi alone; its gradient is
    that of `-Values.start`. The program gives each first state 1 / n, which makes it S / n times that of uniform ones.
    """
    joint = network.log_joint(logits).exp()
    values = game.evaluate(joint.detach())
    return -(values.visits[..., None] * values.action * joint).sum((-2, -1))


def nash_gap(game: Game, network: BayesianNetwork, logits: Logits) -> Tensor:
    """Return for each policy, (K,), the most that any one agent could add to `Values.start` by changing alone.

    An agent may replace its conditional by any other one that sees the state and the same parents' actions. The
    conditionals of all others stay as they are, also its children's, which answer to what it does now. How its parents
    act, and how the others act given its parents and itself, does not depend on its own conditional, so that it faces a
    Markov decision process, which is solved by policy iteration.

    At 0 the policy is a Nash equilibrium of such agents. It need not be optimal, with the complete graph either:
    answers to what is never done do not count, and may be bad ones. With one agent the gap is that to the optimum.
    """
    log_joint = network.log_joint(logits)
    value = game.evaluate(log_joint.exp()).start
    best = [_best_response(game, network, logits, log_joint, agent) for agent in network.agents]
    return (torch.stack(best).amax(0) - value).clamp_min(0)


@dataclass(frozen=True, slots=True)
class Solution:
    """How K policies learned.

    Attributes:
        iterations: Updates done before each of T measurements, (T,).
        values: Expected discounted reward from the first state, (T, K).
        ratios: The same in units of the optimum, "PoA" in the literature, (T, K); it says something where the optimum
            is positive.
        nash_gaps: See `nash_gap`, (T, K).
        logits: The last policies.
    """

    iterations: NDArray[np.int64]
    values: NDArray[np.float64]
    ratios: NDArray[np.float64]
    nash_gaps: NDArray[np.float64]
    logits: Logits


@torch.no_grad()
def solve(
    model: TabularModel,
    graph: ArrayLike,
    *,
    method: Method,
    learning_rate: float,
    iterations: int,
    seeds: Sequence[int],
    measurements: int = 1,
) -> Solution:
    """Return how policies over one graph learn in a game that is known, from standard normal logits.

    Args:
        model: The game.
        graph: Who is told whose action, (n, n).
        method: What the logits of all agents are moved along, at once: `policy_gradient` or `natural_gradient`.
        learning_rate: What it is multiplied by.
        iterations: Updates.
        seeds: One for each policy. What becomes of it does not depend on the others: it is what it would be alone.
        measurements: How often to measure, at even distances up to the last update; with more than one, the first is
            before any update.

    Raises:
        UsageError: An argument is not possible, or the logits have left the range of numbers.
    """
    _check_run(method, learning_rate, iterations, seeds, measurements)
    game, network = Game(model), BayesianNetwork(graph, model.actions)
    direction = {"gradient": policy_gradient, "natural": natural_gradient}[method]
    logits = network.initial_logits(game.states, seeds)
    when = np.unique(np.linspace(iterations if measurements == 1 else 0, iterations, measurements).round().astype(int))
    measured = []
    for done in range(iterations + 1):
        if done in when:
            measured.append(_measure(game, network, logits))
        if done < iterations:
            steps = direction(game, network, logits)
            logits = tuple(table + learning_rate * step for table, step in zip(logits, steps, strict=True))
    values, gaps = (np.stack(column) for column in zip(*measured, strict=True))
    if not np.isfinite(values).all():
        raise UsageError(f"the logits left the range of numbers; a learning rate below {learning_rate} is needed")
    return Solution(when, values, values / game.optimum, gaps, logits)


def _measure(game: Game, network: BayesianNetwork, logits: Logits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values and Nash gaps of policies, each (K,)."""
    values = game.evaluate(network.log_joint(logits).exp()).start
    return values.numpy(), nash_gap(game, network, logits).numpy()


def _centred(logits: Tensor, weighted: Tensor) -> Tensor:
    """Return what is weighted by pi_i, (K, S, P, A), less pi_i times its sum over actions."""
    return weighted - logits.softmax(-1) * weighted.sum(-1, keepdim=True)


def _told(network: BayesianNetwork, log_joint: Tensor, agent: int) -> Tensor:
    """Return how likely the others' joint actions are, given what one agent is told and does: (K, S, P, A, others).

    It is computed from logarithms, so that it is right after what is too rare for a float64 too.
    """
    return network.arrange(log_joint, agent).softmax(-1)


def _best_response(game: Game, network: BayesianNetwork, logits: Logits, log_joint: Tensor, agent: int) -> Tensor:
    """Return the highest value that one agent can reach alone, (K,); see `nash_gap`."""
    others = _told(network, log_joint, agent)
    logs = [torch.zeros_like(table) if i == agent else table.log_softmax(-1) for i, table in enumerate(logits)]
    rest = network.product(logs).exp()
    rest = rest.reshape(*rest.shape[:2], *network.actions)
    choice = logits[agent].argmax(-1)
    while True:
        table = torch.nn.functional.one_hot(choice, network.actions[agent]).double()
        values = game.evaluate((rest * network.spread(table, agent)).flatten(2))
        better = _improve((others * network.arrange(values.action, agent)).sum(-1), choice)
        if torch.equal(better, choice):
            return values.start
        choice = better


def _improve(values: Tensor, choice: Tensor) -> Tensor:
    """Return the best action of each row of values (K, ..., A): the present choice (K, ...) unless it is worse."""
    best, action = values.max(-1)
    kept = values.gather(-1, choice[..., None])[..., 0]
    largest = values.abs().amax(tuple(range(1, values.dim())), keepdim=True)[..., 0]
    return torch.where(best > kept + _INDIFFERENT * largest, action, choice)


def _checked_transitions(model: TabularModel) -> NDArray[np.float64]:
    """Return a model's transitions, (J, S) where they are the same in all states, else (S, J, S).

    Raises:
        UsageError: The model is not a game.
    """
    states, joint = len(model.start), math.prod(model.actions)
    shapes = (model.transitions.shape, model.rewards.shape, model.start.shape)
    if shapes != ((states, joint, states), (states, joint), (states,)):
        raise UsageError(f"{states} states and {joint} joint actions do not go with tables of the shapes {shapes}")
    if not 0 <= model.discount < 1:
        raise UsageError(f"a discount is at least 0 and below 1, not {model.discount}")
    if not np.isfinite(model.rewards).all():
        raise UsageError("the rewards of a game must be finite")
    table = model.transitions
    if table.strides[0] == 0 or (table == table[:1]).all():
        table = table[0]
    for name, probabilities in (("transitions", table), ("start", model.start)):
        if not (probabilities.min() >= 0 and np.allclose(probabilities.sum(-1), 1, rtol=0, atol=1e-9)):
            raise UsageError(f"the {name} of a game must be probabilities that sum to 1")
    return table


def _check_run(method: str, learning_rate: float, iterations: int, seeds: Sequence[int], measurements: int) -> None:
    """Raise a `UsageError` where a run is not possible."""
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r} (known: {', '.join(METHODS)})")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise UsageError(f"a learning rate is a positive number, not {learning_rate}")
    if iterations < 0 or measurements < 1 or not seeds:
        raise UsageError(
            "a run has at least 0 iterations, 1 measurement and 1 seed,"
            f" not {iterations}, {measurements} and {len(seeds)}"
        )
