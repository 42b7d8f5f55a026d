"""Threads of a worker for sessions whose environments wait for something outside the process.

Each such session has a lane: a queue, and a thread that works it off in order. Beyond `MOST_THREADS` sessions share
lanes. A call that does not return in time keeps its thread; the lane goes on with another one, and whoever owns the
sessions is told to do without the environment that does not answer.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from arena.errors import EnvError
from arena.server.frames import AT_WORK, MOST_THREADS
from arena.session import Session

__all__ = ["Lane", "Lanes", "Owner", "Work"]

_log = logging.getLogger(__name__)
_MOST_DESERTED = 32
"""Threads that a worker leaves to calls that do not return; at one more it ends, and its sessions go elsewhere."""
_LOOK_EVERY_S = 1.0


class Work:
    """Something that a lane is to do for a frame.

    Attributes:
        frame: The frame; None for what nobody waits for.
        do: Does it, and returns the answer.
        began: When it began, on the monotonic clock.
        more_s: Seconds that it may take beyond the usual.
        deserted: The session that was left to it, once it had taken too long.
    """

    __slots__ = ("began", "deserted", "do", "frame", "more_s")

    def __init__(self, frame: Any, do: Callable[[], bytes]) -> None:
        self.frame, self.do = frame, do
        self.began = self.more_s = 0.0
        self.deserted: Session | None = None


class Owner(Protocol):
    """Whose sessions the lanes drive."""

    def send(self, data: bytes) -> None:
        """Send an answer; any thread may."""

    def settle(self, work: Work) -> None:
        """Note that work was done in time; its answer is sent next."""

    def desert(self, work: Work) -> bytes:
        """Return the answer in place of work that takes too long, and do without its session from now on."""

    def recant(self, work: Work) -> None:
        """Undo what work has done that was given up."""


class Lane:
    """A queue and the thread that works it off.

    Args:
        number: Position among the lanes, from 1.
        owner: Whose sessions it drives.
        at_work: Where the number of the frame at work is written down.

    Attributes:
        sessions: How many it drives.
        work: What is being done.
    """

    def __init__(self, number: int, owner: Owner, at_work: mmap.mmap) -> None:
        self.sessions = 0
        self.work: Work | None = None
        self._number, self._owner, self._at_work = number, owner, at_work
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._claim = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work with a new thread.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        thread = threading.Thread(target=self._drive, name=f"lane-{self._number}", daemon=True)
        thread.start()
        self._thread = thread

    def put(self, work: Work) -> None:
        """Have something done after everything else."""
        self._queue.put(work)

    def clear(self) -> None:
        """Forget what has not begun."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def stop(self) -> None:
        """Let the thread end after everything else."""
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, for as long at most."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def give_up(self, work: Work) -> bytes | None:
        """Leave the thread to what it does, and return the answer in its place; None where it is done after all."""
        with self._claim:
            if self.work is not work:
                return None
            self._write_down(None)
            return self._owner.desert(work)

    def _drive(self) -> None:
        while (work := self._queue.get()) is not None:
            work.began = time.monotonic()
            self._write_down(work)
            answer = work.do()
            with self._claim:
                if ours := self.work is work:
                    if work.frame is not None:
                        self._owner.settle(work)
                    self._write_down(None)
            if not ours:  # another thread drives this lane now
                self._owner.recant(work)
                return
            if work.frame is not None:
                with contextlib.suppress(OSError):  # the server is gone, and the worker about to end
                    self._owner.send(answer)

    def _write_down(self, work: Work | None) -> None:
        self.work = work
        req = 0 if work is None or work.frame is None else work.frame.req
        AT_WORK.pack_into(self._at_work, AT_WORK.size * self._number, req)


class Lanes:
    """The lanes of a worker.

    Args:
        owner: Whose sessions they drive.
        at_work: What the worker shares with the server process.
        timeout_s: Seconds after which work is given up.

    Attributes:
        placed: The lane of each session that has one.
    """

    def __init__(self, owner: Owner, at_work: mmap.mmap, timeout_s: float) -> None:
        self._owner, self._at_work, self._timeout_s = owner, at_work, timeout_s
        self.placed: dict[str, Lane] = {}
        self._lanes: list[Lane] = []
        self._lock = threading.Lock()
        self._deserted = 0

    def place(self, session: str) -> Lane:
        """Return the lane of a new session: one of its own, or, where there are too many, the emptiest.

        Raises:
            EnvError: The system gives not a single thread.
        """
        with self._lock:
            lane = min(self._lanes, key=lambda lane: lane.sessions, default=None)
            if lane is None or (lane.sessions and len(self._lanes) < MOST_THREADS):
                lane = self._another(lane)
            lane.sessions += 1
            self.placed[session] = lane
        return lane

    def forget(self, session: str) -> None:
        """Let the lane of a session be another's; nothing happens where it has none."""
        with self._lock:
            lane = self.placed.pop(session, None)
            if lane is not None:
                lane.sessions -= 1

    def allow(self, session: str, more_s: float) -> None:
        """Let what a session's lane is doing take longer than usual; nothing happens where it has none."""
        lane = self.placed.get(session)
        if lane is not None and lane.work is not None:
            lane.work.more_s = more_s

    def close(self, within_s: float) -> None:
        """Let every lane end after what it is doing, and wait for that."""
        for lane in self._lanes:
            lane.stop()
        deadline = time.monotonic() + within_s
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))

    def _another(self, emptiest: Lane | None) -> Lane:
        lane = Lane(len(self._lanes) + 1, self._owner, self._at_work)
        try:
            lane.start()
            if not self._lanes:
                threading.Thread(target=self._watch, name="lanes", daemon=True).start()
        except RuntimeError as error:
            if emptiest is None:
                raise EnvError(f"no thread for the session: {error}", retryable=True) from error
            _log.warning("sessions share threads, for there are no more: %s", error)
            return emptiest
        self._lanes.append(lane)
        return lane

    def _watch(self) -> None:
        while True:
            time.sleep(min(_LOOK_EVERY_S, self._timeout_s / 4))
            now = time.monotonic()
            for lane in list(self._lanes):
                work = lane.work
                if work is not None and work.frame is not None and now - work.began > self._timeout_s + work.more_s:
                    self._give_up(lane, work)

    def _give_up(self, lane: Lane, work: Work) -> None:
        answer = lane.give_up(work)
        if answer is None:
            return
        _log.error("a %s does not return; its session has failed", type(work.frame).__name__)
        with contextlib.suppress(OSError):  # the server is gone, and the worker about to end
            self._owner.send(answer)
        self._deserted += 1
        try:
            if self._deserted > _MOST_DESERTED:
                raise RuntimeError(f"{self._deserted} calls do not return")
            lane.start()
        except RuntimeError as error:
            _log.error("the worker ends: %s", error)
            os._exit(1)
