"""A container of the server, as the compose file describes it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from arena.server.tokens import add_token
from tests.docker.compose import ROOT, run_options

SERVER_UID = 10001
HEALTHY_S = 120.0


class Container:
    """A running server, with a token that opens it."""

    def __init__(self, daemon, image, folder):
        self.daemon = daemon
        tokens = folder / "arena_tokens"
        self.token = add_token(tokens, "tester", ["play", "expert"])
        os.chown(tokens, SERVER_UID, SERVER_UID)
        words = ["run", "--detach", "--network=none", "--health-interval=1s", *run_options({"arena_tokens": tokens})]
        self._words = [*words, image, "--env", "text/textworld-v0"]
        self._start()

    def _start(self):
        self.id = self.daemon.docker(*self._words)
        self.wait_until_healthy()

    def replace(self):
        """Stop and remove the container, and start a new one: what the named volume holds is all that is left."""
        self.daemon.docker("stop", "--time=30", self.id)
        self.daemon.docker("rm", "--volumes", self.id)
        self._start()

    def inspect(self, template):
        """Return what a template makes of what Docker knows."""
        return json.loads(self.daemon.docker("inspect", "--format", f"{{{{json {template}}}}}", self.id))

    def logs(self):
        """Return all that the server has printed."""
        done = self.daemon.run("logs", self.id)
        return done.stdout + done.stderr

    def wait_until_healthy(self):
        """Wait for the image's own health check to pass."""
        until = time.monotonic() + HEALTHY_S
        while (health := self.inspect(".State.Health"))["Status"] != "healthy":
            assert self.inspect(".State.Running"), self.logs()[-3000:]
            assert time.monotonic() < until, f"{health} {self.logs()[-3000:]}"
            time.sleep(0.2)

    def python(self, code):
        """Return what Python code prints that runs inside, as the server's user."""
        return self.daemon.docker("exec", self.id, "python3", "-c", code)

    def processes(self):
        """Return the folders below /proc of everything that runs inside."""
        lines = self.daemon.docker("top", self.id, "-eo", "pid").split()[1:]
        return [Path("/proc", pid) for pid in lines]

    def play(self, capability=None, steps=None):
        """Return what `tests/docker/play_game.py` prints, run in the container's network."""
        words = ["nsenter", "--net", "--target", str(self.inspect(".State.Pid"))]
        words += [sys.executable, "-W", "error", str(ROOT / "tests" / "docker" / "play_game.py")]
        asked = json.dumps({"token": self.token, "capability": capability, "steps": steps})
        done = subprocess.run(words, input=asked, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + self.logs()[-3000:]
        return json.loads(done.stdout)
