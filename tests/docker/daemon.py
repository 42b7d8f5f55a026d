"""A Docker daemon of the tests' own: its own folder, socket and control groups, no network, and nothing left behind."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

START_S, STOP_S = 60, 30
STORAGE_DRIVERS = ("overlay2", "vfs")
"""The first works where the kernel has overlayfs; the second copies every layer, and works anywhere."""
KEY_FILE, PLUGINS = Path("/etc/docker/key.json"), Path("/opt/containerd")
"""Made by every daemon of Debian's version, wherever its data are."""


class CannotStart(Exception):
    """No daemon can run here; the message says why."""


def why_not() -> str | None:
    """Return what is missing for a daemon, or None."""
    missing = [name for name in ("dockerd", "docker", "debootstrap") if shutil.which(name) is None]
    if os.name != "posix" or os.geteuid() != 0:
        return "a Docker daemon needs root"
    return f"not installed: {', '.join(missing)} (docker/ci-setup.sh installs them)" if missing else None


class Daemon:
    """A daemon that this process owns."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="arena-docker-"))
        self.cgroup = self.root.name
        self._own = [path for path in (KEY_FILE, PLUGINS) if not path.exists()]
        self._process = None
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
            "DOCKER_HOST": f"unix://{self.root}/socket",
            "DOCKER_CONFIG": str(self.root / "client"),
            "DOCKER_BUILDKIT": "0",  # Debian has no buildx, and BuildKit caches what the classic builder need not
        }

    def start(self):
        """Start it, with the first storage driver that works.

        Raises:
            CannotStart: None of them does.
        """
        for driver in STORAGE_DRIVERS:
            if self._starts_with(driver):
                return
        raise CannotStart(f"dockerd does not start: {self._last_words()}")

    def _starts_with(self, driver):
        words = ["dockerd", f"--data-root={self.root}/data", f"--exec-root={self.root}/exec"]
        words += [f"--pidfile={self.root}/pid", f"--host=unix://{self.root}/socket", f"--storage-driver={driver}"]
        words += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        words += ["--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self.cgroup}"]
        with (self.root / "log").open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < until:
            if self.run("version", check=False).returncode == 0:
                return True
            time.sleep(0.1)
        self._end_process()
        return False

    def _last_words(self):
        lines = (self.root / "log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def run(self, *words, check=True, timeout_s=120.0, **options):
        """Return a finished `docker` command."""
        done = subprocess.run(
            ["docker", *map(str, words)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **options,
        )
        assert done.returncode == 0 or not check, f"docker {' '.join(map(str, words))}: {done.stderr[-3000:]}"
        return done

    def docker(self, *words, **options):
        """Return what a `docker` command prints."""
        return self.run(*words, **options).stdout.strip()

    def stop(self):
        """End every container and the daemon, and remove all that they made."""
        if self._process is not None and self._process.poll() is None:
            containers = self.run("ps", "--all", "--quiet", check=False).stdout.split()
            if containers:
                self.run("rm", "--force", "--volumes", *containers, check=False)
        self._end_process()
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        for folder in self.cgroups():
            _remove_cgroup(folder)
        if KEY_FILE in self._own:
            KEY_FILE.unlink(missing_ok=True)
        if PLUGINS in self._own:
            for folder in (PLUGINS / "bin", PLUGINS / "lib", PLUGINS):
                with suppress(OSError):
                    folder.rmdir()
        shutil.rmtree(self.root)

    def _end_process(self):
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def mounts(self):
        """Return the mount points below its folder."""
        points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [point for point in points if point.startswith(f"{self.root}/")]

    def cgroups(self):
        """Return its control groups: one with version 2, one for each controller with version 1."""
        top = Path("/sys/fs/cgroup")
        return [folder for folder in (top / self.cgroup, *top.glob(f"*/{self.cgroup}")) if folder.is_dir()]

    def processes(self):
        """Return the command lines of the processes that name its folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.root) in line:
                    found.append(line)
        return found


def _remove_cgroup(folder):
    for below, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(below)
