"""The sandbox itself."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from arena.errors import SandboxError, ToolError, UsageError
from arena.sandbox._scratch import delete, scratch
from arena.sandbox._supervisor import Command
from arena.sandbox._words import as_bytes, check_bounds
from arena.sandbox.bubblewrap._command_lines import find_bubblewrap
from arena.sandbox.bubblewrap._layers import BubblewrapSnapshot, Layer, base_layers, flattened
from arena.sandbox.bubblewrap._running import Running, absolute
from arena.sandbox.bubblewrap._shell import BubblewrapShell
from arena.sandbox.bubblewrap._words import program_of
from arena.sandbox.contract import ExecResult, Sandbox, SandboxSettings, Shell, Snapshot

__all__ = ["BubblewrapSandbox"]

_MOST_LAYERS = 40


class BubblewrapSandbox(Sandbox):
    """A sandbox that is running.

    Args:
        settings: What it is to be.
        snapshot: What its workspace begins with, in place of the settings' folder.

    Raises:
        UsageError: The settings make no sense, or the snapshot is closed.
        PrerequisiteError: There is no bubblewrap.
        SandboxError: It does not start, or cannot guarantee what it must.
    """

    def __init__(self, settings: SandboxSettings, snapshot: Snapshot | None = None) -> None:
        if settings.image is not None:
            raise UsageError("the bubblewrap back end has no images: it shows the machine's own system")
        if settings.options:
            raise UsageError(f"the bubblewrap back end has no options (given: {', '.join(sorted(settings.options))})")
        self.settings = settings
        self._bubblewrap = find_bubblewrap()
        self._layers = base_layers(settings, snapshot)
        self._running: Running | None = None
        scratch().live.add(self)
        self._turn = threading.RLock()  # for requests, and for what all of them wait for
        try:
            self._running = self._start()
        except BaseException:
            self.stop()
            raise

    # -- the contract --------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether commands can be run."""
        running = self._running
        return running is not None and running.alive

    def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 60.0,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        output_bytes: int = 1 << 16,
    ) -> ExecResult:
        """Run a command; see `Sandbox.exec`."""
        check_bounds(timeout_s, output_bytes)
        arguments, script = program_of(command)
        with contextlib.ExitStack() as opened:
            with self._turn:
                running = self._now()
                begun = running.begin(arguments, directory, environment, stdin, output_bytes, opened, script)
            return self._finish(running, begun, timeout_s)

    def shell(self) -> Shell:
        """Start a shell; see `Sandbox.shell`."""
        with self._turn:
            return BubblewrapShell(self._now(), self._require_alive)

    def read_file(self, path: str | PurePosixPath, *, max_bytes: int = 10 << 20) -> bytes:
        """Return the content of a file; see `Sandbox.read_file`."""
        if max_bytes < 1:
            raise UsageError(f"max_bytes is at least 1, not {max_bytes}")
        fd = self._open(path, os.O_RDONLY, 0)
        try:
            size = os.fstat(fd).st_size
            if size > max_bytes:
                raise ToolError(f"{path}: {size} bytes, more than the {max_bytes} that may be read")
            with open(fd, "rb", closefd=False) as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None
        finally:
            os.close(fd)
        if len(content) > max_bytes:
            raise ToolError(f"{path}: more than the {max_bytes} bytes that may be read")
        return content

    def write_file(self, path: str | PurePosixPath, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file; see `Sandbox.write_file`."""
        if not 0 <= mode <= 0o777:
            raise UsageError(f"the mode is between 0 and 0o777, not {mode:#o}")
        if len(content) > self.settings.limits.file_bytes:
            raise ToolError(f"{path}: {len(content)} bytes, more than the {self.settings.limits.file_bytes} of a file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            fd = self._open(path, flags, mode)
        except _MissingError:
            parent = PurePosixPath(absolute(path, self.settings)).parent
            made = self.exec(["mkdir", "-p", "--", str(parent)])
            if not made.ok:
                raise ToolError(f"{path}: {made.stderr.decode(errors='replace').strip()[:300]}") from None
            fd = self._open(path, flags, mode)
        try:
            with self._turn, open(fd, "wb", closefd=False) as file:
                file.write(content)
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None
        finally:
            os.close(fd)

    def kill(self) -> None:
        """End all that runs; see `Sandbox.kill`."""
        with self._turn:
            self._now().supervisor.ask(b"clear")

    def snapshot(self) -> Snapshot:
        """Return the workspace as it is; see `Sandbox.snapshot`."""
        with self._turn:
            running = self._now()
            folder = scratch().new("snapshot")
            try:
                running.copy_held(folder)
            except BaseException:
                delete(folder)
                raise
            layers = [Layer(folder, owned=True), *(layer.hold() for layer in self._layers)]
            if len(layers) > _MOST_LAYERS:
                layers = [flattened(layers, self._bubblewrap)]
            return BubblewrapSnapshot(layers)

    def restore(self, snapshot: Snapshot) -> None:
        """Make the workspace what it was; see `Sandbox.restore`."""
        if not isinstance(snapshot, BubblewrapSnapshot):
            raise UsageError(f"a bubblewrap sandbox is restored to a snapshot of its own kind, not {snapshot!r}")
        with self._turn:
            self._now()
            layers = snapshot.layers()
            self._end()
            for layer in self._layers:
                layer.release()
            self._layers = layers
            try:
                self._running = self._start()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End it; see `Sandbox.stop`."""
        with self._turn:
            self._end()
            layers, self._layers = self._layers, []
            for layer in layers:
                layer.release()

    # -- starting and ending -------------------------------------------------------------------------------------------

    def _now(self) -> Running:
        running = self._running
        if running is None:
            raise SandboxError("the sandbox was stopped")
        return running

    def _start(self) -> Running:
        """Start the processes over the layers."""
        running = Running(self._bubblewrap, self.settings, [layer.folder for layer in self._layers], self._turn)
        self.enforced, self.missing = running.enforced, running.missing
        if lacking := running.missing.keys() - self.settings.unenforced:
            running.end()
            reasons = "; ".join(f"{name}: {running.missing[name]}" for name in sorted(lacking))
            raise SandboxError(
                f"this machine cannot guarantee {', '.join(sorted(lacking))} ({reasons}); name them in `unenforced` to "
                "do without"
            )
        return running

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.end()

    # -- commands and files --------------------------------------------------------------------------------------------

    def _finish(self, running: Running, command: Command, timeout_s: float) -> ExecResult:
        """Wait for a command, and end it when its time is up."""
        began = time.monotonic()
        in_time = command.wait(began + timeout_s)
        if not in_time:
            running.kill(command)
            self._require_alive()
            command.drain()
        elif command.is_lost:
            self._require_alive()
        (out, out_omitted), (err, err_omitted) = command.stdout.take(), command.stderr.take()
        code = command.exit_code if in_time else None
        return ExecResult(code, out, err, out_omitted, err_omitted, time.monotonic() - began, not in_time)

    def _require_alive(self) -> None:
        """Raise `SandboxError` if it is the sandbox that has ended, and not only a command."""
        with self._turn:
            self._now().require_alive()

    def _open(self, path: str | PurePosixPath, flags: int, mode: int) -> int:
        """Return a descriptor of a regular file inside, opened there."""
        try:
            with self._turn:
                fd = self._now().supervisor.open(as_bytes(absolute(path, self.settings), "a path"), flags, mode)
        except FileNotFoundError as error:
            raise _MissingError(f"{path}: {error.strerror}") from None
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ToolError(f"{path}: not a regular file")
        os.set_blocking(fd, True)
        return fd


class _MissingError(ToolError):
    """There is no such file, or no folder for it."""
