import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from arena.errors import ERROR_CODES
from arena.server.metrics import Metrics


def samples(metrics):
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return samples(metrics).get((name, *sorted(labels.items())))


def test_steps_are_counted_and_timed_for_each_environment():
    metrics = Metrics(["text/a-v0", "text/b-v0"])
    a = metrics.env("text/a-v0")
    for seconds in (0.0004, 0.003, 700.0):
        a.step(seconds)
    found = [
        value(metrics, "arena_step_seconds_bucket", env="text/a-v0", le=le)
        for le in ("0.0005", "0.005", "120.0", "+Inf")
    ]
    assert found == [1, 2, 2, 3]
    assert value(metrics, "arena_step_seconds_sum", env="text/a-v0") == pytest.approx(700.0034)
    assert value(metrics, "arena_steps_total", env="text/a-v0") == 3
    assert value(metrics, "arena_steps_total", env="text/b-v0") == 0


def test_open_sessions_are_those_created_or_restored_and_not_ended():
    metrics = Metrics(["text/a-v0"])
    env = metrics.env("text/a-v0")
    for _ in range(3):
        env.created()
    env.restored()
    env.ended("over")
    env.ended("failed")
    assert value(metrics, "arena_sessions_open", env="text/a-v0") == 2
    assert value(metrics, "arena_sessions_created_total", env="text/a-v0") == 3
    ended = [
        value(metrics, "arena_sessions_ended_total", env="text/a-v0", outcome=outcome)
        for outcome in ("over", "abandoned", "expired", "failed")
    ]
    assert ended == [1, 0, 0, 1]


def test_the_server_s_own_counts():
    metrics = Metrics()
    metrics.worker_restarted()
    metrics.session_rebuilt()
    metrics.connected("websocket")
    metrics.connected("websocket")
    metrics.disconnected("websocket")
    metrics.received(100)
    metrics.sent(7)
    metrics.refused("CAPACITY_REACHED")
    assert value(metrics, "arena_worker_restarts_total") == 1
    assert value(metrics, "arena_sessions_rebuilt_total") == 1
    assert value(metrics, "arena_connections", transport="websocket") == 1
    assert value(metrics, "arena_connections", transport="http") == 0
    assert (value(metrics, "arena_received_bytes_total"), value(metrics, "arena_sent_bytes_total")) == (100, 7)
    assert value(metrics, "arena_requests_refused_total", code="CAPACITY_REACHED") == 1


@given(st.lists(st.text(max_size=20)))
def test_nothing_that_a_client_chooses_becomes_a_label(texts):
    metrics = Metrics(["text/a-v0"])
    metrics.env("never seen").created()
    before = samples(metrics).keys()
    for text in texts:
        metrics.env(text).step(0.1)
        metrics.env(text).created()
        metrics.refused(text)
    assert samples(metrics).keys() == before
    refused = [count for (name, *_), count in samples(metrics).items() if name == "arena_requests_refused_total"]
    assert (sum(refused), len(refused)) == (len(texts), len(ERROR_CODES))


def test_two_servers_in_one_process_count_apart():
    one, other = Metrics(["text/a-v0"]), Metrics(["text/a-v0"])
    one.env("text/a-v0").created()
    assert value(other, "arena_sessions_open", env="text/a-v0") == 0


def test_a_blocked_event_loop_is_noticed():
    metrics = Metrics()

    async def block():
        watch = asyncio.create_task(metrics.watch_loop(0.01))
        await asyncio.sleep(0)
        time.sleep(0.1)
        while not value(metrics, "arena_event_loop_delay_seconds_count"):
            await asyncio.sleep(0.001)
        watch.cancel()

    asyncio.run(block())
    assert value(metrics, "arena_event_loop_delay_seconds_sum") > 0.05
