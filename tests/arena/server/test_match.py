"""Remote seats: several clients play one session, each in its own seat, and none learns what is another's."""

import asyncio
import re

import httpx
import pytest

from tests.arena.server.harness_client import RawClient, Refused
from tests.arena.server.harness_truth import Plan, check_trace, play, without_times

pytestmark = pytest.mark.anyio

NEVER_S = 600.0


async def claim(server, created, seats, *, keep=False):
    """Return a client for each seat, which has claimed it."""
    clients = {}
    for seat in seats:
        clients[seat] = client = RawClient(server.url, keep=keep)
        await client.__aenter__()
        attached = await client.attach(created["seat_capabilities"][seat])
        assert (attached["role"], attached["seat"]) == ("seat", seat)
        assert set(attached["seats"]) == {seat}
    return clients


async def leave(clients):
    await asyncio.gather(*(client.__aexit__() for client in clients.values()))


async def act(client, session, index, action, **fields):
    return (await client.ask("act", session=session, index=index, action=action, **fields))["record"]


# -- who sees what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
async def test_a_seat_is_told_its_own_and_nothing_of_the_others(serve, tmp_path, restart):
    server = serve(state=str(tmp_path / "state"))
    seats = ("red", "green", "blue")
    async with RawClient(server.url) as owner:
        created = await owner.create("test/whispers-v0", seed=7, seats={"red": {}})
        assert set(created["seat_capabilities"]) == set(seats)
        session = created["session"]
        clients = await claim(server, created, seats, keep=True)
        for index in range(1, 5):
            if restart and index == 3:
                server.kill()
                await asyncio.to_thread(server.start)
            says = {seat: f"word-of-{seat}-{index}" for seat in seats}
            told = await asyncio.gather(*(act(clients[seat], session, index, says[seat]) for seat in seats))
            for seat, record in zip(seats, told, strict=True):
                assert record["action"] == says[seat]
                assert record["step"]["observation"].endswith(f"heard {says[seat]}")
        for seat, client in clients.items():
            read = await client.ask("read", session=session)
            assert read.get("records", []) == []
            assert [record["index"] for record in read["seat_records"]] == [0, 1, 2, 3, 4]
            with pytest.raises(Refused) as refused:
                await client.ask("read", session=session, seat=next(other for other in seats if other != seat))
            assert refused.value.code == "FORBIDDEN"
            with pytest.raises(Refused) as refused:
                await client.ask("trace", session=session)
            assert refused.value.code == "FORBIDDEN"
            heard = b"\n".join(client.received).decode("utf-8", "replace")
            assert f"secret-of-{seat}" in heard
            for other in set(seats) - {seat}:
                assert not re.search(rf"(secret-of|word-of|info|instructions of)[- ]{other}", heard)
            assert "digest" not in heard
            assert client.mispaired == []
        await leave(clients)
        read = await owner.ask("read", session=session)
        moves = [record["actions"] for record in read["records"][1:]]
        plan = Plan("test/whispers-v0", seed=7, moves=moves)
        here = play(plan)
        assert [without_agents(record) for record in read["records"]] == here.records
        check_trace((await owner.ask("trace", session=session))["lines"], plan, here)
        assert without_times((await owner.ask("close", session=session))["end"]) == here.end


def without_agents(record):
    return {name: value for name, value in without_times(record).items() if name != "decisions"}


async def test_seats_take_turns(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/nim-v0", seats={})
        session = created["session"]
        clients = await claim(server, created, ("first", "second"))
        with pytest.raises(Refused, match="is not to act"):
            await act(clients["second"], session, 1, 1)
        for index, (seat, stones) in enumerate([("first", 2), ("second", 2), ("first", 2), ("second", 1)], start=1):
            record = await act(clients[seat], session, index, stones)
            assert (record["index"], record["action"]) == (index, stones)
        other = await clients["first"].ask("read", session=session, after=3)
        assert other["seat_records"][0]["step"]["ending"] == "lost"
        assert "action" not in other["seat_records"][0] or other["seat_records"][0]["action"] is None
        with pytest.raises(Refused) as refused:
            await act(clients["first"], session, 5, 1)
        assert refused.value.code == "RESET_NEEDED"
        end = (await owner.ask("close", session=session))["end"]
        assert end["endings"] == {"first": "lost", "second": "won"}
        await leave(clients)


async def test_spectators_read_every_step_and_cannot_act(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as watcher:
        created = await owner.create("test/nim-v0", seats={})
        session = created["session"]
        await watcher.attach(created["watch"])
        clients = await claim(server, created, ("first",))
        waiting = asyncio.create_task(watcher.ask("read", session=session, after=0, wait_s=30.0))
        await act(clients["first"], session, 1, 2)
        records = (await waiting)["records"]
        assert records[0]["actions"] == {"first": 2}
        assert set(records[0]["time_step"]["seats"]) == {"first", "second"}
        for fields in ({"seat": "second"}, {}):
            with pytest.raises(Refused) as refused:
                await act(watcher, session, 2, 1, **fields)
            assert refused.value.code == "FORBIDDEN"
        await leave(clients)


# -- acting ---------------------------------------------------------------------------------------------------------


async def test_a_step_is_taken_once_every_seat_has_acted_and_not_before(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={})
        session = created["session"]
        clients = await claim(server, created, ("left", "right"))
        left = asyncio.create_task(act(clients["left"], session, 1, 1))
        await clients["left"].ask("read", session=session)
        assert (await owner.ask("read", session=session))["next"] == 1
        right = await act(clients["right"], session, 1, 1)
        assert (await left)["step"]["reward"] == right["step"]["reward"] == 1.0
        assert (await owner.ask("read", session=session))["next"] == 2
        await leave(clients)


async def test_an_act_that_is_repeated_is_answered_and_not_played_again(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={})
        session = created["session"]
        clients = await claim(server, created, ("left", "right"))
        left = [asyncio.create_task(act(clients["left"], session, 1, 1)) for _ in range(5)]
        await clients["left"].ask("read", session=session)
        with pytest.raises(Refused, match="already played step 1 otherwise") as refused:
            await act(clients["left"], session, 1, 0)
        assert refused.value.code == "OUT_OF_ORDER"
        await act(clients["right"], session, 1, 0)
        answers = await asyncio.gather(*left)
        assert all(answer == answers[0] for answer in answers)
        again = await act(clients["left"], session, 1, 1)
        assert again == answers[0]
        for index, action in ((1, 0), (3, 1), (0, 1), (-5, 1)):
            with pytest.raises(Refused) as refused:
                await act(clients["left"], session, index, action)
            assert refused.value.code == "OUT_OF_ORDER"
        assert (await owner.ask("read", session=session))["next"] == 2
        await leave(clients)


async def test_an_illegal_act_is_refused_at_once_and_may_be_mended(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={}, limits={"invalid_actions": 3})
        session = created["session"]
        clients = await claim(server, created, ("left", "right"))
        waiting = asyncio.create_task(act(clients["right"], session, 1, 1))
        for action in (7, "text"):
            with pytest.raises(Refused) as refused:
                await act(clients["left"], session, 1, action)
            assert refused.value.code == "INVALID_ACTION"
        assert (await act(clients["left"], session, 1, 0))["index"] == 1
        assert (await waiting)["index"] == 1
        assert (await owner.ask("close", session=session))["end"]["refused"] == 2
        await leave(clients)


async def test_too_many_illegal_acts_end_the_episode_for_everybody(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={}, limits={"invalid_actions": 2})
        session = created["session"]
        clients = await claim(server, created, ("left", "right"))
        waiting = asyncio.create_task(act(clients["right"], session, 1, 1))
        await clients["right"].ask("read", session=session)
        for _ in range(2):
            with pytest.raises(Refused):
                await act(clients["left"], session, 1, 7)
        assert (await waiting)["limit"]["kind"] == "invalid_actions"
        read = await owner.ask("read", session=session)
        assert (read["status"], read["end"]["limit"]["kind"]) == ("over", "invalid_actions")
        await leave(clients)


async def test_the_owner_may_play_any_seat_by_name(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={})
        session = created["session"]
        both = [asyncio.create_task(act(owner, session, 1, 1, seat=seat)) for seat in ("left", "right")]
        assert [(await record)["index"] for record in both] == [1, 1]
        with pytest.raises(Refused, match="name the seat"):
            await act(owner, session, 2, 1)
        with pytest.raises(Refused) as refused:
            await act(owner, session, 2, 1, seat="middle")
        assert refused.value.code in ("UNKNOWN_ID", "INVALID_ACTION")
        for type, fields in (("step", {"index": 2, "actions": {"left": 1, "right": 1}}), ("fork", {"key": "12345678"})):
            with pytest.raises(Refused) as refused:
                await owner.ask(type, session=session, **fields)
            assert refused.value.code == "UNSUPPORTED"


async def test_a_seat_that_acts_in_another_seat_is_refused(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={})
        clients = await claim(server, created, ("left",))
        with pytest.raises(Refused) as refused:
            await act(clients["left"], created["session"], 1, 1, seat="right")
        assert refused.value.code == "FORBIDDEN"
        assert (await owner.ask("read", session=created["session"]))["next"] == 1
        await leave(clients)


async def test_an_act_in_a_session_without_remote_seats_is_refused(server):
    async with RawClient(server.url) as owner:
        session = (await owner.create("test/match-v0"))["session"]
        with pytest.raises(Refused) as refused:
            await act(owner, session, 1, 1, seat="left")
        assert refused.value.code == "UNSUPPORTED"


# -- deadlines ------------------------------------------------------------------------------------------------------


async def test_a_seat_that_misses_its_deadline_is_played_by_its_default(server):
    terms = {"left": {"deadline_s": NEVER_S}, "right": {"deadline_s": 0.1, "default": 1}}
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats=terms)
        session = created["session"]
        clients = await claim(server, created, ("left", "right"))
        for index in range(1, 4):
            record = await act(clients["left"], session, index, 1)
            assert record["step"]["reward"] == 1.0
            assert "defaulted" not in record
        read = await clients["right"].ask("read", session=session)
        assert [record.get("defaulted") for record in read["seat_records"]] == [None, True, True, True]
        with pytest.raises(Refused) as refused:
            await act(clients["right"], session, 1, 0)
        assert refused.value.code == "OUT_OF_ORDER"
        await leave(clients)


@pytest.mark.parametrize("terms", [{"deadline_s": 0.05}, {"deadline_s": 0.05, "default": 99}], ids=["none", "illegal"])
async def test_without_a_default_that_is_legal_a_legal_action_is_drawn(server, terms):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/nim-v0", seats={"first": terms, "second": terms})
        session = created["session"]
        after = 0
        async with asyncio.timeout(30):
            while True:
                read = await owner.ask("read", session=session, after=after, wait_s=10.0)
                after += len(read["records"])
                if read["status"] == "over":
                    break
        end = (await owner.ask("close", session=session))["end"]
        assert sorted(end["endings"].values()) == ["lost", "won"]


async def test_drawn_actions_are_the_same_for_the_same_seed(server):
    moves = []
    async with RawClient(server.url) as owner:
        for _ in range(2):
            created = await owner.create(
                "test/nim-v0", seed=3, seats={seat: {"deadline_s": 0.01} for seat in ("first", "second")}
            )
            session, read = created["session"], {"status": "running"}
            async with asyncio.timeout(30):
                while read["status"] == "running":
                    read = await owner.ask("read", session=session, after=50, wait_s=0.1)
            read = await owner.ask("read", session=session)
            moves.append([record.get("actions") for record in read["records"]])
    assert moves[0] == moves[1]


async def test_a_client_that_was_killed_is_replaced_by_its_default(serve):
    server = serve(workers=1)
    terms = {"red": {"deadline_s": NEVER_S}, "green": {"deadline_s": 0.3, "default": "gone"}, "blue": {}}
    async with RawClient(server.url) as owner:
        created = await owner.create("test/whispers-v0", seats=terms)
        session = created["session"]
        clients = await claim(server, created, ("red", "green", "blue"))
        await asyncio.gather(*(act(client, session, 1, "here") for client in clients.values()))
        clients["green"].cut()
        await clients.pop("green").__aexit__()
        for index in range(2, 5):
            await asyncio.gather(*(act(client, session, index, "here") for client in clients.values()))
        read = await owner.ask("read", session=session)
        assert [record["actions"]["green"] for record in read["records"][1:]] == ["here", "gone", "gone", "gone"]
        await leave(clients)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf"), 1e300])
async def test_a_deadline_that_is_none_is_refused(server, deadline_s):
    async with RawClient(server.url) as owner:
        with pytest.raises(Refused) as refused:
            await owner.create("test/match-v0", seats={"left": {"deadline_s": deadline_s}})
        assert refused.value.code == "USAGE"


# -- faults ---------------------------------------------------------------------------------------------------------


async def test_a_match_goes_on_after_its_worker_and_after_the_server_was_killed(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"), workers=1)
    terms = {"left": {"deadline_s": NEVER_S}, "right": {"deadline_s": 2.0, "default": 0}}
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seed=1, seats=terms)
        session = created["session"]
        clients = await claim(server, created, ("left", "right"))
        waiting = asyncio.create_task(act(clients["left"], session, 1, 1))
        await clients["left"].ask("read", session=session)
        server.kill_worker()
        assert (await act(clients["right"], session, 1, 1))["step"]["reward"] == 1.0
        assert (await waiting)["index"] == 1
        waiting = asyncio.create_task(act(clients["left"], session, 2, 1))
        await clients["left"].ask("read", session=session)
        server.kill()
        await asyncio.to_thread(server.start)
        assert (await waiting)["index"] == 2  # by the default of the other, whose deadline holds after the restart
        both = await asyncio.gather(*(act(client, session, 3, 1) for client in clients.values()))
        assert [record["index"] for record in both] == [3, 3]
        read = await owner.ask("read", session=session)
        assert [record["actions"] for record in read["records"][1:]] == [
            {"left": 1, "right": 1},
            {"left": 1, "right": 0},
            {"left": 1, "right": 1},
        ]
        assert read["end"]["score"]["value"] == pytest.approx(2 / 3)
        await leave(clients)


async def test_a_deadline_holds_after_a_restart_though_nobody_acts(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"), workers=1)
    async with RawClient(server.url) as owner:
        terms = {seat: {"deadline_s": 0.5, "default": 1} for seat in ("left", "right")}
        session = (await owner.create("test/match-v0", seats=terms))["session"]
        server.kill()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(30):
            read = await owner.ask("read", session=session, after=0, wait_s=25.0)
        assert read["records"][0]["actions"] == {"left": 1, "right": 1}


async def test_closing_a_session_tells_the_seats_that_wait(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/match-v0", seats={})
        clients = await claim(server, created, ("left",))
        waiting = asyncio.create_task(act(clients["left"], created["session"], 1, 1))
        await clients["left"].ask("read", session=created["session"])
        await owner.ask("close", session=created["session"])
        with pytest.raises(Refused) as refused:
            await waiting
        assert refused.value.code in ("RESET_NEEDED", "SESSION_GONE")
        await leave(clients)


async def test_a_seat_plays_over_http_with_its_capability_alone(server):
    async with RawClient(server.url) as owner:
        created = await owner.create("test/nim-v0", seats={})
        shown = {"Arena-Session": created["seat_capabilities"]["first"]}
        at = f"{server.url}/v1/sessions/{created['session']}"
        async with httpx.AsyncClient(headers=shown) as http:
            reply = await http.post(f"{at}/act", json={"index": 1, "action": 2})
            assert reply.json()["record"]["action"] == 2
            records = (await http.get(f"{at}/records")).json()
            assert [record["index"] for record in records["seat_records"]] == [0, 1]
            assert (await http.get(f"{at}/records", params={"seat": "second"})).status_code == 403
            assert (await http.get(f"{at}/trace")).status_code == 403
            assert (await http.delete(at)).status_code == 403


async def test_terms_for_a_seat_that_is_not_there_begin_nothing(server):
    before = server.open_sessions()
    async with RawClient(server.url) as owner:
        with pytest.raises(Refused, match=r"no seat 'lefft' .*did you mean 'left'"):
            await owner.create("test/match-v0", seats={"lefft": {}})
        assert server.open_sessions() <= before
