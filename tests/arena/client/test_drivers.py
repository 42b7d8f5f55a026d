import asyncio
import os
import threading

import pytest

import arena
from arena.client import AsyncClient
from arena.client.endpoint import endpoint
from arena.errors import (
    ArenaError,
    CapacityError,
    ConfigError,
    ForbiddenError,
    OutOfOrderError,
    SessionGoneError,
    TooLargeError,
    TransportError,
    UnauthorizedError,
    UsageError,
)
from arena.types import PLAYER

from .toy import Toy
from .toy_socket import serving, serving_in_thread

STEPS = 12


async def play(client, name):
    """Play a session to step `STEPS` and return what was said back."""
    session = await client.session("test/toy-v0")
    for index in range(1, STEPS + 1):
        await session.step(index, {PLAYER: f"{name}-{index}"})
    return session.id, [record.time_step.seats[PLAYER].observation for record in session.journal]


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


# -- addresses and handshakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:1", "ws://host:1/v1/ws"),
        ("https://host/", "wss://host/v1/ws"),
        ("ws://host:1/v1/ws", "ws://host:1/v1/ws"),
        ("wss://host/behind/a/proxy", "wss://host/behind/a/proxy/v1/ws"),
        ("http://[::1]:8700", "ws://[::1]:8700/v1/ws"),
    ],
)
def test_every_spelling_of_an_address_leads_to_the_endpoint(url, expected):
    assert endpoint(url) == expected


@pytest.mark.parametrize("url", ["host:1", "ftp://host", "http://", "http://user:pass@host", "http://host:99999", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="address"):
        endpoint(url)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        endpoint("http://user:secret@host")
    assert "secret" not in str(caught.value)


def test_the_token_is_shown_in_the_handshake():
    with serving_in_thread() as server, arena.connect(server.url, "a-token") as client:
        client.environments()
        assert server.headers["Authorization"] == "Bearer a-token"
        assert server.paths == ["/v1/ws"]


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "", "ümlaut"])
def test_a_token_that_is_none_is_refused_before_anything_is_sent(token):
    with serving_in_thread() as server, pytest.raises(ConfigError, match="token"):
        arena.connect(server.url, token)


@pytest.mark.parametrize(("status", "error"), [(401, UnauthorizedError), (403, ForbiddenError), (404, TransportError)])
def test_a_refused_handshake_says_why(status, error):
    with serving_in_thread(refuse=status) as server, pytest.raises(error):
        arena.connect(server.url)


def test_a_server_that_is_not_there_is_said_at_once():
    with serving_in_thread() as server:
        url = server.url
    with pytest.raises(TransportError, match="cannot reach"):
        arena.connect(url)


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_many_sessions_on_connections_that_break_all_the_time_miss_and_repeat_nothing(format):
    async def everything():
        async with serving(cut_after=9, echo=2) as server, AsyncClient(server.url, format=format) as client:
            played = await asyncio.gather(*(play(client, f"n{number}") for number in range(8)))
            return server.toy, server.connections, played

    toy, connections, played = run(everything())
    assert connections > 3
    assert len({session for session, _ in played}) == 8
    for number, (session, said) in enumerate(played):
        assert said == [f"{session} 0 ", *(f"{session} {i} n{number}-{i}" for i in range(1, STEPS + 1))]
    assert set(toy.applied.values()) == {1}


def test_threads_that_share_a_client_get_their_own_answers_on_breaking_connections():
    def work(client, number, played):
        session = client.session("test/toy-v0")
        for index in range(1, STEPS + 1):
            session.step(index, {PLAYER: f"t{number}-{index}"})
        played[number] = [record.actions[PLAYER] for record in session.journal[1:]]

    played = {}
    with serving_in_thread(cut_after=9) as server, arena.connect(server.url) as client:
        threads = [threading.Thread(target=work, args=(client, number, played)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(server.toy.applied.values()) == {1}
    assert played == {n: [f"t{n}-{i}" for i in range(1, STEPS + 1)] for n in range(6)}


def test_a_restart_of_the_server_is_only_a_delay():
    async def everything():
        async with serving() as server, AsyncClient(server.url) as client:
            session = await client.session("test/toy-v0")
            await session.step(1, {PLAYER: "a"})
            await server.stop()
            waiting = asyncio.create_task(session.step(2, {PLAYER: "b"}))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await server.start()
            await waiting
            return server.toy.applied

    assert set(run(everything()).values()) == {1}


def test_a_server_that_is_starting_is_tried_again():
    async def everything():
        async with serving() as server, AsyncClient(server.url) as client:
            server.close_with, server.refuse = 1012, 503
            waiting = asyncio.create_task(client.environments())
            while len(server.paths) < 3:
                await asyncio.sleep(0.01)
            server.refuse = None
            return await waiting

    assert run(everything())[0].id == "test/toy-v0"


def test_an_open_session_is_attached_again_though_nothing_is_asked():
    async def everything():
        async with serving() as server, AsyncClient(server.url) as client:
            await client.session("test/toy-v0")
            await server.stop()
            await server.start()
            while server.connections < 2:
                await asyncio.sleep(0.01)

    run(everything())


def test_frames_that_are_no_replies_cost_a_connection_and_nothing_else():
    with serving_in_thread(garbage=b"\x00garbage") as server, arena.connect(server.url) as client:
        assert client.environments()[0].id == "test/toy-v0"
        assert server.connections == 2


def test_a_silent_server_is_given_up():
    with serving_in_thread(mute=True) as server:
        client = arena.connect(server.url, timeout_s=0.1, reconnect_s=0.3)
        with client, pytest.raises(TransportError, match="does not answer") as caught:
            client.environments()
        assert caught.value.retryable
        assert server.connections > 1


def test_a_server_that_stays_away_is_given_up_and_found_again_when_it_is_back():
    with serving_in_thread() as server, arena.connect(server.url, reconnect_s=0.2) as client:
        session = client.session("test/toy-v0")
        server.call(server.stop())
        with pytest.raises(TransportError, match="cannot reach"):
            session.step(1, {PLAYER: "a"})
        with pytest.raises(TransportError, match="cannot reach"):
            session.step(1, {PLAYER: "a"})
        server.call(server.start())
        assert session.step(1, {PLAYER: "a"}).index == 1
        assert set(server.toy.applied.values()) == {1}


def test_a_token_that_is_no_longer_accepted_is_said_after_a_reconnect():
    async def everything():
        async with serving() as server, AsyncClient(server.url) as client:
            server.close_with, server.refuse = 1012, 401
            with pytest.raises(UnauthorizedError):
                await client.environments()

    run(everything())


def test_a_message_that_is_too_large_fails_alone_and_the_sessions_go_on():
    with serving_in_thread() as server, arena.connect(server.url) as client:
        session = client.session("test/toy-v0")
        with pytest.raises(TooLargeError):
            session.step(1, {PLAYER: "x" * 50_000})
        assert session.step(1, {PLAYER: "a"}).index == 1


def test_a_server_that_has_forgotten_the_session_is_said():
    with serving_in_thread() as server, arena.connect(server.url) as client:
        session = client.session("test/toy-v0")
        server.call(server.stop())
        server.toy = Toy()
        server.call(server.start())
        with pytest.raises(SessionGoneError, match=session.id):
            session.step(1, {PLAYER: "a"})
        assert session.status == "failed"
        assert session.end().error.code == "SESSION_GONE"
        assert session.end().score is None


# -- capacity, cancelling, closing ------------------------------------------------------------------------------------


def test_a_full_server_is_asked_again_when_it_says_so():
    with serving_in_thread() as server, arena.connect(server.url) as client:
        server.toy.full = 3
        assert client.session("test/toy-v0").status == "running"
        assert len(server.toy.sessions) == 1


def test_a_server_that_stays_full_is_said():
    with serving_in_thread() as server, arena.connect(server.url, reconnect_s=0.1) as client:
        server.toy.full = 10_000
        with pytest.raises(CapacityError):
            client.session("test/toy-v0")


def test_a_request_that_is_cancelled_leaves_the_others_alone():
    async def everything():
        async with serving(mute=True) as server, AsyncClient(server.url) as client:
            asked = asyncio.create_task(client.environments())
            await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            server.mute = False
            return await client.environments()

    assert run(everything())[0].id == "test/toy-v0"


def test_closing_fails_what_waits():
    with serving_in_thread(mute=True) as server:
        client = arena.connect(server.url)
        errors = []

        def ask():
            try:
                client.environments()
            except ArenaError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.connections:
            pass
        client.close()
        thread.join()
        assert isinstance(errors[0], TransportError)
        with pytest.raises(TransportError, match="closed"):
            client.environments()
        client.close()


def test_a_client_is_of_no_use_in_a_forked_process(monkeypatch):
    with serving_in_thread() as server, arena.connect(server.url) as client:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(UsageError, match="forked"):
            client.environments()


# -- many steps at once -----------------------------------------------------------------------------------------------


def test_many_steps_in_one_request_come_back_in_order_with_errors_in_place():
    with serving_in_thread() as server, arena.connect(server.url) as client:
        first, second, third = (client.session("test/toy-v0") for _ in range(3))
        server.toy.step(_as_step(second.id, 1, "somebody else's"), {second.id})
        done = client.session("test/toy-v0")
        done.close()
        results = client.step_many(
            [(first, {PLAYER: "a"}), (second, {PLAYER: "b"}), (done, {PLAYER: "d"}), (third, {PLAYER: "c"})]
        )
    assert results[0] is first.journal[1]
    assert isinstance(results[1], OutOfOrderError)
    assert "is closed" in str(results[2])
    assert results[3].actions == {PLAYER: "c"}


def _as_step(session, index, action):
    from arena.protocol import Step

    return Step(id=0, session=session, index=index, actions={PLAYER: action})
