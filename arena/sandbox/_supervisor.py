"""The outer end of a sandbox's first process: requests go to it, pipes and files come back."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence

from arena.errors import SandboxError, ToolError
from arena.sandbox._capture import Kept

__all__ = ["Command", "Supervisor", "is_readable"]

_ANSWER_S = 30.0
_DRAIN_PASSES = 64


class Supervisor:
    """Sends requests to the first process.

    Args:
        control: The socket that it listens on, at our end.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._sending = threading.Lock()
        self._count = 0

    def request(self, words: Sequence[bytes], fds: Sequence[int]) -> None:
        """Send a request.

        Raises:
            SandboxError: Nobody listens any more.
        """
        body = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            _write_all(body, b"\0".join(words))
            packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (body, *fds))
            with self._sending:
                self._control.sendmsg([b"r"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
        except OSError as error:
            raise SandboxError(f"the sandbox has ended: {error.strerror or error}") from error
        finally:
            os.close(body)

    def is_hung_up(self) -> bool:
        """Return whether nobody is at the other end."""
        poll = select.poll()
        try:
            poll.register(self._control, 0)  # the end is told anyway
        except ValueError:
            return True
        return bool(poll.poll(0))

    def ask(self, *words: bytes) -> bytes:
        """Return the answer to a request, which comes when it is done.

        Raises:
            SandboxError: It is not answered.
        """
        mine, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self.request(words, [theirs])
            finally:
                os.close(theirs)
            if not is_readable(mine, _ANSWER_S) or not (answer := os.read(mine, 16)):
                raise SandboxError(f"the sandbox does not answer {words[0].decode()!r} within {_ANSWER_S:.0f} s")
            return answer
        finally:
            os.close(mine)

    def open(self, path: bytes, flags: int, mode: int) -> int:
        """Return a descriptor of a file that was opened inside.

        Raises:
            OSError: It cannot be opened.
            SandboxError: There is no answer.
        """
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            with theirs:
                self.request([b"open", path, b"%d" % flags, b"%d" % mode], [theirs.fileno()])
            mine.settimeout(_ANSWER_S)
            try:
                answer, fds, _, _ = socket.recv_fds(mine, 16, 1)
            except TimeoutError:
                raise SandboxError(f"the sandbox does not open a file within {_ANSWER_S:.0f} s") from None
        if not answer:
            raise SandboxError("the sandbox has ended")
        if not fds:
            number = int(answer)
            raise OSError(number, os.strerror(number))
        return fds[0]

    def start(
        self,
        arguments: Sequence[bytes],
        directory: bytes,
        variables: Sequence[bytes],
        stdin: int,
        output_bytes: int,
        more: Sequence[int] = (),
    ) -> Command:
        """Start a command; `more` descriptors are 3, 4 and so on in it.

        Raises:
            SandboxError: Nobody listens any more.
        """
        with self._sending:
            self._count += 1
            name = b"%d" % self._count
        pairs = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        theirs = [write for _, write in pairs]
        try:
            words = [b"run", name, directory, b"%d" % len(arguments), *arguments, *variables]
            self.request(words, [stdin, theirs[0], theirs[1], theirs[2], *more])
        except BaseException:
            for read, _ in pairs:
                os.close(read)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        (out, _), (err, _), (status, _) = pairs
        return Command(self, name, Kept(out, output_bytes), Kept(err, output_bytes), status)

    def close(self) -> None:
        """Hang up, which ends everything inside."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()


class Command:
    """A command that was started.

    Attributes:
        stdout: What it writes.
        stderr: Likewise.
        exit_code: Once it is known; 128 + its number of one that a signal has ended.
        is_lost: Whether nobody said what became of it.
    """

    def __init__(self, supervisor: Supervisor, name: bytes, stdout: Kept, stderr: Kept, status: int) -> None:
        self._supervisor, self._name, self._status = supervisor, name, status
        self._is_open = True
        self.stdout, self.stderr = stdout, stderr
        self.exit_code: int | None = None
        self.is_lost = False

    def wait(self, deadline: float, also: int | None = None) -> bool:
        """Read what it writes until it has ended, `also` can be read, or the time is up.

        Args:
            deadline: On the monotonic clock, in seconds.
            also: A descriptor.

        Returns:
            Whether it has ended, or `also` can be read.

        Raises:
            ToolError: It could not be started.
        """
        poll = select.poll()
        for fd in (self.stdout.fd, self.stderr.fd, self._status, also):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            for kept in (self.stdout, self.stderr):
                if kept.fd in ready:
                    kept.read()
                    if not kept.is_open:
                        poll.unregister(kept.fd)
            if self._status in ready:
                self._ended(os.read(self._status, 4096))
                self.drain()
                return True
            if also in ready:
                self.drain()
                return True

    def has_ended(self) -> bool:
        """Return whether it has ended by now."""
        if self.exit_code is None and is_readable(self._status, 0):
            self._ended(os.read(self._status, 4096))
        return self.exit_code is not None

    def drain(self) -> None:
        """Read what is there to be read, but no more than so much of what does not end."""
        for kept in (self.stdout, self.stderr):
            for _ in range(_DRAIN_PASSES):
                if not kept.read():
                    break

    def kill(self, *, spare_first: bool = False) -> None:
        """End all that came of it; not the command itself if asked.

        Raises:
            SandboxError: The sandbox does not answer.
        """
        self._supervisor.ask(b"kill", self._name, b"children" if spare_first else b"all")

    def close(self) -> None:
        """Let its pipes go."""
        self.stdout.close()
        self.stderr.close()
        if self._is_open:
            self._is_open = False
            os.close(self._status)

    def _ended(self, said: bytes) -> None:
        kind, _, rest = said.partition(b"\n")[0].partition(b" ")
        if kind == b"error":
            raise ToolError(os.fsdecode(rest)[:500])
        self.is_lost = not said
        # Whoever kills a command's runner, as `kill -9 -1` does, is taken to have killed the command.
        self.exit_code = int(rest) if kind == b"exit" else 128 + (int(rest) if kind == b"signal" else 9)


def is_readable(fd: int, timeout_s: float) -> bool:
    """Wait for something to be read, or for the end, for so many seconds; return whether there is."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
