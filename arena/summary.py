"""Summaries: what a run's episodes add up to, one row a line-up."""

from __future__ import annotations

import math
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from arena.extras import DISTRIBUTION, installed_version
from arena.intervals import mean_interval, wilson_interval
from arena.runner import PlannedEpisode
from arena.scenario import Scenario
from arena.trace import EndRecord
from arena.types import Usage

__all__ = ["Comparison", "Row", "Summary", "summarise", "versions"]

Interval = tuple[float, float] | None


class Metric(msgspec.Struct, frozen=True):
    """The mean of a metric over the completed episodes, with its 95% interval."""

    mean: float
    ci95: Interval


class Row(msgspec.Struct, kw_only=True):
    """One line-up. Failed episodes are counted in `errors` and enter no mean.

    Attributes:
        agent: The line-up's name.
        episodes: Episodes planned.
        completed: Episodes with a score.
        errors: Episodes that failed at a boundary (environment, agent, model, grader).
        error_codes: How many of which kind, and the first message of each.
        score_mean: Mean score; None without completed episodes.
        score_ci95: Its interval (Wilson's for 0/1 scores, else Student's t; clustered where tasks repeat).
        success_rate: Share of completed episodes that solved the task; None where success is not defined.
        success_ci95: Its interval.
        return_mean: Mean return, summed over seats.
        steps_mean: Mean number of environment steps.
        endings: How the episodes ended.
        refused: Refused actions.
        metrics: The environment's metrics.
        env_s: Seconds in the environment.
        agent_s: Seconds of deciding.
        usage: Tokens, cost and requests.
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
        wall_s: Seconds that the run took, all sessions of a resumed run together.
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
    tasks = {episode.id: (episode.task.split, episode.task.id) for episode in planned}
    first, *others = scenario.agents
    rows = {name: _row(name, planned, ends.get(name, {}), tasks) for name in scenario.agents}
    comparisons = [
        Comparison(**msgspec.structs.asdict(rows[name]), **_compare(ends.get(first, {}), ends.get(name, {}), tasks))
        for name in others
    ]
    return Summary(
        **msgspec.structs.asdict(rows[first]),
        scenario=scenario.name,
        env=scenario.env.id,
        seeds=scenario.seeds,
        wall_s=wall_s,
        interrupted=sum(map(len, ends.values())) < len(planned),
        versions=versions(scenario.make_env().spec.extra),
        comparisons=comparisons,
    )


def _row(
    name: str, planned: Sequence[PlannedEpisode], ends: Mapping[str, EndRecord], tasks: Mapping[str, tuple[str, str]]
) -> Row:
    completed = {id: end for id, end in ends.items() if end.score is not None}
    failed = [end.error for end in ends.values() if end.error is not None]
    clusters = [tasks[id] for id in completed]
    scores = [end.score for end in completed.values() if end.score is not None]
    values = [score.value for score in scores]
    solved = [float(score.success) for score in scores if score.success is not None]
    solved_clusters = [tasks[id] for id, end in completed.items() if end.score and end.score.success is not None]
    return Row(
        agent=name,
        episodes=sum(1 for episode in planned if episode.line_up == name),
        completed=len(completed),
        errors=len(failed),
        error_codes={error.code: f"{_count(failed, error.code)} x {error.message}" for error in reversed(failed)},
        score_mean=_mean(values),
        score_ci95=mean_interval(values, clusters),
        success_rate=_mean(solved),
        success_ci95=mean_interval(solved, solved_clusters) or wilson_interval(int(sum(solved)), len(solved)),
        return_mean=_mean([sum(end.returns.values()) for end in completed.values()]),
        steps_mean=_mean([float(end.steps) for end in completed.values()]),
        endings=dict(sorted(Counter(_ending(end) for end in completed.values()).items())),
        refused=sum(end.refused for end in ends.values()),
        metrics=_metrics(completed, clusters),
        env_s=sum(end.env_s for end in ends.values()),
        agent_s=sum(end.agent_s for end in ends.values()),
        usage=sum((end.usage for end in ends.values()), Usage()),
    )


def _metrics(completed: Mapping[str, EndRecord], clusters: Sequence[tuple[str, str]]) -> dict[str, Metric]:
    found: dict[str, list[tuple[float, tuple[str, str]]]] = {}
    for end, cluster in zip(completed.values(), clusters, strict=True):
        for name, value in (end.score.metrics if end.score else {}).items():
            found.setdefault(name, []).append((value, cluster))
    return {
        name: Metric(math.fsum(v for v, _ in pairs) / len(pairs), mean_interval(*zip(*pairs, strict=True)))
        for name, pairs in sorted(found.items())
    }


def _compare(
    first: Mapping[str, EndRecord], other: Mapping[str, EndRecord], tasks: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    mine = {_pair_key(id): (end.score, tasks[id]) for id, end in first.items() if end.score is not None}
    theirs = {_pair_key(id): end.score for id, end in other.items() if end.score is not None}
    pairs = [(score.value - theirs[key].value, task) for key, (score, task) in mine.items() if key in theirs]
    differences, clusters = [d for d, _ in pairs], [task for _, task in pairs]
    return {
        "pairs": len(pairs),
        "score_difference": _mean(differences),
        "score_difference_ci95": _difference_interval(differences, clusters),
    }


def _difference_interval(differences: list[float], clusters: list[tuple[str, str]]) -> Interval:
    """Return the interval of a mean difference; equal differences would give a width of 0, which says too much."""
    if len(set(differences)) < 2:
        return None
    independent = len(set(clusters)) == len(clusters)
    ids: Sequence[object] = [(i,) for i in range(len(clusters))] if independent else clusters
    shifted = [d + 2 for d in differences]  # keeps 0/1 differences out of Wilson's interval, which is for rates
    interval = mean_interval(shifted, ids)
    return None if interval is None else (interval[0] - 2, interval[1] - 2)


def _pair_key(episode_id: str) -> str:
    """Return an episode's id without its line-up: the same task and seed for every line-up."""
    return episode_id.partition("/")[2]


def _ending(end: EndRecord) -> str:
    return "+".join(sorted(set(end.endings.values()))) or end.outcome


def _count(errors: Sequence[Any], code: str) -> int:
    return sum(1 for error in errors if error.code == code)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def versions(extra: str | None = None) -> dict[str, str]:
    """Return the versions of Python, Arena, its dependencies (those of one extra too), and a checkout's commit."""
    found = {"python": platform.python_version(), DISTRIBUTION: installed_version(DISTRIBUTION) or "not installed"}
    for requirement in metadata.requires(DISTRIBUTION) or []:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        marker = re.search(r"extra == ['\"]([a-z]+)['\"]", requirement)
        if (marker is None or marker.group(1) == extra) and name != DISTRIBUTION:
            version = installed_version(name)
            if version is not None:
                found[name] = version
    commit = _commit()
    return {**found, "commit": commit} if commit else found


def _commit() -> str | None:
    """Return the commit of the checkout that Arena runs from, if it runs from one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
