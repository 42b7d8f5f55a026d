"""A shell in a container that lives on between commands."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from arena.errors import SandboxError, ToolError, UsageError
from arena.sandbox._words import as_bytes, check_bounds
from arena.sandbox.contract import ExecResult, Shell
from arena.sandbox.docker._command import Command, new_mark

__all__ = ["DockerShell"]

_RETURN_S, _END_S = 3.0, 1.0
_FORGED = 125


class DockerShell(Shell):
    """A shell whose commands, codes and output share the streams of one process; marks tell them apart.

    Args:
        command: The shell.
        is_alive: Whether its sandbox is.
    """

    def __init__(self, command: Command, is_alive: Callable[[], bool]) -> None:
        self._command, self._is_alive = command, is_alive
        self._busy = threading.Lock()
        self._is_open = True
        self._count = 0

    @property
    def alive(self) -> bool:
        """Whether it can run another command."""
        return self._is_open and self._is_alive() and not self._command.stream.is_hung_up()

    def run(self, command: str, *, timeout_s: float = 60.0, output_bytes: int = 1 << 16) -> ExecResult:
        """Run a command; see `Shell.run`."""
        check_bounds(timeout_s, output_bytes)
        text = as_bytes(command, "a command")
        if not self._busy.acquire(blocking=False):
            raise UsageError("the shell is running another command")
        try:
            if not self.alive:
                if not self._is_alive():
                    raise SandboxError("the sandbox has ended")
                raise ToolError("the shell has ended")
            return self._run(text, timeout_s, output_bytes)
        finally:
            self._busy.release()

    def close(self) -> None:
        """End it; see `Shell.close`."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(SandboxError):
                self._command.kill()
            self._command.close()

    def let_go(self) -> None:
        """Close its streams, as its container has ended."""
        self._is_open = False
        self._command.close()

    def _run(self, text: bytes, timeout_s: float, output_bytes: int) -> ExecResult:
        command, mark = self._command, new_mark()
        command.stdout.expect(output_bytes, mark)
        command.stderr.expect(output_bytes, mark)
        self._count += 1
        command.stream.send(b"%d %s %d\n%s\n" % (self._count, mark, text.count(b"\n") + 1, text))
        began = time.monotonic()
        if command.wait(began + timeout_s):
            return command.result(began, self._code())
        command.kill(spare_first=True)
        if not command.stream.wait(command.is_done, time.monotonic() + _RETURN_S):
            command.kill()
            command.stream.wait(command.is_done, time.monotonic() + _END_S)
            self._is_open = False
            command.close()
        return command.result(began, None)

    def _code(self) -> int:
        """Return the code of a command that has ended, or of the shell, if that has."""
        if self._command.is_done():
            return self._command.code()
        if not self._is_alive():
            raise SandboxError("the sandbox has ended")
        code = self._command.ended_with()
        if code == _FORGED:
            raise ToolError("a command has written to the shell's own pipe; the shell has ended")
        return code
