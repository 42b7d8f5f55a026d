"""What a worker does before a session begins: tasks are found and prepared on threads of their own.

`Environment.prepare` is slow, and safe to call twice at once. Two threads do it, and more for environments that wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial

from arena.env import Environment
from arena.errors import ArenaError, EnvError
from arena.server.catalog import find_opening, make_env
from arena.server.frames import Answer, Prepare, failure, pack
from arena.types import encode_msgpack

__all__ = ["Preparers"]

_USUAL, _WAITING = 2, 16


class Preparers:
    """Threads that prepare tasks.

    Args:
        send: Sends an answer; called from any of the threads.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._usual: queue.SimpleQueue[Prepare] = queue.SimpleQueue()
        self._waiting: queue.SimpleQueue[tuple[Prepare, Environment]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiters = 0

    def start(self) -> None:
        """Begin to prepare."""
        for _ in range(_USUAL):
            threading.Thread(target=self._prepare, daemon=True).start()

    def put(self, frame: Prepare) -> None:
        """Have a task prepared."""
        self._usual.put(frame)

    def _prepare(self) -> None:
        while True:
            frame = self._usual.get()
            answer = _answered(frame, partial(self._begun, frame))
            if answer is not None:
                self._send(pack(answer))

    def _begun(self, frame: Prepare) -> Answer | None:
        """Prepare a task; None where that is left to the threads that may wait."""
        env = make_env(frame.env, frame.options)
        if not env.spec.blocking:
            return _prepared(frame, env)
        with self._lock:
            if self._waiters < _WAITING:
                threading.Thread(target=self._wait, daemon=True).start()
                self._waiters += 1
        self._waiting.put((frame, env))
        return None

    def _wait(self) -> None:
        while True:
            frame, env = self._waiting.get()
            answer = _answered(frame, partial(_prepared, frame, env))
            assert answer is not None
            self._send(pack(answer))


def _prepared(frame: Prepare, env: Environment) -> Answer:
    return Answer(frame.req, encode_msgpack(find_opening(frame, env)))


def _answered(frame: Prepare, prepare: Callable[[], Answer | None]) -> Answer | None:
    try:
        return prepare()
    except ArenaError as error:
        return failure(frame.req, error)
    except Exception as error:  # the boundary: the task cannot be prepared
        return failure(frame.req, EnvError(f"{frame.env}: {type(error).__name__}: {error}"))
