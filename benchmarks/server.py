"""Arena's server and the unmodified `openenv` package side by side: an echo environment, the same load, one command.

    python -m benchmarks.server [--rounds 5] [--seconds 2] [--sessions 1 64 400]

The first run makes `.venv-peers/openenv-bench`. In every round each row has its turn, in another order; a ratio is of
two turns of the same round. What is measured:

* Processor time of *all* processes of a server, its workers included, user and system, from /proc, divided by steps.
* One load generator for both sides, this process: raw frames of the `websockets` package. Each session sends a step
  when it has the answer to the last one, so at 64 and 400 sessions latency is mostly waiting in line, and steps/s
  depend on what the generator costs, too. Every answer must hold the text that was sent.
* `step_many` steps every session once in one message; its latency is the whole batch's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from benchmarks.server_echo import ENV
from benchmarks.server_load import ArenaBatch, ArenaConnections, ArenaShared, BareConnections, Load, OpenEnvConnections
from benchmarks.server_processes import ServerProcess, arena_server, bare_server, openenv_server, prepare_openenv
from benchmarks.server_report import Sample, print_heading, print_memory, print_rows, quantile

_WARM_UP_S, _SETTLE_S = 0.3, 0.2
_MEMORY_SESSIONS, _MEMORY_PLAY_S = 400, 5.0
T = TypeVar("T")


@dataclass
class Row:
    """A way to use a server.

    Attributes:
        name: As it is printed.
        server: The server.
        load: Makes the load for a number of sessions.
        most_sessions: More are not measured.
        samples: What each round measured.
    """

    name: str
    server: ServerProcess
    load: Callable[[int], Load]
    most_sessions: int = 4096
    samples: list[Sample] = field(default_factory=list)


def start(stack: ExitStack, state: Path) -> list[Row]:
    """Start the servers and return what is to be measured; the first row is what the others are compared with."""
    openenv = stack.enter_context(openenv_server("openenv"))
    openenv_async = stack.enter_context(openenv_server("openenv, async", kind="async"))
    openenv_asyncio = stack.enter_context(openenv_server("openenv, asyncio", loop="asyncio"))
    arena = stack.enter_context(arena_server("arena", 2))
    one = stack.enter_context(arena_server("arena, 1 worker", 1))
    durable = stack.enter_context(arena_server("arena --state", 2, state))
    bare = stack.enter_context(bare_server("one process", "one"))
    hop = stack.enter_context(bare_server("two processes", "two"))
    return [
        Row("openenv", openenv, lambda n: OpenEnvConnections(openenv.port, n)),
        Row("openenv, uvicorn without uvloop", openenv_asyncio, lambda n: OpenEnvConnections(openenv_asyncio.port, n)),
        Row("openenv, environment on the loop", openenv_async, lambda n: OpenEnvConnections(openenv_async.port, n)),
        Row("arena", arena, lambda n: ArenaConnections(arena.port, n, ENV)),
        Row("arena, MessagePack", arena, lambda n: ArenaConnections(arena.port, n, ENV, binary=True)),
        Row("arena, 1 worker", one, lambda n: ArenaConnections(one.port, n, ENV)),
        Row("arena --state", durable, lambda n: ArenaConnections(durable.port, n, ENV)),
        Row("arena, all on one connection", arena, lambda n: ArenaShared(arena.port, n, ENV)),
        Row("arena, step_many", arena, lambda n: ArenaBatch(arena.port, n, ENV)),
        Row("arena, step_many, MessagePack", arena, lambda n: ArenaBatch(arena.port, n, ENV, binary=True)),
        Row("arena --state, step_many", durable, lambda n: ArenaBatch(durable.port, n, ENV)),
        Row("frames sent back, one process", bare, lambda n: BareConnections(bare.port, n), 1),
        Row("frames sent back, two processes", hop, lambda n: BareConnections(hop.port, n), 1),
    ]


async def measure(row: Row, sessions: int, duration_s: float) -> Sample:
    """Open the sessions, step them, close them."""
    load, cpu_s = row.load(sessions), row.server.cpu_s
    at_first_s = cpu_s()
    opening_s = await load.open()
    opened_s = cpu_s()
    await load.play(_WARM_UP_S)
    warm_s = cpu_s()
    gc.collect()
    gc.disable()
    began_s, own_s = time.perf_counter(), time.process_time()
    latencies_s = await load.play(duration_s)
    own_s, took_s = time.process_time() - own_s, time.perf_counter() - began_s
    gc.enable()
    played_s = cpu_s()
    await load.close()
    await asyncio.sleep(_SETTLE_S)
    steps = len(latencies_s) * load.batch
    return Sample(
        cpu_us=(played_s - warm_s) / steps * 1e6,
        steps_per_s=steps / took_s,
        p50_ms=quantile(latencies_s, 0.5) * 1e3,
        p99_ms=quantile(latencies_s, 0.99) * 1e3,
        load_us=own_s / steps * 1e6,
        open_cpu_ms=(opened_s - at_first_s) / sessions * 1e3,
        open_ms=quantile(opening_s, 0.5) * 1e3,
        close_cpu_ms=(cpu_s() - played_s) / sessions * 1e3,
    )


def compare(rounds: int, sessions: list[int], duration_s: float) -> None:
    """Measure every row at every number of sessions, and print it."""
    with tempfile.TemporaryDirectory() as state, ExitStack() as stack:
        everything = start(stack, Path(state))
        for count in sessions:
            measured = [row for row in everything if count <= row.most_sessions]
            for number in range(rounds):
                turns = measured[number % len(measured) :] + measured[: number % len(measured)]
                for row in turns if number % 2 == 0 else reversed(turns):
                    row.samples.append(_run(measure(row, count, duration_s)))
            print_rows(count, {row.name: row.samples for row in measured})
            for row in measured:
                row.samples = []


def compare_memory() -> None:
    """Measure, on fresh servers, what sessions and their steps take, and print it."""
    print(f"\nMemory, {_MEMORY_SESSIONS} sessions on fresh servers (resident, all processes)")
    for begin, load in (
        (lambda: openenv_server("openenv"), lambda port: OpenEnvConnections(port, _MEMORY_SESSIONS)),
        (lambda: arena_server("arena", 2), lambda port: ArenaConnections(port, _MEMORY_SESSIONS, ENV)),
    ):
        with begin() as server:
            print_memory(server.name, *_run(_memory(server, load(server.port))))


async def _memory(server: ServerProcess, load: Load) -> tuple[int, float, float, int]:
    """Return bytes when idle, bytes per session, bytes per step that was taken, and the number of steps."""
    idle = server.rss_bytes()
    await load.open()
    opened = server.rss_bytes()
    steps = len(await load.play(_MEMORY_PLAY_S)) * load.batch
    played = server.rss_bytes()
    await load.close()
    return idle, (opened - idle) / _MEMORY_SESSIONS, (played - opened) / steps, steps


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main() -> None:
    """Run both comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each turn is")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 64, 400])
    given = parser.parse_args()
    versions = prepare_openenv()
    print_heading(versions, given.rounds, given.seconds)
    compare(given.rounds, given.sessions, given.seconds)
    compare_memory()


if __name__ == "__main__":
    main()
