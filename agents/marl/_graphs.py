"""Graphs of who sees whose action before acting: named ones, what they cost, and pictures of them.

A graph over n agents is a matrix of zeros and ones, G[j, i] = 1 where agent j is a parent of agent i, that is, where i
is told j's action before it acts. It must have no cycle. Agents are numbered from 0, also in pictures.

Functions that count take any number of leading axes, so that a batch of graphs is measured at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena import UsageError, import_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GRAPHS",
    "Graph",
    "check_graph",
    "density",
    "depth",
    "draw_graph",
    "draw_training",
    "from_networkx",
    "is_acyclic",
    "is_topological",
    "messages",
    "named_graph",
    "to_networkx",
    "topological_order",
]

Graph: TypeAlias = NDArray[np.int8]

GRAPHS = ("empty", "chain", "complete")
"""What `named_graph` knows."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers too."""
_STYLES = ("-", "--", ":", "-.")
_SNAPSHOTS = 5
"""Moments of training that are shown as matrices."""


def named_graph(name: str, agents: int) -> Graph:
    """Return a graph whose order is that of the agents' numbers.

    Args:
        name: ``empty``: nobody is told anything, a product policy. ``chain``: i is told i - 1, with n - 1 edges.
            ``complete``: each is told all before it, which can express every joint policy.
        agents: At least one.

    Raises:
        UsageError: There is no such graph.
    """
    if agents < 1:
        raise UsageError(f"a graph has at least one agent, not {agents}")
    if name == "empty":
        return np.zeros((agents, agents), np.int8)
    if name == "chain":
        return np.eye(agents, k=1, dtype=np.int8)
    if name == "complete":
        return np.triu(np.ones((agents, agents), np.int8), 1)
    raise UsageError(f"there is no graph {name!r} (known: {', '.join(GRAPHS)})")


def check_graph(graph: ArrayLike, agents: int | None = None) -> Graph:
    """Return a graph as a matrix of integers.

    Args:
        graph: Zeros and ones or booleans, (n, n).
        agents: How many agents it must have, if that is known.

    Raises:
        UsageError: It is not square, of another size, has other entries than 0 and 1, or has a cycle.
    """
    matrix = np.asarray(graph)
    size = len(matrix) if agents is None and matrix.ndim else agents
    if matrix.shape != (size, size) or not size:
        raise UsageError(f"a graph is a matrix of {size or 'n'} by {size or 'n'} agents, not of shape {matrix.shape}")
    if not np.isin(matrix, (0, 1)).all():
        raise UsageError("a graph has entries 0 and 1 only")
    if not is_acyclic(matrix):
        raise UsageError("a graph must have no cycle: nobody can wait for an action that waits for his own")
    return matrix.astype(np.int8)


def is_acyclic(graphs: ArrayLike) -> NDArray[np.bool_]:
    """Return for each graph (..., n, n) whether it has no cycle."""
    return np.asarray(~_walks(graphs)[-1])


def depth(graphs: ArrayLike) -> NDArray[np.int64]:
    """Return for each graph (..., n, n) the edges on its longest path: rounds of waiting before all have acted.

    Raises:
        UsageError: One of them has a cycle.
    """
    walks = _walks(graphs)
    if walks[-1].any():
        raise UsageError("a graph with a cycle has no longest path")
    return np.asarray(walks.sum(0))


def messages(graphs: ArrayLike) -> NDArray[np.int64]:
    """Return for each graph (..., n, n) its edges: actions that are told, in each step of the game."""
    return np.asarray(np.asarray(graphs, bool).sum((-2, -1)))


def density(graphs: ArrayLike) -> NDArray[np.float64]:
    """Return for each graph or matrix of edge frequencies (..., n, n) its edges, in [0, 1] of the complete graph's."""
    matrices = np.asarray(graphs, np.float64)
    agents = matrices.shape[-1]
    return np.asarray(matrices.sum((-2, -1)) / max(agents * (agents - 1) / 2, 1))


def is_topological(graphs: ArrayLike, orders: ArrayLike) -> NDArray[np.bool_]:
    """Return for each graph (..., n, n) whether in its order (..., n) every agent comes after all its parents.

    Args:
        graphs: The graphs.
        orders: Agents in the order in which they act; the answer is no where it is not a permutation.
    """
    matrices, sequences = np.asarray(graphs).astype(bool), np.asarray(orders)
    is_order = (np.sort(sequences, -1) == np.arange(matrices.shape[-1])).all(-1)
    place = np.argsort(sequences, -1)
    is_late = place[..., :, None] >= place[..., None, :]
    return np.asarray(is_order & ~(matrices & is_late).any((-2, -1)))


def topological_order(graph: ArrayLike) -> NDArray[np.int64]:
    """Return the agents (n,) with parents first, and by number where the graph leaves it open.

    Raises:
        UsageError: See `check_graph`.
    """
    networkx = import_extra("networkx", extra="train")
    return np.array(list(networkx.lexicographical_topological_sort(to_networkx(check_graph(graph)))), np.int64)


def to_networkx(graph: ArrayLike) -> Any:
    """Return a graph (n, n) as a `networkx.DiGraph` of nodes 0 to n - 1, with edges from parent to child."""
    networkx = import_extra("networkx", extra="train")
    return networkx.from_numpy_array(np.asarray(graph).astype(bool).astype(int), create_using=networkx.DiGraph)


def from_networkx(graph: Any) -> Graph:
    """Return the matrix of a `networkx.DiGraph` whose nodes are 0 to n - 1, in any order.

    Raises:
        UsageError: The nodes are others, or it has a cycle.
    """
    networkx = import_extra("networkx", extra="train")
    agents = range(graph.number_of_nodes())
    if set(graph.nodes) != set(agents):
        raise UsageError(f"the nodes of a graph are the agents' numbers from 0, not {list(graph.nodes)}")
    return check_graph(networkx.to_numpy_array(graph, nodelist=agents, weight=None))


def draw_graph(
    graph: ArrayLike, *, order: Sequence[int] | None = None, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Return a picture of one graph: agents from left to right as they act, an arrow for each action that is told.

    Args:
        graph: Zeros and ones, or how often each edge is there, in [0, 1]; (n, n). Rare edges are thin and light.
        order: Agents in the order in which they act; a topological one of the graph if none is given.
        names: What each agent is called.
        title: Stands above the picture.

    Raises:
        UsageError: The entries are no frequencies, there is a cycle and no order was given, or the order or the names
            do not fit.
    """
    edges = np.asarray(graph, np.float64)
    agents = len(edges)
    if edges.shape != (agents, agents) or not ((edges >= 0) & (edges <= 1)).all():
        raise UsageError(f"a graph to draw is a matrix of frequencies in [0, 1], (n, n); this has shape {edges.shape}")
    sequence = [int(agent) for agent in (topological_order(edges > 0) if order is None else order)]
    if sorted(sequence) != list(range(agents)):
        raise UsageError(f"an order names each of {agents} agents once, not {sequence}")
    labels = _names(names, agents)
    figure = _figure(1.2 + 0.9 * agents, 1.4 + 0.2 * agents)
    axes = figure.subplots()
    for parent, child in np.argwhere(edges):
        _draw_edge(axes, sequence.index(parent), sequence.index(child), edges[parent, child])
    axes.scatter(range(agents), [0.0] * agents, s=420, color="white", edgecolors="black", linewidths=1.5, zorder=3)
    for position, agent in enumerate(sequence):
        axes.text(position, 0, str(agent), ha="center", va="center", fontsize=11, zorder=4)
    axes.set_xticks(range(agents), [f"{position + 1}.\n{labels[agent]}" for position, agent in enumerate(sequence)])
    is_against = edges[np.ix_(sequence, sequence)].T[np.triu_indices(agents, 1)].any()
    reach = 0.45 + 0.17 * agents
    axes.set(xlim=(-0.6, agents - 0.4), ylim=(-reach if is_against else -0.45, reach), yticks=[], title=title)
    axes.set_xlabel("order of acting" if np.isin(edges, (0, 1)).all() else "order of acting (thin: rare edge)")
    axes.tick_params(length=0)
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    return figure


def draw_training(
    steps: ArrayLike,
    edges: ArrayLike,
    *,
    positions: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    unit: str = "environment steps",
) -> Figure:
    """Return a picture of the graph over training: density, each edge at five moments, and who acts when.

    Args:
        steps: When each entry was measured, (T,).
        edges: How often each edge was there then, in [0, 1]; (T, n, n), or (T, K, n, n) for K seeds. Lines are means
            over seeds, bands reach from the lowest seed to the highest.
        positions: Mean place of each agent in the order, from 0 to n - 1; (T, n) or (T, K, n). Not drawn if not given.
        names: What each agent is called.
        unit: What steps are counted in.

    Raises:
        UsageError: The shapes do not fit together.
    """
    when, frequency = np.asarray(steps, np.float64), _by_seed(edges, 4)
    agents = frequency.shape[-1]
    if when.shape != frequency.shape[:1] or not when.size or frequency.shape[-2] != agents:
        raise UsageError(f"edges of {when.size} steps are (T, n, n) or (T, K, n, n), not {frequency.shape}")
    labels, rows = _names(names, agents), 2 if positions is None else 3
    figure = _figure(8.0, 2.2 * rows)
    parts: Any = figure.subfigures(rows, 1)
    axes = parts[0].subplots()
    _draw_lines(axes, when, density(frequency)[..., None], ["edges"])
    axes.set(ylabel="density\n(complete = 1)", ylim=(-0.03, 1.03), xlabel=unit)
    _draw_matrices(parts[1], when, frequency.mean(1))
    if positions is not None:
        axes = parts[2].subplots()
        _draw_places(axes, when, _by_seed(positions, 3), labels)
        axes.set_xlabel(unit)
    return figure


def _walks(graphs: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each graph (..., n, n) has a walk of 1, 2, ... n edges: (n, ...)."""
    edges = np.asarray(graphs).astype(bool)
    walks, found = edges, []
    for _ in range(edges.shape[-1]):
        found.append(walks.any((-2, -1)))
        walks = walks @ edges
    return np.array(found)


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure, sized in inches, that can be saved without a screen and that pyplot does not know."""
    figures = import_extra("matplotlib.figure", extra="train")
    agg = import_extra("matplotlib.backends.backend_agg", extra="train")
    figure: Figure = figures.Figure(figsize=(width, height), dpi=100, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure


def _names(names: Sequence[str] | None, agents: int) -> list[str]:
    """Return a name for each agent."""
    if names is None:
        return [f"agent {agent}" for agent in range(agents)]
    if len(names) != agents:
        raise UsageError(f"{agents} agents need as many names, not {len(names)}")
    return list(names)


def _by_seed(values: ArrayLike, axes: int) -> NDArray[np.float64]:
    """Return values with an axis for seeds, which is added where one is missing."""
    array = np.asarray(values, np.float64)
    if array.ndim not in (axes - 1, axes):
        raise UsageError(f"an array of {axes - 1} or {axes} axes is needed, not one of shape {array.shape}")
    return array if array.ndim == axes else array[:, None]


def _draw_edge(axes: Axes, parent: int, child: int, frequency: float) -> None:
    """Draw an arrow from place to place: over those between, or below them and in another colour if it points back."""
    patches = import_extra("matplotlib.patches", extra="train")
    arrow = patches.FancyArrowPatch(
        (parent, 0),
        (child, 0),
        connectionstyle="arc3,rad=0" if child == parent + 1 else "arc3,rad=-0.32",
        arrowstyle="-|>",
        mutation_scale=12,
        shrinkA=11,
        shrinkB=11,
        linewidth=0.5 + 1.5 * frequency,
        alpha=0.25 + 0.75 * frequency,
        color=_COLOURS[0] if child > parent else _COLOURS[1],
    )
    axes.add_patch(arrow)


def _draw_lines(axes: Axes, when: NDArray[np.float64], values: NDArray[np.float64], labels: Sequence[str]) -> None:
    """Draw one line for each last index of values (T, K, lines): the mean over seeds, with lowest and highest."""
    for line, label in enumerate(labels):
        series = values[:, :, line]
        colour, style = _COLOURS[line % len(_COLOURS)], _STYLES[line % len(_STYLES)]
        axes.plot(when, series.mean(1), color=colour, linestyle=style, label=label)
        axes.fill_between(when, series.min(1), series.max(1), color=colour, alpha=0.2, linewidth=0)
    axes.spines[["right", "top"]].set_visible(False)


def _draw_places(axes: Axes, when: NDArray[np.float64], places: NDArray[np.float64], labels: Sequence[str]) -> None:
    """Draw the agents' mean places in the order (T, K, n), the first on top."""
    if places.shape[0] != len(when) or places.shape[-1] != len(labels):
        raise UsageError(f"positions of {len(when)} steps are (T, n) or (T, K, n), not {places.shape}")
    _draw_lines(axes, when, places + 1, labels)
    axes.set(ylabel="mean place\nin the order", ylim=(len(labels) + 0.2, 0.8))
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_matrices(part: Any, when: NDArray[np.float64], frequency: NDArray[np.float64]) -> None:
    """Draw the edge frequencies (T, n, n) at a few moments, parents down and children across."""
    moments = np.unique(np.linspace(0, len(when) - 1, _SNAPSHOTS).round().astype(int))
    panels = part.subplots(1, len(moments), squeeze=False, sharey=True)[0]
    ticks = range(frequency.shape[-1])
    for axes, moment in zip(panels, moments, strict=True):
        image = axes.imshow(frequency[moment], vmin=0, vmax=1, cmap="Blues")
        axes.set_title(f"at {when[moment]:,.0f}", fontsize=9)
        axes.set_xticks(ticks, [str(agent) for agent in ticks], fontsize=8)
        axes.set_yticks(ticks, [str(agent) for agent in ticks], fontsize=8)
        axes.set_xlabel("child", fontsize=9)
    panels[0].set_ylabel("parent", fontsize=9)
    part.colorbar(image, ax=list(panels), label="edge frequency", shrink=0.8)
