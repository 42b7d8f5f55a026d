"""Environments that wait, in this process: their episodes go on side by side, and nothing else is different."""

import asyncio
import threading
from typing import ClassVar

import msgspec
import numpy as np
import pytest

from arena import Score, Session, restart, termination, transition
from arena import apart as apart_module
from arena.apart import SessionApart
from arena.batching import EpisodeByEpisode
from arena.env import EnvSpec, SeatSpec, SingleAgentEnvironment, Taskset
from arena.registry import environments
from arena.runner import Progress, plan, run
from arena.scenario import parse_scenario
from arena.seeding import stream
from arena.spaces import FreeText
from arena.summary import summarise
from arena.threads import CallThread
from arena.types import Task
from tests.arena.batched_games import Fading

WAIT_S = 30.0
SCENARIO = """
name: here
env: {id: test/meeting-v0}
agents: {chance: random, skill: expert}
tasks: {split: train}
episodes: 4
"""


class OneTask(Taskset):
    """As in `tests.arena.served`, which would register its environments for all tests of this process."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return 1

    def task(self, index: int) -> Task:
        return Task("only", self.split)


class Meeting(SingleAgentEnvironment):
    """Says a number at each step, when `meet` has returned."""

    spec = EnvSpec(
        id="test/meeting-v0",
        summary="Meets others.",
        endings={"enough": "termination"},
        reward_range=(0.0, 1.0),
        expert=True,
        blocking=True,
    )
    meet: ClassVar = staticmethod(lambda: None)
    closed: ClassVar[list] = []

    def seat(self, agent):
        return SeatSpec(FreeText(), FreeText())

    def taskset(self, split):
        return OneTask(split)

    def begin(self, task, seed):
        self._rng, self._left = stream(seed, "env"), 3
        return restart(str(self._rng.integers(1000)))

    def act(self, action):
        self.meet()
        self._left -= 1
        said = f"{action} {self._rng.integers(1000)}"
        return transition(said, 0.1) if self._left else termination(said, 1.0 / 3.0, ending="enough")

    def expert_action(self, agent, kind=None):
        return f"well, {self._left}"

    def score(self):
        return Score(float(self._rng.random()))

    def close(self):
        self.closed.append(threading.current_thread().name)


@pytest.fixture
def meeting(monkeypatch):
    """Register an environment that waits, for this test only."""
    cls = type("Meeting", (Meeting,), {"closed": []})
    monkeypatch.setitem(environments._classes, "test/meeting-v0", cls)
    return cls


def run_all(concurrency):
    scenario = parse_scenario(SCENARIO, [f"concurrency={concurrency}"]).resolve()
    progress, episodes, planned = Progress(), [], plan(scenario)
    asyncio.run(run(scenario, planned, lambda planned, episode: episodes.append(episode), progress=progress))
    return summarise(scenario, planned, progress.ends, wall_s=0.0), episodes


def timeless(summary):
    rows = [summary, *summary.comparisons]
    return [msgspec.structs.replace(row, env_s=0.0, agent_s=0.0) for row in rows[1:]], summary.score_mean


def digests(episodes):
    return {episode.record.episode: (episode.end.digest, episode.end.score.value) for episode in episodes}


# -- runs -------------------------------------------------------------------------------------------------------------


def test_episodes_of_an_environment_that_waits_are_played_side_by_side(meeting):
    barrier = threading.Barrier(8)
    meeting.meet = staticmethod(lambda: barrier.wait(WAIT_S))
    _, episodes = run_all(8)  # were they not, nobody would come to the meeting
    assert [episode.end.error for episode in episodes] == [None] * 8


def test_episodes_of_any_other_are_called_on_one_thread(meeting):
    meeting.spec = msgspec.structs.replace(Meeting.spec, blocking=False)
    threads = set()
    meeting.meet = staticmethod(lambda: threads.add(threading.current_thread()))
    run_all(8)
    assert threads == {threading.current_thread()}


def test_what_comes_out_does_not_depend_on_who_waits_and_who_is_done_first(meeting):
    one_by_one, calm = run_all(1)
    turn = iter(range(1000))
    meeting.meet = staticmethod(lambda: threading.Event().wait(0.002 * (next(turn) % 7)))
    side_by_side, mixed = run_all(8)
    meeting.spec, meeting.meet = msgspec.structs.replace(Meeting.spec, blocking=False), staticmethod(lambda: None)
    without, plain = run_all(1)
    assert digests(calm) == digests(mixed) == digests(plain)
    assert timeless(one_by_one) == timeless(side_by_side) == timeless(without)
    assert [episode.record.episode for episode in calm] == [episode.record.episode for episode in plain]


def test_an_environment_that_fails_on_its_thread_fails_its_own_episode(meeting):
    turn = iter(range(1000))

    def meet():
        if next(turn) == 5:
            raise RuntimeError("nobody came")

    meeting.meet = staticmethod(meet)
    _, episodes = run_all(4)
    failed = [episode.end.error.message for episode in episodes if episode.end.error]
    assert failed == ["test/meeting-v0: RuntimeError: nobody came"]
    assert len(meeting.closed) >= 8


def test_a_run_that_is_stopped_does_not_wait_for_a_call_that_does_not_return(meeting, monkeypatch):
    monkeypatch.setattr(apart_module, "_CLOSE_WITHIN_S", 0.1)
    waits, go = threading.Event(), threading.Event()
    meeting.meet = staticmethod(lambda: (waits.set(), go.wait(WAIT_S)))

    async def stopped():
        scenario = parse_scenario(SCENARIO).resolve()
        playing = asyncio.create_task(run(scenario, plan(scenario), lambda *_: None, progress=Progress()))
        await asyncio.to_thread(waits.wait, WAIT_S)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(stopped())
    assert "session" not in meeting.closed
    threads = [thread for thread in threading.enumerate() if thread.name == "session"]
    go.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert meeting.closed.count("session") == 1  # the call has returned: what it held is let go


def test_a_session_is_driven_and_closed_on_one_thread_which_then_ends(meeting):
    async def drive():
        session = SessionApart(Session(meeting(), meeting().taskset("train").task(0), 3))
        assert (await session.open()).index == 0
        assert await session.expert_action("player") == "well, 3"
        session.truncate("tokens", 2.0, 1.0)
        assert (await session.end()).limit.kind == "tokens"
        threads = [thread for thread in threading.enumerate() if thread.name == "session"]
        await session.close()
        return threads

    for thread in asyncio.run(drive()):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert meeting.closed == ["session"]


# -- batches ----------------------------------------------------------------------------------------------------------


class FadingApart(Fading):
    """The same game, declared as one that waits."""

    spec = msgspec.structs.replace(Fading.spec, blocking=True)
    meet: ClassVar = staticmethod(lambda: None)

    def reset(self, task, seed):
        self.meet()
        return super().reset(task, seed)

    def step(self, actions):
        self.meet()
        return super().step(actions)


def batch(game, per_seed=3):
    return EpisodeByEpisode(game, [4, 9], per_seed, split="train")


def legal(step, rng):
    return np.asarray(np.where(step.masks, rng.random(step.masks.shape), -1.0).argmax(-1))


def same(one, other):
    for name in type(one).__slots__:
        if name != "metrics":
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.metrics.keys() == other.metrics.keys()
    for name, values in one.metrics.items():
        np.testing.assert_array_equal(values, other.metrics[name], err_msg=name)


def test_batches_of_an_environment_that_waits_are_the_same_as_of_one_that_does_not():
    waiting, plain, rng = batch(FadingApart), batch(Fading), np.random.default_rng(0)
    shown = plain.reset()
    same(waiting.reset(), shown)
    for _ in range(20):
        actions = legal(shown, rng)
        shown = plain.step(actions)
        same(waiting.step(actions), shown)
    again = batch(FadingApart)
    same(again.restore(waiting.snapshot()), plain.restore(plain.snapshot()))
    actions = legal(shown, rng)
    same(again.step(actions), plain.step(actions))
    for one in (waiting, plain, again):
        one.close()
        one.close()


def test_rows_of_a_batch_wait_side_by_side(monkeypatch):
    barrier = threading.Barrier(6)
    waiting = batch(FadingApart)
    monkeypatch.setattr(FadingApart, "meet", staticmethod(lambda: barrier.wait(WAIT_S)))
    shown = waiting.reset()
    waiting.step(legal(shown, np.random.default_rng(0)))
    waiting.close()


def test_a_row_that_fails_lets_the_others_return_first(monkeypatch):
    waiting, returned = batch(FadingApart), []
    shown = waiting.reset()
    turn = iter(range(6))

    def meet():
        if next(turn) == 0:
            raise RuntimeError("nobody came")
        threading.Event().wait(0.05)
        returned.append(True)

    monkeypatch.setattr(FadingApart, "meet", staticmethod(meet))
    with pytest.raises(RuntimeError, match="nobody came"):
        waiting.step(legal(shown, np.random.default_rng(0)))
    assert len(returned) == 5
    waiting.close()


def test_calls_of_a_thread_are_made_in_order_and_what_they_raise_is_handed_over():
    thread, made = CallThread("calls"), []
    assert not thread.is_busy
    first, failing, last = (
        thread.submit(call) for call in (lambda: made.append(1), lambda: 1 // 0, lambda: made.append(2) or made)
    )
    assert last.result(WAIT_S) == [1, 2]
    assert first.result() is None
    with pytest.raises(ZeroDivisionError):
        failing.result()
    thread.stop()
