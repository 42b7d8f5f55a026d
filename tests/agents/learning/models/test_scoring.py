import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arena.agents.learning._models import scoring
from arena.agents.learning._models.model import LanguageModel
from arena.agents.learning._models.scoring import Row, head_is_all, micro_batches, score, values
from arena.agents.learning._models.settings import ModelOptions

from . import small


def some_rows(count: int, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        ids = [rng.randrange(6, 290) for _ in range(rng.randint(2, 40))]
        rows.append(Row(ids, sorted(rng.sample(range(1, len(ids)), rng.randint(1, len(ids) - 1)))))
    return rows


def in_flat_order(batches: list[Any], parts: list[torch.Tensor]) -> torch.Tensor:
    flat = torch.full((sum(map(len, batches)),), float("nan"))
    for batch, part in zip(batches, parts, strict=True):
        flat = flat.index_put((batch.units,), part)
    assert not flat.isnan().any()
    return flat


def slow_scores(model: LanguageModel, rows: list[Row], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One row at a time, one token at a time, from the whole network's logits in double precision."""
    log_probs, entropies = [], []
    for row in rows:
        logits = model.network(input_ids=torch.tensor([row.ids])).logits[0].double() / temperature
        for position in row.sampled:
            distribution = torch.distributions.Categorical(logits=logits[position - 1])
            log_probs.append(distribution.log_prob(torch.tensor(row.ids[position])))
            entropies.append(distribution.entropy())
    return torch.stack(log_probs).float(), torch.stack(entropies).float()


@pytest.mark.parametrize("architecture", list(small.ARCHITECTURES))
def test_scores_are_those_of_the_whole_network_one_row_at_a_time(architecture: str) -> None:
    model, rows = small.model(architecture), some_rows(9)
    batches = micro_batches(rows, 100)
    assert len(batches) > 2
    with torch.no_grad():
        scores = [score(model, batch, 0.7) for batch in batches]
        expected = slow_scores(model, rows, 0.7)
    for which in (0, 1):
        found = in_flat_order(batches, [one[which] for one in scores])
        torch.testing.assert_close(found, expected[which], atol=2e-5, rtol=0)


def test_the_projection_is_taken_at_units_only_where_that_is_right() -> None:
    found = {architecture: head_is_all(small.model(architecture)) for architecture in small.ARCHITECTURES}
    assert found == {name: name not in ("gemma2", "cohere") for name in found}


def test_gradients_do_not_depend_on_the_split_into_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(8)
    weights = torch.randn(sum(len(row.sampled) for row in rows), 2, generator=torch.Generator().manual_seed(1))

    def gradients(budget_tokens: int) -> list[torch.Tensor]:
        model = LanguageModel(ModelOptions(), small.network("llama"), small.tokenizer())
        for batch in micro_batches(rows, budget_tokens):
            log_probs, entropies = score(model, batch, 0.9)
            (weights[batch.units] * torch.stack([log_probs, entropies], -1)).sum().backward()
        found = [one.grad for one in model.parameters_to_train()]
        assert all(one is not None for one in found)
        return found  # type: ignore[return-value]

    whole = gradients(10**6)
    torch.testing.assert_close(gradients(60), whole, atol=1e-4, rtol=1e-5)
    monkeypatch.setattr(
        scoring, "_LOGITS_AT_ONCE", 300 * 7
    )  # logits in chunks of a few units, computed again backwards
    torch.testing.assert_close(gradients(10**6), whole, atol=1e-4, rtol=1e-5)


@given(
    sizes=st.lists(st.tuples(st.integers(2, 30), st.integers(0, 4)), min_size=1, max_size=20),
    budget=st.integers(1, 120),
    together=st.booleans(),
    shared=st.booleans(),
)
def test_micro_batches_hold_each_unit_once_and_keep_their_budget(
    sizes: list[tuple[int, int]], budget: int, together: bool, shared: bool
) -> None:
    rows = [Row([*range(100 * i, 100 * i + size)], list(range(1, size))) for i, (size, _) in enumerate(sizes)]
    episodes = [episode for _, episode in sizes]
    batches = micro_batches(rows, budget, episodes if together else None, shared=shared)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(rows)))
    flat = [i for row in rows for i in row.ids[1:]]
    for batch in batches:
        assert batch.sampled().tolist() == [flat[unit] for unit in batch.units.tolist()]
        assert batch.lengths.tolist() == [len(rows[row].ids) for row in batch.rows]
        sets = {episodes[row] for row in batch.rows} if together else set(batch.rows)
        assert batch.ids.numel() <= budget or len(sets) == 1
    assert sorted(unit for batch in batches for unit in batch.units.tolist()) == list(range(len(flat)))
    if together:
        homes = [
            {i for i, batch in enumerate(batches) for row in batch.rows if episodes[row] == e} for e in set(episodes)
        ]
        assert all(len(home) == 1 for home in homes)


def test_rows_that_begin_alike_lie_side_by_side_and_what_they_share_counts_once() -> None:
    def group(task: int, sizes: Sequence[int]) -> list[Row]:
        return [Row([*[task] * 50, *range(size)], range(50, 50 + size)) for size in sizes]

    rows = [row for pair in zip(group(1, [10, 8, 9, 10]), group(2, [9, 9, 10, 8]), strict=True) for row in pair]
    assert [batch.rows for batch in micro_batches(rows, 100, shared=True)] == [(0, 2, 4, 6), (1, 3, 5, 7)]
    assert len(micro_batches(rows, 100)) == 8
    assert len(micro_batches(rows, 200, shared=True)) == 1  # two openings of 49, and eight rests of at most 11


def test_short_rows_are_not_padded_to_long_ones_where_there_is_enough_without_them() -> None:
    rows = [Row(range(size), [1]) for size in (40, 38, 20, 19)]
    assert [batch.rows for batch in micro_batches(rows, 200)] == [(0, 1), (2, 3)]
    assert [batch.rows for batch in micro_batches(rows, 1000)] == [(0, 1, 2, 3)]


def test_a_critic_values_contexts_before_units_and_the_ends_of_rows() -> None:
    model = small.tiny()
    critic = model.critic()
    rows = some_rows(5)
    (batch,) = micro_batches(rows, 10**6)
    before, at_end = values(critic, batch)
    assert not before.any()
    assert not at_end.any()
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(0))
    before, at_end = values(critic, batch)
    expected = [critic(torch.tensor([row.ids]))[0] for row in rows]
    slow = torch.cat([one[torch.tensor(row.sampled) - 1] for one, row in zip(expected, rows, strict=True)])
    torch.testing.assert_close(before, slow, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(at_end, torch.stack([one[-1] for one in expected]), atol=1e-5, rtol=1e-5)
    before.sum().backward()
    assert all(one.grad is None for one in model.network.parameters())
    assert all(one.grad is not None for one in critic.parameters_to_train())
