"""The shell of a bubblewrap sandbox."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

from arena.errors import SandboxError, ToolError, UsageError
from arena.sandbox._supervisor import is_readable
from arena.sandbox._words import as_bytes, check_bounds
from arena.sandbox.bubblewrap._running import Running
from arena.sandbox.contract import ExecResult, Shell

__all__ = ["BubblewrapShell"]

_RETURN_S = 3.0
_SHELL = """ARENA_COUNT=0
while IFS= read -r -d '' -u 3 ARENA_COMMAND; do
eval "$ARENA_COMMAND" 3<&- 4>&-
printf '%d %d\\0' "$((++ARENA_COUNT))" "$?" >&4
done"""


class BubblewrapShell(Shell):
    """A bash that reads its commands from a pipe of their own.

    Args:
        running: The processes among which it is started.
        require_alive: Raises `SandboxError` if it is the sandbox that has ended.
    """

    def __init__(self, running: Running, require_alive: Callable[[], None]) -> None:
        self._running, self._require_alive = running, require_alive
        self._busy = threading.Lock()
        self._opened = contextlib.ExitStack()
        try:
            commands, self._commands = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._commands, False)
            self._opened.callback(os.close, self._commands)
            self._codes, codes = os.pipe2(os.O_CLOEXEC)
            self._opened.callback(os.close, self._codes)
            with contextlib.ExitStack() as theirs:
                theirs.callback(os.close, commands)
                theirs.callback(os.close, codes)
                words = ["bash", "--noprofile", "--norc", "-c", _SHELL]
                self._command = running.begin(words, None, None, b"", 1 << 16, self._opened, more=[commands, codes])
        except BaseException:
            self._opened.close()
            raise
        self._is_open = True
        self._count = 0

    @property
    def alive(self) -> bool:
        """Whether it can run another command."""
        return self._is_open and self._running.alive and not self._command.has_ended()

    def run(self, command: str, *, timeout_s: float = 60.0, output_bytes: int = 1 << 16) -> ExecResult:
        """Run a command; see `Shell.run`."""
        check_bounds(timeout_s, output_bytes)
        text = as_bytes(command, "a command")
        if not self._busy.acquire(blocking=False):
            raise UsageError("the shell is running another command")
        try:
            if not self.alive:
                self._require_alive()
                raise ToolError("the shell has ended")
            return self._run(text, timeout_s, output_bytes)
        finally:
            self._busy.release()

    def close(self) -> None:
        """End it; see `Shell.close`."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(SandboxError):
                self._running.kill(self._command)
            with self._busy:  # who runs a command sees that it has ended
                self._opened.close()

    def _run(self, text: bytes, timeout_s: float, output_bytes: int) -> ExecResult:
        self._command.stdout.keep(output_bytes)
        self._command.stderr.keep(output_bytes)
        if is_readable(self._codes, 0):
            self._told(os.read(self._codes, 4096))
        self._count += 1
        began = time.monotonic()
        self._say(text + b"\0", began + timeout_s)
        in_time = self._command.wait(began + timeout_s, self._codes)
        if not in_time:
            self._running.kill(self._command, spare_first=True)
            if not self._command.wait(time.monotonic() + _RETURN_S, self._codes):
                self._running.kill(self._command)
                self._command.wait(time.monotonic() + 1.0)
        code = self._command.exit_code
        if code is None and (said := os.read(self._codes, 4096)):
            code = self._told(said)
        elif code is None:  # it has closed its end, and is about to end
            self._command.wait(time.monotonic() + 1.0)
            code = self._command.exit_code
        if self._command.is_lost:
            self._require_alive()
        (out, out_omitted), (err, err_omitted) = self._command.stdout.take(), self._command.stderr.take()
        code = code if in_time else None
        return ExecResult(code, out, err, out_omitted, err_omitted, time.monotonic() - began, not in_time)

    def _told(self, said: bytes) -> int:
        """Return the code that the shell tells; end it if a command has written there, too."""
        number, _, code = said.removesuffix(b"\0").partition(b" ")
        if number == b"%d" % self._count and code.isdigit() and len(code) <= 3:
            return int(code)
        self._running.kill(self._command)
        raise ToolError("a command has written to the shell's own pipe; the shell has been ended")

    def _say(self, text: bytes, deadline: float) -> None:
        """Hand a command over; a pipe holds little of a long one at a time."""
        poll = select.poll()
        poll.register(self._commands, select.POLLOUT)
        view = memoryview(text)
        while view and (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                try:
                    view = view[os.write(self._commands, view) :]
                except BrokenPipeError:  # it has just ended, as is seen next
                    return
