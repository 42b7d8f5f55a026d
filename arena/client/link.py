"""The driver of the core: one connection that is kept up, and requests that wait for their answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from arena.client.core import Core, Format, Outcome
from arena.client.endpoint import MAX_REPLY_BYTES, backoff_s, endpoint, reach
from arena.errors import ArenaError, CapacityError, TooLargeError, TransportError, UsageError
from arena.protocol import Reply, Request, RequestId

__all__ = ["Answer", "Link"]

_TOO_LARGE = 1009
"""Close code of a peer that got a message larger than it accepts."""
_BEAT_S = 1.0
_log = logging.getLogger(__name__)


class Answer(Protocol):
    """Where an outcome goes: a future of asyncio, or one of another thread."""

    def set_result(self, result: Reply, /) -> None:
        """Give the reply."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Give the error."""

    def done(self) -> bool:
        """Return whether nobody waits any more."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A request, where its outcome goes, and until when it is repeated while the server is full."""

    request: Request
    answer: Answer
    until: float


class Link:
    """A connection to a server. All methods belong to one event loop's thread.

    Args:
        url: The server's address.
        token: Bearer token, where the server needs one.
        format: How requests are encoded.
        timeout_s: See `Core`.
        reconnect_s: See `Core`; for as long, requests are repeated that the server refuses because it is full.
    """

    def __init__(self, url: str, token: str | None, format: Format, timeout_s: float, reconnect_s: float) -> None:
        self._address, self._token, self._patience_s = endpoint(url), token, reconnect_s
        self._core = Core(format, timeout_s=timeout_s, reconnect_s=reconnect_s)
        self._beat_s = min(_BEAT_S, timeout_s / 4)
        self._asked: dict[RequestId, _Asked] = {}
        self._later: dict[_Asked, asyncio.TimerHandle] = {}
        self._wanted, self._to_send = asyncio.Event(), asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._heard = False

    async def open(self) -> None:
        """Connect, in one attempt.

        Raises:
            ConfigError, UnauthorizedError, ForbiddenError, TransportError: See `reach`.
        """
        socket = await reach(self._address, self._token)
        self._keeper = asyncio.create_task(self._keep(socket), name="arena client")

    async def close(self) -> None:
        """End the connection; what is unanswered fails."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    # -- requests ---------------------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Reply:
        """Return the answer to a request.

        Raises:
            ArenaError: The server refused it, or cannot be reached.
        """
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self.submit(request, answer)
        try:
            return await answer
        finally:
            if answer.cancelled():
                self.forget(answer)

    def submit(self, request: Request, answer: Answer) -> None:
        """Send a request, now or once there is a connection; `answer` gets what comes of it."""
        self._submit(_Asked(request, answer, self._now() + self._patience_s))

    def forget(self, answer: Answer) -> None:
        """Drop the request whose answer nobody waits for any more."""
        number = next((number for number, asked in self._asked.items() if asked.answer is answer), None)
        if number is not None:
            del self._asked[number]
            self._core.forget(number)

    def _submit(self, asked: _Asked) -> None:
        self._later.pop(asked, None)
        if asked.answer.done():
            return
        if self._keeper is None or self._keeper.done():
            _give(asked.answer, _closed())
            return
        try:
            self._asked[self._core.submit(asked.request, self._now())] = asked
        except UsageError as error:
            _give(asked.answer, error)
            return
        self._wanted.set()
        self._to_send.set()

    def _settle(self, outcomes: list[tuple[RequestId, Outcome]]) -> None:
        for number, outcome in outcomes:
            asked = self._asked.pop(number, None)
            if asked is not None and not (isinstance(outcome, CapacityError) and self._again_later(asked, outcome)):
                _give(asked.answer, outcome)

    def _again_later(self, asked: _Asked, error: CapacityError) -> bool:
        """Return whether a request will be repeated: the server is full, and says when to try again."""
        retry_after_s = error.details.get("retry_after_s")
        if not isinstance(retry_after_s, int | float):
            return False
        wait_s = max(0.01, retry_after_s) * random.uniform(1.0, 1.5)
        if self._now() + wait_s > asked.until:
            return False
        self._later[asked] = self._loop.call_later(wait_s, self._submit, asked)
        return True

    def _fail_all(self) -> None:
        """Fail whatever waits: nobody keeps the connection any more."""
        for timer in self._later.values():
            timer.cancel()
        for asked in [*self._asked.values(), *self._later]:
            _give(asked.answer, _closed())
        self._asked.clear()
        self._later.clear()

    # -- the connection ---------------------------------------------------------------------------------------------

    async def _keep(self, socket: ClientConnection | None) -> None:
        """Use the connection, and get another one whenever it is lost and something needs it."""
        core, delays = self._core, backoff_s()
        try:
            while True:
                if socket is not None:
                    await self._use(socket)
                    core.lost(self._now())
                    delays = backoff_s() if self._heard else delays
                    if not self._heard:
                        await self._slow_down(delays)
                self._wanted.clear()
                if socket is None or not core.busy:
                    await self._wanted.wait()
                socket = await self._reconnect(delays)
        finally:
            self._fail_all()

    async def _slow_down(self, delays: Iterator[float]) -> None:
        """Wait after a connection that brought no reply; give up once there have been only such ones for long."""
        if self._core.expired(self._now()):
            self._settle(self._core.abandon(TransportError(f"{self._address} does not answer", retryable=True)))
        await asyncio.sleep(next(delays))

    async def _reconnect(self, delays: Iterator[float]) -> ClientConnection | None:
        """Return a new connection; None once it has been tried for long enough, and what was asked has failed."""
        while True:
            try:
                return await reach(self._address, self._token)
            except ArenaError as error:
                if not getattr(error, "retryable", False) or self._core.expired(self._now()):
                    self._settle(self._core.abandon(error))
                    return None
            await asyncio.sleep(next(delays))

    async def _use(self, socket: ClientConnection) -> None:
        """Send and receive until the connection is lost."""
        self._heard = False
        self._core.connected(self._now())
        self._to_send.set()
        helpers = [asyncio.create_task(self._send(socket)), asyncio.create_task(self._beat(socket))]
        try:
            await self._receive(socket)
        except ConnectionClosedError as error:
            self._blame(error)
        except ConnectionClosed:
            _log.info("%s closed the connection", self._address)
        except TransportError as error:
            _log.warning("%s: %s", self._address, error)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await socket.close()

    async def _receive(self, socket: ClientConnection) -> None:
        core = self._core
        while True:
            outcomes = core.receive(await socket.recv(), self._now())
            self._heard = True
            self._settle(outcomes)
            if core.has_outgoing:
                self._to_send.set()

    async def _send(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):  # whoever receives is told why
            while True:
                await self._to_send.wait()
                self._to_send.clear()
                for frame in self._core.outgoing(self._now()):
                    await socket.send(frame)

    async def _beat(self, socket: ClientConnection) -> None:
        """Tell the core the time, and end a connection that it takes for dead."""
        while True:
            await asyncio.sleep(self._beat_s)
            if not self._core.tick(self._now()):
                _log.warning("%s has been silent for too long", self._address)
                socket.transport.abort()
            self._to_send.set()

    def _blame(self, error: ConnectionClosedError) -> None:
        """Fail what made the connection break, where that is known; it would break the next one as well."""
        _log.info("lost the connection to %s: %s", self._address, error)
        if error.rcvd is not None and error.rcvd.code == _TOO_LARGE:
            refused = TooLargeError(f"{self._address} accepts no message as large as this one: {error.rcvd.reason}")
            self._settle(self._core.abandon_largest(refused))
        elif error.sent is not None and error.sent.code == _TOO_LARGE:
            self._settle(self._core.abandon(TooLargeError(f"an answer is larger than {MAX_REPLY_BYTES} bytes")))

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _now(self) -> float:
        return self._loop.time()


def _give(answer: Answer, outcome: Outcome) -> None:
    """Hand over an outcome, unless nobody waits any more."""
    with suppress(asyncio.InvalidStateError, concurrent.futures.InvalidStateError):
        if isinstance(outcome, ArenaError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


def _closed() -> TransportError:
    return TransportError("the client is closed")
