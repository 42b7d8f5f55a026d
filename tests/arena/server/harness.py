"""A server in a process of its own, for tests that kill it, and what must be gone afterwards."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).parents[3]
DEFAULTS = {
    "imports": ["tests.arena.served", "tests.arena.server.harness_envs"],
    "allow_expert": True,
    "workers": 2,
    "drain_s": 5.0,
}
_GONE_S = 20.0


class ServerProcess:
    """A server, which can be started, stopped, killed and started again at the same port.

    Args:
        folder: The server's own; its log and its temporary files lie there.
        settings: Fields of `ServerSettings`, beside `DEFAULTS`.
    """

    def __init__(self, folder, **settings):
        self.folder, self.settings, self.port = folder, {**DEFAULTS, **settings}, 0
        self.process = None
        self.log = folder / "server.log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self._seen = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Start the process and wait until it answers."""
        command = [sys.executable, "-m", "tests.arena.server.harness_serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, json.dumps({**self.settings, "port": self.port})],
                cwd=REPOSITORY,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        greeting = self.process.stdout.readline()
        if "Arena serves" not in greeting:
            self._wait(10)
            raise AssertionError(f"the server did not start: {self.log.read_text()[-4000:]}")
        self.port = int(greeting.rsplit(":", 1)[1])
        wait_until(self._ready)
        self.remember()
        return self

    def _ready(self):
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def workers(self):
        """Return the worker processes, as psutil knows them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def remember(self):
        """Note the processes that live now: none of them may outlive the server."""
        self._seen.update(self.workers())

    def kill_worker(self, number=0):
        """Kill a worker as the kernel would when memory runs out; one that is being replaced is waited for."""
        # Looked up once per try: a worker killed a moment ago may leave the list between two looks.
        victims = []

        def looked_up():
            victims[:] = sorted(filter(_lives, self.workers()), key=lambda process: process.create_time())
            return len(victims) > number

        wait_until(looked_up)
        self._seen.update(victims)
        os.kill(victims[number].pid, signal.SIGKILL)
        return victims[number]

    def kill(self):
        """Kill the server process, which can then do nothing more."""
        self.remember()
        self.process.kill()
        self._wait(10)

    def stop(self, timeout_s=60):
        """Ask the server to end, and return its exit code."""
        if self.process is None or self.process.poll() is not None:
            return None if self.process is None else self.process.returncode
        self.remember()
        self.process.terminate()
        try:
            return self._wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _wait(self, timeout_s):
        code = self.process.wait(timeout_s)
        self.process.stdout.close()
        return code

    def left_behind(self):
        """Return what the stopped server left: processes that still live, and temporary files."""
        deadline = time.monotonic() + _GONE_S
        while (alive := [process for process in self._seen if _lives(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [*alive, *(path for path in self.temporary.rglob("*"))]

    def metric(self, name, **labels):
        """Return the sum of a metric over the series that have these labels."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
                total += float(value)
        return total

    def expired(self):
        """Return how many sessions it has reaped."""
        return int(self.metric("arena_sessions_ended_total", outcome="expired"))

    def open_sessions(self):
        """Return how many sessions the server holds."""
        return int(self.metric("arena_sessions_open"))


def shared_memory_of(processes):
    """Return the files below /dev/shm that some processes hold."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [mapped.path for mapped in process.memory_maps() if mapped.path.startswith("/dev/shm")]
    return found


def wait_until(condition, timeout_s=60.0, every_s=0.05):
    """Wait for something that must come to pass; how long it takes is not tested."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {condition}"
        time.sleep(every_s)


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
