"""Remote seats: each plays for itself, sees its own alone, and is played by its default when it does not act."""

import asyncio
import json

import pytest

from tests.arena.server.harness_client import RawClient, Refused

pytestmark = pytest.mark.anyio


async def begin(owner, env, **seats):
    """Begin a session with remote seats; return what the owner is told."""
    return await owner.create(env, split="test", seats=seats)


class Seat:
    """One process's seat, over a connection of its own."""

    def __init__(self, client, created, name):
        self.client, self.session, self.name = client, created["session"], name
        self.capability = created["seat_capabilities"][name]

    async def sit(self):
        return await self.client.attach(self.capability)

    async def act(self, index, action):
        return (await self.client.ask("act", session=self.session, index=index, action=action))["record"]

    async def see(self, after=-1, wait_s=0.0):
        return await self.client.ask("read", session=self.session, after=after, wait_s=wait_s)


async def test_two_clients_play_a_simultaneous_game_to_its_end(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as one, RawClient(server.url) as two:
        created = await begin(owner, "test/match-v0", left={}, right={})
        left, right = Seat(one, created, "left"), Seat(two, created, "right")
        await asyncio.gather(left.sit(), right.sit())
        for index, (a, b) in enumerate([(0, 0), (0, 1), (1, 1)], 1):
            seen = await asyncio.gather(left.act(index, a), right.act(index, b))
            assert [record["step"]["reward"] for record in seen] == [float(a == b)] * 2
            assert [record["action"] for record in seen] == [a, b]
        assert seen[0]["step"]["terminated"]
        whole = await owner.ask("read", session=created["session"], after=-1)
        assert [record["actions"] for record in whole["records"][1:]] == [
            {"left": 0, "right": 0},
            {"left": 0, "right": 1},
            {"left": 1, "right": 1},
        ]
        assert (await owner.close(created["session"]))["score"]["value"] == pytest.approx(2 / 3)


async def test_a_seat_is_told_nothing_of_the_others(server):
    async with (
        RawClient(server.url) as owner,
        RawClient(server.url, format="json", keep=True) as one,
        RawClient(server.url, format="json", keep=True) as two,
    ):
        created = await begin(owner, "test/nim-v0", first={}, second={})
        first, second = Seat(one, created, "first"), Seat(two, created, "second")
        await asyncio.gather(first.sit(), second.sit())
        index = 0
        for seat, taken in [(first, 1), (second, 2), (first, 1), (second, 1), (first, 2)]:
            index += 1
            await seat.act(index, taken)
        await asyncio.gather(first.see(), second.see())
        for seat, other in ((first, "second"), (second, "first")):
            frames = [json.loads(frame) for frame in seat.client.received]
            views = [view for frame in frames for view in [frame.get("record"), *frame.get("seat_records", [])] if view]
            assert len(views) > index
            assert all(set(view) <= {"index", "step", "action", "acting", "limit", "defaulted"} for view in views)
            text = json.dumps(frames)
            assert '"digest"' not in text
            assert '"seed"' not in text
            assert '"task"' not in text
            assert f'"{other}": {{' not in text
            assert all(frame.get("records", []) == [] for frame in frames)
        own = [frame["record"]["step"]["observation"] for frame in map(json.loads, two.received) if "record" in frame]
        assert own == ["4 stones; you took 2", "2 stones; you took 1"]


async def test_a_seat_that_does_not_act_is_played_by_its_default(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as one:
        created = await begin(owner, "test/match-v0", left={}, right={"deadline_s": 0.1, "default": 1})
        left = Seat(one, created, "left")
        await left.sit()
        record = await left.act(1, 1)
        assert record["step"]["reward"] == 1.0
        whole = (await owner.ask("read", session=created["session"], after=0))["records"]
        assert whole[0]["actions"] == {"left": 1, "right": 1}
        assert whole[0]["decisions"] == {"right": {"default": True}}


async def test_without_a_default_or_with_one_that_is_not_legal_a_legal_action_is_drawn(server):
    async with RawClient(server.url) as owner:
        terms = {"deadline_s": 0.05}
        created = await begin(owner, "test/nim-v0", first=terms, second={**terms, "default": 9})
        seen = created["record"]
        while seen["time_step"].get("acting"):
            news = await owner.ask("read", session=created["session"], after=seen["index"], wait_s=20.0)
            seen = news["records"][-1]
        whole = (await owner.ask("read", session=created["session"], after=0))["records"]
        assert sum(action for record in whole for action in record["actions"].values()) == 7
        assert all(record["decisions"] for record in whole)


async def test_a_repeated_action_is_answered_and_another_one_refused(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as one, RawClient(server.url) as two:
        created = await begin(owner, "test/match-v0", left={}, right={})
        left, right = Seat(one, created, "left"), Seat(two, created, "right")
        await asyncio.gather(left.sit(), right.sit())
        waiting = [asyncio.create_task(left.act(1, 0)) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Refused, match="OUT_OF_ORDER"):
            await left.act(1, 1)
        await right.act(1, 0)
        first, *others = [await task for task in waiting]
        assert others == [first, first]
        assert await left.act(1, 0) == first
        with pytest.raises(Refused, match="OUT_OF_ORDER"):
            await left.act(1, 1)
        with pytest.raises(Refused, match="OUT_OF_ORDER"):
            await left.act(3, 1)


async def test_an_illegal_action_is_refused_to_the_seat_that_sent_it(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as one, RawClient(server.url) as two:
        created = await begin(owner, "test/match-v0", left={}, right={})
        left, right = Seat(one, created, "left"), Seat(two, created, "right")
        await asyncio.gather(left.sit(), right.sit())
        pending = asyncio.create_task(right.act(1, 1))
        with pytest.raises(Refused, match="INVALID_ACTION"):
            await left.act(1, 7)
        with pytest.raises(Refused, match="INVALID_ACTION"):
            await left.act(1, "text")
        await left.act(1, 1)
        assert (await pending)["step"]["reward"] == 1.0


async def test_nobody_plays_another_ones_seat_and_a_spectator_none(server):
    async with RawClient(server.url) as owner, RawClient(server.url) as one, RawClient(server.url) as watcher:
        created = await begin(owner, "test/match-v0", left={}, right={})
        left = Seat(one, created, "left")
        await left.sit()
        fields = {"session": created["session"], "index": 1, "action": 0}
        with pytest.raises(Refused, match="FORBIDDEN"):
            await one.ask("act", seat="right", **fields)
        for verb in ({"type": "close"}, {"type": "trace"}, {"type": "fork", "key": "a-key-of-mine"}):
            with pytest.raises(Refused, match="FORBIDDEN"):
                await one.ask(session=created["session"], **verb)
        with pytest.raises(Refused, match="FORBIDDEN"):
            await one.ask("read", session=created["session"], seat="right")
        await watcher.attach(created["watch"])
        assert (await watcher.ask("read", session=created["session"]))["records"][0]["index"] == 0
        with pytest.raises(Refused, match="FORBIDDEN"):
            await watcher.ask("act", seat="left", **fields)
        with pytest.raises(Refused, match="UNSUPPORTED"):
            await owner.ask("step", session=created["session"], index=1, actions={"left": 0, "right": 0})


async def test_terms_for_a_seat_that_is_not_there_begin_nothing(server):
    async with RawClient(server.url) as owner:
        with pytest.raises(Refused, match=r"no seat 'lefft' .*did you mean 'left'"):
            await begin(owner, "test/match-v0", lefft={})


async def test_a_match_goes_on_after_a_worker_and_the_server_were_killed(serve, tmp_path):
    server = serve(state=str(tmp_path / "state"))
    async with RawClient(server.url) as owner, RawClient(server.url) as one, RawClient(server.url) as two:
        created = await begin(owner, "test/match-v0", left={}, right={})
        left, right = Seat(one, created, "left"), Seat(two, created, "right")
        await asyncio.gather(left.sit(), right.sit())
        await asyncio.gather(left.act(1, 0), right.act(1, 0))
        for number in range(2):
            server.kill_worker(number)
        await asyncio.gather(left.act(2, 0), right.act(2, 1))
        waiting = asyncio.create_task(left.act(3, 1))
        await asyncio.sleep(0.1)
        server.kill()
        server.start()
        seen = await asyncio.gather(waiting, right.act(3, 1))
        assert [record["step"]["terminated"] for record in seen] == [True, True]
        assert (await owner.close(created["session"]))["score"]["value"] == pytest.approx(2 / 3)
