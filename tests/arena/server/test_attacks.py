"""Clients that mean ill, or do not know what they say: each gets a typed error, and the server serves the others."""

import asyncio
import json
import socket

import httpx
import msgspec
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.arena.server.harness import ServerProcess
from tests.arena.server.harness_client import RawClient, Refused

pytestmark = pytest.mark.anyio

MAX_BYTES = 64 * 2**10


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A server that must survive every test of this module with the workers that it began with."""
    one = ServerProcess(
        tmp_path_factory.mktemp("attacked"), max_message_bytes=MAX_BYTES, lease_s=2.0, workers=1, step_timeout_s=5.0
    ).start()
    yield one
    assert one.metric("arena_worker_restarts_total") == 0
    assert one.stop() == 0
    assert one.left_behind() == []
    assert "Traceback" not in one.log.read_text()


@pytest.fixture
async def bystander(attacked):
    """A client whose session was open before the attack, and must go on after it."""
    async with RawClient(attacked.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        yield client
        assert (await client.step(session, 1, {"player": "still here"}))["index"] == 1
        await client.ask("close", session=session)
        assert client.connections == 1
        assert client.mispaired == []


# -- frames ---------------------------------------------------------------------------------------------------------

MALFORMED = {
    "nothing": "",
    "no JSON": "{",
    "a number": "3",
    "a list": "[]",
    "no type": '{"id": 1}',
    "an unknown type": '{"id": 1, "type": "eval"}',
    "no id": '{"type": "environments"}',
    "an id that is none": '{"id": [1], "type": "environments"}',
    "an unknown field": '{"id": 1, "type": "environments", "class": "os.system"}',
    "a missing field": '{"id": 1, "type": "step", "session": "x"}',
    "a wrong type": '{"id": 1, "type": "step", "session": "x", "index": "one", "actions": {}}',
    "an action that is none": '{"id": 1, "type": "step", "session": "x", "index": 1, "actions": {"player": [1]}}',
    "a type inside that is none": '{"id": 1, "type": "act", "session": "x", "index": 1, "action": {"type": "object"}}',
    "deep nesting": '{"id": 1, "type": "describe", "env": "x", "options": ' + '{"a":' * 5000 + "1" + "}" * 5001,
    "deep lists": "[" * 20_000,
    "NaN": '{"id": 1, "type": "read", "session": "x", "wait_s": NaN}',
    "infinity": '{"id": 1, "type": "read", "session": "x", "wait_s": 1e999}',
    "a negative limit": '{"id": 1, "type": "create", "env": "x", "key": "12345678", "limits": {"steps": -1}}',
    "bytes as text": b"\x81\xa2id\x01",
    "cut off": b"\x82\xa2id\x01\xa4type",
    "text that is none": b"\x82\xa2id\x01\xa4type\xa2\xff\xfe",
    "deep MessagePack": b"\x91" * 20_000,
    "a huge length": b"\xdf\xff\xff\xff\xff",
    "an extension type": b"\x82\xa2id\x01\xa4type\xd4\x01\x00",
}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_frame_gets_a_typed_error_and_the_connection_goes_on(attacked, bystander, frame):
    async with connect(attacked.url.replace("http", "ws") + "/v1/ws") as client:
        await client.send(frame)
        error = decoded(await client.recv())
        assert (error["type"], error["error"]["code"]) == ("error", "USAGE")
        await client.send('{"id": "after", "type": "environments"}')
        assert decoded(await client.recv())["type"] == "environments"


async def test_an_error_names_the_request_wherever_its_id_can_be_read(attacked):
    async with connect(attacked.url.replace("http", "ws") + "/v1/ws") as client:
        await client.send('{"id": "mine", "type": "eval"}')
        assert decoded(await client.recv())["id"] == "mine"


async def test_text_that_is_not_utf8_ends_the_connection_and_no_other(attacked, bystander):
    async with connect(attacked.url.replace("http", "ws") + "/v1/ws") as client:
        await client.send(b"\xff\xfe{}", text=True)
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def test_a_frame_that_is_too_large_ends_the_connection_and_no_other(attacked, bystander):
    async with connect(attacked.url.replace("http", "ws") + "/v1/ws") as client:
        await client.send("x" * (MAX_BYTES + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd.code == 1009


# -- values ---------------------------------------------------------------------------------------------------------

HUGE = 10**30
ODD_REQUESTS = {
    "a huge seed": ("create", {"env": "test/echo-v0", "key": "a huge seed", "seed": HUGE}),
    "a huge option": ("create", {"env": "test/echo-v0", "key": "a huge option", "options": {"steps": HUGE}}),
    "a huge limit": ("create", {"env": "test/echo-v0", "key": "a huge limit", "limits": {"steps": HUGE}}),
    "a huge page": ("tasks", {"env": "test/echo-v0", "start": HUGE, "stop": HUGE + 1}),
    "a huge option to describe": ("describe", {"env": "test/echo-v0", "options": {"steps": HUGE}}),
    "a page before the first": ("tasks", {"env": "test/echo-v0", "start": -HUGE}),
    "a short key": ("create", {"env": "test/echo-v0", "key": "x"}),
    "a long key": ("create", {"env": "test/echo-v0", "key": "x" * 10_000}),
    "no such split": ("tasks", {"env": "test/echo-v0", "split": "../../etc"}),
    "an unknown option": ("create", {"env": "test/echo-v0", "key": "an option", "options": {"__class__": "x"}}),
    "no lease": ("create", {"env": "test/echo-v0", "key": "no lease at all", "lease_s": 0.0}),
    "a long lease": ("create", {"env": "test/echo-v0", "key": "a long lease", "lease_s": 1e300}),
    "a seat that is none": ("create", {"env": "test/echo-v0", "key": "no such seat", "seats": {"nobody": {}}}),
    "a huge limit of time": (
        "create",
        {"env": "test/echo-v0", "key": "a long time", "limits": {"wall_time_s": 1e300}},
    ),
}


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize(("type", "fields"), ODD_REQUESTS.values(), ids=ODD_REQUESTS.keys())
async def test_an_odd_value_is_the_callers_mistake(attacked, bystander, type, fields, format):
    request = {"type": type, "id": "odd", **fields}
    try:
        frame = json.dumps(request) if format == "json" else msgspec.msgpack.encode(request)
    except OverflowError:
        pytest.skip("MessagePack has no such integer")
    async with connect(attacked.url.replace("http", "ws") + "/v1/ws") as client:
        await client.send(frame)
        reply = decoded(await client.recv())
        if reply["type"] == "error":
            assert reply["error"]["code"] in ("USAGE", "CONFIG", "UNSUPPORTED", "UNKNOWN_ID")
        else:
            assert type == "tasks"
            assert fields["start"] < 0


async def test_a_huge_id_comes_back_as_it_is(attacked, bystander):
    async with connect(attacked.url.replace("http", "ws") + "/v1/ws") as client:
        await client.send(json.dumps({"type": "environments", "id": HUGE}))
        assert decoded(await client.recv())["id"] == HUGE


ODD_STEPS = {
    "a huge index": {"index": HUGE},
    "a huge action": {"actions": {"player": HUGE}},
    "huge usage": {"usage": {"input_tokens": HUGE}},
    "a huge number in a decision": {"decisions": {"player": {"n": HUGE}}},
    "deep decisions": {"decisions": {"player": {"n": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}}},
    "a seat that is none": {"actions": {"nobody": "a"}},
    "no seat": {"actions": {}},
    "too many seats": {"actions": {"player": "a", "nobody": "b"}},
    "a huge id": {"id": HUGE, "actions": {"player": 1}},
    "a tool that is none": {"actions": {"player": {"type": "tool_call", "name": "os.system", "arguments": {"a": "b"}}}},
    "an array of objects": {"actions": {"player": {"type": "array", "dtype": "O", "shape": [1], "data": "AAAA"}}},
    "an array that overflows": {
        "actions": {"player": {"type": "array", "dtype": "int8", "shape": [2**40, 2**40], "data": ""}}
    },
    "a negative shape": {"actions": {"player": {"type": "array", "dtype": "int8", "shape": [-1], "data": "AA=="}}},
    "text of half a pair": {"actions": {"player": "\ud800"}},
}


@pytest.mark.parametrize("fields", ODD_STEPS.values(), ids=ODD_STEPS.keys())
async def test_an_odd_step_is_refused_and_the_session_goes_on_as_if_it_had_not_been_sent(attacked, bystander, fields):
    async with RawClient(attacked.url, format="json") as client:
        session = (await client.create("test/echo-v0"))["session"]
        request = {"type": "step", "id": "odd", "session": session, "index": 1, "actions": {"player": "a"}, **fields}
        await client.say(json.dumps(request))
        taken = (await client.ask("read", session=session))["next"] - 1
        assert taken == (fields is ODD_STEPS["deep decisions"])
        record = await client.step(session, taken + 1, {"player": "b"})
        assert record["index"] == taken + 1
        closed = await client.ask("close", session=session)
        assert closed["end"]["steps"] == taken + 1
        lines = (await client.ask("trace", session=session))["lines"]
        assert len(lines.splitlines()) == taken + 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_numbers_that_json_does_not_have_never_get_into_a_trace(attacked, bystander, value):
    async with RawClient(attacked.url) as client:
        for n, (type, fields) in enumerate(
            [
                ("step", {"index": 1, "actions": {"player": "a"}, "usage": {"cost_usd": value}}),
                ("step", {"index": 1, "actions": {"player": "a"}, "agent_s": {"player": value}}),
                ("truncate", {"index": 1, "limit": {"kind": "cost", "value": value, "limit": 1.0}}),
                ("close", {"usage": {"cost_usd": value}}),
            ]
        ):
            session = (await client.create("test/echo-v0", key=f"not a number {n} {value}"))["session"]
            with pytest.raises(Refused) as refused:
                await client.ask(type, session=session, **fields)
            assert refused.value.code == "USAGE"
            assert (await client.step(session, 1, {"player": "a"}))["index"] == 1
            await client.ask("close", session=session)
            read = await client.ask("read", session=session)
            assert (read["status"], len(read["records"])) == ("closed", 2)


# -- other people's sessions ----------------------------------------------------------------------------------------


async def test_a_session_can_be_reached_only_with_its_capability(attacked, bystander):
    async with RawClient(attacked.url) as owner, RawClient(attacked.url) as thief:
        created = await owner.create("test/echo-v0")
        own = await thief.create("test/echo-v0")
        session = created["session"]
        for type, fields in {
            "step": {"index": 1, "actions": {"player": "a"}},
            "act": {"index": 1, "action": "a"},
            "truncate": {"index": 1, "limit": {"kind": "steps", "value": 1, "limit": 1}},
            "expert": {"seat": "player"},
            "read": {},
            "fork": {"key": "a fork by a thief"},
            "close": {},
            "trace": {},
        }.items():
            for id in (session, "no-such-session"):
                with pytest.raises(Refused, match="no such session, or its capability was not shown") as refused:
                    await thief.ask(type, session=id, **fields)
                assert refused.value.code == "UNKNOWN_ID"
        results = await thief.ask("step_many", steps=[{"session": session, "index": 1, "actions": {"player": "a"}}])
        assert results["results"][0]["error"]["code"] == "UNKNOWN_ID"
        assert (await owner.ask("read", session=session))["next"] == 1
        assert (await thief.step(own["session"], 1, {"player": "a"}))["index"] == 1


async def test_a_capability_that_was_tampered_with_opens_nothing(attacked, bystander):
    async with RawClient(attacked.url) as owner, RawClient(attacked.url) as thief:
        created = await owner.create("test/match-v0", seats={})
        own = await thief.create("test/match-v0", seats={})
        capability, watch, seat = created["capability"], created["watch"], created["seat_capabilities"]["left"]
        session, _, signature = capability.split(".")
        forged = [
            "",
            "..",
            "a.b.c",
            capability[:-1],
            capability[:-1] + ("A" if capability[-1] != "A" else "B"),
            capability + "A",
            capability.replace(".owner.", ".watch."),
            watch.replace(".watch.", ".owner."),
            seat.replace(seat.split(".")[1], "owner"),
            seat.replace(seat.split(".")[1], created["seat_capabilities"]["right"].split(".")[1]),
            f"{own['session']}.owner.{signature}",
            f"{session}.owner.{own['capability'].split('.')[2]}",
            f"{session}.root.{signature}",
            f"{session}.owner.{'A' * 43}",
            capability.upper(),
            capability + "\x00",
            "é" * 100,
            "../" * 50,
            "x" * 50_000,
        ]
        for text in forged:
            with pytest.raises(Refused) as refused:
                await thief.ask("attach", capability=text)
            assert refused.value.code == "UNAUTHORIZED"
        with pytest.raises(Refused):
            await thief.ask("read", session=session)


async def test_a_seats_capability_is_no_owners(attacked, bystander):
    async with RawClient(attacked.url) as owner, RawClient(attacked.url) as seat, RawClient(attacked.url) as watcher:
        created = await owner.create("test/match-v0", seats={})
        session = created["session"]
        await seat.attach(created["seat_capabilities"]["left"])
        await watcher.attach(created["watch"])
        for client in (seat, watcher):
            for type, fields in {
                "step": {"index": 1, "actions": {"left": 1, "right": 1}},
                "truncate": {"index": 1, "limit": {"kind": "steps", "value": 1, "limit": 1}},
                "expert": {"seat": "left"},
                "fork": {"key": "a fork by a seat"},
                "close": {},
            }.items():
                with pytest.raises(Refused) as refused:
                    await client.ask(type, session=session, **fields)
                assert refused.value.code == "FORBIDDEN"
        with pytest.raises(Refused) as refused:
            await seat.ask("trace", session=session)
        assert refused.value.code == "FORBIDDEN"
        with pytest.raises(Refused) as refused:
            await watcher.ask("act", session=session, index=1, action=1, seat="left")
        assert refused.value.code == "FORBIDDEN"


PATHS = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "a/../../b",
    "..\\..\\x",
    "\x00",
    "%00",
    "~root",
    ".",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_id_is_a_path(attacked, bystander, path):
    async with RawClient(attacked.url) as client:
        for type, fields in [
            ("describe", {"env": path}),
            ("create", {"env": path, "key": "a path for an env"}),
            ("create", {"env": "text/" + path, "key": "a path in an env"}),
            ("create", {"env": "text/guess-v0", "task": path, "key": "a path for a task"}),
            ("create", {"env": "text/textworld-v0", "task": path, "key": "a path for a game"}),
            ("create", {"env": "text/textworld-v0", "options": {"game": path}, "key": "a path for an option"}),
            ("create", {"env": "text/guess-v0", "split": path, "key": "a path for a split"}),
            ("tasks", {"env": "text/guess-v0", "split": path}),
            ("read", {"session": path}),
            ("trace", {"session": path}),
            ("expert", {"session": path, "seat": path}),
        ]:
            with pytest.raises(Refused) as refused:
                await client.ask(type, **fields)
            assert refused.value.code in ("UNKNOWN_ID", "UNSUPPORTED", "CONFIG"), (type, fields)
        session = (await client.create("test/echo-v0"))["session"]
        with pytest.raises(Refused) as refused:
            await client.ask("expert", session=session, seat=path)
        assert refused.value.code in ("UNSUPPORTED", "UNKNOWN_ID")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions/..%2f..%2fetc%2fpasswd/records",
        "/v1/sessions/%00/records",
        "/v1/environments/..%2f../etc",
        "/v1/environments/text/..%2f..%2fetc",
        "/v1/environments/text/%ff%fe",
        "/../../etc/passwd",
        "/sessions/..%2f..%2fetc%2fpasswd",
        "/openenv/..%2f..%2fetc/health",
        "/static/..%2f..%2fapp.py",
        "//etc/passwd",
    ],
)
async def test_no_url_leads_to_a_file(attacked, bystander, path):
    status, body = raw_http(attacked.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert 400 <= status < 500
    assert "root:" not in body


# -- HTTP -----------------------------------------------------------------------------------------------------------

BODIES = {
    "no JSON": b"{",
    "a list": b"[]",
    "bad UTF-8": b'{"env": "\xff\xfe"}',
    "deep nesting": b'{"a":' * 5000,
    "a type": b'{"type": "close", "env": "test/echo-v0", "key": "12345678"}',
    "an unknown field": b'{"env": "test/echo-v0", "key": "12345678", "__class__": "x"}',
    "a huge seed": b'{"env": "test/echo-v0", "key": "a huge seed 2", "seed": 1' + b"0" * 40 + b"}",
    "a number with many digits": b'{"env": "test/echo-v0", "key": "many digits", "seed": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_malformed_body_gets_a_typed_error(attacked, bystander, body):
    reply = await asyncio.to_thread(httpx.post, f"{attacked.url}/v1/sessions", content=body)
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "USAGE"


async def test_an_oversized_body_gets_a_typed_error(attacked, bystander):
    body = json.dumps({"env": "x" * MAX_BYTES, "key": "12345678"})
    reply = await asyncio.to_thread(httpx.post, f"{attacked.url}/v1/sessions", content=body)
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "TOO_LARGE"


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Authorization", "Bearer a.b.c", 401),
        ("Authorization", "Bearer \xff.\xfe.\xfd", 401),
        ("Arena-Session", "a.b.c", 401),
        ("Arena-Session", "x" * 10_000, 401),
    ],
)
async def test_a_credential_that_is_none_is_refused(attacked, bystander, header, value, status):
    text = f"GET /v1/environments HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}: {value}\r\n\r\n"
    told, body = raw_http(attacked.port, text)
    assert told == status
    assert '"UNAUTHORIZED"' in body


@pytest.mark.parametrize(
    "text", ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET / HTTP/9.9\r\n\r\n", "\r\n" * 50 + "x\r\n\r\n"]
)
async def test_what_is_not_http_is_answered_or_cut_off(attacked, bystander, text):
    status, _ = await asyncio.to_thread(raw_http, attacked.port, text, ends=True)
    assert status in (0, 400)


# -- floods ---------------------------------------------------------------------------------------------------------


async def test_slow_clients_hold_nobody_up(attacked, bystander):
    slow = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(200)]
    try:
        for n, one in enumerate(slow):
            one.sendall(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\n"[: 5 + n % 40])
        for n, one in enumerate(slow[::2]):
            one.sendall(
                b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{" if n % 2 else b"x"
            )
        async with RawClient(attacked.url) as client:
            session = (await client.create("test/echo-v0"))["session"]
            assert (await client.step(session, 1, {"player": "a"}))["index"] == 1
            await client.ask("close", session=session)
    finally:
        for one in slow:
            one.close()


async def test_a_flood_of_connections_is_borne(attacked, bystander):
    clients = [RawClient(attacked.url) for _ in range(200)]
    try:
        await asyncio.gather(*(client.__aenter__() for client in clients))
        replies = await asyncio.gather(*(client.ask("environments") for client in clients))
        assert {reply["type"] for reply in replies} == {"environments"}
    finally:
        await asyncio.gather(*(client.__aexit__() for client in clients))


async def test_a_flood_of_frames_is_answered_one_by_one(attacked, bystander):
    async with RawClient(attacked.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        asked = [asyncio.create_task(client.step(session, 1, {"player": "a"})) for _ in range(5000)]
        rubbish = [asyncio.create_task(client.say(b"\xc1")) for _ in range(1000)]
        records = await asyncio.gather(*asked)
        await asyncio.gather(*rubbish)
        assert all(record == records[0] for record in records)
        assert (await client.ask("read", session=session))["next"] == 2
        assert [request for request, _ in client.mispaired if request is not None] == []


async def test_a_client_that_never_reads_is_cut_off_and_holds_nobody_up(serve):
    server = serve(workers=1)
    async with RawClient(server.url) as client:
        session = (await client.create("test/echo-v0"))["session"]
        for index in range(1, 21):
            await client.step(session, index, {"player": "x" * 90_000})
        deaf = socket.create_connection(("127.0.0.1", server.port))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        shake_hands(deaf)
        attach = {"type": "attach", "id": 0, "capability": client.capabilities[0]}
        deaf.sendall(masked(json.dumps(attach).encode()))
        read = {"type": "read", "id": 1, "session": session, "after": 0}
        sent = 0
        try:
            deaf.settimeout(20)
            for _ in range(400):
                deaf.sendall(masked(json.dumps(read).encode()))
                sent += 1
                await asyncio.sleep(0.005)
        except OSError:
            pass
        assert (await client.step(session, 21, {"player": "a"}))["index"] == 21
        assert psutil.Process(server.process.pid).memory_info().rss < 2**30
        assert sent < 400
        deaf.close()


def decoded(frame):
    return msgspec.msgpack.decode(frame) if isinstance(frame, bytes) else json.loads(frame)


def raw_http(port, text, *, ends=False):
    """Send bytes, and nothing more where it `ends`; return the answer's status, 0 where there is none, and its text."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(text.encode("latin-1"))
        if ends:
            one.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := one.recv(65536):
                answer += part
        except ConnectionError:
            pass
    status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
    return status, answer.decode("latin-1")


def shake_hands(one):
    one.sendall(
        b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += one.recv(1)
    assert b"101" in answer.split(b"\r\n")[0]


def masked(payload):
    """Return a text frame with a mask of zeros, as a client sends it."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126, size >> 8, size & 255])
    return b"\x81" + length + b"\0\0\0\0" + payload
