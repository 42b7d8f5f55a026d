"""Reinforcement: play groups of episodes, find out what was good about them, and take steps along the objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arena import ConfigError, EnvError, Task, derive_seed, stream

from ._experience import Experience, gather
from ._games import Games, Order
from ._models.model import Critic, LanguageModel
from ._models.scoring import MicroBatch, Row, micro_batches, score, shares_openings, values
from ._objective import control, loss
from ._optimising import Optimiser
from ._rollout import Episode, Failed, RolloutSettings, about, play

if TYPE_CHECKING:
    from .language import LanguageOptions

__all__ = ["Reinforcement", "TaskPool", "rollout_settings"]

_AHEAD = 64
"""Tasks are prepared so many updates before they are played, if there is time."""


def rollout_settings(options: LanguageOptions, model: LanguageModel, temperature: float) -> RolloutSettings:
    """Return how episodes are played."""
    return RolloutSettings(
        turns=options.turns,
        new_tokens=options.new_tokens,
        temperature=temperature,
        concurrency=options.concurrency,
        history=options.history,
        window_turns=options.window_turns,
        list_legal=options.list_legal,
        context=model.context,
    )


class TaskPool:
    """The tasks that reinforcement draws from.

    Args:
        games: Whose they are.
        split: Of which split.
        numbers: Which of the split's tasks.
        seed: The learner's root seed.
        tasks: So many an update.
        updates: So many updates.
    """

    def __init__(self, games: Games, split: str, numbers: Sequence[int], seed: int, tasks: int, updates: int) -> None:
        self._games, self._split, self._numbers, self._seed = games, split, numbers, seed
        self._tasks, self._updates, self._expected = tasks, updates, 0

    def draw(self, update: int, rounds: int = 1) -> list[Task]:
        """Return the tasks of some rounds of an update; none is there twice before all are there once."""
        rng, count = stream(self._seed, f"train:tasks:{update}"), rounds * self._tasks
        passes = -(-count // len(self._numbers))
        drawn = [self._numbers[i] for _ in range(passes) for i in rng.permutation(len(self._numbers))][:count]
        return [self._games.task(self._split, i) for i in drawn]

    def look_ahead(self, update: int) -> None:
        """Let the tasks of updates from this one on, those of first rounds, be prepared in the background."""
        end = min(update + _AHEAD, self._updates)
        for number in range(max(update, self._expected), end):
            self._games.expect(self.draw(number))
        self._expected = max(end, self._expected)


class Reinforcement:
    """The second phase of a learner.

    Args:
        model: What learns.
        games: Where it plays.
        options: How.
        seed: The learner's root seed.
        pool: What is played.
        updates: In how many updates.

    Raises:
        ConfigError: The environment does not count what the objective's strata are made of.

    Attributes:
        version: How often the policy has changed.
        coefficients: Those of the objective, as control has moved them.
        reference: What the policy is held to; None where nothing needs it.
        critic: What values contexts; None where nothing needs it.
    """

    def __init__(
        self,
        model: LanguageModel,
        games: Games,
        options: LanguageOptions,
        seed: int,
        pool: TaskPool,
        updates: int,
    ) -> None:
        self._model, self._games, self._options, self._seed = model, games, options, seed
        self._pool, self._updates = pool, updates
        self._objective = options.objective
        _require_strata(self._objective.stratum_key, games)
        self.version = 0
        self.coefficients = control.initial_coefficients(self._objective)
        self.optimiser = Optimiser(model.parameters_to_train(), options.learning_rate, options.weight_decay)
        self.reference = model.reference() if self._objective.needs_reference else None
        self.critic: Critic | None = None
        if self._objective.needs_critic:
            self.critic = model.critic()
            self.critic_optimiser = Optimiser(self.critic.parameters_to_train(), options.critic_learning_rate, 0.0)

    def update(self, number: int, generator: torch.Generator) -> tuple[int, dict[str, float]]:
        """Play and learn; `number` counts from 0.

        Returns:
            Environment steps, and what is to be known of the update.

        Raises:
            EnvError: No group could be played to its end.
        """
        episodes, played, numbers = self._collect(number, generator)
        self._pool.look_ahead(number + 1)
        experience = self._scored(
            gather(
                episodes,
                version=self.version,
                stratum_key=self._objective.stratum_key,
                anchors=self._objective.needs_anchor,
            )
        )
        prepared = loss.prepare(self._objective, experience.units, coefficients=self.coefficients)
        numbers |= self._learn(experience, prepared, number) | prepared.statistics
        self.coefficients = control.moved(
            self._objective,
            self.coefficients,
            progress=(number + 1) / self._updates,
            kl=prepared.statistics.get("kl_reference"),
        )
        self.version += 1
        return played, numbers

    # -- playing -------------------------------------------------------------------------------------------------------

    def _collect(self, number: int, generator: torch.Generator) -> tuple[list[Episode], int, dict[str, float]]:
        """Return the episodes to learn from, the steps of all that were played, and numbers about these.

        Under dynamic sampling rounds are played until there are enough groups whose episodes differ.
        """
        data, wanted = self._objective.data, self._options.tasks
        most = data.max_rounds if data.dynamic_sampling else 1
        tasks = self._pool.draw(number, most)
        kept, everything, failed, rounds = list[list[Episode]](), list[Episode](), list[Failed](), 0
        while rounds < most and len(kept) < wanted:
            missing = wanted - len(kept)
            groups, failures = self._play(self._orders(number, rounds, tasks[:missing]), generator)
            tasks, failed, rounds = tasks[missing:], failed + failures, rounds + 1
            everything += [one for group in groups for one in group]
            kept += [group for group in groups if not data.dynamic_sampling or _tells(group)]
            if not groups:
                break
        if not everything:
            raise EnvError(f"every group has an episode that failed twice; the first failure: {failed[0].error}")
        episodes = [one for group in kept for one in group] or everything
        numbers = {**about(everything), "failed": len(failed), "rounds": rounds}
        return episodes, sum(len(one.turns) - one.refused for one in everything), numbers

    def _orders(self, number: int, round: int, tasks: Sequence[Task]) -> list[Order]:
        """Return the episodes of each task's group: the same task and seed, so that only the model's words differ."""
        orders = []
        for place, task in enumerate(tasks):
            seed = derive_seed(self._seed, f"episode:{number}:{round}:{place}")
            order = Order(task, seed, round * self._options.tasks + place)
            orders += [order] * self._objective.data.group_size
        return orders

    def _play(self, orders: Sequence[Order], generator: torch.Generator) -> tuple[list[list[Episode]], list[Failed]]:
        """Return the groups of which every episode came to its end, and the episodes that failed at first.

        A failed episode is played once more; its group is left out where it fails again.
        """
        self._games.prepare(list({order.task.id: order.task for order in orders}.values()))
        settings = rollout_settings(self._options, self._model, self._options.temperature)
        results = play(self._model, self._games, orders, settings, generator=generator)
        failed = {i: one for i, one in enumerate(results) if isinstance(one, Failed)}
        repeated = play(self._model, self._games, [orders[i] for i in failed], settings, generator=generator)
        for index, result in zip(failed, repeated, strict=True):
            results[index] = result
        groups: dict[int, list[Episode]] = {order.group: [] for order in orders}
        for result in results:
            if isinstance(result, Episode):
                groups[result.order.group].append(result)
        whole = [group for group in groups.values() if len(group) == self._objective.data.group_size]
        return whole, list(failed.values())

    # -- learning ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _scored(self, experience: Experience) -> Experience:
        """Return the experience with what the objective needs of policy, reference and critic as they are now.

        With a single step the old policy is the live one, so its log-probabilities are those of sampling.
        """
        found: dict[str, Tensor] = {}
        if self._options.epochs * self._options.minibatches > 1 or self._objective.needs_reference:
            found["old"] = self._log_probs(self._model, experience)
        if self.reference is not None:
            found["reference"] = self._log_probs(self.reference, experience)
        if self.critic is not None:
            found["value"], found["last_value"] = self._values(self.critic, experience)
        return dataclasses.replace(experience, units=dataclasses.replace(experience.units, **found))

    def _log_probs(self, model: LanguageModel, experience: Experience) -> Tensor:
        found = torch.empty_like(experience.units.behaviour)
        for batch in self._micro_batches(experience.rows, experience.owner):
            found[batch.units] = score(model, batch, self._options.temperature)[0].cpu()
        return found

    def _values(self, critic: Critic, experience: Experience) -> tuple[Tensor, Tensor]:
        before, last = torch.empty_like(experience.units.behaviour), torch.empty(experience.units.episodes)
        for batch in self._micro_batches(experience.rows, experience.owner):
            of_units, of_rows = values(critic, batch)
            before[batch.units] = of_units.cpu()
            for row, value in zip(batch.rows, of_rows.cpu(), strict=True):
                last[experience.owner[row]] = value  # rows ascend, so that an episode's last one stays
        return before, last

    def _learn(self, experience: Experience, prepared: loss.Prepared, number: int) -> dict[str, float]:
        """Take the optimiser's steps, and return the means of what they say."""
        sums: dict[str, float] = {}
        parts = min(self._options.minibatches, len(experience.episodes))  # episodes may have failed
        for epoch in range(self._options.epochs):
            order = stream(self._seed, f"train:minibatches:{number}:{epoch}").permutation(len(experience.episodes))
            for part in range(parts):
                chosen = sorted(int(i) for i in order[part::parts])
                for name, value in self._minibatch(experience, prepared, chosen).items():
                    sums[name] = sums.get(name, 0.0) + value
        return {name: value / (self._options.epochs * parts) for name, value in sums.items()}

    def _minibatch(self, experience: Experience, prepared: loss.Prepared, episodes: Sequence[int]) -> dict[str, float]:
        units, (rows, owner, chosen) = experience.units, experience.of(episodes)
        weights = loss.denominators(self._objective, units, prepared, chosen)
        self.optimiser.clear()
        if self.critic is not None:
            self.critic_optimiser.clear()
        sums: dict[str, Tensor] = {}
        entropy = drift = 0.0
        for batch in self._micro_batches(rows, owner):
            log_probs, entropies = score(self._model, batch, self._options.temperature)
            value = None if self.critic is None else values(self.critic, batch)[0].cpu()
            total, statistics = loss.loss(
                self._objective,
                units,
                prepared,
                weights[batch.units],
                chosen[batch.units],
                loss.Live(log_probs.cpu(), entropies.cpu(), value),
                self.coefficients,
            )
            torch.autograd.backward(total)
            for name, one in statistics.items():
                sums[name] = sums.get(name, torch.zeros(())) + one
            entropy += float(entropies.detach().sum())
            drift += float((log_probs.detach().cpu() - units.behaviour[chosen[batch.units]]).abs().sum())
        numbers = {
            **loss.averages(sums),
            "entropy": entropy / len(chosen),
            "drift": drift / len(chosen),
            "grad_norm": self.optimiser.step(self._options.max_grad_norm),
        }
        if self.critic is not None:
            numbers["critic_grad_norm"] = self.critic_optimiser.step(self._options.max_grad_norm)
        return numbers

    def _micro_batches(self, rows: Sequence[Row], owner: Sequence[int]) -> list[MicroBatch]:
        budget = self._options.budget_tokens(self._model.device.type)
        return micro_batches(rows, budget, owner, shared=shares_openings(self._model))


def _require_strata(key: str | None, games: Games) -> None:
    known = ["turns", *sorted(games.spec.metrics)]
    if key is not None and key not in known:
        raise ConfigError(f"baseline.key is {key!r}, which {games.spec.id} does not count (known: {', '.join(known)})")


def _tells(group: Sequence[Episode]) -> bool:
    """Return whether returns of a group differ by more than rounding."""
    earned = [one.reward for one in group]
    return max(earned) - min(earned) > 1e-6 * max(1.0, *map(abs, earned))
