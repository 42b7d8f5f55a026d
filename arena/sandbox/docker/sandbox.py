"""Sandboxes that are Docker containers: any image, read-only, and a workspace in memory.

A container has Docker's init and a shell of root's, without any capability but that of ending others' processes: the
keeper. Commands are started by the daemon, for a user without rights, each under an init process of its own, which
adopts what the command leaves behind: so what came of a command is what descends from it, and the keeper ends that when
its time is up. The keeper ends with our connection to it, and with it the container, which the daemon then removes: a
process that was killed leaves nothing. What a daemon was told while it was not listening is removed by the next process
that opens a sandbox.

A snapshot is an archive of the workspace in this process's temporary folder. Restoring is another container, which
begins with it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from arena.errors import SandboxError, ToolError, UsageError
from arena.sandbox._scratch import scratch
from arena.sandbox._words import as_bytes, check_bounds
from arena.sandbox.contract import ExecResult, Sandbox, SandboxSettings, Shell, Snapshot
from arena.sandbox.docker import _files
from arena.sandbox.docker._archives import Archive, pack, reowned, save
from arena.sandbox.docker._command import Command, new_mark
from arena.sandbox.docker._container import Container, guarantees
from arena.sandbox.docker._daemon import Daemon
from arena.sandbox.docker._options import DEFAULT_IMAGE, check_directory, parsed
from arena.sandbox.docker._scripts import LONG, RUNNER, SHELL
from arena.sandbox.docker._shell import DockerShell
from arena.sandbox.docker._words import absolute, expressions, variables

__all__ = ["DockerSandbox", "DockerSnapshot"]

_FILE_S, _AFTER_KILL_S = 120.0, 2.0
_LONG_SCRIPT = 100_000
_ARCHIVE_ROOM = 64 << 20
_numbers = itertools.count()


class DockerSnapshot(Snapshot):
    """A workspace in an archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def close(self) -> None:
        """Delete it."""
        self.archive.close()


class DockerSandbox(Sandbox):
    """A sandbox that is running.

    Args:
        settings: What it is to be.
        snapshot: What its workspace begins with, in place of the settings' folder.

    Raises:
        UsageError: The settings make no sense, or the snapshot is closed.
        PrerequisiteError: There is no daemon, no client for it, or no such image.
        SandboxError: It does not start, or cannot guarantee what it must.
    """

    def __init__(self, settings: SandboxSettings, snapshot: Snapshot | None = None) -> None:
        self._options = parsed(settings)
        _check(settings, snapshot)
        self.settings = settings
        self._changing, self._starting = threading.RLock(), threading.Lock()
        self._container: Container | None = None
        self._shells = list[DockerShell]()
        self._daemon = Daemon()
        try:
            self._require_guarantees()
            image = settings.image or DEFAULT_IMAGE
            self._daemon.require_image(image, _remedy(image))
            scratch().live.add(self)
            if isinstance(snapshot, DockerSnapshot):
                self._start(snapshot.archive)
            else:
                self._start_afresh()
        except BaseException:
            self.stop()
            raise

    # -- the contract --------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether commands can be run."""
        container = self._container
        return container is not None and container.is_alive()

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
        where = absolute(directory or ".", self.settings.directory)
        variables(environment or {})
        if isinstance(command, str):
            script = as_bytes(command, "a command")
            if len(script) > _LONG_SCRIPT:
                given = b"%d\n%s\n%s" % (script.count(b"\n") + 1, script, stdin)
                words = _filled(self._now().shell, LONG, where, [])
                return self._run(words, environment, given, timeout_s, output_bytes)
            command = [self._now().shell, "-c", command]
        elif not command or not command[0]:
            raise UsageError("a command names a program")
        return self._run(_filled("sh", RUNNER, where, command), environment, stdin, timeout_s, output_bytes)

    def shell(self) -> Shell:
        """Start a shell; see `Sandbox.shell`."""
        bash = self._now().shell
        plain = ["--noprofile", "--norc"] if PurePosixPath(bash).name == "bash" else []
        inner = [bash, *plain, "-c", SHELL]
        words = ["sh", "-c", 'IFS= read -r mark; cd -- "$1" || exit; shift; exec "$@"', "sh", self.settings.directory]
        command = self._begin([*words, *inner], None, new_mark(), 1 << 16)
        shell = DockerShell(command, lambda: self.alive)
        self._shells.append(shell)
        return shell

    def read_file(self, path: str | PurePosixPath, *, max_bytes: int = 10 << 20) -> bytes:
        """Return the content of a file; see `Sandbox.read_file`."""
        if max_bytes < 1:
            raise UsageError(f"max_bytes is at least 1, not {max_bytes}")
        return _files.read(self._run_program, absolute(path, self.settings.directory), str(path), max_bytes)

    def write_file(self, path: str | PurePosixPath, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file; see `Sandbox.write_file`."""
        if not 0 <= mode <= 0o777:
            raise UsageError(f"the mode is between 0 and 0o777, not {mode:#o}")
        if len(content) > self.settings.limits.file_bytes:
            raise ToolError(f"{path}: {len(content)} bytes, more than the {self.settings.limits.file_bytes} of a file")
        _files.write(self._run_program, absolute(path, self.settings.directory), str(path), content, mode)

    def kill(self) -> None:
        """End all that runs; see `Sandbox.kill`."""
        self._now().ask("clear")

    def snapshot(self) -> Snapshot:
        """Return the workspace as it is; see `Sandbox.snapshot`."""
        with self._changing, self._starting:
            container, daemon = self._now(), self._daemon
            with daemon.asked("hold the processes"):
                daemon.api.pause(container.id)
            try:
                return DockerSnapshot(self._archived(container.id))
            finally:
                with daemon.asked("let the processes go"):
                    daemon.api.unpause(container.id)

    def restore(self, snapshot: Snapshot) -> None:
        """Make the workspace what it was; see `Sandbox.restore`."""
        if not isinstance(snapshot, DockerSnapshot):
            raise UsageError(f"a docker sandbox is restored to a snapshot of its own kind, not {snapshot!r}")
        with self._changing:
            self._now()
            with snapshot.archive.opened() as file:
                self._end()
                try:
                    self._start_with(file)
                except BaseException:
                    self.stop()
                    raise

    def stop(self) -> None:
        """End it; see `Sandbox.stop`."""
        with self._changing:
            self._end()
            self._daemon.close()

    # -- starting and ending -------------------------------------------------------------------------------------------

    def _now(self) -> Container:
        container = self._container
        if container is None:
            raise SandboxError("the sandbox was stopped")
        return container

    def _require_guarantees(self) -> None:
        self.enforced, self.missing = guarantees(self._daemon, self.settings, self._options)
        if lacking := self.missing.keys() - self.settings.unenforced:
            reasons = "; ".join(f"{name}: {self.missing[name]}" for name in sorted(lacking))
            raise SandboxError(
                f"this machine cannot guarantee {', '.join(sorted(lacking))} ({reasons}); name them in `unenforced` to "
                "do without"
            )

    def _start_afresh(self) -> None:
        """Start a container, whose workspace begins as the settings say."""
        if self._options.begin_with_image:
            archive = self._of_image()
        elif self.settings.workspace is not None:
            archive = pack(self.settings.workspace.resolve(), _new_file())
        else:
            self._start_with(None)
            return
        try:
            self._start(archive)
        finally:
            archive.close()

    def _start(self, archive: Archive) -> None:
        with archive.opened() as file:
            self._start_with(file)

    def _start_with(self, file: IO[bytes] | None) -> None:
        """Start a container, whose workspace begins with an archive."""
        container = self._container = Container(self._daemon, self.settings, self._options)
        if file is not None:
            with self._daemon.asked(f"unpack the workspace, which may take {self.settings.limits.disk_bytes} bytes"):
                self._daemon.api.put_archive(container.id, self.settings.directory, file)

    def _of_image(self) -> Archive:
        """Return what the image has where the workspace will be."""
        with self._daemon.asked("read the workspace in the image"):
            made = self._daemon.api.create_container(
                self.settings.image or DEFAULT_IMAGE, ["true"], labels=self._daemon.labels()
            )
            try:
                return reowned(self._archived(made["Id"]), _new_file())
            finally:
                self._daemon.remove(made["Id"])

    def _archived(self, container: str) -> Archive:
        with self._daemon.archive(container, self.settings.directory) as chunks:
            return save(chunks, _new_file(), 2 * self.settings.limits.disk_bytes + _ARCHIVE_ROOM)

    def _end(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.end()
        for shell in self._shells:
            shell.let_go()
        self._shells.clear()

    # -- commands ------------------------------------------------------------------------------------------------------

    def _begin(
        self, words: Sequence[str], environment: Mapping[str, str] | None, mark: bytes, output_bytes: int
    ) -> Command:
        given = variables({**self.settings.environment, **(environment or {})})
        return Command(self._daemon, self._now(), words, given, mark, output_bytes, self._starting)

    def _run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] | None,
        stdin: bytes,
        timeout_s: float,
        output_bytes: int,
    ) -> ExecResult:
        """Run a command to its end, or until its time is up."""
        command = self._begin(words, environment, new_mark(), output_bytes)
        try:
            began = time.monotonic()
            command.stream.send(stdin, last=True)
            if command.wait(began + timeout_s):
                return command.result(began, command.code())
            command.kill()
            command.wait(time.monotonic() + _AFTER_KILL_S)
            return command.result(began, None)
        finally:
            command.close()

    def _run_program(self, words: Sequence[str], *, stdin: bytes = b"", output_bytes: int = 1 << 16) -> ExecResult:
        filled = _filled("sh", RUNNER, "/", words)
        return self._run(filled, None, stdin, _FILE_S, output_bytes)


def _check(settings: SandboxSettings, snapshot: Snapshot | None) -> None:
    """Refuse settings and a snapshot that make no sense.

    Raises:
        UsageError: They make none.
    """
    check_directory(settings.directory)
    variables(settings.environment)
    if snapshot is not None and not isinstance(snapshot, DockerSnapshot):
        raise UsageError(f"a docker sandbox begins with a snapshot of its own kind, not {snapshot!r}")
    if settings.workspace is not None and not settings.workspace.resolve().is_dir():
        raise UsageError(f"the workspace begins with a folder, and {settings.workspace} is none")


def _filled(shell: str, script: str, directory: str, command: Sequence[str]) -> list[str]:
    """Return the words that run a script for a command in a directory."""
    (where, *words), arguments = expressions([directory, *command])
    script = script.replace("@DIRECTORY@", where).replace("@WORDS@", " ".join(words))
    return [shell, "-c", script.replace("@PROGRAM@", words[0] if words else ""), shell, *arguments]


def _new_file() -> Path:
    return scratch().folder / f"workspace-{next(_numbers)}.tar"


def _remedy(image: str) -> str:
    if image == DEFAULT_IMAGE:
        return f"docker build --tag {DEFAULT_IMAGE} - < docker/sandbox.Dockerfile"
    return f"docker pull {image}"
