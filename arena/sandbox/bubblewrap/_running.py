"""The processes of a bubblewrap sandbox."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path, PurePosixPath

from arena.errors import SandboxError, UsageError
from arena.sandbox._cgroups import ControlGroups
from arena.sandbox._scratch import delete, scratch
from arena.sandbox._seccomp import seccomp_filter
from arena.sandbox._supervisor import Command, Supervisor, is_readable
from arena.sandbox._words import as_bytes
from arena.sandbox.bubblewrap._command_lines import HOME, inner_command, outer_command
from arena.sandbox.bubblewrap._guarantees import guarantees
from arena.sandbox.bubblewrap._layers import copy_changes
from arena.sandbox.bubblewrap._words import opened_memory
from arena.sandbox.contract import SandboxSettings

__all__ = ["Running", "absolute"]

_START_S, _STOP_S = 30.0, 10.0
_HOLDS = 3
_log = logging.getLogger(__name__)
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": HOME,
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",
    "TERM": "dumb",
}


class Running:
    """The processes of a sandbox, and what belongs to them.

    Args:
        bubblewrap: The program.
        settings: What the sandbox is to be.
        layers: What its workspace lies over, the uppermost first.
        turn: Held by whoever asks something of them, and while they are held or ended.
    """

    def __init__(
        self,
        bubblewrap: Path,
        settings: SandboxSettings,
        layers: Sequence[Path],
        turn: contextlib.AbstractContextManager[object],
    ) -> None:
        self._settings, self._turn, self._is_over = settings, turn, False
        self._room, self._nodes = scratch().new("sandbox"), scratch().new("dev")
        self._process: subprocess.Popen[bytes] | None = None
        self._gone: int | None = None
        self._errors: int | None = None
        self.groups = ControlGroups(f"{scratch().token}-{self._room.name}", settings.limits)
        self.enforced, self.missing, limits, processors = guarantees(settings, self.groups)
        try:
            self._start(bubblewrap, layers, limits, processors)
        except (OSError, TimeoutError, ValueError) as error:
            words = self.last_words() or f": {error}"
            self.end()
            raise SandboxError(f"the sandbox does not start{words}") from error
        except BaseException:
            self.end()
            raise

    def _start(
        self, bubblewrap: Path, layers: Sequence[Path], limits: Sequence[str], processors: Collection[int]
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
            groups = self.groups.open()
            for group in groups:
                opened.callback(os.close, group)
            fds, filters = [theirs.fileno(), info_w, block, *groups], list[int]()
            if filter := seccomp_filter(pinned=bool(processors), counted="memory" in self.groups.enforced):
                filters.append(opened_memory(filter))
                opened.callback(os.close, filters[-1])
            inner = inner_command(
                bubblewrap, self._settings, layers, self._room, self._nodes, theirs.fileno(), groups, filters, limits
            )
            outer = outer_command(bubblewrap, self._settings, self._room, self._nodes, info_w, block)
            try:
                self._process = _spawn([*outer, *inner], [*fds, *filters], errors)
            finally:
                os.close(info_w)
                theirs.close()  # so that its end is seen at ours
            self._first = _child(info)
            self._gone = os.pidfd_open(self._first)
            if processors:
                os.sched_setaffinity(self._first, processors)
            os.write(block_w, b"x")
            ours.settimeout(_START_S)
            if ours.recv(16) != b"ready":
                raise SandboxError(f"the sandbox does not start{self.last_words()}")
            ours.settimeout(None)

    @property
    def alive(self) -> bool:
        """Whether they have not ended."""
        return not self.supervisor.is_hung_up()

    def begin(
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
        variables = {**_ENVIRONMENT, **self._settings.environment, **(environment or {})}
        if bad := [name for name in variables if not name or "=" in name]:
            raise UsageError(f"a variable's name is a text without '=', not {bad[0]!r}")
        words = [as_bytes(argument, "an argument") for argument in arguments]
        where = as_bytes(absolute(directory or ".", self._settings), "the directory")
        environ = [as_bytes(f"{name}={value}", "a variable") for name, value in variables.items()]
        given = opened_memory(stdin)
        opened.callback(os.close, given)
        if script:
            more = [opened_memory(script)]
            opened.callback(os.close, more[0])
        command = self.supervisor.start(words, where, environ, given, output_bytes, more)
        opened.callback(command.close)
        return command

    def kill(self, command: Command, *, spare_first: bool = False) -> None:
        """End all that came of a command, unless all has been ended since; not the command itself if asked.

        Raises:
            SandboxError: They do not answer.
        """
        with self._turn:
            if not self._is_over:
                command.kill(spare_first=spare_first)

    def require_alive(self) -> None:
        """Raise `SandboxError` if its processes have ended, and not only a command."""
        try:
            self.supervisor.ask(b"ping")
        except SandboxError:
            raise SandboxError(f"the sandbox has ended{self.last_words()}") from None

    def copy_held(self, folder: Path) -> None:
        """Copy what was changed in the workspace into a folder, while nothing runs.

        Without a freezer a process can wake itself, as by a timer that continues it. A copy during which one has run is
        thrown away; when that happens again and again all processes are ended, as no other copy would be one.

        Raises:
            SandboxError: It cannot be copied.
        """
        with self.groups.frozen() as is_frozen:
            if is_frozen:
                self.copy_upper(folder)
                return
        for _ in range(_HOLDS):
            if self._copy_if_still(folder):
                return
            delete(folder)
            folder.mkdir(mode=0o755)
        _log.warning("a process of a sandbox cannot be held while a snapshot is taken: all of its processes are ended")
        self.supervisor.ask(b"clear")
        self.copy_upper(folder)

    def _copy_if_still(self, folder: Path) -> bool:
        """Copy while processes are stopped; return whether none has run meanwhile."""
        self.supervisor.ask(b"stop")
        try:
            try:
                self.copy_upper(folder)
            except SandboxError:
                if self.supervisor.ask(b"still") == b"done":
                    raise
                return False
            return self.supervisor.ask(b"still") == b"done"
        finally:
            self.supervisor.ask(b"continue")

    def copy_upper(self, folder: Path) -> None:
        """Copy what was changed in the workspace into a folder.

        Raises:
            SandboxError: It cannot be copied.
        """
        copy_changes(f"{self._room}/upper", self._first, folder)

    def last_words(self) -> str:
        """Return what is known of its end."""
        said = "" if self._errors is None else os.pread(self._errors, 2000, 0).decode(errors="replace").strip()
        killed = self.groups.out_of_memory()
        return (f": {'; '.join(said.splitlines())}" if said else "") + (
            f" (out of memory {killed} times)" if killed else ""
        )

    def end(self) -> None:
        """End its processes, and remove what belongs to them."""
        self._is_over = True
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


_spawning = threading.Lock()
_orders: dict[int, queue.SimpleQueue[Callable[[], None]]] = {}


def absolute(path: str | PurePosixPath, settings: SandboxSettings) -> str:
    """Return a path that may be below the workspace.

    Raises:
        UsageError: It is empty.
    """
    if not str(path):
        raise UsageError("a path is not empty")
    return str(PurePosixPath(settings.directory) / path)


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
