"""The official `mcp` client against Arena: an agent plays a seat by calling tools."""

import asyncio
import itertools
import json
import os
from contextlib import asynccontextmanager

import httpx
import pytest
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.version import LATEST_PROTOCOL_VERSION

URL, GUARDED_URL, TOKEN = (os.environ[name] for name in ("PEERS_URL", "PEERS_GUARDED_URL", "PEERS_TOKEN"))
with open(os.environ["PEERS_EXPECTED"]) as file:
    EXPECTED = json.load(file)
keys = itertools.count(1)


def create(url=URL, headers=None, **fields):
    """Create a session, as whoever hires the agent does."""
    body = {"key": f"mcp-{os.getpid()}-{next(keys):06}", **fields}
    reply = httpx.post(f"{url}/v1/sessions", json=body, headers=headers, timeout=60)
    assert reply.status_code == 201, reply.text
    return reply.json()


def records(session):
    """Read every step of a session, as its owner."""
    headers = {"Arena-Session": session["capability"]}
    return httpx.get(f"{URL}/v1/sessions/{session['session']}/records", headers=headers).json()


@asynccontextmanager
async def playing(capability, url=URL):
    """Connect the official client with a capability; yields its session and what `initialize` told it."""
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {capability}"}, timeout=60) as http,
        streamable_http_client(f"{url}/mcp", http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        yield session, await session.initialize()


def text(result):
    (content,) = result.content
    return content.text


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: f"{case['env']}-{case['task']}-{case['seed']}")
def test_a_whole_game_equals_the_one_in_arenas_own_process(case):
    session = create(**{name: case[name] for name in ("env", "task", "split", "seed")}, options=case.get("options", {}))

    async def play():
        async with playing(session["capability"]) as (client, begun):
            results = [await client.call_tool("act", {"action": action}) for action in case["actions"]]
            return begun, results, await client.call_tool("act", {"action": "look"})

    begun, results, after = asyncio.run(play())
    assert begun.serverInfo.name == "arena"
    assert case["texts"][0] in begun.instructions
    assert [result.structuredContent["observation"] for result in results] == case["texts"][1:]
    assert all(text(result).startswith(seen) for result, seen in zip(results, case["texts"][1:], strict=True))
    assert [result.structuredContent["terminated"] for result in results] == [False] * (len(results) - 1) + [True]
    assert after.isError
    steps = [record for record in records(session)["records"] if record["index"]]
    assert [step["time_step"]["seats"]["player"].get("reward", 0.0) for step in steps] == case["rewards"]


def test_the_latest_version_of_the_client_is_agreed_on():
    async def version():
        async with playing(create(env="text/guess-v0")["capability"]) as (client, begun):
            await client.send_ping()
            return begun.protocolVersion

    assert asyncio.run(version()) == LATEST_PROTOCOL_VERSION


def test_tools_of_the_environment_are_listed_and_called_and_its_reset_is_renamed():
    session = create(env="play/safe-v0", seed=4)

    async def play():
        async with playing(session["capability"]) as (client, _):
            names = [tool.name for tool in (await client.list_tools()).tools]
            wrong = await client.call_tool("turn", {"digit": 9})
            assert wrong.isError
            assert "digit" in text(wrong)
            with pytest.raises(McpError, match="Unknown tool"):
                await client.call_tool("reset", {})
            for _ in range(3):
                digit = int(text(await client.call_tool("listen", {})).split()[2])
                told = await client.call_tool("turn", {"digit": digit})
            seen = await client.call_tool("observe", {})
            assert text(seen) == text(told)
            return names, text(told)

    names, told = asyncio.run(play())
    assert names == ["turn", "listen", "env_reset", "observe"]
    assert told.startswith("The safe is open.")


def test_an_illegal_action_is_told_to_the_agent_and_changes_nothing():
    session = create(env="text/guess-v0", task="range-8")

    async def play():
        async with playing(session["capability"]) as (client, _):
            refused = await client.call_tool("act", {"action": "9"})
            assert refused.isError
            assert "legal: 1, 2" in text(refused)
            with pytest.raises(McpError, match="Method not found"):
                await client.list_resources()
            return await client.call_tool("observe", {})

    seen = asyncio.run(play())
    assert "from 1 to 8" in text(seen)
    assert records(session)["next"] == 1


def test_an_agent_is_never_told_its_reward_or_score():
    case = EXPECTED[0]
    session = create(**{name: case[name] for name in ("env", "task", "split", "seed")})

    async def play():
        async with playing(session["capability"]) as (client, begun):
            said = [begun, await client.list_tools()]
            said += [await client.call_tool("act", {"action": action}) for action in case["actions"]]
            return " ".join(message.model_dump_json() for message in said)

    said = asyncio.run(play())
    assert case["texts"][-1] in said
    assert not any(word in said.casefold() for word in ("reward", "score", "success", "ending"))


def test_two_agents_play_each_other_by_their_seats_capabilities():
    session = create(env="play/nim-v0", seats={})

    async def play(seat, moves):
        async with playing(session["seat_capabilities"][seat]) as (client, _):
            await client.call_tool("observe", {})
            return [text(await client.call_tool("act", {"action": move})) for move in moves]

    async def play_both():
        return await asyncio.gather(play("first", [2, 2]), play("second", [1, 2]))

    first, second = asyncio.run(play_both())
    assert first[0].startswith("5 stones; you took 2\n\n4 stones; you took 2")
    assert "0 stones" in first[-1]
    assert "0 stones" in second[-1]
    assert all("The episode is over." in said[-1] for said in (first, second))


def test_another_capability_or_none_opens_nothing():
    async def connect(capability):
        async with playing(capability):
            pytest.fail("this must not connect")

    for capability in ("nonsense", create(env="text/guess-v0")["watch"]):
        with pytest.raises(BaseExceptionGroup) as caught:
            asyncio.run(connect(capability))
        assert caught.value.subgroup(httpx.HTTPStatusError) is not None


def test_the_capability_is_all_that_an_agent_needs_on_a_server_with_tokens():
    case = EXPECTED[0]
    fields = {name: case[name] for name in ("env", "task", "split", "seed")}
    session = create(GUARDED_URL, {"Authorization": f"Bearer {TOKEN}"}, **fields)

    async def play():
        async with playing(session["capability"], GUARDED_URL) as (client, _):
            return [text(await client.call_tool("act", {"action": action})) for action in case["actions"]]

    assert asyncio.run(play())[-1].startswith(case["texts"][-1])


def test_the_end_of_the_mcp_session_is_not_the_end_of_the_episode():
    case = EXPECTED[0]
    session = create(**{name: case[name] for name in ("env", "task", "split", "seed")})

    async def play(action):
        async with playing(session["capability"]) as (client, _):
            return text(await client.call_tool("act", {"action": action}))

    said = [asyncio.run(play(action)) for action in case["actions"]]
    assert [told.partition("\n\n")[0] for told in said] == [seen.partition("\n\n")[0] for seen in case["texts"][1:]]
