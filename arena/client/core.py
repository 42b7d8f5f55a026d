"""One client's side of the protocol, without I/O.

Whoever drives it hands over requests (`submit`), sends what `outgoing` gives out, and passes every frame that comes to
`receive`, which pairs replies with requests by id. It is told when a connection stands (`connected`) and when it is
lost, and `tick` tells it the time. From these it knows what must be sent again:

* After a reconnect every session that is open is attached first; once those answers are there, every request that was
  not answered is sent again, with the same id and the same bytes. Verbs are idempotent, so nothing happens twice.
* A request that waits long for its answer is sent again on the same connection, for a frame may have been dropped.
* While something is unanswered and nothing at all comes, a cheap request probes whether anybody is there: a slow
  environment and a dead connection are told apart.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from arena.errors import ArenaError, TransportError, UsageError
from arena.protocol import (
    Act,
    Acted,
    Attach,
    Attached,
    Close,
    Closed,
    Create,
    Created,
    Describe,
    EnvironmentInfo,
    EnvironmentList,
    Environments,
    ErrorReply,
    Expert,
    ExpertAction,
    Fork,
    GetTrace,
    Read,
    Records,
    Reply,
    Request,
    RequestId,
    Step,
    StepMany,
    Stepped,
    SteppedMany,
    TaskPage,
    Tasks,
    TraceText,
    Truncate,
)
from arena.types import encode_json, encode_msgpack

__all__ = ["Core", "Format", "Frame", "Outcome"]

Format: TypeAlias = Literal["msgpack", "json"]
Frame: TypeAlias = bytes | str
"""A WebSocket message: binary ones are MessagePack, text is JSON."""
Outcome: TypeAlias = Reply | ArenaError

_ANSWERS: Mapping[type[Request], type[Reply]] = {
    Environments: EnvironmentList,
    Describe: EnvironmentInfo,
    Tasks: TaskPage,
    Create: Created,
    Attach: Attached,
    Step: Stepped,
    StepMany: SteppedMany,
    Act: Acted,
    Truncate: Stepped,
    Expert: ExpertAction,
    Read: Records,
    Fork: Created,
    Close: Closed,
    GetTrace: TraceText,
}
_from_json = msgspec.json.Decoder(Reply)
_from_msgpack = msgspec.msgpack.Decoder(Reply)


@dataclass(slots=True)
class _Exchange:
    """A request that is not answered yet, and when it was last sent; never, where None."""

    request: Request
    frame: Frame
    sent_at: float | None = None


class Core:
    """What one client has asked, what it may use, and what it must send next.

    Times are seconds on any one monotonic clock, passed in by the driver.

    Args:
        format: How requests are encoded; a reply comes as its request went.
        timeout_s: Seconds without any frame after which the connection is dead, and without its answer after which a
            request is sent again.
        reconnect_s: Seconds from the loss of a connection, or of the first of several in a row that brought no reply,
            after which the client gives up.
    """

    def __init__(self, format: Format = "msgpack", *, timeout_s: float = 60.0, reconnect_s: float = 120.0) -> None:
        self._format, self._timeout_s, self._reconnect_s = format, timeout_s, reconnect_s
        self._ids = itertools.count(1)
        self._exchanges: dict[RequestId, _Exchange] = {}
        self._capabilities: dict[str, str] = {}
        self._state: Literal["down", "attaching", "up"] = "down"
        self._own: dict[RequestId, Attach | Environments] = {}
        self._queue: deque[RequestId] = deque()
        self._frames: deque[Frame] = deque()
        self._quiet_since = 0.0
        self._lost_at: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a connection is needed: something is unanswered, or a session is open."""
        return bool(self._exchanges or self._capabilities)

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` has something to give out."""
        return bool(self._frames or self._queue)

    @property
    def capabilities(self) -> dict[str, str]:
        """The session of each capability that is in use, by capability."""
        return dict(self._capabilities)

    # -- requests ---------------------------------------------------------------------------------------------------

    def submit(self, request: Request, now: float) -> int:
        """Take a request, give it an id of its own, and return that; the id that it has is replaced.

        Raises:
            UsageError: Something in it cannot be sent.
        """
        number = next(self._ids)
        request = msgspec.structs.replace(request, id=number)
        frame = self._encode(request)
        if not self._exchanges:
            self._quiet_since = now
        self._exchanges[number] = _Exchange(request, frame)
        if self._state == "up":
            self._queue.append(number)
        return number

    def forget(self, number: RequestId) -> None:
        """Drop a request whose answer nobody waits for; a `Close` that is dropped lets go of its session."""
        exchange = self._exchanges.pop(number, None)
        if exchange is not None and isinstance(exchange.request, Close):
            self._let_go(exchange.request.session)

    def outgoing(self, now: float) -> list[Frame]:
        """Return what must be sent now, in order; each frame is given out once."""
        frames = list(self._frames)
        self._frames.clear()
        while self._queue:
            exchange = self._exchanges.get(self._queue.popleft())
            if exchange is not None:
                exchange.sent_at = now
                frames.append(exchange.frame)
        return frames

    # -- the connection ---------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """Begin a connection: sessions are attached, then what is unanswered is sent again."""
        self._quiet_since = now
        self._state = "attaching"
        for capability in self._capabilities:
            self._send_own(Attach(id=next(self._ids), capability=capability))
        self._resume()

    def lost(self, now: float) -> None:
        """End a connection: nothing goes out until there is another one."""
        self._state = "down"
        self._own.clear()
        self._queue.clear()
        self._frames.clear()
        if self._lost_at is None:
            self._lost_at = now

    def expired(self, now: float) -> bool:
        """Return whether it has been tried for long enough to get an answer again."""
        return self._lost_at is not None and now - self._lost_at >= self._reconnect_s

    def tick(self, now: float) -> bool:
        """Queue what is overdue and return whether the connection is alive, as far as one can tell."""
        if self._state == "down" or not (self._exchanges or self._own):
            return True
        quiet_s = now - self._quiet_since
        if quiet_s >= self._timeout_s:
            return False
        if quiet_s >= self._timeout_s / 2 and not self._own:
            self._send_own(Environments(id=next(self._ids)))
        for number, exchange in self._exchanges.items():
            if exchange.sent_at is not None and now - exchange.sent_at >= self._timeout_s and self._state == "up":
                exchange.sent_at = now
                self._queue.append(number)
        return True

    # -- replies ----------------------------------------------------------------------------------------------------

    def receive(self, frame: Frame, now: float) -> list[tuple[RequestId, Outcome]]:
        """Return the requests that a frame answers, with their outcomes; none for a frame that came before.

        Raises:
            TransportError: The frame is no reply; the connection cannot be trusted.
        """
        reply = _decode(frame)
        self._quiet_since, self._lost_at = now, None
        number = reply.id
        if number is None:
            return self.abandon(_unaddressed(reply))
        if number in self._own:
            self._answer_own(self._own.pop(number), reply)
            return []
        exchange = self._exchanges.pop(number, None)
        if exchange is None:
            return []
        return [(number, self._outcome(exchange.request, reply))]

    def abandon(self, error: ArenaError) -> list[tuple[RequestId, Outcome]]:
        """Give up on every unanswered request and return each with a copy of the error; sessions stay as they are."""
        numbers = list(self._exchanges)
        self._exchanges.clear()
        return [(number, ArenaError.from_record(error.record())) for number in numbers]

    def abandon_largest(self, error: ArenaError) -> list[tuple[RequestId, Outcome]]:
        """Give up on the request with the largest frame: the server closed the connection because of its size."""
        if not self._exchanges:
            return []
        number = max(self._exchanges, key=lambda number: len(self._exchanges[number].frame))
        del self._exchanges[number]
        return [(number, error)]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _encode(self, request: Request) -> Frame:
        try:
            return encode_msgpack(request) if self._format == "msgpack" else encode_json(request).decode()
        except UsageError:
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"a {type(request).__name__} request cannot be sent: {error}") from error

    def _send_own(self, request: Attach | Environments) -> None:
        self._own[request.id] = request
        self._frames.append(self._encode(request))

    def _answer_own(self, request: Attach | Environments, reply: Reply) -> None:
        refused = isinstance(reply, ErrorReply) and not reply.error.retryable
        closed = isinstance(reply, Attached) and reply.status == "closed" and not self._is_asked_of(reply.session)
        if isinstance(request, Attach) and (refused or closed):
            self._capabilities.pop(request.capability, None)
        self._resume()

    def _resume(self) -> None:
        """Queue everything that is unanswered, once all sessions are attached."""
        if self._state == "attaching" and not any(isinstance(request, Attach) for request in self._own.values()):
            self._state = "up"
            self._queue.extend(self._exchanges)

    def _outcome(self, request: Request, reply: Reply) -> Outcome:
        if isinstance(reply, ErrorReply):
            if isinstance(request, Close) and not reply.error.retryable:
                self._let_go(request.session)
            return ArenaError.from_record(reply.error)
        if type(reply) is not _ANSWERS[type(request)]:
            return TransportError(f"the server answered a {type(request).__name__} with a {type(reply).__name__}")
        match reply:
            case Created():
                self._capabilities[reply.capability] = reply.session
            case Attached() if isinstance(request, Attach) and reply.status != "closed":
                self._capabilities[request.capability] = reply.session
            case Closed():
                self._let_go(reply.session)
        return reply

    def _is_asked_of(self, session: str) -> bool:
        """Return whether something of a session is unanswered: it needs the capability on the next connection too."""
        return any(getattr(exchange.request, "session", None) == session for exchange in self._exchanges.values())

    def _let_go(self, session: str) -> None:
        self._capabilities = {text: owner for text, owner in self._capabilities.items() if owner != session}


def _decode(frame: Frame) -> Reply:
    try:
        reply: Reply = _from_json.decode(frame) if isinstance(frame, str) else _from_msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArenaError) as error:
        raise TransportError(f"the server sent what is no reply: {error}", retryable=True) from error
    return reply


def _unaddressed(reply: Reply) -> ArenaError:
    """Return the error of a reply without id: the server could not read a frame, and nobody knows which."""
    if isinstance(reply, ErrorReply):
        return ArenaError.from_record(reply.error)
    return TransportError(f"the server sent a {type(reply).__name__} without the id of a request")
