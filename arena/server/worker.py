"""A worker process: many sessions, driven over one socket.

Environments are called on the main thread, one after the other; those that declare that they wait (`EnvSpec.blocking`)
have a thread for each session instead, see `arena.server.lanes`. `Environment.prepare`, which is slow and safe to call
twice at once, runs in threads of its own, too. The command line is the parent's process id, the socket's file
descriptor, that of the memory both share, the seconds that a call of an environment may take, and modules to import.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from arena.env import Environment
from arena.errors import ArenaError, EnvError
from arena.protocol import Describe, EnvironmentList, Environments, Read, Reply, Tasks
from arena.recovery import Entry, Opening, rebuild
from arena.registry import environments
from arena.server.catalog import describe_env, list_tasks, make_env
from arena.server.frames import (
    AT_WORK,
    AT_WORK_BYTES,
    Answer,
    Ask,
    Branch,
    Call,
    Check,
    Default,
    Drop,
    Frame,
    FrameReader,
    Hello,
    Ping,
    Prepare,
    Rebuild,
    Refusal,
    Survey,
    failure,
    pack,
    temporary_prefix,
)
from arena.server.lanes import Lane, Lanes, Work
from arena.server.preparing import Preparers
from arena.server.resident import Resident, request_of
from arena.session import Counts, Session
from arena.types import encode_msgpack

__all__ = ["main"]

_log = logging.getLogger(__name__)
_FLUSH_AFTER_S = 0.001
_CLOSE_WITHIN_S = 1.0
"""Seconds that calls in other threads get to return when the worker ends."""
_COLLECT_AT = 5_000, 10, 10
"""Objects, and collections of the younger generations, after which a generation is searched for garbage."""
_PR_SET_PDEATHSIG = 1

_decode_frame = msgspec.msgpack.Decoder(Frame).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode

Handler = Callable[[Any], Answer]


class Worker:
    """The sessions of this process.

    Args:
        link: The socket to the server process; the worker ends when it is closed.
        at_work: Shared with the server process: the number of the frame that each thread works on, 0 for none. Answers
            leave in groups, so what has not been answered does not say at what a worker died.
        timeout_s: Seconds after which a call in a thread of its own is given up.
    """

    def __init__(self, link: socket.socket, at_work: mmap.mmap, timeout_s: float) -> None:
        self._link, self._at_work, self._timeout_s = link, at_work, timeout_s
        self._sending = threading.Lock()
        self._residents: dict[str, Resident] = {}
        self._out: list[bytes] = []
        self._preparers = Preparers(self.send)
        self._lanes = Lanes(self, at_work, timeout_s)
        self._placed = self._lanes.placed
        self._handlers: dict[type[Any], Handler] = {
            Ask: self._ask,
            Rebuild: self._rebuild,
            Branch: self._branch,
            Call: self._call,
            Check: self._check,
            Default: self._default,
            Drop: self._drop,
            Survey: self._survey,
            Ping: self._ping,
        }

    def run(self) -> None:
        """Answer frames until the server process is gone."""
        self._preparers.start()
        self.send(pack(Hello(os.getpid())))
        reader = FrameReader()
        while data := self._link.recv(1 << 18):
            flushed = time.monotonic()
            for body in reader.feed(data):
                frame = _decode_frame(body)
                if isinstance(frame, Prepare):
                    self._preparers.put(frame)
                    continue
                AT_WORK.pack_into(self._at_work, 0, frame.req)
                self._out.append(self._packed(frame, self._handler(frame)))
                if time.monotonic() - flushed > _FLUSH_AFTER_S:
                    self._flush()
                    flushed = time.monotonic()
            AT_WORK.pack_into(self._at_work, 0, 0)
            self._flush()

    def close(self) -> None:
        """Close every session; those that are in the middle of a call are left to it after a while."""
        for lane in set(self._placed.values()):
            lane.clear()
        for id, resident in list(self._residents.items()):
            if (placed := self._placed.get(id)) is None:
                resident.close()
            else:
                placed.put(Work(None, partial(_closed, resident)))
        self._lanes.close(_CLOSE_WITHIN_S)

    # -- the link ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send frames; any thread may."""
        with self._sending:
            self._link.sendall(data)

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.send(data)

    def _packed(self, frame: Any, handle: Handler) -> bytes:
        try:
            return pack(_answer(frame, handle))
        except Exception as error:  # the boundary: an answer that cannot be sent must not end a worker
            _log.exception("an answer to a %s cannot be sent", type(frame).__name__)
            return pack(failure(frame.req, EnvError(f"{type(error).__name__}: {error}")))

    # -- threads of their own ---------------------------------------------------------------------------------------

    def _handler(self, frame: Any) -> Handler:
        """Return what answers a frame on the main thread, or hands it on."""
        if self._placed and (lane := self._placed.get(getattr(frame, "session", ""))) is not None:
            return partial(self._hand_on, lane)
        return self._handlers[type(frame)]

    def _hand_on(self, lane: Lane, frame: Any) -> Answer:
        """Leave a frame to its session's thread; what has been answered before can be read at once."""
        if isinstance(frame, Call) and isinstance(request := request_of(frame), Read):
            return self._get(frame.session).read(frame, request)
        return self._left_to(lane, frame, self._handlers[type(frame)])

    def _left_to(self, lane: Lane, frame: Any, handle: Handler) -> Answer:
        lane.put(Work(frame, partial(self._packed, frame, handle)))
        return Answer(frame.req, handed_on=True)

    def settle(self, work: Work) -> None:
        """Let readers see what was done; see `Owner`."""
        frame = work.frame
        for id in {frame.session, frame.new if isinstance(frame, Branch) else frame.session}:
            if (resident := self._residents.get(id)) is not None:
                resident.show()

    def desert(self, work: Work) -> bytes:
        """Fail the session whose environment does not return; see `Owner`."""
        frame = work.frame
        resident = self._residents.get(frame.session)
        env = frame.opening.env if resident is None else resident.opening.env
        error = EnvError(f"{env} did not return for {time.monotonic() - work.began:.0f} s")
        if resident is None:
            self._lanes.forget(frame.session)
        elif resident.last_words is None:
            work.deserted = resident.desert(error)
        else:  # it hangs in closing
            self._forget(frame.session)
            return pack(resident.last_words)
        return pack(failure(frame.req, error, failed=resident is not None))

    def recant(self, work: Work) -> None:
        """Close what a call has left that returned too late; see `Owner`."""
        match work.frame:
            case Rebuild(session=begun) | Branch(new=begun):
                resident = self._residents.get(begun)
                self._forget(begun)
                if resident is not None:
                    resident.close()
        if work.deserted is not None:
            work.deserted.close()

    def _forget(self, id: str) -> None:
        self._residents.pop(id, None)
        self._lanes.forget(id)

    # -- what needs no session --------------------------------------------------------------------------------------

    def _ask(self, frame: Ask) -> Answer:
        match frame.request:
            case Environments():
                reply: Reply = EnvironmentList(environments=[cls.spec for cls in environments])
            case Describe(env=env, options=options):
                reply = describe_env(make_env(env, options))
            case Tasks() as request:
                reply = list_tasks(request)
        return Answer(frame.req, encode_msgpack(reply))

    def _survey(self, frame: Survey) -> Answer:
        returns = {id: resident.returns() for id, resident in list(self._residents.items())}
        return Answer(frame.req, encode_msgpack(returns))

    def _ping(self, frame: Ping) -> Answer:
        return Answer(frame.req)

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _rebuild(self, frame: Rebuild) -> Answer:
        env = make_env(frame.opening.env, frame.opening.options)
        if not env.spec.blocking:
            return self._rebuilt(env, frame)
        return self._left_to(self._lanes.place(frame.session), frame, partial(self._rebuilt_apart, env))

    def _rebuilt_apart(self, env: Environment, frame: Rebuild) -> Answer:
        try:
            return self._rebuilt(env, frame)
        except BaseException:
            self._lanes.forget(frame.session)
            raise

    def _rebuilt(self, env: Environment, frame: Rebuild) -> Answer:
        opening = frame.opening
        entries = [_decode_entry(entry) for entry in frame.entries]
        self._lanes.allow(frame.session, 2 * sum(entry.env_s for entry in entries))
        counts = Counts(elapsed_s=0.0) if frame.fresh_counts else frame.counts
        session = rebuild(env, opening, entries, counts)
        if frame.fresh_counts:
            session.restore_counts(Counts())
        known = len(entries)
        if known == 0:
            try:
                session.open()
            except BaseException:
                session.close()
                raise
        return self._house(frame.req, frame.session, session, opening, frame.refusals, known)

    def _branch(self, frame: Branch) -> Answer:
        parent = self._get(frame.session)
        self._lanes.allow(frame.session, 2 * sum(record.env_s for record in parent.session.journal))
        twin = parent.session.fork(make_env(parent.opening.env, parent.opening.options), frame.at)
        if twin.env.spec.blocking:
            self._lanes.place(frame.new)
        return self._house(frame.req, frame.new, twin, parent.opening, [], frame.known)

    def _house(
        self, req: int, id: str, session: Session, opening: Opening, refusals: list[Refusal], known: int
    ) -> Answer:
        """Take a session in, and describe it; entries from `known` on are new."""
        resident = self._residents[id] = Resident(session, opening, list(refusals))
        opened = resident.opened(known)
        return Answer(req, encode_msgpack(opened), over=opened.over)

    def _get(self, id: str) -> Resident:
        resident = self._residents.get(id)
        if resident is None:
            raise EnvError(f"this worker has no session {id}", retryable=True)
        return resident

    def _call(self, call: Call) -> Answer:
        return self._get(call.session).call(call)

    def _check(self, frame: Check) -> Answer:
        return self._get(frame.session).check(frame)

    def _default(self, frame: Default) -> Answer:
        return self._get(frame.session).default(frame)

    def _drop(self, frame: Drop) -> Answer:
        answer = self._get(frame.session).drop(frame)
        self._forget(frame.session)
        return answer


def _answer(frame: Any, handle: Handler) -> Answer:
    try:
        return handle(frame)
    except ArenaError as error:
        return failure(frame.req, error)
    except (Exception, SystemExit) as error:  # the boundary: one request must not end a worker, or a thread
        _log.exception("a %s failed", type(frame).__name__)
        return failure(frame.req, EnvError(f"{type(error).__name__}: {error}"))


def _closed(resident: Resident) -> bytes:
    resident.close()
    return b""


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Work for the server process whose id and socket the command line names."""
    parent, fd, shared, timeout_s, *imports = sys.argv[1:]
    _die_with_parent(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    tempfile.template = temporary_prefix(os.getpid())  # so that the server knows what is ours when we are killed
    for module in imports:  # the operator's own, never a client's
        importlib.import_module(module)
    environments.ids()  # found here, before several threads look for them
    worker = Worker(socket.socket(fileno=int(fd)), mmap.mmap(int(shared), AT_WORK_BYTES), float(timeout_s))
    gc.freeze()  # what has been imported stays: collecting need not look at it
    gc.set_threshold(*_COLLECT_AT)
    try:
        worker.run()
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        worker.close()
        os._exit(0)  # threads that prepare tasks must not keep the process


if __name__ == "__main__":
    main()
