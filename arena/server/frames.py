"""What the server process and its workers say to each other: length-prefixed MessagePack over a socket pair.

A frame to a worker carries a number `req`, and the worker answers each with one `Answer` of the same number. Sessions
are named by their ids. Everything here comes from this software on this machine, except the `body` of a `Call`: that is
a client's frame as it came.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import msgspec

from arena.errors import ArenaError, ErrorRecord
from arena.protocol import Describe, Environments, RequestId, SeatInfo, Tasks
from arena.recovery import Opening
from arena.session import Counts
from arena.trace import StepRecord
from arena.types import Action, AgentID, Limits, Usage, encode_msgpack

__all__ = [
    "AT_WORK",
    "AT_WORK_BYTES",
    "MOST_THREADS",
    "Answer",
    "Ask",
    "Branch",
    "Call",
    "Check",
    "Default",
    "Drop",
    "Dropped",
    "Format",
    "Frame",
    "FrameReader",
    "Hello",
    "Opened",
    "Ping",
    "Prepare",
    "Rebuild",
    "Refusal",
    "Survey",
    "failure",
    "pack",
    "temporary_prefix",
]

Format: TypeAlias = int
JSON: Format = 0
MSGPACK: Format = 1


class _Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    req: int


class Ask(_Frame, frozen=True):
    """Answer a question about an environment: body is a MessagePack reply of the protocol."""

    request: Environments | Describe | Tasks


class Prepare(_Frame, frozen=True):
    """Find the task and do its slow one-time work, off the worker's main thread: body is `Opening`."""

    env: str
    options: dict[str, Any]
    task: str | None
    split: str | None
    seed: int
    limits: Limits


class Rebuild(_Frame, frozen=True):
    """Begin a session, or rebuild it from its journal: body is `Opened`.

    Attributes:
        session: The session's id.
        opening: What it is played on.
        entries: MessagePack `Entry`s, the first one first; none for a new session.
        counts: What had been counted since the last entry.
        refusals: The latest refusals, so that their repeats are known.
        fresh_counts: It is a fork: time and refusals are counted anew.
    """

    session: str
    opening: Opening
    entries: list[bytes] = []
    counts: Counts | None = None
    refusals: list[Refusal] = []
    fresh_counts: bool = False


class Branch(_Frame, frozen=True):
    """Fork a session of this worker, by snapshot where it stands there: body is `Opened`.

    Attributes:
        session: The session's id.
        new: The fork's.
        at: Index of the step to fork at; the latest where None.
        known: Number of the fork's entries that need not be told.
    """

    session: str
    new: str
    at: int | None
    known: int


class Call(_Frame, frozen=True):
    """Do what a client asks of a session: body is the protocol's reply in `reply_format`."""

    session: str
    body_format: Format
    reply_format: Format
    body: bytes


class Check(_Frame, frozen=True):
    """Say whether a seat's action is legal now; a refusal is counted."""

    session: str
    seat: AgentID
    action: Action


class Default(_Frame, frozen=True):
    """Return a default action for a seat: body is an action."""

    session: str
    seat: AgentID


class Drop(_Frame, frozen=True):
    """Close a session and forget it: body is `Dropped`.

    Attributes:
        session: The session's id.
        error: What failed, where the episode was not played to its end.
        usage: What has been spent since the last step.
    """

    session: str
    error: ErrorRecord | None = None
    usage: Usage | None = None


class Survey(_Frame, frozen=True):
    """Say what every session has earned: body is {session: {seat: return}}."""


class Ping(_Frame, frozen=True):
    """Answer: the worker's main thread is well."""


Frame: TypeAlias = Ask | Prepare | Rebuild | Branch | Call | Check | Default | Drop | Survey | Ping


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """A refused step, as it was answered: a repeat of the same request is not counted again."""

    id: RequestId
    index: int
    actions: dict[AgentID, Action]
    error: bytes


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first thing a worker says, once it can work."""

    pid: int


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A worker's answer.

    Attributes:
        req: Number of the frame that is answered.
        body: The reply; an `ErrorRecord` in MessagePack where `code` is set.
        code: The error's code, or None.
        entry: The journal entry of the step that was taken, as MessagePack.
        counts: What the session has counted, where that changed without a step.
        refusals: The refusals to remember.
        over: The episode is over.
        failed: The session failed.
        handed_on: This is no answer yet: the session's own thread will give it.
    """

    req: int
    body: bytes = b""
    code: str | None = None
    entry: bytes | None = None
    counts: Counts | None = None
    refusals: list[Refusal] = []
    over: bool = False
    failed: bool = False
    handed_on: bool = False


class Opened(msgspec.Struct, frozen=True, array_like=True):
    """A session that has begun or was rebuilt.

    Attributes:
        record: Its latest step.
        seats: What each seat sees and can do.
        options: The environment's options, resolved.
        limits: The limits that hold.
        entries: Entries that were not given: the first one of a new session.
        over: The episode is over.
        snapshots: The environment can be forked by snapshot.
    """

    record: StepRecord
    seats: dict[AgentID, SeatInfo]
    options: dict[str, Any]
    limits: Limits
    entries: list[bytes]
    over: bool
    snapshots: bool


class Dropped(msgspec.Struct, frozen=True, array_like=True):
    """A closed session's last words: the end record as MessagePack, and the trace as JSON lines."""

    end: bytes
    lines: bytes


_LENGTH = struct.Struct("<I")
MOST_THREADS = 128
"""Threads of a worker for sessions whose environments wait; more sessions than these share them."""
AT_WORK = struct.Struct("<Q")
"""The number of the frame that a thread of a worker works on, 0 for none: the main thread's, then the others'."""
AT_WORK_BYTES = AT_WORK.size * (1 + MOST_THREADS)
"""Size of the memory that a worker and the server share."""
_encode = msgspec.msgpack.Encoder().encode


def temporary_prefix(pid: int) -> str:
    """Return what the names of a worker's temporary files begin with."""
    return f"arena-worker-{pid}-"


def pack(frame: Frame | Answer | Hello) -> bytes:
    """Return a frame with its length before it."""
    body = _encode(frame)
    return _LENGTH.pack(len(body)) + body


def failure(req: int, error: ArenaError, *, failed: bool = False) -> Answer:
    """Return the answer that an error is; `failed` where the session cannot go on."""
    return Answer(req, encode_msgpack(error.record()), error.code, failed=failed)


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now, without their lengths."""
        buffer = self._buffer
        buffer += data
        frames = []
        start, size = 0, len(buffer)
        while size - start >= 4:
            stop = start + 4 + int.from_bytes(buffer[start : start + 4], "little")
            if stop > size:
                break
            frames.append(bytes(buffer[start + 4 : stop]))
            start = stop
        if start:
            del buffer[:start]
        return frames
