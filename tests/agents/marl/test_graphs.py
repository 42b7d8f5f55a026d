from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import NDArray

from arena import UsageError
from arena.agents.marl._graphs import (
    check_graph,
    density,
    depth,
    draw_graph,
    draw_training,
    from_networkx,
    is_acyclic,
    is_topological,
    messages,
    named_graph,
    to_networkx,
    topological_order,
)

Matrix = NDArray[np.bool_]
digraphs = st.integers(1, 6).flatmap(lambda n: arrays.arrays(bool, (n, n)))


@st.composite
def dags(draw: Callable[..., Any]) -> Matrix:
    edges = np.triu(draw(digraphs), 1)
    order = draw(st.permutations(range(len(edges))))
    return edges[np.ix_(order, order)]


class TestCounting:
    @given(digraphs)
    def test_cycles_are_found_as_networkx_finds_them(self, graph: Matrix) -> None:
        assert is_acyclic(graph) == networkx.is_directed_acyclic_graph(to_networkx(graph))

    @given(dags())
    def test_dags_have_the_depth_and_the_edges_that_networkx_counts(self, graph: Matrix) -> None:
        assert is_acyclic(graph)
        assert depth(graph) == networkx.dag_longest_path_length(to_networkx(graph))
        assert messages(graph) == to_networkx(graph).number_of_edges()

    @given(dags(), st.randoms())
    def test_an_order_is_topological_where_no_parent_comes_later(self, graph: Matrix, random: Any) -> None:
        order = list(range(len(graph)))
        random.shuffle(order)
        place = {agent: k for k, agent in enumerate(order)}
        assert is_topological(graph, order) == all(place[j] < place[i] for j, i in np.argwhere(graph))
        assert is_topological(graph, topological_order(graph))
        assert not is_topological(graph, [0] * len(graph)) or len(graph) == 1

    def test_a_batch_is_counted_graph_by_graph(self) -> None:
        graphs = np.stack([named_graph(name, 4) for name in ("empty", "chain", "complete")])
        assert depth(graphs).tolist() == [0, 3, 3]
        assert messages(graphs).tolist() == [0, 3, 6]
        assert density(graphs).tolist() == [0, 0.5, 1]
        assert density(graphs / 2).tolist() == [0, 0.25, 0.5]
        assert is_topological(graphs, np.tile([3, 2, 1, 0], (3, 1))).tolist() == [True, False, False]
        cyclic = np.stack([graphs[1], graphs[1] + graphs[1].T])
        assert is_acyclic(cyclic[None]).tolist() == [[True, False]]
        with pytest.raises(UsageError, match="no longest path"):
            depth(cyclic)

    def test_one_agent_has_no_edges(self) -> None:
        assert density([[0]]) == 0
        assert depth([[0]]) == 0


class TestNamed:
    def test_a_chain_links_the_last_agent_too(self) -> None:
        # The reference's line graph misses the last edge: with two agents it is empty.
        assert named_graph("chain", 2).tolist() == [[0, 1], [0, 0]]
        assert named_graph("chain", 3).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]

    def test_the_complete_graph_tells_each_agent_all_before_it(self) -> None:
        assert named_graph("complete", 3).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]

    @pytest.mark.parametrize(("name", "agents"), [("ring", 3), ("empty", 0)])
    def test_others_are_refused(self, name: str, agents: int) -> None:
        with pytest.raises(UsageError, match=r"ring.*known: empty|at least one agent"):
            named_graph(name, agents)


@pytest.mark.parametrize(
    ("graph", "agents", "message"),
    [
        (np.zeros((2, 3)), None, "matrix"),
        (np.zeros(()), None, "matrix"),
        (np.zeros((0, 0)), None, "matrix"),
        (np.zeros((2, 2)), 3, "3 by 3"),
        ([[0, 0.5], [0, 0]], None, "0 and 1"),
        ([[0, 1], [1, 0]], None, "cycle"),
        ([[1]], None, "cycle"),
    ],
)
def test_what_is_no_graph_is_refused(graph: Any, agents: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_graph(graph, agents)


class TestNetworkx:
    @given(dags())
    def test_there_and_back(self, graph: Matrix) -> None:
        assert np.array_equal(from_networkx(to_networkx(graph)), graph)

    def test_nodes_may_come_in_any_order(self) -> None:
        graph = networkx.DiGraph([(2, 0), (0, 1)])
        assert from_networkx(graph).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
        assert topological_order(from_networkx(graph)).tolist() == [2, 0, 1]

    @pytest.mark.parametrize("edges", [[("a", "b")], [(1, 2)], [(0, 1), (1, 0)]])
    def test_other_graphs_are_refused(self, edges: list[tuple[Any, Any]]) -> None:
        with pytest.raises(UsageError, match=r"agents' numbers|cycle"):
            from_networkx(networkx.DiGraph(edges))


class TestPictures:
    def test_a_graph_is_drawn_in_its_order(self) -> None:
        graph = check_graph([[0, 0, 1], [1, 0, 1], [0, 0, 0]])
        figure = draw_graph(graph, names=["scout", "guard", "medic"], title="a team")
        (axes,) = figure.axes
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1.\nguard", "2.\nscout", "3.\nmedic"]
        assert [text.get_text() for text in axes.texts] == ["1", "0", "2"]
        assert len(_arrows(figure)) == 3
        assert axes.get_title() == "a team"
        assert "order" in axes.get_xlabel()
        assert _is_png(figure)

    def test_an_order_may_be_given_and_an_edge_against_it_looks_different(self) -> None:
        forth, rare, back = _arrows(draw_graph([[0, 1, 0.1], [1, 0, 0], [0, 0, 0]], order=[0, 1, 2]))
        assert forth.get_edgecolor()[:3] == rare.get_edgecolor()[:3] != back.get_edgecolor()[:3]
        assert rare.get_linewidth() < forth.get_linewidth() == back.get_linewidth()

    def test_training_is_drawn_with_density_edges_and_order(self) -> None:
        steps = np.linspace(0, 64_000, 9)
        fade = np.linspace(1, 0, 9)[:, None, None, None] * np.array([1.0, 0.5])[None, :, None, None]
        places = np.tile([0.0, 1.0, 2.0], (9, 2, 1))
        figure = draw_training(steps, named_graph("complete", 3) * fade, positions=places, names=["a", "b", "c"])
        line = figure.axes[0].lines[0]
        assert line.get_ydata() == pytest.approx(np.linspace(0.75, 0, 9))
        matrices = [axes.images[0].get_array() for axes in figure.axes if axes.images]
        assert matrices[0] is not None
        assert np.asarray(matrices[0]) == pytest.approx(0.75 * named_graph("complete", 3))
        assert not np.asarray(matrices[-1]).any()
        labels = [axes.get_ylabel() for axes in figure.axes]
        assert ["density" in labels[0], "parent" in labels, "edge frequency" in labels] == [True] * 3
        legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
        assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
        assert _is_png(figure)

    def test_one_moment_and_one_seed_are_enough(self) -> None:
        assert _is_png(draw_training([0], named_graph("chain", 2)[None]))

    def test_a_server_can_draw_many_figures(self) -> None:
        for _ in range(3):
            draw_graph(named_graph("chain", 2))
        assert not _pylab_helpers.Gcf.get_all_fig_managers()

    @pytest.mark.parametrize(
        ("draw", "message"),
        [
            (lambda: draw_graph([[0, 1], [1, 0]]), "cycle"),
            (lambda: draw_graph([[0, 2], [0, 0]]), "frequencies"),
            (lambda: draw_graph([[0, 1]]), "frequencies"),
            (lambda: draw_graph([[0, 1], [0, 0]], order=[0, 0]), "order"),
            (lambda: draw_graph([[0, 1], [0, 0]], names=["a"]), "as many names"),
            (lambda: draw_training([0, 1], np.zeros((1, 2, 2))), "2 steps"),
            (lambda: draw_training([], np.zeros((0, 2, 2))), "0 steps"),
            (lambda: draw_training([0], np.zeros((1, 2, 3))), "1 steps"),
            (lambda: draw_training([0], np.zeros(1)), "axes"),
            (lambda: draw_training([0], np.zeros((1, 2, 2)), positions=[[0.0]]), "positions of 1 steps"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, draw: Callable[[], Figure], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            draw()


def _arrows(figure: Figure) -> list[FancyArrowPatch]:
    return [patch for axes in figure.axes for patch in axes.patches if isinstance(patch, FancyArrowPatch)]


def _is_png(figure: Figure) -> bool:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue().startswith(b"\x89PNG") and len(file.getvalue()) > 2000
