"""A thousand sessions over a network that fails, while workers and the server are killed: nothing may come of it.

Every episode is played first in this process, where nothing goes wrong, and then over the wire: by the raw client of
the harness, by `AsyncClient`, and by the synchronous client in threads. What the server told, move by move, its verdict
and its trace must be the same to the last digest.
"""

import asyncio
import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

import arena
from arena.client import AsyncClient
from arena.errors import ArenaError
from arena.types import Limits
from tests.arena.server.harness import shared_memory_of
from tests.arena.server.harness_chaos import Chaos, ChaosProxy
from tests.arena.server.harness_client import RawClient, Refused
from tests.arena.server.harness_truth import Plan, check_trace, plain, plan_episode, play, without_times

pytestmark = pytest.mark.anyio

GAMES = [f"w1-o2-q2_{seed}" for seed in range(5)]
SESSIONS = {
    "text/textworld-v0": 120,
    "text/guess-v0": 280,
    "test/echo-v0": 280,
    "test/match-v0": 160,
    "test/nim-v0": 100,
    "test/apart-nim-v0": 60,
}


def plans():
    """Return a thousand different episodes, with illegal moves among them, and those of each environment mixed."""
    made = []
    for number in range(SESSIONS["text/textworld-v0"]):
        game = {"game": "w1-o2-q2", "reward": ("sparse", "dense")[number % 2]}
        plan = Plan("text/textworld-v0", game, GAMES[number % len(GAMES)], "train", number)
        made.append(plan_episode(plan, 8, illegal=0.1, expert=number % 3 == 0))
    for number in range(SESSIONS["text/guess-v0"]):
        plan = Plan("text/guess-v0", {"max_guesses": 6}, None, "train", number, {"invalid_actions": 2 + number % 3})
        made.append(plan_episode(plan, 12, illegal=0.25, expert=number % 4 == 0))
    for number in range(SESSIONS["test/echo-v0"]):
        plan = Plan("test/echo-v0", {"steps": 4 + number % 9}, seed=number, limits={"steps": 8})
        made.append(plan_episode(plan, 12, illegal=0.1))
    for env in ("test/match-v0", "test/nim-v0", "test/apart-nim-v0"):
        made += [plan_episode(Plan(env, seed=n), 12, illegal=0.2) for n in range(SESSIONS[env])]
    return sorted(made, key=lambda plan: (plan.seed, plan.env))


class Tally:
    """What has been played so far, and what was not as it should be."""

    def __init__(self, total):
        self.total, self.played = total, 0
        self.wrong = []

    def note(self, plan, here, records, end, lines):
        """Compare an episode with what it must be."""
        self.played += 1
        for number, (there, expected) in enumerate(zip([*records, end], [*here.records, here.end], strict=True)):
            if there != expected:
                self.wrong.append(f"{plan} at {number}: {there} is not {expected}")
                return
        try:
            if lines is not None:
                check_trace(lines, plan, here)
        except AssertionError as error:
            self.wrong.append(f"{plan} in its trace: {error}")

    async def reached(self, share):
        """Wait until this share of the episodes has been played."""
        while self.played < share * self.total:
            await asyncio.sleep(0.01)


# -- three clients --------------------------------------------------------------------------------------------------


async def play_raw(client, plan):
    """Play a plan by hand; return what was told, the verdict, and the trace."""
    created = await client.create(**plan.creation())
    session, records = created["session"], [without_times(created["record"])]
    index = itertools.count(1)
    due = next(index)
    for actions in plan.moves:
        try:
            records.append(without_times(await client.step(session, due, actions)))
            due = next(index)
        except Refused as refused:
            records.append(refused.error)
    end = (await client.ask("close", session=session))["end"]
    lines = (await client.ask("trace", session=session))["lines"]
    await client.close(session)
    return records, without_times(end), lines


async def play_async(client, plan):
    """Play a plan with the asynchronous client."""
    session = await client.session(**wanted(plan))
    records = [plain(session.journal[0])]
    for actions in plan.moves:
        try:
            records.append(plain(await session.step(len(session.journal), actions)))
        except ArenaError as error:
            records.append(plain(error.record()))
    lines = await session.trace() if session.status == "over" else None
    await session.close()
    return records, plain(await session.end()), lines


def play_sync(client, plan):
    """Play a plan with the synchronous client."""
    session = client.session(**wanted(plan))
    records = [plain(session.journal[0])]
    for actions in plan.moves:
        try:
            records.append(plain(session.step(len(session.journal), actions)))
        except ArenaError as error:
            records.append(plain(error.record()))
    lines = session.trace() if session.status == "over" else None
    session.close()
    return records, plain(session.end()), lines


def wanted(plan):
    fields = plan.creation()
    return {**fields, "limits": Limits(**fields["limits"])}


# -- the test -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def episodes():
    """Every plan with what must come of it."""
    return [(plan, play(plan)) for plan in plans()]


async def share_out(episodes, tally, workers, play_one):
    """Play the episodes, several at once."""
    todo = iter(episodes)

    async def work(number):
        for plan, here in todo:
            tally.note(plan, here, *(await play_one(number, plan)))

    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(work(number))


async def play_all(episodes, tally, url):
    """Play the episodes with all three clients, over one network."""
    raw, apart, threads = episodes[0::2], episodes[1::4], episodes[3::4]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(url, format=("msgpack", "json")[n % 2])) for n in range(8)]
        others = [await stack.enter_async_context(AsyncClient(url)) for _ in range(4)]
        blocking = [await asyncio.to_thread(arena.connect, url) for _ in range(4)]
        for client in blocking:
            stack.push_async_callback(asyncio.to_thread, client.close)
        async with asyncio.TaskGroup() as group:
            for work in (
                share_out(raw, tally, 48, lambda n, plan: play_raw(clients[n % 8], plan)),
                share_out(apart, tally, 24, lambda n, plan: play_async(others[n % 4], plan)),
                share_out(threads, tally, 8, lambda n, plan: asyncio.to_thread(play_sync, blocking[n % 4], plan)),
            ):
                group.create_task(work)
    return clients


async def break_things(server, tally):
    """Kill a worker, the server, and another worker, while episodes are being played."""
    await tally.reached(0.2)
    server.kill_worker(0)
    await tally.reached(0.45)
    assert shared_memory_of(server.workers()) == []
    server.kill()
    await asyncio.to_thread(server.start)
    await tally.reached(0.7)
    server.kill_worker(1)


async def test_a_thousand_sessions_come_through_every_fault_unharmed(serve, tmp_path, episodes):
    assert len(episodes) == 1000
    server = serve(state=str(tmp_path / "state"), keep_traces=2000, lease_s=600.0)
    tally = Tally(len(episodes))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))  # the synchronous clients block 8 of them
    async with ChaosProxy(server.port, Chaos(seed=20261122)) as proxy:
        breaking = asyncio.create_task(break_things(server, tally))
        clients = await play_all(episodes, tally, proxy.url)
        await breaking
    assert not tally.wrong, tally.wrong[0]
    assert tally.played == len(episodes)
    assert [wrong for client in clients for wrong in client.mispaired] == []
    assert min(proxy.killed, proxy.duplicated, proxy.delayed) > 10
    assert sum(client.repeated for client in clients) > 10
    assert sum(client.connections for client in clients) > len(clients)
    assert server.metric("arena_worker_restarts_total") == 1
    assert server.open_sessions() == 0
    assert shared_memory_of(server.workers()) == []
    assert server.stop() == 0
    assert {path.name for path in (tmp_path / "state").iterdir()} <= {"sessions.sqlite", ".lock"}
