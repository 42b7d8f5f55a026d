import asyncio
import contextlib
import json
import socket

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from arena.protocol import ErrorReply
from arena.server import connections, guard
from arena.server.connections import GuardedHttp, GuardedWebSocket
from arena.server.guard import Guard
from arena.server.metrics import Metrics
from arena.server.pace import TokenBucket
from arena.server.settings import ServerSettings
from arena.types import decode_json

# -- token buckets --------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


rates = st.floats(0.01, 1e4)
bursts = st.floats(0.5, 1e3)
plays = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), max_size=50)


@given(rates, bursts, plays)
def test_no_more_is_given_than_the_rate_allows_besides_one_burst(rate, burst, play):
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    given_before, largest = 0.0, 0.0
    for pause_s, count in play:
        clock.now += pause_s
        largest = max(largest, count)
        if bucket.take(count) == 0:
            assert given_before <= burst + rate * clock.now + max(0, largest - burst) + 1e-3
            given_before += count
    assert given_before <= max(burst, largest) + largest + rate * clock.now + 1e-3


@given(rates, bursts, plays)
def test_who_waits_as_long_as_told_is_given_and_who_is_refused_loses_nothing(rate, burst, play):
    clock = Clock()
    bucket, calm = TokenBucket(rate, burst, clock), TokenBucket(rate, burst, clock)
    for pause_s, count in play:
        clock.now += pause_s
        wait_s = bucket.take(count)
        if wait_s:
            assert bucket.take(count) == pytest.approx(wait_s)
            clock.now += wait_s
            assert bucket.take(count) == 0
            assert calm.take(count) == 0
        else:
            assert calm.take(count) == 0


@given(rates, bursts)
def test_a_full_bucket_gives_a_burst_at_once_and_then_nothing(rate, burst):
    bucket = TokenBucket(rate, burst, Clock())
    assert bucket.take(burst) == 0
    assert bucket.take(1) == pytest.approx(min(1, burst) / rate)


def test_more_than_a_burst_is_given_to_a_full_bucket_and_paid_back():
    clock = Clock()
    bucket = TokenBucket(10, 5, clock)
    assert bucket.take(25) == 0
    assert bucket.take(1) == pytest.approx(2.1)
    clock.now = 2.2
    assert bucket.take(1) == 0


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_a_bucket_without_rate_or_burst_is_a_mistake(rate, burst):
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(rate, burst)


# -- requests: the middleware alone ---------------------------------------------------------------------------------


class App:
    """Reads its request and answers 200."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, scope, receive, send):
        message = await receive()
        assert message["type"] == "http.request"
        assert not message.get("more_body")
        self.bodies.append(message.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"max-age=5")]})
        await send({"type": "http.response.body", "body": b"ok"})


def exchange(middleware, receive, **scope):
    """Return status, headers and body of the answer to a request; None where there is no answer."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "http_version": "1.1", "path": "/", **scope}
    asyncio.run(middleware(scope, receive, send))
    if not sent:
        return None
    assert not sent[-1].get("more_body")
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


async def no_body():
    return {"type": "http.request", "body": b"", "more_body": False}


def ask(*hosts, headers=(), method="GET", version="1.1", **settings):
    """Return the answer to a request without a body."""
    given = [(b"host", host.encode("latin-1")) for host in hosts] + list(headers)
    guarded = Guard(App(), ServerSettings(**settings))
    return exchange(guarded, no_body, headers=given, method=method, http_version=version)


def post_parts(*parts, app=None, length=None, then=None):
    """Return the answer to a request whose body comes in these parts, and then in what `then` returns."""
    given = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", length)
    messages = [
        {"type": "http.request", "body": part, "more_body": then is not None or number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive():
        return messages.pop(0) if messages else await then()

    guarded = Guard(app or App(), ServerSettings(max_message_bytes=100))
    return exchange(guarded, receive, headers=[(b"host", b"localhost"), given])


def refused(answer, status, code):
    found, headers, body = answer
    assert found == status, body
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body)
    reply = decode_json(body, ErrorReply)
    assert reply.error.code == code
    return reply.error


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8700",
        "localhost",
        "LocalHost:9000",
        "localhost.:1",
        "[::1]",
        "[::1]:8700",
        "127.0.0.5:1",
    ],
)
def test_a_server_without_tokens_answers_to_its_own_names_at_any_port(host):
    assert ask(host, host="127.0.0.5")[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        ["evil.example:8700"],
        ["127.0.0.1.evil.example"],
        ["localhost@evil.example"],
        ["evil.example#localhost"],
        ["localhost evil.example"],
        ["localhost:port"],
        ["localhost", "evil.example"],
        ["localhost", "localhost"],
        [""],
        ["\xff"],
        [],
    ],
)
def test_a_server_without_tokens_answers_to_no_other_name(hosts):
    refused(ask(*hosts), 421, "FORBIDDEN")


def test_a_server_with_tokens_may_stand_behind_any_name():
    assert ask("arena.example.org", token_file="tokens")[0] == 200


def test_an_old_client_need_not_name_the_host():
    assert ask(version="1.0")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "X"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost",
        "http://localhost:8701",
        "http://127.0.0.1:8700",
        "http://localhost:8700.evil.example",
        "file://localhost:8700",
        "localhost:8700",
        "http://localhost:8700/",
        "",
    ],
)
def test_a_page_of_another_origin_changes_nothing(method, origin):
    answer = ask("localhost:8700", method=method, headers=[(b"origin", origin.encode())])
    refused(answer, 403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8700", "http://localhost:8700"),
        ("localhost:8700", "http://LOCALHOST:8700"),
        ("[::1]:8700", "http://[::1]:8700"),
        ("arena.example.org", "https://arena.example.org"),
    ],
)
def test_our_own_pages_may_send_forms(host, origin):
    headers = [(b"origin", origin.encode())]
    assert ask(host, method="POST", headers=headers, token_file="tokens")[0] == 200


def test_reading_is_open_to_links_from_elsewhere():
    assert ask("localhost", headers=[(b"origin", b"http://evil.example")])[0] == 200


def test_two_origins_are_none():
    headers = [(b"origin", b"http://localhost"), (b"origin", b"http://localhost")]
    refused(ask("localhost", method="POST", headers=headers), 403, "FORBIDDEN")


def test_a_body_comes_whole_up_to_the_limit():
    app = App()
    assert post_parts(b"a" * 60, b"", b"b" * 40, app=app)[0] == 200
    assert post_parts(b"c" * 100, length=b"100", app=app)[0] == 200
    assert app.bodies == [b"a" * 60 + b"b" * 40, b"c" * 100]


@pytest.mark.parametrize(
    ("parts", "length"),
    [([b"a" * 101], None), ([b"a" * 60, b"b" * 41], None), ([b""], b"101"), ([b""], b"9" * 30)],
)
def test_a_larger_body_never_reaches_the_application(parts, length):
    app = App()
    error = refused(post_parts(*parts, length=length, app=app), 413, "TOO_LARGE")
    assert "100 bytes" in error.message
    assert app.bodies == []


async def silence():
    await asyncio.sleep(3600)


async def drip():
    await asyncio.sleep(0.001)
    return {"type": "http.request", "body": b"", "more_body": True}


@pytest.mark.parametrize(("seconds", "then"), [("BODY_PAUSE_S", silence), ("BODY_S", drip), ("BODY_S", silence)])
def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch, seconds, then):
    monkeypatch.setattr(guard, seconds, 0.05)
    monkeypatch.setattr(guard, "_LINGER_S", 0.01)
    app = App()
    error = refused(post_parts(b"abc", then=then, app=app), 408, "TRANSPORT")
    assert error.retryable
    assert app.bodies == []


def test_a_client_that_leaves_in_the_middle_gets_no_answer():
    async def gone():
        return {"type": "http.disconnect"}

    app = App()
    assert post_parts(b"abc", then=gone, app=app) is None
    assert app.bodies == []


def test_large_bodies_are_held_only_so_many_at_once_and_small_ones_go_on(monkeypatch):
    monkeypatch.setattr(guard, "HELD_BYTES", 100)
    monkeypatch.setattr(guard, "SMALL_BYTES", 10)
    answers = {}

    async def play():
        leave = asyncio.Event()

        async def app(scope, receive, send):
            await receive()
            if scope["path"] == "/first":
                await leave.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        middleware = Guard(app, ServerSettings())

        async def post(name, size):
            headers = [(b"host", b"localhost"), (b"content-length", b"%d" % size)]
            scope = {"type": "http", "method": "POST", "http_version": "1.1", "path": name, "headers": headers}
            sent = []

            async def receive():
                return {"type": "http.request", "body": b"a" * size, "more_body": False}

            async def send(message):
                sent.append(message)

            await middleware(scope, receive, send)
            answers[name] = (sent[0]["status"], dict(sent[0]["headers"]), sent[1].get("body"))

        first = asyncio.create_task(post("/first", 90))
        await asyncio.sleep(0)
        await post("/second", 20)
        await post("/small", 5)
        leave.set()
        await first
        await post("/third", 90)

    asyncio.run(play())
    assert refused(answers["/second"], 503, "CAPACITY_REACHED").details == {"retry_after_s": 1.0}
    assert answers["/second"][1][b"retry-after"] == b"1"
    assert [answers[name][0] for name in ("/first", "/small", "/third")] == [200, 200, 200]


def test_every_answer_has_security_headers_and_the_application_s_own_word_stands():
    for answer in (ask("localhost"), post_parts(b"a" * 101)):
        for name in ("x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy"):
            assert name.encode() in answer[1]
    headers = ask("localhost")[1]
    assert headers[b"Cache-Control"] == b"max-age=5"
    assert b"cache-control" not in headers


def test_the_lifespan_is_the_application_s_own():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, ServerSettings())({"type": "lifespan"}, None, send))
    assert sent == [{"type": "lifespan.startup.complete"}]


# -- connections: uvicorn with the guarded protocols ----------------------------------------------------------------


async def echo(scope, receive, send):
    """Answers HTTP with the body, WebSockets with each message; `/early` does not read its body."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(message.get("text") or message["bytes"]))})
        return
    body = b"" if scope["path"] == "/early" else (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(max_connections=100, metrics=None, app=echo, **settings):
    """Run a server on a free port, and yield the port."""
    guarded = Guard(app, ServerSettings(**{"max_message_bytes": 100_000, **settings}))
    config = uvicorn.Config(
        guarded,
        http=GuardedHttp.bounded(max_connections, metrics),
        ws=GuardedWebSocket,
        ws_max_size=100_000,
        ws_ping_interval=0.02,
        ws_ping_timeout=None,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server._serve([listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class Peer:
    """A client that sends what it likes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        """Return status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def refusal(self):
        """Return status and code of the answer, after which the server must close."""
        status, headers, body = await self.answer()
        assert headers["connection"] == "close"
        assert await self.reader.read() == b""
        return status, json.loads(body)["error"]["code"]


@contextlib.asynccontextmanager
async def peer(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def talk(play, **kwargs):
    """Run `play(peer, port)` against a server."""

    async def run():
        async with serving(**kwargs) as port, peer(port) as client:
            await play(client, port)

    asyncio.run(asyncio.wait_for(run(), 30))


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body, *headers):
    lines = [b"POST / HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def test_one_connection_serves_many_requests_in_any_cut():
    async def play(client, port):
        for size in (0, 5, 50_000):
            client.send(post(b"a" * size))
            assert (await client.answer())[2] == b"a" * size
        for byte in post(b"abc"):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer())[2] == b"abc"
        client.send(post(b"first") + post(b"second") + post(b"third"))
        assert [(await client.answer())[2] for _ in range(3)] == [b"first", b"second", b"third"]

    talk(play)


@pytest.mark.parametrize("begun", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local", GET[:-2]])
def test_headers_that_do_not_come_are_not_waited_for(monkeypatch, begun):
    monkeypatch.setattr(connections, "HEADERS_S", 0.1)

    async def play(client, port):
        client.send(begun)
        assert await client.refusal() == (408, "TRANSPORT")

    talk(play)


def test_dripping_headers_and_later_requests_have_the_same_deadline(monkeypatch):
    monkeypatch.setattr(connections, "HEADERS_S", 0.2)

    async def play(client, port):
        client.send(GET)
        assert (await client.answer())[0] == 200
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")

        async def drip():
            while True:
                client.send(b"X: y\r\n")
                await asyncio.sleep(0.01)

        task = asyncio.create_task(drip())
        assert await client.refusal() == (408, "TRANSPORT")
        task.cancel()

    talk(play)


@pytest.mark.parametrize("idle", [b"", b"\r\n"])
def test_a_connection_that_never_asks_is_closed_without_a_word(monkeypatch, idle):
    monkeypatch.setattr(connections, "HEADERS_S", 0.1)

    async def play(client, port):
        client.send(idle)
        assert await client.reader.read() == b""

    talk(play)


def test_a_request_under_way_has_no_deadline_here(monkeypatch):
    monkeypatch.setattr(connections, "HEADERS_S", 0.05)

    async def slow(scope, receive, send):
        await asyncio.sleep(0.2)
        await echo(scope, receive, send)

    async def play(client, port):
        client.send(post(b"abc"))
        assert (await client.answer())[2] == b"abc"

    talk(play, app=slow)


ENDLESS = b"a" * 10_000


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET /", ENDLESS),
        (b"GET / HTTP/1.1\r\nX: ", ENDLESS),
        (b"GET / HTTP/1.1\r\n", b"X" * 10_000),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 100),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b""),
        (b"GET /early HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", ENDLESS),
        (b"GET /early HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;x=", ENDLESS),
    ],
    ids=["path", "value", "name", "many", "at once", "trailer", "chunk extension"],
)
def test_endless_headers_are_cut_off(monkeypatch, begun, more):
    monkeypatch.setattr(guard, "BODY_PAUSE_S", 5.0)

    async def play(client, port):
        client.send(begun)
        sent = 0
        while more and sent < 5_000_000 and not client.reader.at_eof() and not client.reader._buffer:
            client.send(more)
            sent += len(more)
            await asyncio.sleep(0.001)
        assert sent < 1_000_000
        found = await client.reader.read()
        assert found == b"" or b" 431 " in found or b" 400 " in found
        if b"chunked" not in begun:
            assert b" 431 " in found
            assert b"TOO_LARGE" in found

    talk(play)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_as_an_error_and_costs_nobody_else_anything(junk):
    async def play(client, port):
        client.send(junk)
        assert await client.refusal() == (400, "USAGE")
        async with peer(port) as other:
            other.send(GET)
            assert (await other.answer())[0] == 200

    talk(play)


def test_a_body_that_is_too_large_is_answered_though_the_client_still_sends(monkeypatch):
    async def play(client, port):
        body = b"a" * 3_000_000
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.send(body)
        await client.writer.drain()
        assert await client.refusal() == (413, "TOO_LARGE")

    talk(play)


def test_who_asks_before_sending_a_large_body_is_told_at_once():
    async def play(client, port):
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        client.send(head)
        assert await client.refusal() == (413, "TOO_LARGE")

    talk(play)


def test_connections_beyond_the_most_are_told_to_come_back():
    metrics = Metrics()

    async def play(client, port):
        async with contextlib.AsyncExitStack() as stack:
            held = [client, *[await stack.enter_async_context(peer(port)) for _ in range(2)]]
            for one in held:
                one.send(GET)
                await one.answer()
            async with peer(port) as late:
                status, headers, body = await late.answer()
                assert (status, headers["retry-after"]) == (503, "1")
                assert decode_json(body, ErrorReply).error.code == "CAPACITY_REACHED"
            assert b'arena_connections{transport="http"} 4.0' in metrics.render()[0]
            for one in held:
                one.send(GET)
                assert (await one.answer())[0] == 200
            held[1].writer.close()
            await held[1].writer.wait_closed()
            while b'arena_connections{transport="http"} 2.0' not in metrics.render()[0]:
                await asyncio.sleep(0.005)
            async with peer(port) as late:
                late.send(GET)
                assert (await late.answer())[0] == 200

    talk(play, max_connections=3, metrics=metrics)


def test_a_websocket_works_and_no_longer_counts_as_http():
    metrics = Metrics()

    async def play(client, port):
        async with connect(f"ws://127.0.0.1:{port}/", compression=None) as ws:
            await ws.send("a" * 50_000)
            assert await ws.recv() == "50000"
            await ws.send([b"a" * 1000] * 50)
            assert await ws.recv() == "50000"
            assert b'arena_connections{transport="http"} 1.0' in metrics.render()[0]

    talk(play, metrics=metrics)


@pytest.mark.parametrize(
    ("headers", "status"), [({"Origin": "http://evil.example"}, 403), ({"Host": "evil.example"}, 421)]
)
def test_no_page_of_another_origin_opens_a_websocket(headers, status):
    async def play(client, port):
        names = "\r\n".join(f"{name}: {value}" for name, value in ({"Host": f"127.0.0.1:{port}"} | headers).items())
        rest = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        client.send(f"GET / HTTP/1.1\r\n{names}\r\n{rest}\r\n{key}\r\n\r\n".encode())
        found, answered, body = await client.answer()
        assert (found, json.loads(body)["error"]["code"]) == (status, "FORBIDDEN")
        assert answered["x-content-type-options"] == "nosniff"

    talk(play)


def test_a_page_of_ours_opens_a_websocket():
    async def play(client, port):
        async with connect(f"ws://127.0.0.1:{port}/", origin=f"http://127.0.0.1:{port}") as ws:
            await ws.send("abc")
            assert await ws.recv() == "3"
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{port}/", origin="http://127.0.0.1")

    talk(play)


def test_a_message_of_countless_fragments_ends_its_connection_alone(monkeypatch):
    monkeypatch.setattr(connections, "_MAX_FRAGMENTS", 100)

    async def play(client, port):
        async with connect(f"ws://127.0.0.1:{port}/", compression=None) as other:
            async with connect(f"ws://127.0.0.1:{port}/", compression=None) as ws:
                with contextlib.suppress(ConnectionClosed):
                    await ws.send([b"a"] + [b""] * 5000)
                with pytest.raises(ConnectionClosed) as caught:
                    await ws.recv()
                assert caught.value.rcvd.code == 1009
            await other.send([b"a"] * 99)
            assert await other.recv() == "99"

    talk(play)


def test_a_client_that_answers_no_ping_is_not_cut_off():
    async def play(client, port):
        client.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 101 " in await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(10):
            assert (await client.reader.readexactly(6))[:2] == b"\x89\x04"  # a ping of four bytes
        client.send(b"\x81\x83\x00\x00\x00\x00abc")  # a masked text frame
        while (head := await client.reader.readexactly(2)) == b"\x89\x04":
            await client.reader.readexactly(4)
        assert (head, await client.reader.readexactly(1)) == (b"\x81\x01", b"3")

    talk(play)


def test_the_kernel_is_told_to_notice_dead_peers():
    class Transport:
        def __init__(self, raw):
            self.raw = raw

        def get_extra_info(self, name):
            return self.raw if name == "socket" else None

    with socket.socket() as raw:
        connections._notice_dead_peer(Transport(raw))
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == connections.PEER_S * 1000
    connections._notice_dead_peer(Transport(None))
