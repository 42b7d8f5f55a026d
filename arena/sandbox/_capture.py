"""What a command writes, kept within bounds."""

from __future__ import annotations

import contextlib
import os
from collections import deque

__all__ = ["Kept"]

_CHUNK = 1 << 18


class Kept:
    """The first and the last bytes that come out of a pipe; what is between is counted.

    Args:
        fd: The pipe's end to read from; closed by `close`.
        most: So many bytes are kept, half from the beginning and half from the end.
    """

    def __init__(self, fd: int, most: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.is_open = True
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.omitted = 0
        """Bytes that were left out."""
        self.keep(most)

    def keep(self, most: int) -> None:
        """Keep so many bytes from now on."""
        self._head_room = (most + 1) // 2
        self._tail_room = most - self._head_room

    def read(self) -> bool:
        """Read what is there, a chunk at most; return whether there may be more at once."""
        if not self.is_open:
            return False
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self._keep(data)
        return True

    def close(self) -> None:
        """Read no more."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(OSError):
                os.close(self.fd)

    def take(self) -> tuple[bytes, int]:
        """Return what was kept since the last time, and how many bytes were left out."""
        taken = bytes(self._head) + b"".join(self._tail), self.omitted
        self._head.clear()
        self._tail.clear()
        self._tail_size = self.omitted = 0
        return taken

    def _keep(self, data: bytes) -> None:
        room = self._head_room - len(self._head)
        if room > 0 and not self._tail:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size > self._tail_room:
            first, surplus = self._tail.popleft(), self._tail_size - self._tail_room
            left_out = min(surplus, len(first))
            self.omitted += left_out
            self._tail_size -= left_out
            if left_out < len(first):
                self._tail.appendleft(first[left_out:])
