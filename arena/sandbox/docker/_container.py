"""One container: how it is made, and the first process in it, which ends what it is told to."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from arena.errors import SandboxError, UsageError
from arena.sandbox._scratch import scratch
from arena.sandbox.contract import Guarantee, SandboxSettings
from arena.sandbox.docker._daemon import Daemon
from arena.sandbox.docker._options import DEFAULT_IMAGE, DockerOptions
from arena.sandbox.docker._profile import profile
from arena.sandbox.docker._scripts import KEEPER
from arena.sandbox.docker._streams import Stream

__all__ = ["HOME", "USER", "Container", "guarantees"]

USER = os.geteuid() or 1000
"""The commands' user, and their group: who may read our files may read what is shown of them; but never root."""
HOME = "/home/agent"
_START_S, _ANSWER_S, _CLEAR_S = 60.0, 30.0, 60.0
_SHARED_MEMORY_BYTES = 64 << 20
_NANO = 1_000_000_000
_PAGE, _FEW_FILES = 4096, 1024
_OPTIONS = "rw,exec,nosuid,nodev"
_ENVIRONMENT = {"HOME": HOME, "USER": "agent", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "TERM": "dumb"}
_numbers = itertools.count()


class Container:
    """A container that is running.

    Args:
        daemon: Where.
        settings: What the sandbox is to be.
        options: Those of the back end.

    Attributes:
        id: Docker's name of it.
        shell: Bash in it, else its ``sh``.

    Raises:
        UsageError: Docker does not take the settings.
        SandboxError: It does not start.
    """

    def __init__(self, daemon: Daemon, settings: SandboxSettings, options: DockerOptions) -> None:
        self._daemon = daemon
        self._asking = threading.Lock()
        self._tickets = itertools.count(1)
        with daemon.asked("make a container"):
            made = daemon.api.create_container(**_described(daemon, settings, options))
        self.id: str = made["Id"]
        self._keeper: Stream | None = None
        try:
            query = "stream=1&stdin=1&stdout=1&stderr=1"
            path = f"/containers/{self.id}/attach?{query}"
            self._keeper = Stream(daemon.address, path, {}, _START_S)
            with daemon.asked("start a container"):
                daemon.api.start(self.id)
            words = self._answer(self._keeper, "ready ", _START_S)
            if not words:
                raise SandboxError("the container does not start: its image has no 'sh' that works")
            self.shell = words[0]
        except BaseException:
            self.end()
            raise

    def is_alive(self) -> bool:
        """Return whether its first process is there."""
        return self._keeper is not None and not self._keeper.is_hung_up()

    def ask(self, word: str, *numbers: int) -> None:
        """Have something ended, or nothing (``ping``), and wait until it is.

        Raises:
            SandboxError: There is no answer.
        """
        with self._asking:
            if self._keeper is None:
                raise SandboxError("the sandbox was stopped")
            ticket = next(self._tickets)
            self._keeper.send(" ".join(map(str, [word, ticket, *numbers])).encode() + b"\n")
            seconds = _ANSWER_S if word == "ping" else _CLEAR_S
            if self._answer(self._keeper, f"done {ticket}", seconds) is None:
                raise SandboxError(f"the sandbox does not answer {word!r}; its container has ended or is stuck")

    def end(self) -> None:
        """End all that runs in it, and remove it with all that was written."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()
        self._daemon.remove(self.id)

    def _answer(self, keeper: Stream, begin: str, seconds: float) -> list[str] | None:
        """Return the words behind a line's beginning, once there is such a line; None if it does not come."""
        found: list[str] | None = None
        said = b""

        def take(data: bytes) -> None:
            nonlocal found, said
            said += data
            for line in said.decode(errors="replace").splitlines(keepends=True):
                if line.startswith(begin) and line.endswith("\n"):
                    found = line.removeprefix(begin).split()

        keeper.on_output(take, lambda data: None)
        keeper.wait(lambda: found is not None, time.monotonic() + seconds)
        return found


def guarantees(
    daemon: Daemon, settings: SandboxSettings, options: DockerOptions
) -> tuple[dict[Guarantee, str], dict[Guarantee, str]]:
    """Return how each guarantee is given, and why the others are not."""
    workspace, folder = _rooms(settings)
    enforced: dict[Guarantee, str] = {
        "filesystem": "mount namespace; the image is read-only",
        "network": "network namespace without a way out",
        "processes": "process namespace, ended with its first process and with us",
        "privileges": "unprivileged user, no capabilities, no new privileges",
        "disk": f"file systems in memory: workspace {workspace} bytes, temporary folder and home {folder} each",
        "file_size": "limit of each process",
    }
    missing: dict[Guarantee, str] = {}
    info = daemon.info
    version = info.get("CgroupVersion", "1")
    kinds: dict[Guarantee, str] = {"memory": "MemoryLimit", "cpu": "CpuCfsQuota", "process_count": "PidsLimit"}
    for guarantee, key in kinds.items():
        if info.get(key):
            enforced[guarantee] = f"control group, version {version}"
        else:
            missing[guarantee] = "the Docker daemon has no such control group"
    if (options.runtime or info.get("DefaultRuntime", "runc")).startswith("runsc"):
        enforced["syscalls"] = "gVisor's own kernel"
    elif any("name=seccomp" in one for one in info.get("SecurityOptions") or ()):
        enforced["syscalls"] = "seccomp filter"
    else:
        missing["syscalls"] = "the Docker daemon filters no system calls"
    return enforced, missing


def _rooms(settings: SandboxSettings) -> tuple[int, int]:
    """Return how many bytes the workspace may have, and each of the temporary folder and home; together what may be."""
    folder = settings.limits.disk_bytes // 8
    return settings.limits.disk_bytes - 2 * folder, folder


def _size(room: int) -> str:
    """Return options of a file system in memory: its bytes, and a file for each page of them."""
    return f"size={room},nr_inodes={room // _PAGE + _FEW_FILES}"


def _described(daemon: Daemon, settings: SandboxSettings, options: DockerOptions) -> Mapping[str, Any]:
    """Return how Docker is told what the container is to be."""
    limits = settings.limits
    if options.runtime and options.runtime not in (known := daemon.info.get("Runtimes") or {}):
        raise UsageError(f"the Docker daemon has no runtime {options.runtime!r} (known: {', '.join(sorted(known))})")
    _, folder = _rooms(settings)
    most = {"fsize": limits.file_bytes, "nofile": limits.open_files, "core": 0}
    host = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        # The first process ends commands, whose user is another one. No command can have it: no new privileges.
        "CapAdd": ["KILL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={profile()}"],
        "Init": True,
        "AutoRemove": True,
        "IpcMode": "private",
        "LogConfig": {"Type": "none"},
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "NanoCpus": round(limits.cpus * _NANO),
        "PidsLimit": limits.processes,
        "ShmSize": _SHARED_MEMORY_BYTES,
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in most.items()],
        "Tmpfs": {
            "/tmp": f"{_OPTIONS},{_size(folder)},mode=1777",
            HOME: f"{_OPTIONS},{_size(folder)},mode=0755,uid={USER},gid={USER}",
        },
        "Mounts": _mounts(settings),
        "Runtime": options.runtime or "",
        "Dns": ["127.0.0.1"],
    }
    return {
        "image": settings.image or DEFAULT_IMAGE,
        "name": f"arena-{scratch().token}-{next(_numbers)}",
        "entrypoint": ["sh", "-c", KEEPER],
        "command": [],
        "user": "0:0",
        "hostname": "sandbox",
        "working_dir": "/",
        "environment": _ENVIRONMENT,
        "labels": daemon.labels(),
        "stdin_open": True,  # and closed with our connection, which ends it
        "healthcheck": {"test": ["NONE"]},
        "host_config": host,
    }


def _mounts(settings: SandboxSettings) -> list[dict[str, Any]]:
    """Return the workspace, a file system in memory that goes with the container, and what else is shown."""
    room, _ = _rooms(settings)
    driver = {"type": "tmpfs", "device": "tmpfs", "o": f"{_size(room)},mode=0755,uid={USER},gid={USER},nosuid,nodev"}
    volume = {"NoCopy": True, "DriverConfig": {"Name": "local", "Options": driver}}
    found: list[dict[str, Any]] = [{"Type": "volume", "Target": settings.directory, "VolumeOptions": volume}]
    for mount in settings.mounts:
        source = str(mount.source.resolve())
        found.append({"Type": "bind", "Source": source, "Target": mount.target, "ReadOnly": True})
    return found
