"""The WebSocket endpoint: behind uvicorn's protocol and behind any other, with clients that do not read."""

import asyncio
import contextlib
import json
import uuid

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from arena.errors import UnauthorizedError
from arena.server.access import Caller, Principal
from arena.server.metrics import Metrics
from arena.server.websocket import WebSocketEndpoint
from tests.arena.server.harness_client import RawClient

pytestmark = pytest.mark.anyio
MEGABYTE = "x" * 10**6


class EchoHub:
    """Answers every request with its own body, backwards in time: the last one first."""

    def __init__(self):
        self.metrics, self.released, self.waiting = Metrics(), [], []

    def submit(self, request, caller, deliver, *, body, body_format, reply_format):
        assert body_format == reply_format
        self.waiting.append((deliver, body))
        if len(self.waiting) == 2:
            for answer, given in reversed(self.waiting):
                answer(given, None)
            self.waiting.clear()

    def release(self, caller):
        self.released.append(caller)


class Socket:
    """The application's end of an ASGI server that is not uvicorn."""

    def __init__(self, *frames):
        self._frames = asyncio.Queue()
        for frame in ({"type": "websocket.connect"}, *frames):
            self._frames.put_nowait(frame)
        self.sent = []

    async def receive(self):
        return await self._frames.get()

    async def send(self, message):
        self.sent.append(message)
        if sum(one["type"] == "websocket.send" for one in self.sent) == 3:
            self._frames.put_nowait({"type": "websocket.disconnect"})


def local(scope):
    return Caller(Principal("local", frozenset({"play"})))


async def test_behind_another_server_requests_are_answered_in_their_format_and_the_caller_released():
    requests = [json.dumps({"type": "environments", "id": number}) for number in (1, 2)]
    frames = [{"type": "websocket.receive", "text": text} for text in (*requests, "not json")]
    socket, hub = Socket(*frames), EchoHub()
    await asyncio.wait_for(WebSocketEndpoint(hub, local)({"type": "websocket"}, socket.receive, socket.send), 10)
    accepted, *replies = socket.sent
    assert accepted["type"] == "websocket.accept"
    found = [json.loads(reply["text"]) for reply in replies]
    assert [reply.get("id") for reply in found if reply["type"] == "environments"] == [2, 1]
    assert [reply["error"]["code"] for reply in found if reply["type"] == "error"] == ["USAGE"]
    assert len(hub.released) == 1


async def test_who_is_not_known_is_refused_before_the_connection_is_accepted():
    def nobody(scope):
        raise UnauthorizedError("who are you?")

    socket = Socket()
    scope = {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    await WebSocketEndpoint(EchoHub(), nobody)(scope, socket.receive, socket.send)
    start, body = socket.sent
    assert start["status"] == 401
    assert json.loads(body["body"])["error"]["code"] == "UNAUTHORIZED"


async def pipelined(socket, created, first, count):
    """Send steps without waiting for their answers."""
    for index in range(first, first + count):
        step = {"type": "step", "id": index, "session": created["session"], "index": index}
        await socket.send(json.dumps({**step, "actions": {"player": MEGABYTE[: 10**5]}}))


async def begin(socket):
    create = {"type": "create", "id": 0, "env": "test/echo-v0", "key": str(uuid.uuid4())}
    await socket.send(json.dumps(create))
    return json.loads(await socket.recv())


async def test_more_than_a_connection_may_have_in_flight_waits_and_is_answered(server):
    address = server.url.replace("http", "ws") + "/v1/ws"
    async with connect(address, compression=None, max_size=None) as socket:
        created = await begin(socket)
        count = 300  # 30 MB of requests, more than is held at once
        sending = asyncio.create_task(pipelined(socket, created, 1, count))
        answered = [json.loads(await socket.recv())["record"]["index"] for _ in range(count)]
        await sending
        assert answered == list(range(1, count + 1))


async def test_a_client_that_does_not_read_is_cut_off_and_can_come_back(server):
    address = server.url.replace("http", "ws") + "/v1/ws"
    async with connect(address, compression=None, max_size=None, max_queue=1, close_timeout=1) as socket:
        created = await begin(socket)
        with contextlib.suppress(ConnectionClosed):
            await asyncio.wait_for(pipelined(socket, created, 1, 2_000), 120)
            pytest.fail("2,000 answers were kept for a client that reads none")
    async with RawClient(server.url) as client:
        attached = await client.attach(created["capability"])
        assert 1 < attached["next"] < 2_000
        await client.step(created["session"], attached["next"], {"player": "I am back"})
        await client.close(created["session"])
