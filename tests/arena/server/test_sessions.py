"""How long sessions live, how many there may be, and how fast they may go; and how a server stops."""

import asyncio
import contextlib
import itertools

import httpx
import pytest

from arena.server.tokens import add_token
from tests.arena.server.harness_client import RawClient, Refused

pytestmark = pytest.mark.anyio

KEYS = (f"key number {n}" for n in itertools.count())


def act(text="a"):
    return {"player": text}


async def until(condition, timeout_s=30.0):
    """Wait for something that must come to pass."""
    async with asyncio.timeout(timeout_s):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


# -- leases ---------------------------------------------------------------------------------------------------------


async def test_a_session_outlives_its_connection_and_is_attached_again(server):
    async with RawClient(server.url) as client:
        created = await client.create("test/echo-v0")
        session = created["session"]
        await client.step(session, 1, act())
        waiting = asyncio.create_task(client.step(session, 2, act("while it is lost")))
        client.cut()
        assert (await waiting)["index"] == 2
        assert client.connections == 2
    async with RawClient(server.url) as other:
        with pytest.raises(Refused) as refused:
            await other.step(session, 3, act())
        assert refused.value.code == "UNKNOWN_ID"
        attached = await other.attach(created["capability"])
        assert (attached["role"], attached["next"], attached["acting"]) == ("owner", 3, ["player"])
        assert attached["task"] == {"id": "only", "split": "train"}
        assert (await other.step(session, 3, act()))["index"] == 3


async def test_a_session_that_nobody_comes_back_for_ends_with_its_lease(server):
    before = server.expired()
    async with RawClient(server.url) as client:
        created = await client.create("test/echo-v0", lease_s=0.2)
        kept = await client.create("test/echo-v0", lease_s=0.2)
    async with RawClient(server.url) as client:
        await client.attach(kept["capability"])
        await until(lambda: server.expired() > before)
        assert (await client.attach(created["capability"]))["status"] == "closed"
        with pytest.raises(Refused) as refused:
            await client.step(created["session"], 1, act())
        assert refused.value.code == "SESSION_GONE"
        assert (await client.step(kept["session"], 1, act()))["index"] == 1
        end = (await client.ask("close", session=created["session"]))["end"]
        assert end["outcome"] == "failed"
        assert "nobody came back for 0.2 s" in end["error"]["message"]


async def test_a_lease_is_no_longer_than_the_server_allows_and_as_long_as_it_says(server):
    async with RawClient(server.url) as client:
        assert (await client.create("test/echo-v0"))["lease_s"] == 120.0
        assert (await client.create("test/echo-v0", lease_s=7.0))["lease_s"] == 7.0
        for lease_s in (0.0, -1.0, 1e9):
            with pytest.raises(Refused, match="allowed are more than 0 and at most") as refused:
                await client.create("test/echo-v0", lease_s=lease_s)
            assert refused.value.code == "USAGE"


async def test_a_session_that_was_asked_for_over_a_connection_that_is_lost_is_not_held_for_ever(serve):
    server = serve(workers=1)
    for _ in range(20):
        async with RawClient(server.url, reconnect=False) as client:
            asked = [asyncio.create_task(client.create("test/echo-v0", lease_s=0.2)) for _ in range(5)]
            await asyncio.sleep(0)
            client.cut()
            await asyncio.gather(*asked, return_exceptions=True)
    await until(lambda: server.open_sessions() == 0)
    assert server.expired() > 0


async def test_sessions_over_http_live_by_their_leases_alone(server):
    before = server.expired()
    httpx.post(f"{server.url}/v1/sessions", json={"env": "test/echo-v0", "key": next(KEYS), "lease_s": 0.2})
    await until(lambda: server.expired() > before)


async def test_an_idle_session_ends_though_its_client_is_connected(serve):
    server = serve(idle_s=1.0, lease_s=0.5, workers=1)
    async with RawClient(server.url) as client:
        idle, busy = await client.create("test/echo-v0"), await client.create("test/echo-v0")
        for index in itertools.count(1):
            await client.step(busy["session"], index, act())
            if await asyncio.to_thread(server.expired):
                break
            await asyncio.sleep(0.05)
        end = (await client.ask("close", session=idle["session"]))["end"]
        assert "it was idle for" in end["error"]["message"]
        assert (await client.ask("read", session=busy["session"]))["status"] == "running"


async def test_an_episode_that_lasts_too_long_is_truncated_and_scored(serve):
    server = serve(max_wall_time_s=1.0, workers=1)
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        await client.step(session, 1, act())
        async with asyncio.timeout(20):
            read = await client.ask("read", session=session, after=1, wait_s=20.0)
        assert read["status"] == "over"
        assert read["records"][0]["limit"]["kind"] == "wall_time"
        assert read["end"]["score"] == {"value": 1.0}
        with pytest.raises(Refused, match="this server allows 1"):
            await client.create("test/echo-v0", limits={"wall_time_s": 2.0})


# -- how many -------------------------------------------------------------------------------------------------------


async def test_a_full_server_says_when_to_try_again(serve):
    server = serve(max_sessions=2, workers=1)
    async with RawClient(server.url) as client:
        held = [await client.create("test/echo-v0") for _ in range(2)]
        with pytest.raises(Refused) as refused:
            await client.create("test/echo-v0")
        assert refused.value.code == "CAPACITY_REACHED"
        assert refused.value.error["retryable"] is True
        assert refused.value.details["retry_after_s"] > 0
        with pytest.raises(Refused) as refused:
            await client.ask("fork", session=held[0]["session"], key="no room for a fork")
        assert refused.value.code == "CAPACITY_REACHED"
        reply = httpx.post(f"{server.url}/v1/sessions", json={"env": "test/echo-v0", "key": next(KEYS)})
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "CAPACITY_REACHED")
        assert int(reply.headers["retry-after"]) >= 1
        await client.close(held[0]["session"])
        key = next(KEYS)
        assert (await client.create("test/echo-v0", key=key))["session"]
        assert server.open_sessions() == 2


async def test_a_session_that_could_not_begin_takes_no_room(serve):
    server = serve(max_sessions=1, workers=1)
    async with RawClient(server.url) as client:
        for fields in (
            {"env": "test/nothing-v0"},
            {"env": "test/echo-v0", "task": "nothing"},
            {"env": "test/echo-v0", "options": {"steps": "many"}},
            {"env": "test/match-v0", "seats": {"nobody": {}}},
            {"env": "test/echo-v0", "lease_s": -1.0},
        ):
            with pytest.raises(Refused):
                await client.create(**fields, key="the same key each time")
        assert (await client.create("test/echo-v0", key="the same key each time"))["session"]


async def test_what_one_token_holds_leaves_room_for_the_others(serve, tmp_path):
    tokens = {name: add_token(tmp_path / "tokens.toml", name, ["play"]) for name in ("ann", "bob")}
    server = serve(max_sessions_per_token=1, workers=1, token_file=str(tmp_path / "tokens.toml"))
    async with RawClient(server.url, token=tokens["ann"]) as ann, RawClient(server.url, token=tokens["bob"]) as bob:
        first = await ann.create("test/echo-v0", key="everybody's key")
        with pytest.raises(Refused, match="'ann' holds 1 sessions") as refused:
            await ann.create("test/echo-v0")
        assert refused.value.code == "CAPACITY_REACHED"
        second = await bob.create("test/echo-v0", key="everybody's key")
        assert second["session"] != first["session"]
        with pytest.raises(Refused) as refused:
            await bob.step(first["session"], 1, act())
        assert refused.value.code == "UNKNOWN_ID"
        with pytest.raises(Refused) as refused:
            await ann.ask("expert", session=first["session"], seat="player")
        assert refused.value.code == "FORBIDDEN"


async def test_an_agent_with_a_capability_alone_plays_its_session_and_nothing_else(serve, tmp_path):
    token = add_token(tmp_path / "tokens.toml", "ann", ["play"])
    server = serve(workers=1, token_file=str(tmp_path / "tokens.toml"))
    async with RawClient(server.url, token=token) as ann:
        created = await ann.create("test/echo-v0")
        async with RawClient(server.url, token=created["capability"]) as agent:
            assert (await agent.step(created["session"], 1, act()))["index"] == 1
            for type, fields in {"create": {"env": "test/echo-v0", "key": next(KEYS)}, "environments": {}}.items():
                with pytest.raises(Refused) as refused:
                    await agent.ask(type, **fields)
                assert refused.value.code == "UNAUTHORIZED"
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        assert httpx.get(f"{server.url}/v1/environments", headers=headers).status_code == 401


# -- how fast -------------------------------------------------------------------------------------------------------


async def test_steps_beyond_the_allowed_rate_are_refused_and_change_nothing(serve):
    server = serve(max_steps_per_s=5.0, workers=1)
    async with RawClient(server.url) as client:
        session, other = [(await client.create("test/echo-v0"))["session"] for _ in range(2)]
        asked = [asyncio.create_task(client.step(session, index, act(str(index)))) for index in range(1, 21)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, Refused)]
        assert {refusal.code for refusal in refusals} == {"CAPACITY_REACHED"}
        assert min(refusal.details["retry_after_s"] for refusal in refusals) > 0
        taken = 20 - len(refusals)
        assert (await client.ask("read", session=session))["next"] == taken + 1
        assert (await client.step(other, 1, act()))["index"] == 1


async def test_one_token_s_sessions_share_its_rate(serve):
    server = serve(max_token_steps_per_s=5.0, workers=1)
    async with RawClient(server.url) as client:
        sessions = [(await client.create("test/echo-v0"))["session"] for _ in range(20)]
        steps = [{"session": session, "index": 1, "actions": act()} for session in sessions]
        results = (await client.ask("step_many", steps=steps))["results"]
        kinds = {result["type"] for result in results}
        assert kinds == {"stepped", "error"}
        codes = {result["error"]["code"] for result in results if result["type"] == "error"}
        assert codes == {"CAPACITY_REACHED"}


# -- the end --------------------------------------------------------------------------------------------------------


async def test_a_server_that_stops_answers_what_it_was_asked_and_takes_nothing_new(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"), workers=1, drain_s=20.0)
    async with RawClient(server.url, reconnect=False) as client:
        busy = (await client.create("test/nap-v0"))["session"]
        created = await client.create("test/echo-v0")
        other = created["session"]
        waiting = asyncio.create_task(client.ask("read", session=other, after=0, wait_s=60.0))
        slow = asyncio.create_task(client.step(busy, 1, act("nap")))
        asked = [asyncio.create_task(client.step(other, index, act())) for index in range(1, 200)]
        await asyncio.sleep(0)
        await client.ask("environments")
        server.remember()
        server.process.terminate()
        read = await waiting
        assert read["session"] == other
        assert (await slow)["index"] == 1
        answered = await asyncio.gather(*asked, return_exceptions=True)
        taken = max(record["index"] for record in answered if isinstance(record, dict))
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    server.process.stdout.close()
    await asyncio.to_thread(server.start)
    async with RawClient(server.url) as client:
        attached = await client.attach(created["capability"])
        assert attached["next"] > taken


async def test_a_draining_server_refuses_new_sessions_and_says_so(serve):
    server = serve(workers=1, drain_s=10.0)
    async with RawClient(server.url, reconnect=False) as client:
        busy = (await client.create("test/nap-v0"))["session"]
        slow = asyncio.create_task(client.step(busy, 1, act("nap")))
        await client.ask("environments")
        server.process.terminate()
        codes = set()
        with contextlib.suppress(ConnectionError):
            while not slow.done():
                try:
                    await client.create("test/echo-v0")
                except Refused as refused:
                    codes.add(refused.code)
                await asyncio.sleep(0.02)
        assert codes == {"CAPACITY_REACHED"}
        assert (await slow)["index"] == 1
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    server.process.stdout.close()


async def test_a_second_server_cannot_use_the_same_state(serve, tmp_path):
    serve(state=str(tmp_path / "state"), workers=1)
    with pytest.raises(AssertionError, match="used by another server"):
        serve(state=str(tmp_path / "state"), workers=1)
