"""The streams of a process in a container: a connection to the daemon, and what comes out of it, kept within bounds.

Source: Docker's engine API, "Attach to a container": after an upgrade the connection carries the input, and back come
packets of eight bytes and a content: the stream's number, three zeros, and the length.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from arena.errors import SandboxError

__all__ = ["Output", "Stream"]

_CHUNK = 1 << 18
_HEADER = 8
_CODE_BYTES = 16


class Output:
    """One stream of a command: its first and last bytes, up to a mark. What is between is counted.

    Attributes:
        first: Its first line, which is not part of what is kept, once it is there; only if asked for.
        said: What stands behind the mark, once it is there.
    """

    def __init__(self, most: int, mark: bytes, *, has_first_line: bool) -> None:
        self.first: bytes | None = None if has_first_line else b""
        self._held = bytearray()
        self.expect(most, mark)

    def expect(self, most: int, mark: bytes) -> None:
        """Keep so many bytes of what comes now, up to another mark."""
        self._mark = mark
        self._head_room = (most + 1) // 2
        self._tail_room = most - self._head_room
        self._head, self._tail = bytearray(), bytearray()
        self._omitted = 0
        self.said: str | None = None
        self.add(b"")

    def add(self, data: bytes) -> None:
        """Take what has come."""
        self._held += data
        if self.first is None:
            line, newline, rest = self._held.partition(b"\n")
            if not newline:
                return
            self.first, self._held = bytes(line), rest
        if self.said is None:
            self._look_for_mark()

    def take(self) -> tuple[bytes, int]:
        """Return what was kept, and how many bytes were left out."""
        if self.said is None:
            self._keep(self._held)
            self._held = bytearray()
        self._trim()
        return bytes(self._head + self._tail), self._omitted

    def _look_for_mark(self) -> None:
        at = self._held.find(self._mark) if self._mark else -1
        end = -1 if at < 0 else self._held.find(b"\n", at)
        if end >= 0:
            self.said = self._held[at + len(self._mark) : end].decode(errors="replace")
            self._keep(self._held[:at])
            del self._held[: end + 1]
        elif (surplus := len(self._held) - len(self._mark) - _CODE_BYTES) > 0:
            self._keep(self._held[:surplus])
            del self._held[:surplus]

    def _keep(self, data: bytearray) -> None:
        room = self._head_room - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._tail_room + _CHUNK:
            self._trim()

    def _trim(self) -> None:
        if (surplus := len(self._tail) - self._tail_room) > 0:
            self._omitted += surplus
            del self._tail[:surplus]


class Stream:
    """A connection to a process in a container.

    Args:
        address: The daemon's socket.
        path: What is asked of it.
        body: With which words.
        timeout_s: Seconds within which it has to answer.

    Attributes:
        has_ended: Whether nothing will come any more.

    Raises:
        SandboxError: The daemon refuses, or is gone.
    """

    def __init__(self, address: str, path: str, body: Mapping[str, Any], timeout_s: float) -> None:
        self.has_ended = False
        self._sinks: dict[int, Callable[[bytes], None]] = {}
        self._out = memoryview(b"")
        self._closes_input = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(address)
            self._packets = bytearray(self._upgraded(path, json.dumps(body).encode()))
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise SandboxError(f"the Docker daemon does not answer: {error}") from error
        except BaseException:
            self._socket.close()
            raise

    def _upgraded(self, path: str, body: bytes) -> bytes:
        """Ask for the connection; return what has come behind the answer."""
        words = [f"POST {path} HTTP/1.1", "Host: docker", "Content-Type: application/json", "Connection: Upgrade"]
        words += ["Upgrade: tcp", f"Content-Length: {len(body)}", "", ""]
        self._socket.sendall("\r\n".join(words).encode() + body)
        said = b""
        while b"\r\n\r\n" not in said:
            if not (more := self._socket.recv(4096)):
                raise SandboxError("the Docker daemon has hung up")
            said += more
        head, _, rest = said.partition(b"\r\n\r\n")
        if re.match(rb"HTTP/1\.\d (101|200) ", head):
            return rest
        reason = re.search(rb'"message":\s*"((?:[^"\\]|\\.)*)"', rest) or re.search(rb"(.+)", head)
        raise SandboxError(f"Docker refuses: {reason.group(1).decode(errors='replace') if reason else 'no reason'}")

    def on_output(self, stdout: Callable[[bytes], None], stderr: Callable[[bytes], None]) -> None:
        """Say who takes what comes."""
        self._sinks = {1: stdout, 2: stderr}

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Have something sent while somebody waits; with the last of it the input ends."""
        self._out = memoryview(bytes(self._out) + data)
        self._closes_input |= last

    def wait(self, is_done: Callable[[], bool], deadline: float) -> bool:
        """Send and receive until something is so, nothing will come any more, or the time is up.

        Args:
            is_done: What is waited for.
            deadline: On the monotonic clock, in seconds.

        Returns:
            Whether it is so.
        """
        poll = select.poll()
        self._distribute()
        while not is_done() and not self.has_ended:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._send_some()
            try:
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            except ValueError:  # another thread has closed it
                self.has_ended = True
                break
            if poll.poll(min(left, 1.0) * 1000):
                self._receive()
        return is_done()

    def is_hung_up(self) -> bool:
        """Return whether nobody is at the other end."""
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLRDHUP)
        except ValueError:
            return True
        return bool(poll.poll(0))

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits
        self._socket.close()

    def _send_some(self) -> None:
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out[:_CHUNK]) :]
            if not self._out and self._closes_input:
                self._closes_input = False
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:  # the command reads no more, or has ended, as is seen next
            self._out, self._closes_input = memoryview(b""), False

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.has_ended = True
        self._packets += data
        self._distribute()

    def _distribute(self) -> None:
        """Hand on every packet that is whole."""
        at = 0
        while len(self._packets) - at >= _HEADER:
            size = int.from_bytes(self._packets[at + 4 : at + _HEADER], "big")
            if len(self._packets) - at < _HEADER + size:
                break
            if sink := self._sinks.get(self._packets[at]):
                sink(bytes(self._packets[at + _HEADER : at + _HEADER + size]))
            at += _HEADER + size
        del self._packets[:at]
