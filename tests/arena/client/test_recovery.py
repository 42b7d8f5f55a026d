"""Kills and restarts of the real server, as its clients see them: a delay, and nothing twice."""

import threading

import pytest

import arena
from arena import Session
from arena.errors import SessionGoneError
from arena.types import PLAYER
from tests.arena.server.harness import ServerProcess

GUESSES = ("1", "2", "3", "4", "6", "7", "8")


def told(journal):
    return [(record.index, record.time_step, record.actions, record.digest) for record in journal]


@pytest.fixture(scope="module")
def expected():
    env = arena.make("text/guess-v0")
    session = Session(env, env.taskset("test").get("range-50"), 3)
    session.open()
    for index, guess in enumerate(GUESSES, 1):
        session.step(index, {PLAYER: guess})
    return told(session.journal)


@pytest.fixture
def durable(tmp_path):
    server = ServerProcess(tmp_path / "server", workers=2, state=str(tmp_path / "state")).start()
    yield server
    assert server.stop() == 0
    assert server.left_behind() == []


def opened(client):
    return client.session("text/guess-v0", task="range-50", split="test", seed=3)


def test_a_worker_that_is_killed_is_only_a_delay(durable, expected):
    with arena.connect(durable.url) as client:
        sessions = [opened(client) for _ in range(4)]
        for index, guess in enumerate(GUESSES):
            if index in (2, 5):
                durable.kill_worker()
            for record in client.step_many([(session, {PLAYER: guess}) for session in sessions]):
                assert record.index == index + 1
        assert [told(session.journal) for session in sessions] == [expected] * 4


def test_a_server_that_is_killed_and_comes_back_is_only_a_delay(durable, expected):
    with arena.connect(durable.url) as client:
        session = opened(client)
        for guess in GUESSES[:3]:
            session.act(guess)
        durable.kill()
        back = threading.Timer(0.5, durable.start)
        back.start()
        for guess in GUESSES[3:]:
            session.act(guess)
        back.join()
        assert told(session.journal) == expected
        forked = session.fork(at=2)
        assert told(forked.journal) == expected[:3]


def test_a_server_without_memory_says_that_the_session_is_gone(tmp_path):
    server = ServerProcess(tmp_path / "server", workers=1).start()
    with arena.connect(server.url) as client:
        session = opened(client)
        assert server.stop() == 0
        server.start()
        with pytest.raises(SessionGoneError):
            session.act("1")
        assert client.session("text/guess-v0").acting == (PLAYER,)
    assert server.stop() == 0
