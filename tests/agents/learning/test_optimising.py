"""Optimisers: what moves what, and that a restored one goes on as if it had never been away."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from arena.agents.learning._optimising import Optimiser  # noqa: E402


def _weights() -> list[Any]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (9, 4), (4,))]


def _push(optimiser: Optimiser, weights: list[Any], number: int) -> None:
    torch.manual_seed(number)
    for one in weights:
        one.grad = torch.randn_like(one)
    optimiser.step(1e9)


def test_muon_moves_matrices_along_all_directions_alike_and_leaves_tables_and_vectors_to_adamw() -> None:
    weights = _weights()
    before = [one.detach().clone() for one in weights]
    optimiser = Optimiser(weights, 0.1, 0.0, "muon", tables=[weights[1]])
    gradient = torch.outer(torch.arange(1.0, 7), torch.ones(4)) + 0.05 * torch.randn(6, 4)
    weights[0].grad = gradient.clone()
    weights[1].grad = torch.randn(9, 4)
    weights[2].grad = torch.randn(4)
    signs = [torch.sign(one.grad) for one in weights]
    optimiser.step(1e9)
    moved = before[0] - weights[0].detach()
    sizes = torch.linalg.svdvals(moved)
    assert sizes.max() / sizes.min() < 3  # the gradient's are more than 20 apart
    assert torch.linalg.svdvals(gradient).max() / torch.linalg.svdvals(gradient).min() > 20
    assert 0.4 < moved.square().mean().sqrt() / 0.1 / 0.2 < 1.6  # as large as a step of AdamW typically is: .2 to .4
    for i in (1, 2):  # AdamW's first step is the sign
        torch.testing.assert_close(before[i] - weights[i].detach(), 0.1 * signs[i], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_optimiser_goes_on_to_the_bit(kind: Any) -> None:
    whole, parted = _weights(), _weights()
    uninterrupted = Optimiser(whole, 0.1, 0.01, kind, tables=[whole[1]])
    first = Optimiser(parted, 0.1, 0.01, kind, tables=[parted[1]])
    for number in range(3):
        _push(uninterrupted, whole, number)
        _push(first, parted, number)
    second = Optimiser(parted, 0.1, 0.01, kind, tables=[parted[1]])
    second.restore("policy", {**first.state("policy"), "generator": torch.zeros(3)})
    for optimiser in (uninterrupted, second):
        optimiser.set_rate(0.03)
    for number in range(3, 6):
        _push(uninterrupted, whole, number)
        _push(second, parted, number)
    for one, other in zip(whole, parted, strict=True):
        assert torch.equal(one, other)


def test_without_gradients_nothing_moves() -> None:
    weights = _weights()
    optimiser = Optimiser(weights, 0.1, 0.1, "muon")
    _push(optimiser, weights, 0)
    before = [one.detach().clone() for one in weights]
    optimiser.clear()
    assert optimiser.step(1.0) == 0
    assert all(torch.equal(one, two) for one, two in zip(before, weights, strict=True))
