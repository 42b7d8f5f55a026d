"""The protocol's verbs, one by one, over a WebSocket, in both formats."""

import json

import httpx
import msgspec
import pytest

from tests.arena.server.harness_client import RawClient, Refused
from tests.arena.server.harness_truth import Plan, check_trace, play, without_times

pytestmark = pytest.mark.anyio

FORMATS = pytest.mark.parametrize("format", ["json", "msgpack"])


@FORMATS
async def test_an_episode_from_its_creation_to_its_trace(server, format):
    plan = Plan("text/guess-v0", task="range-8", seed=3, moves=[{"player": str(n)} for n in (4, 2, 6, 1, 3, 5, 7, 8)])
    here = play(plan)
    taken = sum("code" not in record for record in here.records) - 1
    async with RawClient(server.url, format=format) as client:
        created = await client.create(**plan.creation())
        told = [created["record"]]
        for index in range(1, taken + 1):
            reply = await client.ask("step", session=created["session"], index=index, actions=plan.moves[index - 1])
            told.append(reply["record"])
        assert [without_times(record) for record in told] == here.records[: taken + 1]
        assert without_times(reply["end"]) == here.end
        trace = await client.ask("trace", session=created["session"])
        closed = await client.ask("close", session=created["session"])
        assert without_times(closed["end"]) == here.end
        assert client.mispaired == []
    check_trace(trace["lines"], plan, here)


@FORMATS
async def test_a_reply_comes_in_the_format_of_its_request(server, format):
    async with RawClient(server.url, format=format, keep=True) as client:
        await client.ask("environments")
        frame = client.received[-1]
    if format == "json":
        assert json.loads(frame)["type"] == "environments"
    else:
        assert msgspec.msgpack.decode(frame)["type"] == "environments"


async def test_environments_are_listed_described_and_their_tasks_paged(server):
    async with RawClient(server.url) as client:
        listed = {spec["id"] for spec in (await client.ask("environments"))["environments"]}
        assert {"text/guess-v0", "text/textworld-v0", "test/echo-v0", "test/match-v0"} <= listed
        info = await client.ask("describe", env="text/guess-v0", options={"max_guesses": 3})
        assert info["options"] == {"max_guesses": 3}
        assert info["options_schema"]["properties"]["max_guesses"]["maximum"] == 1000
        assert info["tasks"] == {"train": 4, "test": 3}
        assert set(info["seats"]) == {"player"}
        page = await client.ask("tasks", env="text/guess-v0", split="test", start=1, stop=3)
        assert [task["id"] for task in page["tasks"]] == ["range-50", "range-100"]
        assert (page["total"], page["start"]) == (3, 1)


async def test_a_repeated_create_gets_the_same_session(server):
    async with RawClient(server.url) as client, RawClient(server.url) as other:
        key = "the same key, twice"
        first = await client.create("test/echo-v0", key=key)
        again = await other.create("test/echo-v0", key=key)
        assert again["session"] == first["session"]
        assert again["capability"] == first["capability"]
        await client.ask("close", session=first["session"])


async def test_a_create_that_is_repeated_late_begins_no_second_session(server):
    async with RawClient(server.url) as client:
        key = "a key that was spent"
        first = await client.create("test/echo-v0", key=key)
        await client.ask("close", session=first["session"])
        with pytest.raises(Refused) as refused:
            await client.create("test/echo-v0", key=key)
        assert refused.value.code == "SESSION_GONE"


async def test_a_repeated_step_gets_the_recorded_answer_and_is_not_taken_again(server):
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        first = await client.step(session, 1, {"player": "a"})
        again = await client.step(session, 1, {"player": "a"})
        assert again == first
        assert (await client.step(session, 2, {"player": "b"}))["index"] == 2
        assert await client.step(session, 1, {"player": "a"}) == first
        assert (await client.ask("read", session=session))["next"] == 3


@pytest.mark.parametrize(
    ("index", "action", "told"),
    [
        (3, "c", "the next step is 2"),
        (1, "other", "recorded with other actions"),
        (0, "a", "numbered from 1"),
        (-1, "a", "numbered from 1"),
    ],
)
async def test_a_step_out_of_order_is_refused_and_changes_nothing(server, index, action, told):
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        await client.step(session, 1, {"player": "a"})
        with pytest.raises(Refused, match=told) as refused:
            await client.step(session, index, {"player": action})
        assert refused.value.code == "OUT_OF_ORDER"
        assert (await client.ask("read", session=session))["next"] == 2


async def test_a_refused_step_that_is_repeated_is_counted_once(server):
    async with RawClient(server.url) as client:
        session = (await client.create("text/guess-v0", task="range-8", limits={"invalid_actions": 3}))["session"]
        request = {"type": "step", "id": "once", "session": session, "index": 1, "actions": {"player": "no"}}
        for _ in range(5):
            await client.say(msgspec.msgpack.encode(request))
        assert (await client.ask("read", session=session))["status"] == "running"
        other = {**request, "id": "twice"}
        await client.say(msgspec.msgpack.encode(other))
        await client.say(msgspec.msgpack.encode(request))
        assert (await client.ask("read", session=session))["status"] == "running"
        with pytest.raises(Refused) as refused:
            await client.step(session, 1, {"player": "no"})
        assert refused.value.details["truncated"] is True
        assert (await client.ask("close", session=session))["end"]["refused"] == 3


async def test_a_batch_is_answered_in_its_order_with_an_error_for_each_item_that_fails(server):
    async with RawClient(server.url) as client:
        sessions = [(await client.create("test/echo-v0"))["session"] for _ in range(5)]
        steps = [{"session": session, "index": 1, "actions": {"player": session}} for session in sessions]
        steps.insert(2, {"session": "nobody's", "index": 1, "actions": {}})
        steps.append({"session": sessions[0], "index": 7, "actions": {"player": "x"}})
        results = (await client.ask("step_many", steps=steps))["results"]
        assert [result["type"] for result in results] == ["stepped"] * 2 + ["error"] + ["stepped"] * 3 + ["error"]
        assert [results[2]["error"]["code"], results[-1]["error"]["code"]] == ["UNKNOWN_ID", "OUT_OF_ORDER"]
        for item, result in zip(steps, results, strict=True):
            if result["type"] == "stepped":
                assert result["session"] == item["session"]
                assert result["record"]["time_step"]["seats"]["player"]["observation"] == item["session"]
        assert (await client.ask("step_many", steps=[]))["results"] == []


async def test_the_same_step_twice_in_a_batch_is_taken_once(server):
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        item = {"session": session, "index": 1, "actions": {"player": "a"}}
        first, second = (await client.ask("step_many", steps=[item, item]))["results"]
        assert first == second
        assert (await client.ask("read", session=session))["next"] == 2


async def test_a_truncation_is_a_step_and_its_repeat_is_answered(server):
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        await client.step(session, 1, {"player": "a"})
        limit = {"kind": "tokens", "value": 7.0, "limit": 5.0}
        cut = await client.ask("truncate", session=session, index=2, limit=limit, usage={"input_tokens": 7})
        assert cut["record"]["limit"] == limit
        assert cut["end"]["usage"]["input_tokens"] == 7
        assert cut["record"]["time_step"]["seats"]["player"]["ending"] == "tokens_limit"
        again = await client.ask("truncate", session=session, index=2, limit=limit, usage={"input_tokens": 7})
        assert again["record"] == cut["record"]
        assert again["end"] == cut["end"]
        with pytest.raises(Refused) as refused:
            await client.step(session, 3, {"player": "b"})
        assert refused.value.code == "RESET_NEEDED"


async def test_reading_waits_for_the_next_step(server):
    async with RawClient(server.url) as client, RawClient(server.url) as watcher:
        created = await client.create("test/echo-v0")
        attached = await watcher.attach(created["watch"])
        assert (attached["role"], attached["next"], attached["status"]) == ("watch", 1, "running")
        import asyncio

        waiting = asyncio.create_task(watcher.ask("read", session=created["session"], after=0, wait_s=30.0))
        await watcher.ask("read", session=created["session"])
        await client.step(created["session"], 1, {"player": "now"})
        news = await waiting
        assert [record["index"] for record in news["records"]] == [1]
        closing = asyncio.create_task(watcher.ask("read", session=created["session"], after=1, wait_s=30.0))
        await client.ask("close", session=created["session"])
        assert (await closing)["status"] == "closed"


async def test_a_closed_session_can_be_attached_to_and_read(server):
    async with RawClient(server.url) as client, RawClient(server.url) as other, RawClient(server.url) as watcher:
        created = await client.create("test/echo-v0", seed=5)
        await client.step(created["session"], 1, {"player": "a"})
        await client.ask("close", session=created["session"])
        attached = await other.attach(created["capability"])
        assert (attached["status"], attached["next"], attached["seed"]) == ("closed", 2, 5)
        assert attached["task"] == created["task"]
        assert "seed" not in await watcher.attach(created["watch"])
        for reader in (other, watcher):
            read = await reader.ask("read", session=created["session"])
            assert [record["index"] for record in read["records"]] == [0, 1]


async def test_http_offers_the_same_verbs(server):
    with httpx.Client(base_url=server.url) as http:
        reply = http.post("/v1/sessions", json={"env": "text/guess-v0", "key": "over http 1", "task": "range-8"})
        assert reply.status_code == 201
        created = reply.json()
        at = f"/v1/sessions/{created['session']}"
        shown = {"Arena-Session": created["capability"]}
        assert http.get(f"{at}/records").status_code == 404
        step = http.post(f"{at}/steps", json={"index": 1, "actions": {"player": "9"}}, headers=shown)
        assert (step.status_code, step.json()["error"]["code"]) == (422, "INVALID_ACTION")
        action = http.post(f"{at}/expert", json={"seat": "player"}, headers=shown).json()["action"]
        step = http.post(f"{at}/steps", json={"index": 1, "actions": {"player": action}}, headers=shown)
        assert step.json()["record"]["actions"] == {"player": action}
        fork = http.post(f"{at}/fork", json={"key": "over http 2"}, headers=shown)
        assert fork.status_code == 201
        assert fork.json()["record"]["digest"] == step.json()["record"]["digest"]
        read = http.get(f"{at}/records", params={"after": 0}, headers=shown).json()
        assert [record["index"] for record in read["records"]] == [1]
        assert http.get(f"{at}/trace", headers=shown).status_code == 409
        closed = http.delete(at, headers=shown)
        assert closed.json()["end"]["error"]["code"] == "AGENT"
        assert http.get(f"{at}/trace", headers=shown).status_code == 200
        attached = http.post("/v1/attach", json={"capability": created["capability"]}).json()
        assert attached["status"] == "closed"
        many = http.post("/v1/steps", json={"steps": []})
        assert many.json()["results"] == []
