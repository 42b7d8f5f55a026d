"""Control groups of a sandbox, version 1 or 2, where this process may make them.

Commands are in them, and not what serves commands: it is not ended, slowed down or held with them. Memory that is short
is a matter of one process (``memory.oom.group`` stays 0): whoever takes most is ended, and the others go on.

Sources: the kernel's ``Documentation/admin-guide/cgroup-v1`` and ``cgroup-v2.rst``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from arena.sandbox._freezer import frozen, thaw
from arena.sandbox.contract import Guarantee, SandboxLimits

__all__ = ["ControlGroups", "available", "remove_groups"]

_PERIOD_US = 100_000
_OURS = "arena-sandbox"
_END_S = 5.0


@lru_cache(maxsize=1)
def available() -> Mapping[str, Path]:
    """Return the folders in which groups can be made, by controller (``memory``, ``pids``, ``cpu``, ``freezer``).

    It is found out once, by making a group and removing it.
    """
    found = {**_freezers(), **(_version_2() or _version_1())}
    return {controller: folder for controller, folder in found.items() if _can_make(folder)}


def remove_groups(token: str) -> None:
    """Remove the groups of a process that is gone; those that are in use stay."""
    for parent in set(available().values()):
        for folder in parent.glob(f"{_OURS}-{token}-*"):
            thaw(folder)
            _remove(folder)


class ControlGroups:
    """The groups of one sandbox.

    Args:
        name: Unique on this machine.
        limits: What its processes may use together.

    Attributes:
        enforced: What the groups guarantee, and how.
    """

    def __init__(self, name: str, limits: SandboxLimits) -> None:
        self._folders: dict[Path, None] = {}
        self._freezer: Path | None = None
        self.enforced: dict[Guarantee, str] = {}
        settings: dict[str, tuple[Guarantee, Callable[[Path], Mapping[str, int | str]]]] = {
            "memory": ("memory", lambda folder: _memory(folder, limits)),
            "pids": ("process_count", lambda folder: {"pids.max": limits.processes - 1}),
            "cpu": ("cpu", lambda folder: _cpu(folder, limits)),
        }
        for controller, parent in available().items():
            folder = parent / f"{_OURS}-{name}"
            if controller == "freezer":
                with contextlib.suppress(OSError):
                    folder.mkdir(exist_ok=True)
                    self._folders[folder] = None
                    self._freezer = folder
                continue
            guarantee, files = settings[controller]
            try:
                folder.mkdir(exist_ok=True)
                self._folders[folder] = None
                for file, value in files(folder).items():
                    _put(folder / file, value)
            except OSError:
                continue
            version = 2 if (folder / "cgroup.controllers").exists() else 1
            self.enforced[guarantee] = f"control group, version {version}"

    def open(self) -> list[int]:
        """Return descriptors: a process of one thread that writes ``0`` to each is in all groups, as is all it starts.

        Raises:
            OSError: It cannot be.
        """
        files = [folder / "tasks" for folder in self._folders]  # version 1: a thread enters without waiting for others
        quick = [file for file in files if file.exists()]
        slow = [file.with_name("cgroup.procs") for file in files if file not in quick]
        return [os.open(file, os.O_WRONLY | os.O_CLOEXEC) for file in (*quick, *slow)]

    def frozen(self) -> contextlib.AbstractContextManager[bool]:
        """Hold their processes meanwhile; tell whether that is so."""
        return frozen(self._freezer)

    def out_of_memory(self) -> int:
        """Return how often the kernel has ended a process because there was no memory left."""
        return max((_out_of_memory(folder) for folder in self._folders), default=0)

    def remove(self) -> None:
        """Remove the groups once their processes are gone."""
        for folder in self._folders:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a group as soon as its processes are gone."""
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return


def _version_2() -> dict[str, Path]:
    root = Path("/sys/fs/cgroup")
    own = _own("")
    if own is None or not (root / "cgroup.controllers").exists():
        return {}
    folder = root / own.lstrip("/")
    try:
        enabled = (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return {}
    return {controller: folder for controller in ("memory", "pids", "cpu") if controller in enabled}


def _version_1() -> dict[str, Path]:
    found = {}
    for controller in ("memory", "pids", "cpu"):
        own = _own(controller)
        root = _mounted(controller)
        if own is not None and root is not None:
            folder = root / own.lstrip("/")
            found[controller] = folder if folder.is_dir() else root
    return found


def _freezers() -> dict[str, Path]:
    """Return where groups that can be frozen may be made; version 2 has such everywhere, even beside version 1."""
    for controller, kind in (("", "cgroup2"), ("freezer", "cgroup")):
        own, root = _own(controller), _mounted(controller, kind)
        if own is not None and root is not None and _can_make(folder := root / own.lstrip("/")):
            return {"freezer": folder}
    return {}


def _own(controller: str) -> str | None:
    """Return this process's group, as a path below where the controller is mounted."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return path
    return None


def _mounted(controller: str, version: str = "cgroup") -> Path | None:
    """Return where a controller of version 1 is mounted, or version 2 (``cgroup2``), which has no controller's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, options, *_ = line.split()
            if kind == version and (not controller or controller in options.split(",")):
                return Path(where)
    return None


def _can_make(folder: Path) -> bool:
    probe = folder / f"{_OURS}-probe-{time.monotonic_ns()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _memory(folder: Path, limits: SandboxLimits) -> Mapping[str, int | str]:
    if (folder / "memory.max").exists():
        swap = {"memory.swap.max": 0} if (folder / "memory.swap.max").exists() else {}
        return {"memory.max": limits.memory_bytes, **swap}
    also = ("memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes")
    more = {name: limits.memory_bytes for name in also if (folder / name).exists()}
    return {"memory.limit_in_bytes": limits.memory_bytes, **more}


def _cpu(folder: Path, limits: SandboxLimits) -> Mapping[str, int | str]:
    quota = max(1000, round(limits.cpus * _PERIOD_US))
    if (folder / "cpu.max").exists():
        return {"cpu.max": f"{quota} {_PERIOD_US}"}
    return {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": quota}


def _out_of_memory(folder: Path) -> int:
    for file in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            return _counted((folder / file).read_text().splitlines())
    return 0


def _counted(lines: Iterable[str]) -> int:
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _put(file: Path, value: int | str) -> None:
    file.write_text(str(value))
