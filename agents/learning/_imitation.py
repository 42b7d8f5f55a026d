"""Imitation: demonstrations are collected once, and a model learns to say what the expert said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arena import ConfigError, Limits, derive_seed, stream

from ._demonstrations import Demonstration, Lesson, Slips, demonstrate, lesson, recorded
from ._games import Games, Order
from ._models.model import LanguageModel
from ._models.scoring import Row, micro_batches, score, shares_openings
from ._optimising import Optimiser
from ._renaming import Renaming

if TYPE_CHECKING:
    from .language import LanguageOptions

__all__ = ["Imitation", "collect", "first_sights"]

_HOPELESS = 20
"""Episodes that may fail before the first one that does not."""


def collect(games: Games, options: LanguageOptions, seed: int, split: str, pool: int) -> list[Demonstration]:
    """Return as many demonstrations as are wanted, drawn with the seed: from traces, or of an expert that plays now.

    What the expert cannot do is replaced by other tasks; where these run out, or traces, demonstrations are repeated.

    Args:
        games: Where the expert plays.
        options: How many, by whom, of how many turns.
        seed: The learner's root seed.
        split: Where the tasks come from.
        pool: How many of the split's first tasks there are to choose from.

    Raises:
        ConfigError: The expert solved none, or the traces have none.
    """
    if options.demonstrations.traces is None:
        shown = _play(games, options, seed, split, pool)
    else:
        shown = _drawn(games, options, seed, split, Path(options.demonstrations.traces))
    return [shown[i % len(shown)] for i in range(options.demonstrations.episodes)]


def _drawn(games: Games, options: LanguageOptions, seed: int, split: str, traces: Path) -> list[Demonstration]:
    """Return the demonstrations in traces, in an order that the seed decides."""
    found = recorded(
        games,
        traces,
        split=split,
        turns=options.turns,
        minimum_score=options.demonstrations.minimum_score,
        list_legal=options.list_legal,
    )
    return [found[i] for i in stream(seed, "train:demonstrations").permutation(len(found))]


def _play(games: Games, options: LanguageOptions, seed: int, split: str, pool: int) -> list[Demonstration]:
    """Return what the expert says in episodes that it solves: as many as are wanted, or fewer."""
    chosen = options.demonstrations
    rng = stream(seed, "train:demonstrations")
    shown: list[Demonstration] = []
    slips = Slips(chosen.slips, seed)
    failures = list[Exception]()
    played, order = 0, list[int]()

    def finished(episodes: int) -> None:
        games.tell(f"demonstrations for seed {seed}", len(shown) + episodes, chosen.episodes)

    while len(shown) < chosen.episodes and (shown or len(failures) < _HOPELESS):
        if not order and (not played or games.spec.seeded) and played < 4 * (chosen.episodes + pool):
            order = [int(i) for i in rng.permutation(pool)]  # with another seed a task is another episode
        if not order:
            break
        missing = chosen.episodes - len(shown) if shown else min(_HOPELESS, chosen.episodes)
        tasks, order = [games.task(split, i) for i in order[:missing]], order[missing:]
        games.prepare(tasks)
        orders = [Order(task, derive_seed(seed, f"demonstration:{played + i}")) for i, task in enumerate(tasks)]
        played += len(orders)
        for one in demonstrate(
            games,
            orders,
            expert=chosen.expert,
            limits=Limits(steps=options.turns),
            list_legal=options.list_legal,
            slip=slips,
            finished=finished,
        ):
            if isinstance(one, Exception):
                failures.append(one)
            elif one.success:
                shown.append(one)
                slips.learn(one)
    if not shown:
        why = f": {failures[-1]}" if failures else ""
        raise ConfigError(f"the expert solved none of {played} episodes within {options.turns} turns{why}")
    return shown


def first_sights(games: Games, split: str, pool: int) -> list[str]:
    """Return what the first tasks show at the beginning: texts for a tokenizer where nobody demonstrates anything."""
    orders = [Order(games.task(split, i), i) for i in range(min(200, pool))]
    games.prepare([order.task for order in orders])
    texts = list[str]()
    for game in games.begin(orders, Limits(steps=1)):
        if not isinstance(game, Exception):
            texts += [game.seat.instructions, str(game.latest.observation), *map(str, game.latest.legal_actions or ())]
            game.close()
    return texts


class Imitation:
    """The first phase of a learner.

    Args:
        model: What learns.
        options: How.
        seed: The learner's root seed.
        shown: What it learns from.
        updates: In how many updates.

    Raises:
        ConfigError: No demonstration fits into the model's context.
    """

    def __init__(
        self, model: LanguageModel, options: LanguageOptions, seed: int, shown: Sequence[Demonstration], updates: int
    ) -> None:
        self._model, self._seed, self._updates = model, seed, updates
        self._options, self._budget = options.demonstrations, options.budget_tokens(model.device.type)
        self._max_norm = options.max_grad_norm
        found = [(one, lesson(model, one, model.context)) for one in shown]
        self._shown = [(one, learned) for one, learned in found if learned is not None]
        self._renaming = Renaming(shown) if self._options.renamed else None
        if not self._shown:
            raise ConfigError(f"no demonstration fits into a context of {model.context} tokens")
        self.steps = sum(len(one.said) for one in shown)
        """Environment steps of all demonstrations."""
        self.optimiser = Optimiser(
            model.parameters_to_train(),
            self._options.learning_rate,
            self._options.weight_decay,
            self._options.optimiser,
            model.tables(),
            betas=(0.9, 0.98),
        )

    def update(self, number: int) -> dict[str, float]:
        """Learn from one batch; `number` counts from 0."""
        size = self._options.batch
        epoch, part = divmod(number, -(-self._options.episodes // size))
        order = stream(self._seed, f"train:imitation:{epoch}").permutation(len(self._shown))
        lessons = [self._lesson(int(i), epoch) for i in order[part * size : (part + 1) * size]]
        self.optimiser.set_rate(self._rate(number))
        return self._step(lessons) if lessons else {}

    def _lesson(self, index: int, epoch: int) -> Lesson:
        """Return a demonstration as tokens, with its own names or with others."""
        shown, plain = self._shown[index]
        if self._renaming is None:
            return plain
        rng = stream(self._seed, f"train:renaming:{epoch}:{index}")
        if rng.random() >= self._options.renamed:
            return plain
        return lesson(self._model, self._renaming.renamed(shown, rng), self._model.context) or plain

    def _rate(self, number: int) -> float:
        """Return the step size of an update: it rises linearly and falls along a cosine."""
        done, warmup = (number + 1) / self._updates, self._options.warmup
        rising = min(1.0, done / warmup) if warmup else 1.0
        return self._options.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * number / self._updates))

    def _step(self, lessons: Sequence[Lesson]) -> dict[str, float]:
        """Take a step: on the mean over what was said, and, with its weight, over what was heard; not over slips."""
        weight = self._options.observation_weight
        rows = [one.row for one in lessons]
        targets = [_all_but_slips(one) for one in lessons] if weight else rows
        said = sum(len(row.sampled) for row in rows)
        heard = sum(len(row.sampled) for row in targets) - said
        total = 0.0
        self.optimiser.clear()
        for batch in micro_batches(targets, self._budget, shared=shares_openings(self._model)):
            log_probs = score(self._model, batch, 1.0)[0]
            is_said = torch.cat([_are_in(rows[i].sampled, targets[i].sampled) for i in batch.rows]).to(log_probs.device)
            weights = torch.where(is_said, 1.0, weight) / (said + weight * heard)
            total -= float(log_probs.detach()[is_said].sum())
            torch.autograd.backward(-(weights * log_probs).sum())
        return {"imitation_loss": total / said, "grad_norm": self.optimiser.step(self._max_norm)}


def _all_but_slips(learned: Lesson) -> Row:
    """Return all tokens but the first one and those that nobody meant to say."""
    ids = learned.row.ids
    return Row(ids, [position for position in range(1, len(ids)) if position not in learned.slips])


def _are_in(positions: Sequence[int], of: Sequence[int]) -> Tensor:
    """Return for each of `of` whether it is one of `positions`, bool."""
    return torch.isin(torch.as_tensor(of), torch.as_tensor(positions))
