"""The servers under test as processes: started, measured from outside, ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from benchmarks.peer import prepare

__all__ = ["ServerProcess", "arena_server", "bare_server", "openenv_server", "prepare_openenv"]

_ROOT = Path(__file__).resolve().parent.parent
_OPENENV = _ROOT / ".venv-peers" / "openenv-bench"
_REQUIREMENTS = _ROOT / "benchmarks" / "openenv-requirements.txt"
_END_S = 20.0


class ServerProcess:
    """A server with all its children; a context manager which ends it.

    Args:
        name: What its rows are called.
        command: What starts it; its first line of output ends with its port.
        environ: Additions to the environment variables.
    """

    def __init__(self, name: str, command: list[str], environ: dict[str, str] | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, cwd=_ROOT, env=os.environ | (environ or {}), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        found = re.search(r"(\d+)\s*$", line)
        if found is None:
            raise RuntimeError(f"{name} did not start; it said {line!r}")
        self.port = int(found[1])

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the seconds of processor time, user and system, of the server and all its children so far."""
        times = [process.cpu_times() for process in self._family()]
        return sum(time.user + time.system for time in times)

    def rss_bytes(self) -> int:
        """Return the resident memory of the server and all its children; pages that they share count for each."""
        return sum(process.memory_info().rss for process in self._family())


def arena_server(name: str, workers: int, state: Path | None = None) -> ServerProcess:
    """Start Arena's server with the echo environment."""
    command = [sys.executable, "-m", "benchmarks.server_arena", str(workers)]
    return ServerProcess(name, command if state is None else [*command, str(state)])


def bare_server(name: str, processes: str) -> ServerProcess:
    """Start a server that sends back what it is sent, in ``one`` process or ``two``; see `server_bare`."""
    return ServerProcess(name, [sys.executable, "-m", "benchmarks.server_bare", processes])


def openenv_server(name: str, *, loop: str = "uvloop", kind: str = "sync") -> ServerProcess:
    """Start OpenEnv's server with the echo environment; see `openenv_echo`."""
    script = str(_ROOT / "benchmarks" / "openenv_echo.py")
    return ServerProcess(name, [str(_OPENENV / "bin" / "python"), script, loop, kind], _without_telemetry())


def _without_telemetry() -> dict[str, str]:
    """Return what keeps the libraries that OpenEnv imports from looking for a network."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    return {**quiet, "PYTHONPATH": ""}


def prepare_openenv() -> str:
    """Make the virtual environment of the unmodified `openenv` package where it is missing; return its versions."""
    python = prepare(_OPENENV, _REQUIREMENTS)
    show = "from importlib.metadata import version as v; print('openenv', v('openenv') + ', uvicorn', v('uvicorn'))"
    return subprocess.run([str(python), "-c", show], check=True, capture_output=True, text=True).stdout.strip()
