"""The load generator: the same closed loop for every server, written against raw WebSocket frames.

Each session sends a step, waits for the answer, checks that the answer holds the very text that was sent, and sends the
next one. Neither side's client library is used.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect

__all__ = ["ArenaBatch", "ArenaConnections", "ArenaShared", "BareConnections", "Load", "OpenEnvConnections"]

_clock = time.perf_counter
_CONNECTING_AT_ONCE = 32
"""Connections that are being made at the same time; both servers queue what is beyond."""
_MOST_BYTES = 64 * 2**20
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


class Load(Protocol):
    """Some sessions on a server.

    Attributes:
        batch: Steps that are answered at once.
    """

    batch: int

    async def open(self) -> list[float]:
        """Begin all sessions; return for each the seconds from connecting to the first observation."""

    async def play(self, duration_s: float) -> list[float]:
        """Step every session in a closed loop; return the seconds of every exchange."""

    async def close(self) -> None:
        """End all sessions and connections."""


async def _connect(url: str) -> ClientConnection:
    return await connect(url, compression=None, ping_interval=None, max_size=_MOST_BYTES, open_timeout=60, proxy=None)


class _Connections:
    """One connection for each session."""

    batch = 1

    def __init__(self, port: int, path: str, sessions: int) -> None:
        self._url = f"ws://127.0.0.1:{port}{path}"
        self._sessions = sessions
        self._connections: list[ClientConnection] = []

    async def open(self) -> list[float]:
        """Begin all sessions."""
        gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        return list(await asyncio.gather(*(self._open(number, gate) for number in range(self._sessions))))

    async def _open(self, number: int, gate: asyncio.Semaphore) -> float:
        async with gate:
            began = _clock()
            connection = await _connect(self._url)
            self._connections.append(connection)
            await self._begin(connection, number)
            return _clock() - began

    async def play(self, duration_s: float) -> list[float]:
        """Step every session on its own connection."""
        until = _clock() + duration_s
        latencies = await asyncio.gather(*(self._play(connection, until) for connection in self._connections))
        return [latency for one in latencies for latency in one]

    async def _play(self, connection: ClientConnection, until: float) -> list[float]:
        latencies = []
        while (sent := _clock()) < until:
            frame, expected = self._step(connection)
            await connection.send(frame)
            answer = await connection.recv(decode=False)
            latencies.append(_clock() - sent)
            _check(answer, expected)
        return latencies

    async def close(self) -> None:
        """End all sessions and connections."""
        gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)

        async def end(connection: ClientConnection) -> None:
            async with gate:
                await self._end(connection)
                await connection.close()

        await asyncio.gather(*(end(connection) for connection in self._connections))
        self._connections.clear()

    async def _begin(self, connection: ClientConnection, number: int) -> None:
        raise NotImplementedError

    def _step(self, connection: ClientConnection) -> tuple[str | bytes, bytes]:
        raise NotImplementedError

    async def _end(self, connection: ClientConnection) -> None:
        raise NotImplementedError


class OpenEnvConnections(_Connections):
    """OpenEnv's protocol: a session is a connection."""

    def __init__(self, port: int, sessions: int) -> None:
        super().__init__(port, "/ws", sessions)
        self._index: dict[ClientConnection, int] = {}

    async def _begin(self, connection: ClientConnection, number: int) -> None:
        await connection.send(_text({"type": "reset", "data": {"seed": number}}))
        _check(await connection.recv(decode=False), b'"observation"')
        self._index[connection] = number * 1_000_000

    def _step(self, connection: ClientConnection) -> tuple[str | bytes, bytes]:
        self._index[connection] = index = self._index[connection] + 1
        text = f"go to room {index}"
        return _text({"type": "step", "data": {"message": text}}), b'"%s"' % text.encode()

    async def _end(self, connection: ClientConnection) -> None:
        await connection.send(_text({"type": "close"}))


class _ArenaSession:
    """What is known of one of Arena's sessions."""

    __slots__ = ("id", "index", "number", "sent")

    def __init__(self, id: str, number: int) -> None:
        self.id, self.number, self.index, self.sent = id, number, 0, 0.0

    def next(self) -> tuple[dict[str, Any], bytes]:
        """Return the next step's fields and what its answer must hold."""
        self.index += 1
        text = f"go to room {self.number * 1_000_000 + self.index}"
        return {"session": self.id, "index": self.index, "actions": {"player": text}}, text.encode()


async def _create(connection: ClientConnection, env: str, number: int) -> _ArenaSession:
    await connection.send(_text({"type": "create", "id": 0, "env": env, "key": uuid.uuid4().hex, "seed": number}))
    reply = msgspec.json.decode(await connection.recv(decode=False))
    if reply["type"] != "created":
        raise RuntimeError(f"Arena answered {reply}")
    return _ArenaSession(reply["session"], number)


class ArenaConnections(_Connections):
    """Arena's protocol, one connection for each session as OpenEnv has it."""

    def __init__(self, port: int, sessions: int, env: str, *, binary: bool = False) -> None:
        super().__init__(port, "/v1/ws", sessions)
        self._env, self._encode = env, _msgpack if binary else _text
        self._known: dict[ClientConnection, _ArenaSession] = {}

    async def _begin(self, connection: ClientConnection, number: int) -> None:
        self._known[connection] = await _create(connection, self._env, number)

    def _step(self, connection: ClientConnection) -> tuple[str | bytes, bytes]:
        session = self._known[connection]
        fields, expected = session.next()
        return self._encode({"type": "step", "id": session.index, **fields}), expected

    async def _end(self, connection: ClientConnection) -> None:
        await connection.send(_text({"type": "close", "id": 0, "session": self._known.pop(connection).id}))
        _check(await connection.recv(decode=False), b'"closed"')


class BareConnections(_Connections):
    """A server that sends back what it is sent: a frame as long as one of Arena's steps."""

    def __init__(self, port: int, sessions: int) -> None:
        super().__init__(port, "/", sessions)
        self._session = _ArenaSession("0" * 20, 0)

    async def _begin(self, connection: ClientConnection, number: int) -> None:
        pass

    def _step(self, connection: ClientConnection) -> tuple[str | bytes, bytes]:
        fields, expected = self._session.next()
        return _text({"type": "step", "id": self._session.index, **fields, "decisions": {}}), expected

    async def _end(self, connection: ClientConnection) -> None:
        pass


class _OneConnection:
    """All sessions on one connection, which OpenEnv's protocol does not have."""

    batch = 1

    def __init__(self, port: int, sessions: int, env: str, *, binary: bool = False) -> None:
        self._url, self._env, self._count = f"ws://127.0.0.1:{port}/v1/ws", env, sessions
        self._encode: Callable[[Any], str | bytes] = _msgpack if binary else _text
        self._decode: Any = (msgspec.msgpack if binary else msgspec.json).Decoder(_Head).decode
        self._sessions: list[_ArenaSession] = []
        self._connection: ClientConnection | None = None

    @property
    def _line(self) -> ClientConnection:
        assert self._connection is not None
        return self._connection

    async def open(self) -> list[float]:
        """Begin all sessions, one after the other."""
        self._connection = await _connect(self._url)
        latencies = []
        for number in range(self._count):
            began = _clock()
            self._sessions.append(await _create(self._line, self._env, number))
            latencies.append(_clock() - began)
        return latencies

    async def close(self) -> None:
        """End all sessions and the connection."""
        for session in self._sessions:
            await self._line.send(_text({"type": "close", "id": 0, "session": session.id}))
            _check(await self._line.recv(decode=False), b'"closed"')
        self._sessions.clear()
        await self._line.close()


class _Head(msgspec.Struct):
    """The part of a reply that says what it answers."""

    id: int


class ArenaShared(_OneConnection):
    """Many sessions on one connection, each in a closed loop of its own."""

    async def play(self, duration_s: float) -> list[float]:
        """Step every session; a session's number is its requests' id."""
        until = _clock() + duration_s
        latencies: list[float] = []
        expected = {session.number: await self._send(session) for session in self._sessions}
        while expected:
            answer = await self._line.recv(decode=False)
            number = self._decode(answer).id
            session = self._sessions[number]
            latencies.append((now := _clock()) - session.sent)
            _check(answer, expected.pop(number))
            if now < until:
                expected[number] = await self._send(session)
        return latencies

    async def _send(self, session: _ArenaSession) -> bytes:
        session.sent = _clock()
        fields, expected = session.next()
        await self._line.send(self._encode({"type": "step", "id": session.number, **fields}))
        return expected


class ArenaBatch(_OneConnection):
    """Many sessions on one connection, all stepped by one request, as a trainer does."""

    def __init__(self, port: int, sessions: int, env: str, *, binary: bool = False) -> None:
        super().__init__(port, sessions, env, binary=binary)
        self.batch = sessions

    async def play(self, duration_s: float) -> list[float]:
        """Step all sessions at once, again and again."""
        until = _clock() + duration_s
        latencies = []
        while (sent := _clock()) < until:
            items, expected = zip(*(session.next() for session in self._sessions), strict=True)
            await self._line.send(self._encode({"type": "step_many", "id": 1, "steps": items}))
            answer = await self._line.recv(decode=False)
            latencies.append(_clock() - sent)
            for text in expected:
                _check(answer, text)
        return latencies


def _text(message: Any) -> str:
    return _json(message).decode()


def _check(answer: Any, expected: bytes) -> None:
    if expected not in answer:
        raise RuntimeError(f"the answer does not hold {expected!r}: {bytes(answer[:500])!r}")
