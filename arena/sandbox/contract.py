"""The sandbox contract: a place in which strangers' programs run, and from which nothing comes but what is asked for.

A sandbox has a workspace, which commands may change, and a system, which they may not. There is no network. All methods
block and may be called from several threads; from a coroutine call them by `asyncio.to_thread`. What a command does to
itself or to its sandbox (an exit code, a time-out, a file that is not there) is a result or a `ToolError`; what the
back end fails to do is a `SandboxError`, and never counts as a command's result.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, TypeAlias

from pydantic import Field

from arena.env import Options

__all__ = [
    "GUARANTEES",
    "ExecResult",
    "Guarantee",
    "Mount",
    "Sandbox",
    "SandboxLimits",
    "SandboxSettings",
    "Shell",
    "Snapshot",
]

Guarantee: TypeAlias = Literal[
    "filesystem",
    "network",
    "processes",
    "memory",
    "cpu",
    "process_count",
    "disk",
    "file_size",
    "syscalls",
    "privileges",
]
GUARANTEES: Mapping[Guarantee, str] = {
    "filesystem": "Nothing outside the workspace and temporary folders can be changed, and only named folders be read.",
    "network": "No address can be reached, that of the machine itself included.",
    "processes": "No process outside can be seen, signalled or traced, and none outlives the sandbox.",
    "memory": "All processes together get so much memory.",
    "cpu": "All processes together get so much processor time a second.",
    "process_count": "There are at most so many processes.",
    "disk": "All files together take at most so much room.",
    "file_size": "No file grows beyond its limit.",
    "syscalls": "Calls to the kernel that no program of a task needs are refused.",
    "privileges": "No process has, or can gain, a capability outside its own namespaces.",
}
"""What a sandbox can guarantee."""


class SandboxLimits(Options):
    """What all processes of a sandbox may use together."""

    memory_bytes: int = Field(2 << 30, ge=16 << 20, description="Memory, files in memory included.")
    cpus: float = Field(1.0, gt=0, description="Processors' worth of time.")
    processes: int = Field(256, ge=8, description="Processes and threads.")
    disk_bytes: int = Field(1 << 30, ge=1 << 20, description="What is written to the workspace and temporary folders.")
    file_bytes: int = Field(1 << 30, ge=1 << 16, description="The largest file.")
    open_files: int = Field(1024, ge=64, description="Open files of a process.")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that is shown in the sandbox, and cannot be changed there.

    Attributes:
        source: Where it is.
        target: Where it is shown, an absolute path.
    """

    source: Path
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """What a sandbox is to be.

    Attributes:
        workspace: A folder of this machine whose content the workspace begins with; it is read, never changed. Empty if
            None.
        directory: Where the workspace is in the sandbox, an absolute path; commands begin there.
        mounts: What else is shown.
        environment: Variables of every command; nothing else of this process's environment is there.
        limits: What may be used.
        image: Which system (`docker`: an image's name); the machine's own, read-only, if None.
        unenforced: Guarantees that may be missing. One that is missing and not named here is a `SandboxError` at the
            start.
        options: Of the back end.
    """

    workspace: Path | None = None
    directory: str = "/workspace"
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: SandboxLimits = field(default_factory=SandboxLimits)
    image: str | None = None
    unenforced: frozenset[Guarantee] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What came of a command.

    Attributes:
        exit_code: Its exit code, 0 to 255; of one that a signal ended 128 + its number; None after a time-out.
        stdout: What it wrote, whole, or the first and the last part of it.
        stderr: Likewise.
        omitted_stdout: Bytes left out in the middle of `stdout`.
        omitted_stderr: Likewise.
        duration_s: Seconds that it ran.
        timed_out: Whether its time was up; then all that it had started has been ended.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    omitted_stdout: int
    omitted_stderr: int
    duration_s: float
    timed_out: bool

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with 0."""
        return self.exit_code == 0


class Shell(abc.ABC):
    """A shell that lives on between commands: its directory, variables and functions stay as they are left."""

    @property
    @abc.abstractmethod
    def alive(self) -> bool:
        """Whether it can run another command."""

    @abc.abstractmethod
    def run(self, command: str, *, timeout_s: float = 60.0, output_bytes: int = 1 << 16) -> ExecResult:
        """Run a command and wait for it, not for what it leaves in the background.

        After a time-out what it had started is ended; the shell lives on where it can, else `alive` is False.

        Args:
            command: Bash.
            timeout_s: Seconds, above 0.
            output_bytes: Most bytes kept of each of stdout and stderr: half from the beginning, half from the end.

        Raises:
            UsageError: An argument is out of range, the command has a NUL, or another one is running.
            ToolError: The shell has ended, as by ``exit``.
            SandboxError: The sandbox is broken.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End it, with all that it has started. May be called twice."""

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self.close()


class Snapshot(abc.ABC):
    """The workspace as it was. Sandboxes can be started from it, and restored to it, until it is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Delete it. May be called twice."""

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Delete it."""
        self.close()


class Sandbox(abc.ABC):
    """One sandbox, which `arena.sandbox.open_sandbox` has started.

    Attributes:
        settings: What it was asked to be.
        enforced: How each guarantee is given, in a few words.
        missing: Why each of the others is not.
    """

    settings: SandboxSettings
    enforced: Mapping[Guarantee, str]
    missing: Mapping[Guarantee, str]

    @property
    @abc.abstractmethod
    def alive(self) -> bool:
        """Whether commands can be run."""

    @abc.abstractmethod
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
        """Run a command and wait for it, not for what it leaves in the background.

        Args:
            command: Bash if a text, else a program with its arguments.
            timeout_s: Seconds, above 0. Then all that the command has started is ended, in the background too.
            directory: Where it begins; the workspace if None.
            environment: More variables.
            stdin: What it can read.
            output_bytes: Most bytes kept of each of stdout and stderr: half from the beginning, half from the end.
                What is left out is read and thrown away, so that the command goes on.

        Raises:
            UsageError: An argument is out of range, empty, or has a NUL.
            ToolError: There is no such program or directory, or there are as many processes as there may be.
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def shell(self) -> Shell:
        """Start a shell.

        Raises:
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def read_file(self, path: str | PurePosixPath, *, max_bytes: int = 10 << 20) -> bytes:
        """Return the content of a file.

        Args:
            path: Absolute, or below the workspace. Links are followed inside the sandbox.
            max_bytes: The largest file that is read.

        Raises:
            UsageError: The path is empty or has a NUL, or `max_bytes` is below 1.
            ToolError: There is no such file, it cannot be read, is no regular file, or is too large.
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def write_file(self, path: str | PurePosixPath, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file; folders on the way are made.

        Args:
            path: Absolute, or below the workspace. Links are followed inside the sandbox.
            content: All of it.
            mode: Of a file that was not there before.

        Raises:
            UsageError: The path is empty or has a NUL, or the mode is not between 0 and 0o777.
            ToolError: It cannot be written, or there is no room left; then the file may be cut.
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def kill(self) -> None:
        """End all that runs in the sandbox, shells included. Files stay.

        Raises:
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the workspace as it is; processes are held meanwhile, and are not part of it.

        Raises:
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Make the workspace what it was. All that runs is ended, and temporary folders are emptied.

        Raises:
            UsageError: The snapshot is closed, or of another back end.
            SandboxError: The sandbox is broken, or was stopped.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """End all that runs, and delete all that was written. May be called twice."""

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop it."""
        self.stop()
