"""Opening and closing sessions for a long time leaves memory, file handles and processes as they were."""

import asyncio
from dataclasses import dataclass

import psutil
import pytest

from tests.arena.server.harness_client import RawClient

_MiB = 2**20
_AT_ONCE = 8


@dataclass
class Footprint:
    memory_bytes: int
    handles: int
    processes: int

    @classmethod
    def of(cls, server):
        processes = [psutil.Process(server.process.pid), *server.workers()]
        return cls(
            sum(process.memory_info().rss for process in processes),
            sum(process.num_fds() for process in processes),
            len(processes),
        )


async def cycles(url, count, **wanted):
    """Open, step and close sessions, some at once."""
    left = iter(range(count))

    async def one_after_the_other(client):
        for number in left:
            created = await client.create(**wanted, seed=number)
            await client.step(created["session"], 1, {"player": "look"})
            await client.close(created["session"])

    async with RawClient(url) as client:
        await asyncio.gather(*(one_after_the_other(client) for _ in range(_AT_ONCE)))


def check_flat(server, count, slack_bytes, **wanted):
    """Play some sessions until everything has been used once, then `count`, and compare."""
    asyncio.run(cycles(server.url, max(200, count // 5), **wanted))
    before = Footprint.of(server)
    asyncio.run(cycles(server.url, count, **wanted))
    after = Footprint.of(server)
    assert server.open_sessions() == 0
    assert after.processes == before.processes
    assert after.handles <= before.handles + 4
    assert after.memory_bytes <= before.memory_bytes + slack_bytes, (before, after)
    print(f"{count} sessions of {wanted['env']}: {before} -> {after}")  # noqa: T201 - shown by -s


TEXTWORLD = {"env": "text/textworld-v0", "split": "test", "task": "w2-o3-q4_110000"}


def test_a_thousand_sessions_leave_nothing(serve):
    check_flat(serve(keep_traces=20), 1_000, 6 * _MiB, env="test/echo-v0")


def test_a_thousand_sessions_leave_nothing_in_a_durable_ledger(serve, tmp_path):
    server = serve(keep_traces=20, state=str(tmp_path / "state"))
    check_flat(server, 1_000, 8 * _MiB, env="test/echo-v0")
    size = sum(path.stat().st_size for path in (tmp_path / "state").iterdir())
    assert size < 8 * _MiB


def test_resets_of_textworld_leave_nothing(serve):
    check_flat(serve(keep_traces=20), 400, 12 * _MiB, **TEXTWORLD)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_sessions_leave_nothing(serve):
    check_flat(serve(keep_traces=20), 10_000, 10 * _MiB, env="test/echo-v0")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_resets_of_textworld_leave_nothing(serve):
    check_flat(serve(keep_traces=20), 10_000, 20 * _MiB, **TEXTWORLD)
