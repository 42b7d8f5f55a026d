"""What a server counts, for Prometheus.

Labels are bounded: environments are those that the server offers, codes those of `arena.errors.ERROR_CODES`, and
nothing that a client chooses becomes a label. One event loop writes. What is counted at every step is kept in plain
numbers and becomes samples when somebody asks; the rest is `prometheus_client`'s.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Literal, TypeAlias, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from arena.errors import ERROR_CODES, ArenaError

__all__ = ["EnvMetrics", "Metrics", "SessionOutcome", "Transport"]

SessionOutcome: TypeAlias = Literal["over", "abandoned", "expired", "failed"]
"""How a session ended: played to its end, closed before it, left alone too long, or something failed."""
Transport: TypeAlias = Literal["http", "websocket"]

_OTHER = "other"
_STEP_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
_LAG_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class EnvMetrics:
    """What is counted of one environment.

    Attributes:
        step_buckets: Steps by how long they took: one number for each bound, and one for what is longer than all.
        steps_s: Seconds that all steps took.
    """

    __slots__ = ("_created", "_ended", "_open", "step_buckets", "steps_s")

    def __init__(self, metrics: Metrics, env_id: str) -> None:
        self._open = metrics.sessions_open.labels(env_id)
        self._created = metrics.sessions_created.labels(env_id)
        self._ended = {outcome: metrics.sessions_ended.labels(env_id, outcome) for outcome in get_args(SessionOutcome)}
        self.step_buckets = [0] * (len(_STEP_S) + 1)
        self.steps_s = 0.0

    def step(self, seconds: float) -> None:
        """Count a step that took this long, from its request to its reply."""
        self.step_buckets[bisect_left(_STEP_S, seconds)] += 1
        self.steps_s += seconds

    def created(self) -> None:
        """Count a session that was created or forked."""
        self._created.inc()
        self._open.inc()

    def restored(self) -> None:
        """Count an open session that an earlier server process had created."""
        self._open.inc()

    def ended(self, outcome: SessionOutcome) -> None:
        """Count the end of a session that was `created` or `restored`."""
        self._ended[outcome].inc()
        self._open.dec()


class Metrics:
    """Everything that a server counts, in a registry of its own.

    Args:
        envs: The environments that the server offers; every other id is counted as ``other``.

    Attributes:
        envs: What is counted of each of them.
        received_bytes: Of all requests' messages.
        sent_bytes: Of all replies' messages.
    """

    def __init__(self, envs: Iterable[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        env = ["env"]
        self.sessions_open = Gauge("arena_sessions_open", "Sessions that are open.", env, registry=registry)
        self.sessions_created = Counter("arena_sessions_created", "Sessions created or forked.", env, registry=registry)
        self.sessions_ended = Counter(
            "arena_sessions_ended", "Sessions ended, by how they did.", ["env", "outcome"], registry=registry
        )
        self._worker_restarts = Counter("arena_worker_restarts", "Workers that died.", registry=registry)
        self._rebuilt = Counter("arena_sessions_rebuilt", "Sessions rebuilt from journals.", registry=registry)
        refused = Counter("arena_requests_refused", "Requests answered by an error.", ["code"], registry=registry)
        connections = Gauge("arena_connections", "Open connections.", ["transport"], registry=registry)
        self.received_bytes = self.sent_bytes = 0
        self._lag = Gauge("arena_event_loop_lag_seconds", "How late the event loop was just now.", registry=registry)
        self._lags = Histogram(
            "arena_event_loop_delay_seconds", "How late the event loop was.", buckets=_LAG_S, registry=registry
        )
        self._refused = {code: refused.labels(code) for code in ERROR_CODES}
        self._connections = {name: connections.labels(name) for name in get_args(Transport)}
        self.envs = {env_id: EnvMetrics(self, env_id) for env_id in envs}
        registry.register(_PerStep(self))

    def env(self, env_id: str) -> EnvMetrics:
        """Return what is counted of an environment; look it up once for each session, not for each step."""
        found = self.envs.get(env_id) or self.envs.get(_OTHER)
        if found is None:
            found = self.envs[_OTHER] = EnvMetrics(self, _OTHER)
        return found

    def worker_restarted(self) -> None:
        """Count a worker that died and was replaced."""
        self._worker_restarts.inc()

    def session_rebuilt(self) -> None:
        """Count a session that was rebuilt from its journal."""
        self._rebuilt.inc()

    def refused(self, code: str) -> None:
        """Count a request that was answered by an error."""
        self._refused.get(code, self._refused[ArenaError.code]).inc()

    def connected(self, transport: Transport) -> None:
        """Count a connection that was opened."""
        self._connections[transport].inc()

    def disconnected(self, transport: Transport) -> None:
        """Count a connection that is gone."""
        self._connections[transport].dec()

    def received(self, size_bytes: int) -> None:
        """Count the bytes of a request's message."""
        self.received_bytes += size_bytes

    def sent(self, size_bytes: int) -> None:
        """Count the bytes of a reply's message."""
        self.sent_bytes += size_bytes

    async def watch_loop(self, interval_s: float = 0.25) -> None:
        """Measure how late this event loop wakes a sleeper, until cancelled."""
        while True:
            due = time.monotonic() + interval_s
            await asyncio.sleep(interval_s)
            self.lagged(max(0.0, time.monotonic() - due))

    def lagged(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._lag.set(seconds)
        self._lags.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _PerStep(Collector):
    """Makes samples of what is counted at every step."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        steps = CounterMetricFamily("arena_steps", "Steps taken.", labels=["env"])
        seconds = HistogramMetricFamily(
            "arena_step_seconds", "Seconds from a step's request to its reply, in the server.", labels=["env"]
        )
        for env_id, env in self._metrics.envs.items():
            totals = list(accumulate(env.step_buckets))
            steps.add_metric([env_id], totals[-1])
            bounds = [*map(str, _STEP_S), "+Inf"]
            seconds.add_metric([env_id], buckets=list(zip(bounds, totals, strict=True)), sum_value=env.steps_s)
        yield steps
        yield seconds
        yield CounterMetricFamily("arena_received_bytes", "Bytes of requests.", value=self._metrics.received_bytes)
        yield CounterMetricFamily("arena_sent_bytes", "Bytes of replies.", value=self._metrics.sent_bytes)
