"""The protocol by hand: a client that knows its messages only as plain dicts, and believes nothing.

It is independent of `arena.protocol` and `arena.client`, so that an error in those cannot hide here. What it does is
what any client must do: number its requests, send again what was not answered when the connection is lost, after it has
shown its capabilities again, and pair replies by `id`. It also keeps a record of every reply that does not fit.
"""

import asyncio
import itertools
import json
import uuid

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

REPLY_OF = {
    "environments": "environments",
    "describe": "environment",
    "tasks": "tasks",
    "create": "created",
    "attach": "attached",
    "step": "stepped",
    "step_many": "stepped_many",
    "act": "acted",
    "truncate": "stepped",
    "expert": "expert_action",
    "read": "records",
    "fork": "created",
    "close": "closed",
    "trace": "trace",
}
"""The type of the reply to each type of request; or ``error``."""


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code, self.message, self.error = error["code"], error["message"], error
        self.details = error.get("details", {})


class RawClient:
    """A client over one WebSocket, which is opened again whenever it is lost.

    Args:
        url: The server's, ``http://host:port``.
        format: ``msgpack`` for binary frames or ``json`` for text frames.
        token: Bearer token.
        reconnect: Whether a lost connection is opened again; otherwise everything unanswered fails.

    Attributes:
        capabilities: Shown again on every new connection.
        received: Every frame that came, as it came.
        mispaired: Replies that fit no request, or another one than theirs.
        repeated: Replies to requests that had been answered already.
        connections: How often it has connected.
    """

    def __init__(self, url, *, format="msgpack", token=None, reconnect=True, keep=False):
        self._address = url.replace("http", "ws", 1) + "/v1/ws"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._format, self._reconnect, self._keep = format, reconnect, keep
        self._ids = itertools.count(1)
        self._unanswered = {}
        self._answered = set()
        self._socket = None
        self._up = asyncio.Event()
        self._task = None
        self.capabilities = []
        self.received = []
        self.mispaired = []
        self.repeated = self.connections = 0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._run())
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait([self._task, up], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            await self._task
        return self

    async def __aexit__(self, *exc):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, type, **fields):
        """Send a request and return its reply, a dict.

        Raises:
            Refused: The reply is an error.
        """
        request = {"type": type, "id": next(self._ids), **fields}
        answer = asyncio.get_running_loop().create_future()
        self._unanswered[request["id"]] = request, answer
        if self._task.done():
            self._fail()
        if self._up.is_set():
            await self._send(request)
        reply = await answer
        if reply["type"] == "error":
            raise Refused(reply["error"])
        if type in ("create", "fork"):
            self.capabilities.append(reply["capability"])
        return reply

    async def attach(self, capability):
        """Show a capability, now and on every later connection."""
        reply = await self.ask("attach", capability=capability)
        self.capabilities.append(capability)
        return reply

    async def create(self, env, **fields):
        """Begin a session with a key of its own."""
        return await self.ask("create", env=env, **{"key": str(uuid.uuid4()), **fields})

    async def step(self, session, index, actions, **fields):
        """Take a step and return its record."""
        return (await self.ask("step", session=session, index=index, actions=actions, **fields))["record"]

    async def say(self, frame):
        """Send a frame as it is, whatever it holds."""
        await self._socket.send(frame)

    async def close(self, session):
        """Close a session and return the verdict; its capability need not be shown any more."""
        end = (await self.ask("close", session=session))["end"]
        self.capabilities = [text for text in self.capabilities if not text.startswith(f"{session}.")]
        return end

    def cut(self):
        """Lose the connection, without a word to the server."""
        self._socket.transport.abort()

    # -- the connection ---------------------------------------------------------------------------------------------

    async def _run(self):
        try:
            await self._stay_connected()
        finally:
            self._up.clear()
            self._fail()

    async def _stay_connected(self):
        while True:
            try:
                async with connect(
                    self._address, additional_headers=self._headers, max_size=None, compression=None, close_timeout=1
                ) as self._socket:
                    await self._use()
            except (ConnectionClosed, OSError, EOFError, InvalidHandshake, InvalidMessage):
                if not self._reconnect:
                    raise
            self._up.clear()
            if not self._reconnect:
                return
            await asyncio.sleep(0.05)

    async def _use(self):
        """Show every capability, send what is unanswered, and receive to the end."""
        self.connections += 1
        shown = [{"type": "attach", "id": f"again-{n}", "capability": c} for n, c in enumerate(self.capabilities)]
        for request in shown:
            await self._send(request)
        await self._await_shown({request["id"] for request in shown})
        self._up.set()
        for request, _ in list(self._unanswered.values()):
            await self._send(request)
        async for frame in self._socket:
            self._receive(self._decode(frame))

    async def _await_shown(self, ids):
        """Receive until every capability has been answered: what came before its own would be refused."""
        while ids:
            reply = self._decode(await self._socket.recv())
            ids.discard(reply.get("id"))
            self._receive(reply)

    async def _send(self, request):
        try:
            await self._socket.send(self._encode(request))
        except ConnectionClosed:
            pass  # it is sent again on the next connection

    def _receive(self, reply):
        request, answer = self._unanswered.pop(reply.get("id"), (None, None))
        if request is not None:
            self._answered.add(reply.get("id"))
            if not fits(request, reply):
                self.mispaired.append((request, reply))
            if not answer.done():
                answer.set_result(reply)
        elif reply.get("id") in self._answered:
            self.repeated += 1
        elif not str(reply.get("id")).startswith("again-"):
            self.mispaired.append((None, reply))

    def _fail(self):
        for _, answer in self._unanswered.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the connection is lost"))
                answer.exception()
        self._unanswered.clear()

    def _encode(self, request):
        if self._format == "msgpack":
            return msgspec.msgpack.encode(request)
        return msgspec.json.encode(request).decode()  # bytes become base64

    def _decode(self, frame):
        if self._keep:
            self.received.append(frame if isinstance(frame, bytes) else frame.encode())
        return msgspec.msgpack.decode(frame) if isinstance(frame, bytes) else json.loads(frame)


def fits(request, reply):
    """Return whether a reply answers a request: its type, its session, and the step that it tells of."""
    if reply["type"] == "error":
        return True
    if reply["type"] != REPLY_OF[request["type"]]:
        return False
    if "session" in request and "session" in reply and request["type"] != "fork":
        if reply["session"] != request["session"]:
            return False
    return "index" not in request or reply["record"]["index"] == request["index"]
