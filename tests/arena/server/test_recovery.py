"""Workers and servers that die: sessions are rebuilt and go on, or end with a typed error, and never go wrong."""

import asyncio

import pytest

from tests.arena.server.harness import shared_memory_of, wait_until
from tests.arena.server.harness_client import RawClient, Refused
from tests.arena.server.harness_truth import Plan, check_trace, plan_episode, play, without_times

pytestmark = pytest.mark.anyio


def odd(action):
    return {"player": action}


async def play_on(client, session, plan, here, *, start, stop):
    """Take steps `start` to `stop` of a plan without refused moves, and assert that each is as it is here."""
    for index in range(start, stop):
        record = await client.step(session, index, plan.moves[index - 1])
        assert without_times(record) == here.records[index]


# -- a worker dies --------------------------------------------------------------------------------------------------


async def test_a_killed_worker_costs_a_delay_at_any_step(serve):
    server = serve(workers=1)
    plan = plan_episode(Plan("text/guess-v0", task="range-64", split="train", seed=2), 6)
    here = play(plan)
    steps = len(plan.moves) + 1
    async with RawClient(server.url) as client:
        created = [await client.create(**plan.creation()) for _ in range(steps)]
        assert without_times(created[0]["record"]) == here.records[0]
        for victim in range(steps):
            for one in created:
                if victim:
                    await play_on(client, one["session"], plan, here, start=victim, stop=victim + 1)
            await asyncio.to_thread(server.kill_worker)
        for one in created:
            reply = await client.ask("read", session=one["session"])
            assert [without_times(record) for record in reply["records"]] == here.records
            trace = await client.ask("trace", session=one["session"])
            check_trace(trace["lines"], plan, here)
            assert without_times((await client.ask("close", session=one["session"]))["end"]) == here.end
        assert client.connections == 1
        assert server.metric("arena_worker_restarts_total") == steps


async def test_steps_that_a_dead_worker_had_not_answered_are_taken_once(serve):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        sessions = [(await client.create("test/echo-v0"))["session"] for _ in range(50)]
        asked = [
            asyncio.create_task(client.step(session, index, odd(f"{session} {index}")))
            for index in range(1, 11)
            for session in sessions
        ]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.kill_worker)
        for record in await asyncio.gather(*asked):
            assert record["time_step"]["seats"]["player"]["observation"] == record["actions"]["player"]
        for session in sessions:
            read = await client.ask("read", session=session)
            assert [record["actions"].get("player") for record in read["records"][1:]] == [
                f"{session} {index}" for index in range(1, 11)
            ]
        assert client.mispaired == []


async def test_a_batch_is_answered_whole_though_workers_die_under_it(serve):
    server = serve(workers=2)
    async with RawClient(server.url) as client:
        sessions = [(await client.create("test/echo-v0"))["session"] for _ in range(60)]
        for index in range(1, 6):
            steps = [{"session": one, "index": index, "actions": odd(f"{one} {index}")} for one in sessions]
            asked = asyncio.create_task(client.ask("step_many", steps=steps))
            await asyncio.sleep(0)
            await asyncio.to_thread(server.kill_worker, index % 2)
            for item, result in zip(steps, (await asked)["results"], strict=True):
                assert (result["session"], result["record"]["index"]) == (item["session"], index)
                assert result["record"]["actions"] == item["actions"]
        for one in sessions:
            assert (await client.ask("read", session=one))["next"] == 6


async def test_refusals_and_usage_survive_a_worker(serve):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        limits = {"invalid_actions": 3, "tokens": 1000}
        session = (await client.create("text/guess-v0", task="range-8", limits=limits))["session"]
        for _ in range(2):
            with pytest.raises(Refused):
                await client.step(session, 1, odd("no"), usage={"input_tokens": 100})
        await asyncio.to_thread(server.kill_worker)
        with pytest.raises(Refused) as refused:
            await client.step(session, 1, odd("no"), usage={"input_tokens": 100})
        assert refused.value.details["truncated"] is True
        end = (await client.ask("close", session=session))["end"]
        assert (end["refused"], end["usage"]["input_tokens"]) == (3, 300)
        assert end["limit"]["kind"] == "invalid_actions"


async def test_a_truncated_session_is_still_over_after_its_worker_died(serve):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        limit = {"kind": "wall_time", "value": 3.0, "limit": 2.0}
        cut = await client.ask("truncate", session=session, index=1, limit=limit)
        await asyncio.to_thread(server.kill_worker)
        again = await client.ask("truncate", session=session, index=1, limit=limit)
        assert without_times(again["record"]) == without_times(cut["record"])
        assert (await client.ask("read", session=session))["status"] == "over"


async def test_an_environment_that_lies_about_being_deterministic_ends_with_a_replay_error(serve):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        liar = (await client.create("test/liar-v0"))["session"]
        unsteady = (await client.create("test/unsteady-v0"))["session"]
        fresh = (await client.create("test/unsteady-v0"))["session"]
        echo = (await client.create("test/echo-v0"))["session"]
        for session in (liar, unsteady, echo):
            await client.step(session, 1, odd("a"))
        await asyncio.to_thread(server.kill_worker)
        for session, told in ((liar, "gave another answer"), (unsteady, "is not deterministic")):
            for _ in range(2):
                with pytest.raises(Refused, match=told) as refused:
                    await client.step(session, 2, odd("b"))
                assert refused.value.code == "REPLAY"
            end = (await client.ask("close", session=session))["end"]
            assert (end["outcome"], end["error"]["code"]) == ("failed", "REPLAY")
            assert "score" not in end or end["score"] is None
        assert (await client.step(echo, 2, odd("b")))["index"] == 2
        assert (await client.step(fresh, 1, odd("b")))["index"] == 1


async def test_a_session_that_kills_its_workers_fails_and_the_others_live_on(serve):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        deadly = (await client.create("test/odd-v0"))["session"]
        others = [(await client.create("test/echo-v0"))["session"] for _ in range(5)]
        for session in (deadly, *others):
            await client.step(session, 1, odd("fine"))
        waiting = asyncio.create_task(client.step(deadly, 2, odd("die")))
        for index in range(2, 12):
            for session in others:
                assert (await client.step(session, index, odd("go on")))["index"] == index
        with pytest.raises(Refused, match="workers died") as refused:
            await waiting
        assert refused.value.code == "ENV"
        with pytest.raises(Refused, match="workers died"):
            await client.step(deadly, 2, odd("fine"))
        assert (await client.ask("close", session=deadly))["end"]["error"]["code"] == "ENV"
        for session in others:
            assert (await client.ask("read", session=session))["next"] == 12


async def test_an_environment_that_raises_fails_its_session_alone(server):
    async with RawClient(server.url) as client:
        session = (await client.create("test/odd-v0"))["session"]
        for _ in range(2):
            with pytest.raises(Refused, match="told to") as refused:
                await client.step(session, 1, odd("raise"))
            assert refused.value.code == "ENV"
        end = (await client.ask("close", session=session))["end"]
        assert (end["outcome"], end["error"]["code"]) == ("failed", "ENV")


async def test_a_step_that_hangs_fails_its_session_and_the_others_live_on(serve):
    server = serve(workers=1, step_timeout_s=1.0)
    async with RawClient(server.url) as client:
        stuck = (await client.create("test/odd-v0"))["session"]
        other = (await client.create("test/echo-v0"))["session"]
        with pytest.raises(Refused, match="workers died") as refused:
            await client.step(stuck, 1, odd("hang"))
        assert refused.value.code == "ENV"
        assert (await client.step(other, 1, odd("a")))["index"] == 1


# -- forks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["text/guess-v0", "test/echo-v0", "test/nim-v0"])
async def test_a_fork_equals_a_replay_and_leaves_its_parent_untouched(server, env):
    plan = plan_episode(Plan(env, seed=4), 4)
    here = play(plan)
    taken = len(plan.moves)
    async with RawClient(server.url) as client:
        parent = (await client.create(**plan.creation()))["session"]
        for index in range(1, taken):
            await client.step(parent, index, plan.moves[index - 1])
        before = (await client.ask("read", session=parent))["records"]
        for at in range(taken):
            fork = await client.ask("fork", session=parent, key=f"{parent} at {at}", at=at)
            assert fork["session"] != parent
            assert without_times(fork["record"]) == here.records[at]
            told = (await client.ask("read", session=fork["session"]))["records"]
            assert [without_times(record) for record in told] == here.records[: at + 1]
            await play_on(client, fork["session"], plan, here, start=at + 1, stop=taken + 1)
        assert (await client.ask("read", session=parent))["records"] == before
        await play_on(client, parent, plan, here, start=taken, stop=taken + 1)


async def test_a_repeated_fork_gets_the_same_session(server):
    async with RawClient(server.url) as client:
        parent = (await client.create("test/echo-v0"))["session"]
        first = await client.ask("fork", session=parent, key="the same fork twice")
        await client.step(first["session"], 1, odd("a"))
        again = await client.ask("fork", session=parent, key="the same fork twice")
        assert again["session"] == first["session"]
        assert again["record"]["index"] == 0


@pytest.mark.parametrize("at", [-1, 3, 10**12])
async def test_a_fork_at_a_step_that_is_not_there_is_refused(server, at):
    async with RawClient(server.url) as client:
        parent = (await client.create("test/echo-v0"))["session"]
        await client.step(parent, 1, odd("a"))
        with pytest.raises(Refused, match="recorded are steps 0 to 1") as refused:
            await client.ask("fork", session=parent, key="a fork of nothing", at=at)
        assert refused.value.code == "USAGE"


async def test_a_fork_of_what_is_not_deterministic_is_a_typed_error(server):
    async with RawClient(server.url) as client:
        for env in ("test/liar-v0", "test/unsteady-v0"):
            parent = (await client.create(env))["session"]
            await client.step(parent, 1, odd("a"))
            with pytest.raises(Refused) as refused:
                await client.ask("fork", session=parent, key=f"a fork of {env}")
            assert refused.value.code == "REPLAY"
            assert (await client.step(parent, 2, odd("b")))["index"] == 2


async def test_a_fork_outlives_the_worker_of_its_parent(serve):
    server = serve(workers=1)
    plan = plan_episode(Plan("text/guess-v0", task="range-64", seed=2), 6)
    here = play(plan)
    async with RawClient(server.url) as client:
        parent = (await client.create(**plan.creation()))["session"]
        await play_on(client, parent, plan, here, start=1, stop=3)
        fork = await client.ask("fork", session=parent, key="the fork of a parent")
        await asyncio.to_thread(server.kill_worker)
        await play_on(client, fork["session"], plan, here, start=3, stop=len(plan.moves) + 1)
        await play_on(client, parent, plan, here, start=3, stop=len(plan.moves) + 1)


# -- the server dies ------------------------------------------------------------------------------------------------


async def test_open_sessions_come_back_after_the_server_was_killed(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"))
    plan = plan_episode(Plan("text/guess-v0", task="range-64", seed=2, limits={"invalid_actions": 3}), 6)
    here = play(plan)
    async with RawClient(server.url) as client:
        created = await client.create(**plan.creation())
        session = created["session"]
        await play_on(client, session, plan, here, start=1, stop=3)
        with pytest.raises(Refused):
            await client.step(session, 3, odd("no"))
        await asyncio.to_thread(restart, server)
        attached = await client.attach(created["capability"])
        assert (attached["next"], attached["status"], attached["seed"]) == (3, "running", 2)
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                await client.step(session, 3, odd("no"))
        assert refused.value.details["truncated"] is True
        end = (await client.ask("close", session=session))["end"]
        assert (end["refused"], end["steps"]) == (3, 2)


async def test_a_create_that_is_repeated_after_a_restart_gets_the_same_session(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"))
    async with RawClient(server.url) as client:
        first = await client.create("test/echo-v0", key="before and after")
        await client.step(first["session"], 1, odd("a"))
        await asyncio.to_thread(restart, server)
        again = await client.create("test/echo-v0", key="before and after")
        assert (again["session"], again["capability"]) == (first["session"], first["capability"])
        assert without_times(again["record"]) == without_times(first["record"])
        assert (await client.step(first["session"], 2, odd("b")))["index"] == 2
        assert server.open_sessions() == 1


async def test_closed_sessions_keep_their_verdict_and_trace_over_a_restart(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"))
    plan = plan_episode(Plan("text/guess-v0", task="range-8", seed=2), 8)
    here = play(plan)
    async with RawClient(server.url) as client:
        created = await client.create(**plan.creation())
        session = created["session"]
        await play_on(client, session, plan, here, start=1, stop=len(plan.moves) + 1)
        closed = await client.ask("close", session=session)
        await asyncio.to_thread(restart, server)
        assert (await client.attach(created["capability"]))["status"] == "closed"
        assert (await client.ask("close", session=session))["end"] == closed["end"]
        check_trace((await client.ask("trace", session=session))["lines"], plan, here)
        told = (await client.ask("read", session=session))["records"]
        assert [without_times(record) for record in told] == here.records
        with pytest.raises(Refused) as refused:
            await client.step(session, 1, odd("1"))
        assert refused.value.code == "SESSION_GONE"


async def test_a_failed_session_is_still_failed_after_a_restart(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"))
    async with RawClient(server.url) as client:
        session = (await client.create("test/odd-v0"))["session"]
        liar = (await client.create("test/liar-v0"))["session"]
        await client.step(liar, 1, odd("a"))
        with pytest.raises(Refused):
            await client.step(session, 1, odd("raise"))
        await asyncio.to_thread(restart, server)
        with pytest.raises(Refused, match="told to") as refused:
            await client.step(session, 1, odd("fine"))
        assert refused.value.code == "ENV"
        with pytest.raises(Refused) as refused:
            await client.step(liar, 2, odd("b"))
        assert refused.value.code == "REPLAY"


async def test_no_step_that_was_answered_is_forgotten_by_a_killed_server(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"))
    async with RawClient(server.url, reconnect=False) as client:
        created = [await client.create("test/echo-v0") for _ in range(20)]
        answered = dict.fromkeys((one["session"] for one in created), 0)

        async def drive(session):
            while True:
                await client.step(session, answered[session] + 1, odd(str(answered[session] + 1)))
                answered[session] += 1

        drivers = [asyncio.create_task(drive(session)) for session in answered]
        while min(answered.values()) < 20:
            await asyncio.sleep(0)
        server.kill()
        await asyncio.gather(*drivers, return_exceptions=True)
    await asyncio.to_thread(server.start)
    async with RawClient(server.url) as client:
        for one in created:
            attached = await client.attach(one["capability"])
            assert attached["next"] > answered[one["session"]]
            read = await client.ask("read", session=one["session"])
            assert [record["actions"]["player"] for record in read["records"][1:]] == [
                str(index) for index in range(1, attached["next"])
            ]


def restart(server):
    """Kill the server, and start it again at the same port and state."""
    assert shared_memory_of(server.workers()) == []
    server.kill()
    server.start()
    wait_until(lambda: server.metric("arena_sessions_open") >= 0)
