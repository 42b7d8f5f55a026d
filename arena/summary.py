"""Summaries: what a run's episodes add up to, one row a line-up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from arena.env import EnvSpec
from arena.extras import versions
from arena.intervals import mean_interval, rate_interval
from arena.runner import PlannedEpisode
from arena.scenario import Scenario
from arena.trace import EndRecord
from arena.types import Score, Usage

__all__ = ["Comparison", "Group", "Row", "Summary", "summarise"]

Interval: TypeAlias = tuple[float, float] | None
_Completed: TypeAlias = tuple[PlannedEpisode, EndRecord, Score]


class Metric(msgspec.Struct, frozen=True):
    """The mean of a metric over the completed episodes, with its 95% interval."""

    mean: float
    ci95: Interval


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The completed episodes that have something in common.

    Attributes:
        completed: How many there are.
        score_mean: Their mean score.
        score_ci95: Its interval, as in `Row`.
    """

    completed: int
    score_mean: float
    score_ci95: Interval


class Row(msgspec.Struct, kw_only=True):
    """One line-up. Failed episodes are counted in `errors` and enter no mean.

    Attributes:
        agent: The line-up's name.
        episodes: Episodes planned.
        completed: Episodes with a score.
        errors: Episodes that failed at a boundary (environment, agent, model, grader).
        error_codes: How many of which kind, and the first message of each.
        score_mean: Mean score; None without completed episodes.
        score_ci95: Its interval: a rate's where the score is nothing but success, else Student's t.
        success_rate: Share of completed episodes that solved the task; None where success is not defined.
        success_ci95: Its interval.
        return_mean: Mean return, summed over seats.
        steps_mean: Mean number of environment steps.
        endings: How the episodes ended.
        refused: Refused actions.
        metrics: The environment's metrics.
        by: For each thing that the scenario breaks scores down by, the completed episodes by its value.
        env_s: Seconds in the environment.
        agent_s: Seconds of deciding.
        usage: Tokens, cost and requests; of the last attempt where an episode was repeated.
    """

    agent: str
    episodes: int
    completed: int
    errors: int
    error_codes: dict[str, str]
    score_mean: float | None
    score_ci95: Interval
    success_rate: float | None
    success_ci95: Interval
    return_mean: float | None
    steps_mean: float | None
    endings: dict[str, int]
    refused: int
    metrics: dict[str, Metric]
    by: dict[str, dict[str, Group]]
    env_s: float
    agent_s: float
    usage: Usage


class Comparison(Row, kw_only=True):
    """Another line-up of the same scenario, and by how much the first one scored better on the same episodes.

    Attributes:
        pairs: Episodes that both completed.
        score_difference: Mean of the first line-up's score minus this one's.
        score_difference_ci95: Its interval, paired by episode.
    """

    pairs: int
    score_difference: float | None
    score_difference_ci95: Interval


class Summary(Row, kw_only=True):
    """A run: the fields of a row are those of the first line-up.

    Attributes:
        scenario: Its name.
        env: The environment's id.
        seeds: The root seeds.
        wall_s: Seconds that the run took, all parts of a resumed run together that were not killed.
        interrupted: Whether it was stopped before every episode was played.
        versions: Versions of the software that played.
        comparisons: The other line-ups.
    """

    scenario: str
    env: str
    seeds: tuple[int, ...]
    wall_s: float
    interrupted: bool
    versions: dict[str, str]
    comparisons: list[Comparison]


def summarise(
    scenario: Scenario,
    planned: Sequence[PlannedEpisode],
    ends: Mapping[str, Mapping[str, EndRecord]],
    *,
    wall_s: float,
) -> Summary:
    """Return the summary of the episodes that are over.

    Args:
        scenario: The scenario.
        planned: Every episode of the run.
        ends: Last records by line-up and episode id.
        wall_s: Seconds that the run took.
    """
    spec = scenario.make_env().spec
    by_line_up = {name: _Ends(spec, scenario.by, planned, name, ends.get(name, {})) for name in scenario.agents}
    first, *others = by_line_up.values()
    comparisons = [Comparison(**msgspec.structs.asdict(other.row()), **first.compare(other)) for other in others]
    return Summary(
        **msgspec.structs.asdict(first.row()),
        scenario=scenario.name,
        env=scenario.env.id,
        seeds=scenario.seeds,
        wall_s=wall_s,
        interrupted=sum(map(len, ends.values())) < len(planned),
        versions=versions(spec.extra),
        comparisons=comparisons,
    )


class _Ends:
    """How one line-up's episodes ended.

    Args:
        spec: What the environment declares.
        by: What scores are broken down by.
        planned: Every episode of the run.
        name: The line-up's name.
        ends: Last records by episode id.
    """

    def __init__(
        self,
        spec: EnvSpec,
        by: Sequence[str],
        planned: Sequence[PlannedEpisode],
        name: str,
        ends: Mapping[str, EndRecord],
    ) -> None:
        self.spec, self.by, self.name = spec, by, name
        self.planned = {episode.id: episode for episode in planned if episode.line_up == name}
        self.ends = {id: ends[id] for id in self.planned if id in ends}  # whichever was over first
        scored = [(self.planned[id], end) for id, end in self.ends.items()]
        self.completed = [(episode, end, end.score) for episode, end in scored if end.score is not None]
        self.clusters = [_cluster(episode) for episode, _, _ in self.completed]

    def row(self) -> Row:
        """Return the figures."""
        ends = self.ends.values()
        failed = [end.error for end in ends if end.error is not None]
        values = [score.value for _, _, score in self.completed]
        solved = [(score.success, c) for (_, _, score), c in zip(self.completed, self.clusters, strict=True)]
        verdicts = [(success, cluster) for success, cluster in solved if success is not None]
        return Row(
            agent=self.name,
            episodes=len(self.planned),
            completed=len(self.completed),
            errors=len(failed),
            error_codes={error.code: f"{_count(failed, error.code)} x {error.message}" for error in reversed(failed)},
            score_mean=_mean(values),
            score_ci95=self._score_interval(self.completed),
            success_rate=_mean([float(success) for success, _ in verdicts]),
            success_ci95=rate_interval([success for success, _ in verdicts], [cluster for _, cluster in verdicts]),
            return_mean=_mean([sum(end.returns.values()) for _, end, _ in self.completed]),
            steps_mean=_mean([float(end.steps) for _, end, _ in self.completed]),
            endings=dict(sorted(Counter(_ending(end) for _, end, _ in self.completed).items())),
            refused=sum(end.refused for end in ends),
            metrics=self._metrics(),
            by={name: self._groups(name) for name in self.by},
            env_s=sum(end.env_s for end in ends),
            agent_s=sum(end.agent_s for end in ends),
            usage=sum((end.usage for end in ends), Usage()),
        )

    def compare(self, other: _Ends) -> dict[str, Any]:
        """Return by how much this line-up scored better than another one on the same episodes."""
        theirs = {episode.seed: score.value for episode, _, score in other.completed}
        pairs = [
            (score.value - theirs[episode.seed], cluster)
            for (episode, _, score), cluster in zip(self.completed, self.clusters, strict=True)
            if episode.seed in theirs
        ]
        differences, clusters = [difference for difference, _ in pairs], [cluster for _, cluster in pairs]
        width = self.spec.score_range[1] - self.spec.score_range[0]
        return {
            "pairs": len(pairs),
            "score_difference": _mean(differences),
            "score_difference_ci95": mean_interval(differences, clusters, bounds=(-width, width)),
        }

    def _score_interval(self, completed: Sequence[_Completed]) -> Interval:
        """Return that of a rate where the score is nothing but success, else that of a mean."""
        values, clusters = (
            [score.value for _, _, score in completed],
            [_cluster(episode) for episode, _, _ in completed],
        )
        if all(score.success is not None and score.value == score.success for _, _, score in self.completed):
            return rate_interval([bool(value) for value in values], clusters)
        return mean_interval(values, clusters, bounds=self.spec.score_range)

    def _groups(self, name: str) -> dict[str, Group]:
        """Return the completed episodes by a field of their tasks, or by a metric."""
        found: dict[Any, list[_Completed]] = {}
        for one in self.completed:
            episode, _, score = one
            value = episode.task.data.get(name) if name in self.spec.groups else score.metrics.get(name)
            found.setdefault(value, []).append(one)
        return {
            _value(value): Group(
                completed=len(members),
                score_mean=math.fsum(score.value for _, _, score in members) / len(members),
                score_ci95=self._score_interval(members),
            )
            for value, members in sorted(found.items(), key=lambda item: _order(item[0]))
        }

    def _metrics(self) -> dict[str, Metric]:
        found: dict[str, list[tuple[float, tuple[str, str]]]] = {}
        for (_, _, score), cluster in zip(self.completed, self.clusters, strict=True):
            for name, value in score.metrics.items():
                found.setdefault(name, []).append((value, cluster))
        return {
            name: Metric(math.fsum(v for v, _ in pairs) / len(pairs), mean_interval(*zip(*pairs, strict=True)))
            for name, pairs in sorted(found.items())
        }


def _cluster(episode: PlannedEpisode) -> tuple[str, str]:
    return episode.task.split, episode.task.id


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _order(value: Any) -> tuple[bool, float, str]:
    """Return the key that sorts numbers by size before other values by name; what has none comes last."""
    number = float(value) if isinstance(value, int | float) else math.inf
    return value is None, number, str(value)


def _ending(end: EndRecord) -> str:
    return "+".join(sorted(set(end.endings.values()))) or end.outcome


def _count(errors: Sequence[Any], code: str) -> int:
    return sum(1 for error in errors if error.code == code)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
