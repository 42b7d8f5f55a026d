"""The worker processes, and what they have been asked.

A worker is spawned with one end of a socket pair. Frames that are sent before it has come up wait in the socket. One
that dies, or does not answer in time, is replaced; whoever had asked it something is told.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from arena.errors import UsageError
from arena.server.frames import (
    AT_WORK,
    AT_WORK_BYTES,
    Answer,
    Frame,
    FrameReader,
    Hello,
    Ping,
    Prepare,
    pack,
    temporary_prefix,
)

__all__ = ["Job", "Pool", "WorkerProcess"]

_log = logging.getLogger(__name__)
_CHECK_EVERY_S = 1.0
_LONGEST_PAUSE_S = 10.0
_WORKER = "arena.server.worker"
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


@dataclass(slots=True, eq=False)
class Job:
    """Something that a worker is asked to do.

    Attributes:
        frame: Makes the frame from its number.
        done: Called with the answer.
        lost: Called, instead of `done`, when the worker has died, with how many jobs were at work there, this one among
            them; 0 where it was not.
        sent_at: When it was sent, on the monotonic clock.
        deaths: Workers that died at it.
    """

    frame: Callable[[int], Frame]
    done: Callable[[Answer], None]
    lost: Callable[[Job, int], None]
    sent_at: float = 0.0
    deaths: int = 0


@dataclass(slots=True, eq=False)
class WorkerProcess(asyncio.Protocol):
    """One worker process.

    Attributes:
        number: Position in the pool.
        gone: Called when it is gone.
        step_timeout_s: Seconds that a call of an environment may take in a thread of its own.
        imports: Modules that it imports at the start.
        load: Sessions that live here.
        ready: It has come up.
        alive: It has not been lost yet.
        hung: It is killed because its main thread does not answer.
    """

    number: int
    gone: Callable[[WorkerProcess], None]
    step_timeout_s: float
    imports: tuple[str, ...] = ()
    load: int = 0
    ready: bool = False
    alive: bool = True
    hung: bool = False
    process: subprocess.Popen[bytes] | None = None
    last_answer_at: float = field(default_factory=time.monotonic)
    _jobs: dict[int, Job] = field(default_factory=dict)
    _handed_on: dict[int, Job] = field(default_factory=dict)
    _preparing: dict[int, Job] = field(default_factory=dict)
    _out: list[bytes] = field(default_factory=list)
    _transport: asyncio.Transport | None = None
    _reader: FrameReader = field(default_factory=FrameReader)
    _next: int = 0
    _up: bool = False
    _loop: Any = None
    _at_work: mmap.mmap | None = None

    async def start(self) -> None:
        """Spawn the process."""
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        shared = os.memfd_create("arena-worker")
        os.ftruncate(shared, AT_WORK_BYTES)
        self._at_work = mmap.mmap(shared, AT_WORK_BYTES)
        command = [sys.executable, "-m", _WORKER, str(os.getpid()), str(theirs.fileno()), str(shared)]
        try:
            self.process = subprocess.Popen(
                [*command, str(self.step_timeout_s), *self.imports],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), shared],
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name != "ARENA_TOKEN"},
            )
        finally:
            theirs.close()
            os.close(shared)
        ours.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=ours)

    def send(self, job: Job) -> None:
        """Send a job: at once where the worker is idle, else with what else is sent in this turn of the event loop.

        Raises:
            UsageError: The frame holds an integer beyond 64 bits.
        """
        self._next = req = self._next + 1
        frame = job.frame(req)
        data = _packed(frame)
        idle = not self._jobs
        (self._preparing if type(frame) is Prepare else self._jobs)[req] = job
        job.sent_at = time.monotonic()
        self._out.append(data)
        if idle:
            self._flush()
        elif len(self._out) == 1:
            self._loop.call_soon(self._flush)

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()

    def disconnect(self) -> None:
        """Let the process end by itself."""
        if self._transport is not None:
            self._transport.close()

    def stuck_s(self, now: float) -> float:
        """Return for how long its main thread has been at the job at the head of the queue.

        Where other threads have jobs and that one has none, it is asked whether it is well.
        """
        for job in self._jobs.values():
            return now - max(job.sent_at, self.last_answer_at)
        if self._handed_on and self.alive:
            self.send(Job(Ping, lambda answer: None, lambda job, at_work: None))
        return 0.0

    def take_jobs(self) -> tuple[list[tuple[Job, int]], list[Job]]:
        """Return, and forget, what has not been answered, each as `Job.lost` takes it, and what was being prepared."""
        left = {**self._handed_on, **self._jobs}
        numbers = [] if self._at_work is None else [req for (req,) in AT_WORK.iter_unpack(self._at_work)]
        if self.hung and numbers[0] in left:
            numbers = numbers[:1]  # the other threads are not to blame
        at_work = left.keys() & set(numbers)
        jobs = [(left[req], len(at_work) if req in at_work else 0) for req in sorted(left)]
        preparing = list(self._preparing.values())
        for kept in (self._jobs, self._handed_on, self._preparing):
            kept.clear()
        return jobs, preparing

    @property
    def pending(self) -> int:
        """Jobs that have not been answered."""
        return len(self._jobs) + len(self._handed_on) + len(self._preparing)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Hand out answers."""
        now = time.monotonic()
        for body in self._reader.feed(data):
            if not self._up:
                msgspec.msgpack.decode(body, type=Hello)
                self._up = self.ready = True
                self.last_answer_at = now
                continue
            answer = _decode_answer(body)
            job = self._jobs.pop(answer.req, None)
            if job is not None:
                self.last_answer_at = now
                if answer.handed_on:
                    self._handed_on[answer.req] = job
                    continue
            else:
                job = self._handed_on.pop(answer.req, None) or self._preparing.pop(answer.req, None)
            if job is not None:
                try:
                    job.done(answer)
                except Exception:  # the boundary: one answer's receiver must not cost the others theirs
                    _log.exception("an answer could not be handed out")

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the process is gone."""
        self.ready = self.alive = False
        self.gone(self)


class Pool:
    """The workers.

    Args:
        size: How many.
        step_timeout_s: Seconds after which a worker that does not answer is killed.
        imports: Modules that each worker imports at the start.
        restarted: Called when a worker has been replaced.
    """

    def __init__(
        self,
        size: int,
        step_timeout_s: float,
        *,
        imports: tuple[str, ...] = (),
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        self._size, self._step_timeout_s, self._imports, self._restarted = size, step_timeout_s, imports, restarted
        self.workers: list[WorkerProcess] = []
        self._deaths: deque[float] = deque(maxlen=8)
        self._watch: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Spawn the workers; they come up by themselves."""
        for number in range(self._size):
            worker = WorkerProcess(number, self._gone, self._step_timeout_s, self._imports)
            await worker.start()
            self.workers.append(worker)
        self._watch = asyncio.create_task(self._watch_over())

    async def stop(self) -> None:
        """End the workers, those that do not listen by force."""
        self._stopping = True
        for task in [self._watch, *self._tasks]:
            if task is not None:
                task.cancel()
        for worker in self.workers:
            worker.disconnect()
        for worker in self.workers:
            await _reap(worker, 2.0)

    @property
    def ready(self) -> bool:
        """Whether every worker has come up."""
        return bool(self.workers) and all(worker.ready for worker in self.workers)

    @property
    def pending(self) -> int:
        """Jobs that no worker has answered."""
        return sum(worker.pending for worker in self.workers)

    def pick(self) -> WorkerProcess:
        """Return the worker with the fewest sessions."""
        return min(self.workers, key=lambda worker: (not worker.ready, worker.load, worker.pending))

    def _gone(self, worker: WorkerProcess) -> None:
        if self._stopping:
            return
        self._deaths.append(time.monotonic())
        _log.warning("the worker is gone; it is replaced", extra={"worker": worker.number})
        task = asyncio.create_task(self._replace(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, dead: WorkerProcess) -> None:
        came_up = dead._up
        dead.kill()
        if not came_up:  # it cannot even start: no hurry
            await asyncio.sleep(min(_LONGEST_PAUSE_S, 0.25 * 2 ** len(self._deaths)))
        fresh = WorkerProcess(dead.number, self._gone, self._step_timeout_s, self._imports)
        await fresh.start()
        self.workers[dead.number] = fresh
        self._restarted()
        _hand_back(dead)
        await _reap(dead, 0.0)

    async def _watch_over(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            now = time.monotonic()
            for worker in self.workers:
                stuck_s = worker.stuck_s(now)
                if worker.ready and stuck_s > self._step_timeout_s:
                    _log.error("no answer for %.0f s; the worker is killed", stuck_s, extra={"worker": worker.number})
                    worker.hung = True
                    worker.kill()


def _packed(frame: Frame) -> bytes:
    try:
        return pack(frame)
    except OverflowError as error:
        raise UsageError(f"a number is too long: integers have at most 64 bits ({error})") from error


def _hand_back(dead: WorkerProcess) -> None:
    """Tell whoever was waiting for a dead worker, and what it died at."""
    jobs, preparing = dead.take_jobs()
    for job, at_work in jobs:
        job.lost(job, at_work)
    for job in preparing:
        job.lost(job, 1)


async def _reap(worker: WorkerProcess, grace_s: float) -> None:
    """Wait for a process to end, kill it after a while, and remove the temporary files that it had no time to."""
    process = worker.process
    if process is None:
        return
    deadline = time.monotonic() + grace_s
    while process.poll() is None:
        if time.monotonic() >= deadline:
            process.kill()
        await asyncio.sleep(0.01)
    for left in Path(tempfile.gettempdir()).glob(f"{temporary_prefix(process.pid)}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
