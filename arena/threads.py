"""Calls that wait, each on a thread that does not keep the process alive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["CallThread"]

T = TypeVar("T")


class CallThread:
    """A thread that makes calls one after the other; it begins with the first one.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._last: Future[Any] | None = None

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have a call made after all others, and return what will come of it."""
        if self._last is None:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        future = Future[T]()
        self._last = future
        self._calls.put((future, call))
        return future

    @property
    def is_busy(self) -> bool:
        """Whether a call has not returned yet."""
        return self._last is not None and not self._last.done()

    def stop(self) -> None:
        """Let the thread end once it has made all calls; nothing may be submitted afterwards."""
        if self._last is not None:
            self._calls.put(None)

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # it belongs to whoever waits
                future.set_exception(error)
            del asked, future, call
