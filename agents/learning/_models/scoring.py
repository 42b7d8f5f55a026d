"""Log-probabilities, entropies and values of sampled tokens, over padded micro-batches of episodes.

Shapes: R rows of a micro-batch, L tokens of its longest row, u sampled tokens (units) in it, V tokens of the
vocabulary, h numbers of a hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from arena import ConfigError

from .cache import attention_kinds
from .model import Critic, LanguageModel
from .openings import Openings, openings

__all__ = ["MicroBatch", "Row", "micro_batches", "score", "values"]

_LOGITS_AT_ONCE = 2**25
"""Most logits, u V, that are held at once; 128 MiB in float32."""
_SIMILAR, _ENOUGH = 0.75, 0.25
"""Where this share of the budget is used, rows that are shorter than this share of the longest one are not added."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of tokens, and which of them were sampled.

    Attributes:
        ids: All its tokens.
        sampled: Ascending positions in `ids` of the sampled ones; none is 0, as nothing precedes the first token.
    """

    ids: Sequence[int]
    sampled: Sequence[int]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some rows, padded on the right.

    Attributes:
        rows: Which rows it holds, (R,) as indices.
        units: Where its units lie among all rows' units, which are numbered row by row, (u,) int64.
        ids: Tokens, (R, L) int64.
        lengths: Tokens of each row, (R,) int64.
        row: Of each unit, its row in `ids`, (u,) int64.
        position: Of each unit, its position in that row, (u,) int64.
    """

    rows: tuple[int, ...]
    units: Tensor
    ids: Tensor
    lengths: Tensor
    row: Tensor
    position: Tensor

    def __len__(self) -> int:
        return len(self.units)

    def sampled(self) -> Tensor:
        """Return the id of each unit, (u,)."""
        return self.ids[self.row, self.position]


def micro_batches(
    rows: Sequence[Row],
    budget_tokens: int,
    keep_together: Sequence[int] | None = None,
    *,
    shared: bool = False,
) -> list[MicroBatch]:
    """Return all rows in micro-batches of similar lengths.

    Args:
        rows: The rows.
        budget_tokens: Most tokens of a micro-batch that are computed, padding included. One set of rows that must stay
            together may be larger, and is then alone.
        keep_together: A number for each row, such as its episode; rows with the same one get into the same micro-batch.
        shared: Whether what rows begin with in common is computed once, as `score` does where it can: such rows lie
            side by side, and what they share counts once.
    """
    sets: dict[int, list[int]] = {}
    for index in range(len(rows)):
        sets.setdefault(index if keep_together is None else keep_together[index], []).append(index)
    chunks: list[_Chunk] = []
    for one in _in_order([_Chunk.of(rows, members, shared) for members in sets.values()], shared):
        joined = one.behind(chunks[-1]) if chunks else one
        if chunks and joined.tokens() <= budget_tokens and not chunks[-1].is_enough(budget_tokens, one.longest):
            chunks[-1] = joined
        else:
            chunks.append(one)
    starts = [0, *accumulate(len(row.sampled) for row in rows)]
    return [_padded(rows, sorted(chunk.members), starts) for chunk in chunks]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows that are computed at once.

    Attributes:
        members: Which ones.
        openings: What they begin with, as far as it can be shared.
        longest: Tokens of the longest row.
        opening: Of the longest opening.
        rest: Of the longest row's end that is not shared.
    """

    members: tuple[int, ...]
    openings: frozenset[tuple[int, ...]]
    longest: int
    opening: int
    rest: int

    @classmethod
    def of(cls, rows: Sequence[Row], members: Sequence[int], shared: bool) -> _Chunk:
        """Return some rows."""
        longest = max(len(rows[i].ids) for i in members)
        if not shared:
            return cls(tuple(members), frozenset(), longest, 0, longest)
        openings = [_opening(rows[i]) for i in members]
        rest = max(len(rows[i].ids) - len(opening) for i, opening in zip(members, openings, strict=True))
        return cls(tuple(members), frozenset(openings), longest, max(map(len, openings)), rest)

    def behind(self, other: _Chunk) -> _Chunk:
        """Return the rows of both."""
        return _Chunk(
            other.members + self.members,
            other.openings | self.openings,
            max(other.longest, self.longest),
            max(other.opening, self.opening),
            max(other.rest, self.rest),
        )

    def tokens(self) -> int:
        """Return how many tokens are computed."""
        rows = len(self.members)
        return min(rows * self.longest, len(self.openings) * self.opening + rows * self.rest)

    def is_enough(self, budget_tokens: int, longest: int) -> bool:
        """Return whether a row of that length would be padded too much to join what is large enough already."""
        return longest < _SIMILAR * self.longest and self.tokens() >= _ENOUGH * budget_tokens


def _in_order(sets: Sequence[_Chunk], shared: bool) -> list[_Chunk]:
    """Return sets of rows, longest first; those that begin alike one after the other."""
    families: dict[object, list[_Chunk]] = {}
    for number, one in enumerate(sets):
        families.setdefault(one.openings if shared else number, []).append(one)
    ordered = sorted(families.values(), key=lambda family: -max(one.longest for one in family))
    return [one for family in ordered for one in sorted(family, key=lambda one: -one.longest)]


def _opening(row: Row) -> tuple[int, ...]:
    """Return all that stands before what a row's first unit is predicted from."""
    first = row.sampled[0] if len(row.sampled) else len(row.ids)
    return tuple(row.ids[: max(0, first - 1)])


def _padded(rows: Sequence[Row], chunk: Sequence[int], starts: Sequence[int]) -> MicroBatch:
    ids = [torch.as_tensor(rows[i].ids, dtype=torch.int64) for i in chunk]
    return MicroBatch(
        tuple(chunk),
        torch.cat([torch.arange(starts[i], starts[i + 1]) for i in chunk]),
        pad_sequence(ids, batch_first=True),
        torch.tensor([len(one) for one in ids]),
        torch.repeat_interleave(torch.tensor([len(rows[i].sampled) for i in chunk])),
        torch.cat([torch.as_tensor(rows[i].sampled, dtype=torch.int64) for i in chunk]),
    )


def score(model: LanguageModel, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy of each unit under softmax(logits / temperature), in nats, (u,) float32.

    Both have gradients where gradients are on. The vocabulary's projection is computed at the units only, and what rows
    begin with in common, as the episodes of a group do, is computed once.
    """
    opened = openings(batch) if shares_openings(model) else None
    return _score(model, batch, temperature, opened)


def _score(
    model: LanguageModel, batch: MicroBatch, temperature: float, opened: Openings | None
) -> tuple[Tensor, Tensor]:
    row, position = batch.row.to(model.device), batch.position.to(model.device)
    chosen = batch.sampled().to(model.device)
    with model.active() as network:
        whole = not head_is_all(model)
        called = network if whole else model.decoder
        if opened is None:
            found = called(input_ids=batch.ids.to(model.device), use_cache=False)
            last = position - 1
        else:
            found = opened.continued(called, model)
            last = position - 1 - opened.lengths.to(model.device)[row]
        if whole:
            return log_probs_and_entropies(found.logits[row, last], chosen, temperature)
        return _projected(network.get_output_embeddings(), found.last_hidden_state[row, last], chosen, temperature)


def _projected(head: Any, hidden: Tensor, chosen: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return what `log_probs_and_entropies` does, of head(hidden), without holding all logits at once."""

    def part(hidden: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return log_probs_and_entropies(head(hidden), chosen, temperature)

    size = max(1, _LOGITS_AT_ONCE // head.weight.shape[0])
    if len(chosen) <= size:
        return part(hidden, chosen)
    parts = [
        checkpoint(part, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(torch.split(hidden, size), torch.split(chosen, size), strict=True)
    ]
    return torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts])


def log_probs_and_entropies(logits: Tensor, chosen: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log p(chosen) and the entropy -sum p log p, both (u,) float32, for p = softmax(logits / temperature).

    Args:
        logits: (u, V).
        chosen: (u,) int64.
        temperature: Above 0.
    """
    log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
    return log_p.gather(-1, chosen[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def values(critic: Critic, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return the critic's values of the contexts before each unit, (u,), and of whole rows, (R,); both float32."""
    device = critic.head.weight.device
    every = critic(batch.ids.to(device))
    row, position, lengths = (one.to(device) for one in (batch.row, batch.position, batch.lengths))
    return every[row, position - 1], every[torch.arange(len(lengths), device=device), lengths - 1]


@torch.no_grad()
def head_is_all(model: LanguageModel) -> bool:
    """Return whether logits are just the output layer of the decoder's states; found out once for each model.

    Gemma 2 caps them and Cohere scales them: there the whole network has to be asked.
    """
    if model.head_is_all is None:
        ids = torch.arange(8, device=model.device)[None]
        whole = model.causal(input_ids=ids, use_cache=False).logits
        head = model.causal.get_output_embeddings()
        part = head(model.decoder(input_ids=ids, use_cache=False).last_hidden_state)
        model.head_is_all = part.shape == whole.shape and torch.allclose(part, whole, rtol=1e-5, atol=1e-6)
    return model.head_is_all


@torch.no_grad()
def shares_openings(model: LanguageModel) -> bool:
    """Return whether rows can go on from an opening that was computed once; found out once for each model.

    A window of attention, gradient checkpointing, and whatever else makes another number of a few tokens forbid it.
    """
    if model.shares_openings is None:
        text_config = model.causal.config.get_text_config()
        try:
            exact = attention_kinds(text_config) == ["full_attention"] and not model.options.gradient_checkpointing
            model.shares_openings = exact and _difference(model) < (1e-3 if model.options.dtype == "float32" else 0.25)
        except (ConfigError, TypeError, ValueError, AttributeError, RuntimeError, KeyError, NotImplementedError):
            model.shares_openings = False
    return model.shares_openings


def _difference(model: LanguageModel) -> float:
    """Return the largest difference between log-probabilities of a few tokens with and without a shared opening."""
    rows = [Row([1, 2, 3, 4, 5, 6, *rest], range(6, 6 + len(rest))) for rest in ([7, 8], [9], [2, 5, 1])]
    rows.append(Row([3, 2, 1, 4, 5, 6, 7], [4, 6]))
    (batch,) = micro_batches([*rows, *rows], 10_000)
    opened = openings(batch)
    assert opened is not None, "half of the rows are twins"
    shared, plain = (_score(model, batch, 1.0, one)[0] for one in (opened, None))
    return float((shared - plain).abs().max())
