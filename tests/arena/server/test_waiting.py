"""Environments that wait (`EnvSpec.blocking`): a session that waits holds up no other, whatever is asked of it."""

import asyncio
import itertools

import pytest

from tests.arena.server.harness import wait_until
from tests.arena.server.harness_client import RawClient, Refused
from tests.arena.server.harness_truth import Plan, check_trace, plan_episode, play, without_times

pytestmark = pytest.mark.anyio

WAITER = "test/waiter-v0"


def told(record):
    return record["time_step"]["seats"]["player"]["observation"]


def act(action):
    return {"player": action}


class Waiting:
    """A session of `test/waiter-v0` and the folder that it looks at."""

    def __init__(self, client, created, folder):
        self.client, self.id, self.folder = client, created["session"], folder
        self.capability = created["capability"]

    @classmethod
    async def begin(cls, client, folder, **fields):
        folder.mkdir(exist_ok=True)
        return cls(client, await client.create(WAITER, options={"folder": str(folder)}, **fields), folder)

    async def step(self, index, action):
        return await self.client.step(self.id, index, act(action))

    async def wait(self, index, name):
        """Begin a step that waits for a file, and return the task that waits for the step."""
        step = asyncio.create_task(self.step(index, f"wait {name}"))
        await asyncio.to_thread(wait_until, (self.folder / f"{name}.waits").exists)
        return step

    def release(self, name):
        (self.folder / name).touch()

    def closed(self, steps):
        return (self.folder / f"closed-{steps}").exists()


async def test_other_sessions_of_the_worker_go_on_while_one_waits(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        waiting = await Waiting.begin(client, tmp_path)
        step = await waiting.wait(1, "go")
        other = (await client.create("test/echo-v0"))["session"]
        for index in range(1, 20):
            assert told(await client.step(other, index, act(f"{index}"))) == f"{index}"
        await client.close(other)
        of_its_kind = await Waiting.begin(client, tmp_path)
        assert told(await of_its_kind.step(1, "hello")) == "1: hello"
        assert (await client.ask("describe", env=WAITER))["spec"]["blocking"] is True
        assert not step.done()
        waiting.release("go")
        assert told(await step) == "1: wait go"
        assert server.metric("arena_steps_total", env=WAITER) == 2


async def test_steps_of_one_session_are_taken_in_order(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        waiting = await Waiting.begin(client, tmp_path)
        first = await waiting.wait(1, "go")
        later = [asyncio.create_task(waiting.step(index, f"step {index}")) for index in range(2, 12)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(later[0]), 0.2)
        waiting.release("go")
        assert told(await first) == "1: wait go"
        assert [told(record) for record in await asyncio.gather(*later)] == [f"{n}: step {n}" for n in range(2, 12)]
        assert (await client.ask("expert", session=waiting.id, seat="player"))["action"] == "step 12"


async def test_many_wait_at_once(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        sessions = [await Waiting.begin(client, tmp_path) for _ in range(32)]
        records = await asyncio.gather(*[one.step(1, "meet here 32") for one in sessions])
        assert {told(record) for record in records} == {"1: meet here 32"}
        steps = [{"session": one.id, "index": 2, "actions": act("meet there 32")} for one in sessions]
        results = (await client.ask("step_many", steps=steps))["results"]
        assert {told(result["record"]) for result in results} == {"2: meet there 32"}


async def test_what_was_answered_can_be_read_while_a_step_is_under_way(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client, RawClient(server.url) as watcher:
        waiting = await Waiting.begin(client, tmp_path)
        await waiting.step(1, "hello")
        step = await waiting.wait(2, "go")
        attached = await watcher.attach(waiting.capability)
        assert (attached["status"], attached["next"], attached["acting"]) == ("running", 2, ["player"])
        assert [told(record) for record in (await watcher.ask("read", session=waiting.id))["records"]] == [
            "",
            "1: hello",
        ]
        news = asyncio.create_task(watcher.ask("read", session=waiting.id, after=1, wait_s=60))
        waiting.release("go")
        assert [told(record) for record in (await news)["records"]] == ["2: wait go"]
        await step


async def test_a_fork_during_a_step_stands_after_it_or_where_it_was_asked_for(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        parent = await Waiting.begin(client, tmp_path)
        await parent.step(1, "hello")
        step = await parent.wait(2, "go")
        latest = asyncio.create_task(client.ask("fork", session=parent.id, key="after the step"))
        earlier = await client.ask("fork", session=parent.id, key="before the step", at=0)
        assert (await client.step(earlier["session"], 1, act("bye")))["index"] == 1
        exactly = asyncio.create_task(client.ask("fork", session=parent.id, key="at the step", at=1))
        assert not latest.done()
        parent.release("go")
        assert told(await step) == "2: wait go"
        latest, exactly = await latest, await exactly
        assert (told(latest["record"]), told(exactly["record"])) == ("2: wait go", "1: hello")
        await parent.step(3, "mine")
        for fork, index in ((latest["session"], 3), (exactly["session"], 2)):
            assert told(await client.step(fork, index, act("yours"))) == f"{index}: yours"
        await asyncio.to_thread(server.kill_worker)
        for fork, index in ((latest["session"], 4), (exactly["session"], 3), (parent.id, 4)):
            assert told(await client.step(fork, index, act("on"))) == f"{index}: on"


async def test_forks_wait_side_by_side(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        parent = await Waiting.begin(client, tmp_path)
        await parent.step(1, "hello")
        forks = [(await client.ask("fork", session=parent.id, key=f"fork number {n}"))["session"] for n in range(7)]
        steps = [client.step(id, 2, act("meet here 8")) for id in (parent.id, *forks)]
        assert {told(record) for record in await asyncio.gather(*steps)} == {"2: meet here 8"}


async def test_closing_waits_for_the_step_that_is_under_way(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        waiting = await Waiting.begin(client, tmp_path)
        step = await waiting.wait(1, "go")
        closing = asyncio.create_task(client.ask("close", session=waiting.id))
        other = (await client.create("test/echo-v0"))["session"]
        await client.step(other, 1, act("a"))
        assert (closing.done(), waiting.closed(0)) == (False, False)
        waiting.release("go")
        assert told(await step) == "1: wait go"
        end = (await closing)["end"]
        assert (end["steps"], end["error"]["code"]) == (1, "AGENT")
        assert waiting.closed(1)
        with pytest.raises(Refused) as refused:
            await waiting.step(2, "on")
        assert refused.value.code == "SESSION_GONE"


async def test_a_lease_that_ends_during_a_step_ends_the_session_after_it(serve, tmp_path):
    server = serve(workers=1, lease_s=0.5)
    async with RawClient(server.url) as client:
        waiting = await Waiting.begin(client, tmp_path)
        step = await waiting.wait(1, "go")
    step.cancel()
    await asyncio.sleep(2.5)
    assert not waiting.closed(0)
    waiting.release("go")
    await asyncio.to_thread(wait_until, lambda: server.expired() == 1)
    assert waiting.closed(1)


async def test_limits_truncate_a_session_that_waits(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        waiting = await Waiting.begin(client, tmp_path, limits={"step_time_s": 0.05, "invalid_actions": 2})
        with pytest.raises(Refused) as refused:
            await client.step(waiting.id, 1, {"nobody": "x"})
        assert refused.value.code == "INVALID_ACTION"
        step = await waiting.wait(1, "go")
        await asyncio.sleep(0.1)
        waiting.release("go")
        assert (await step)["limit"]["kind"] == "step_time"
        cut = await Waiting.begin(client, tmp_path)
        limit = {"kind": "wall_time", "value": 3.0, "limit": 2.0}
        assert (await client.ask("truncate", session=cut.id, index=1, limit=limit))["record"]["limit"] == limit
        end = (await client.ask("close", session=cut.id))["end"]
        assert (end["outcome"], end["score"]["value"]) == ("truncated", 1.0)


# -- steps that never return ------------------------------------------------------------------------------------------


async def test_a_step_that_does_not_return_fails_its_session_and_no_other(serve, tmp_path):
    server = serve(workers=1, step_timeout_s=1.0)
    async with RawClient(server.url) as client:
        stuck = await Waiting.begin(client, tmp_path / "stuck")
        await stuck.step(1, "hello")
        step = await stuck.wait(2, "never")
        other = (await client.create("test/echo-v0"))["session"]
        await client.step(other, 1, act("a"))
        with pytest.raises(Refused, match="did not return") as refused:
            await step
        assert refused.value.code == "ENV"
        for _ in range(2):
            with pytest.raises(Refused, match="did not return"):
                await stuck.step(2, "hello")
        read = await client.ask("read", session=stuck.id)
        assert (read["status"], [told(record) for record in read["records"]]) == ("failed", ["", "1: hello"])
        end = (await client.ask("close", session=stuck.id))["end"]
        assert (end["outcome"], end["steps"], end["error"]["code"]) == ("failed", 1, "ENV")
        assert told(await client.step(other, 2, act("b"))) == "b"
        fresh = await Waiting.begin(client, tmp_path / "fresh")
        assert told(await fresh.step(1, "hello")) == "1: hello"
        assert server.metric("arena_worker_restarts_total") == 0
        assert server.metric("arena_sessions_ended_total", outcome="failed") == 1
        assert (stuck.closed(1), stuck.closed(2)) == (False, False)
        stuck.release("never")  # the call returns after all: what it holds is let go
        await asyncio.to_thread(wait_until, lambda: stuck.closed(2))


async def test_a_rebuild_that_does_not_return_fails_its_session_and_no_other(serve, tmp_path):
    server = serve(workers=1, step_timeout_s=1.0)
    async with RawClient(server.url) as client:
        stuck = await Waiting.begin(client, tmp_path / "stuck")
        stuck.release("go")
        await stuck.step(1, "wait go")
        (stuck.folder / "go").unlink()
        other = await Waiting.begin(client, tmp_path / "other")
        await asyncio.to_thread(server.kill_worker)
        rebuilding = asyncio.create_task(stuck.step(2, "hello"))
        assert told(await other.step(1, "hello")) == "1: hello"
        with pytest.raises(Refused, match="did not return") as refused:
            await rebuilding
        assert refused.value.code == "ENV"
        assert (await client.ask("close", session=stuck.id))["end"]["error"]["code"] == "ENV"
        assert not stuck.closed(1)
        stuck.release("go")
        await asyncio.to_thread(wait_until, lambda: stuck.closed(1))
        assert server.metric("arena_worker_restarts_total") == 1


async def test_a_worker_with_a_step_that_does_not_return_can_be_replaced_and_stopped(serve, tmp_path):
    server = serve(workers=1, step_timeout_s=1.0, drain_s=0.1)
    async with RawClient(server.url) as client:
        stuck = await Waiting.begin(client, tmp_path / "stuck")
        step = await stuck.wait(1, "never")
        with pytest.raises(Refused, match="did not return"):
            await step
        other = await Waiting.begin(client, tmp_path / "other")
        await asyncio.to_thread(server.kill_worker)
        with pytest.raises(Refused, match="did not return"):
            await stuck.step(1, "hello")
        assert told(await other.step(1, "hello")) == "1: hello"
        again = await other.wait(2, "never")
        assert await asyncio.to_thread(server.stop) == 0
        again.cancel()


async def talk(waiting):
    """Take steps for as long as there is an answer, none of them short."""
    for index in itertools.count(1):
        await waiting.step(index, f"nap {index}")


async def test_the_main_thread_that_hangs_is_noticed_while_others_answer(serve, tmp_path):
    server = serve(workers=1, step_timeout_s=1.0)
    async with RawClient(server.url) as client:
        waiting = await Waiting.begin(client, tmp_path)
        stuck = (await client.create("test/odd-v0"))["session"]
        talking = asyncio.create_task(talk(waiting))
        with pytest.raises(Refused, match="4 workers died"):
            await client.step(stuck, 1, act("hang"))
        assert server.metric("arena_worker_restarts_total") == 4
        talking.cancel()
        assert (await client.ask("read", session=waiting.id))["status"] == "running"


# -- workers that die -------------------------------------------------------------------------------------------------


async def test_a_worker_killed_in_steps_costs_a_delay(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        sessions = [await Waiting.begin(client, tmp_path / str(n)) for n in range(6)]
        for one in sessions:
            await one.step(1, "hello")
        steps = [await one.wait(2, "go") for one in sessions]
        for one in sessions:
            (one.folder / "go.waits").unlink()
        await asyncio.to_thread(server.kill_worker)
        for one in sessions:
            await asyncio.to_thread(wait_until, (one.folder / "go.waits").exists)
            one.release("go")
        assert [told(await step) for step in steps] == ["2: wait go"] * 6
        for one in sessions:
            assert told(await one.step(3, "on")) == "3: on"
        assert server.metric("arena_worker_restarts_total") == 1


async def test_a_step_that_kills_its_worker_fails_its_session_and_not_those_that_waited_beside_it(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        deadly = await Waiting.begin(client, tmp_path / "deadly")
        sessions = [await Waiting.begin(client, tmp_path / str(n)) for n in range(3)]
        steps = [await one.wait(1, "go") for one in sessions]
        dying = asyncio.create_task(deadly.step(1, "die"))
        await asyncio.to_thread(wait_until, lambda: server.metric("arena_worker_restarts_total") >= 2)
        for one in sessions:
            one.release("go")
        with pytest.raises(Refused, match="4 workers died"):
            await dying
        assert [told(await step) for step in steps] == ["1: wait go"] * 3
        for one in sessions:
            assert told(await one.step(2, "on")) == "2: on"


async def test_an_environment_that_ends_its_thread_fails_alone(serve, tmp_path):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        odd = await Waiting.begin(client, tmp_path)
        with pytest.raises(Refused, match="SystemExit") as refused:
            await odd.step(1, "exit")
        assert refused.value.code == "ENV"
        assert told(await odd.step(1, "hello")) == "1: hello"
        assert server.metric("arena_worker_restarts_total") == 0


async def test_remote_seats_play_a_session_that_waits(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as elsewhere:
        seats = {"left": {}, "right": {"deadline_s": 0.2, "default": 1}}
        created = await owner.create("test/apart-match-v0", seats=seats)
        await elsewhere.attach(created["seat_capabilities"]["left"])
        with pytest.raises(Refused) as refused:
            await elsewhere.ask("act", session=created["session"], index=1, action=7)
        assert refused.value.code == "INVALID_ACTION"
        for index in (1, 2, 3):
            acted = await elsewhere.ask("act", session=created["session"], index=index, action=1)
            assert acted["record"]["step"]["reward"] == 1.0
        end = (await owner.ask("close", session=created["session"]))["end"]
        assert (end["outcome"], end["refused"]) == ("terminated", 1)


async def test_a_whole_episode_is_the_one_played_in_this_process(server):
    plan = plan_episode(Plan("test/apart-nim-v0", seed=4), 12, illegal=0.2)
    here = play(plan)
    async with RawClient(server.url) as client:
        created = await client.create(**plan.creation())
        records = [without_times(created["record"])]
        for actions in plan.moves:
            index = sum("index" in record for record in records)
            try:
                records.append(without_times(await client.step(created["session"], index, actions)))
            except Refused as refused:
                records.append(refused.error)
        assert records == here.records
        check_trace((await client.ask("trace", session=created["session"]))["lines"], plan, here)
        assert without_times((await client.ask("close", session=created["session"]))["end"]) == here.end
