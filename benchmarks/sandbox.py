"""What a sandbox costs, beside the unmodified `swe-rex` package, whose local deployment isolates nothing.

    python -m benchmarks.sandbox [--rounds 5] [--docker]

The first run makes `.venv-peers/swerex`. In every round each row has its turn; times are of the caller's clock, from
the call to its result. Printed are the median over all, the 95th percentile, and the ratio of medians.

* start: from nothing to a sandbox that takes commands (`open_sandbox`).
* start, to the first result: that and a command (of swe-rex: a session and a command in a process that is running).
* command: `echo hello` in a new process; in a shell that lives on.
* snapshot: of a workspace over a folder of 200 MB in 2,000 files, of which a tenth was changed; of 200 MB that were
  written in the sandbox; and starting from the first one.
* Docker: the same of the back end `docker`, whose daemon is started as the tests start it (root, Debian).
* at once: 32 sandboxes whose commands sleep a second; 32 such commands of swe-rex.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from arena.sandbox import BACKENDS, Sandbox, SandboxLimits, SandboxSettings, Shell, Snapshot, open_sandbox
from benchmarks.peer import prepare

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".venv-peers" / "swerex"
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements-swerex.txt"
SCRIPT = ROOT / "benchmarks" / "peers" / "swerex_local.py"
STARTS, COMMANDS, SNAPSHOTS, AT_ONCE = 20, 200, 5, 32
FILES, FILE_BYTES = 2_000, 100_000
START_TARGET_MS, COMMAND_TARGET_MS, SNAPSHOT_TARGET_MS = 50.0, 5.0, 100.0


class Peer:
    """swe-rex in a process of its own."""

    def __init__(self, stack: ExitStack) -> None:
        self._process = stack.enter_context(
            subprocess.Popen(
                [str(PEER / "bin" / "python"), str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": ""},
                text=True,
            )
        )
        assert self._process.stdin is not None
        stack.callback(self._process.stdin.close)

    def measured(self, what: str, times: int) -> list[float]:
        """Return durations, in milliseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "times": times}) + "\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._process.stdout.readline())
        return found


def timed(action: Callable[[], object], times: int) -> list[float]:
    """Return durations, in milliseconds."""
    durations = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        durations.append(1000 * (time.perf_counter() - began))
    return durations


@contextmanager
def docker_daemon() -> Iterator[None]:
    """Have a Docker daemon of our own, with the default image."""
    from tests.docker.base_image import base_archive
    from tests.docker.daemon import Daemon, why_not

    if reason := why_not():
        raise SystemExit(reason)
    daemon = Daemon()
    try:
        daemon.start()
        daemon.docker("import", base_archive(), "base")
        words = ["build", "--network=none", "--build-arg=BASE_IMAGE=base", "--build-arg=PACKAGES="]
        text = (ROOT / "docker" / "sandbox.Dockerfile").read_text()
        daemon.docker(*words, "--tag=arena-sandbox", "-", input=text)
        os.environ["DOCKER_HOST"] = f"unix://{daemon.root}/socket"
        yield
    finally:
        daemon.stop()


def docker_turn(found: dict[str, list[float]]) -> None:
    """Measure what Docker's sandboxes cost."""
    for name, durations in starts("docker").items():
        found.setdefault(f"docker {name}", []).extend(durations)
    with open_sandbox(backend="docker") as sandbox, sandbox.shell() as shell:
        found.setdefault("docker command", []).extend(timed(lambda: echo(sandbox), COMMANDS // 4))
        found.setdefault("docker shell", []).extend(timed(lambda: echo(shell), COMMANDS))


def starts(backend: str = BACKENDS[0]) -> dict[str, list[float]]:
    """Return how long it takes to a sandbox, and to its first command's result; stopping is not counted."""
    durations: dict[str, list[float]] = {"start": [], "first result": []}
    for _ in range(STARTS):
        began = time.perf_counter()
        sandbox = open_sandbox(backend=backend)
        durations["start"].append(1000 * (time.perf_counter() - began))
        echo(sandbox)
        durations["first result"].append(1000 * (time.perf_counter() - began))
        sandbox.stop()
    return durations


def echo(place: Sandbox | Shell) -> None:
    """Run a command and look at its result."""
    done = place.exec("echo hello") if isinstance(place, Sandbox) else place.run("echo hello")
    assert done.stdout == b"hello\n"


@contextmanager
def changed_workspace(folder: Path) -> Iterator[Sandbox]:
    """Return a sandbox in which a tenth of a folder's files were changed."""
    with open_sandbox(SandboxSettings(workspace=folder)) as sandbox:
        assert sandbox.exec("for i in $(seq 0 10 1999); do echo x >> $i.bin; done", timeout_s=60).ok
        yield sandbox


def snapshots(sandbox: Sandbox) -> list[float]:
    """Return how long snapshots take; deleting them is not counted."""
    durations = []
    for _ in range(SNAPSHOTS):
        began = time.perf_counter()
        snapshot = sandbox.snapshot()
        durations.append(1000 * (time.perf_counter() - began))
        snapshot.close()
    return durations


def branches(snapshot: Snapshot) -> list[float]:
    """Return how long it takes to begin with a snapshot."""
    durations = []
    for _ in range(SNAPSHOTS):
        began = time.perf_counter()
        sandbox = open_sandbox(snapshot=snapshot)
        echo(sandbox)
        durations.append(1000 * (time.perf_counter() - began))
        sandbox.stop()
    return durations


def at_once() -> list[float]:
    """Return how long many sandboxes take that sleep a second each."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sandboxes = list(pool.map(lambda _: open_sandbox(), range(AT_ONCE)))
        began = time.perf_counter()
        assert all(done.ok for done in pool.map(lambda one: one.exec("sleep 1"), sandboxes))
        took = 1000 * (time.perf_counter() - began)
        list(pool.map(lambda one: one.stop(), sandboxes))
    return [took]


def line(name: str, durations: list[float], peer: list[float] | None = None, target: float | None = None) -> str:
    """Return one row of the table."""
    middle = statistics.median(durations)
    high = statistics.quantiles(durations, n=20)[-1] if len(durations) > 1 else middle
    cells = [name, f"{middle:,.1f}", f"{high:,.1f}"]
    if peer:
        cells += [f"{statistics.median(peer):,.1f}", f"{statistics.median(peer) / middle:.1f}"]
    else:
        cells += ["", ""]
    cells.append("" if target is None else f"{target:.0f}: {'held' if middle <= target else 'MISSED'}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docker", action="store_true", help="measure Docker's sandboxes, too")
    given = parser.parse_args()
    rounds = range(given.rounds)
    prepare(PEER, REQUIREMENTS)
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        if given.docker:
            stack.enter_context(docker_daemon())
        peer = Peer(stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number in range(FILES):
            (folder / f"{number}.bin").write_bytes(os.urandom(FILE_BYTES))
        for _ in rounds:
            turns: dict[str, Callable[[], list[float]]] = {
                "swe-rex start": lambda: peer.measured("session", 3),
                "swe-rex command": lambda: peer.measured("execute", COMMANDS),
                "swe-rex shell": lambda: peer.measured("run", 20),
                "at once": at_once,
                "swe-rex at once": lambda: peer.measured("sleep", AT_ONCE),
            }
            with open_sandbox() as sandbox, sandbox.shell() as shell:
                found.setdefault("command", []).extend(timed(lambda: echo(sandbox), COMMANDS))
                found.setdefault("shell", []).extend(timed(lambda: echo(shell), COMMANDS))
            for name, turn in turns.items():
                found.setdefault(name, []).extend(turn())
            for name, durations in starts().items():
                found.setdefault(name, []).extend(durations)
            if given.docker:
                docker_turn(found)
            with changed_workspace(folder) as sandbox:
                found.setdefault("snapshot", []).extend(snapshots(sandbox))
                with sandbox.snapshot() as snapshot:
                    found.setdefault("branch", []).extend(branches(snapshot))
            with open_sandbox(SandboxSettings(limits=SandboxLimits(disk_bytes=1 << 30))) as sandbox:
                made = "for i in $(seq 2000); do head -c 100000 /dev/urandom > $i.bin; done"
                assert sandbox.exec(made, timeout_s=120).ok
                found.setdefault("written", []).extend(snapshots(sandbox))
    print("| ms | median | 95% | swe-rex | ratio | at most |")
    print("|---|---|---|---|---|---|")
    print(line("start", found["start"], None, START_TARGET_MS))
    print(line("start, to the first result", found["first result"], found["swe-rex start"]))
    print(line("command", found["command"], found["swe-rex command"], COMMAND_TARGET_MS))
    print(line("command in a shell", found["shell"], found["swe-rex shell"], COMMAND_TARGET_MS))
    if given.docker:
        print(line("Docker: start", found["docker start"]))
        print(line("Docker: start, to the first result", found["docker first result"]))
        print(line("Docker: command", found["docker command"]))
        print(line("Docker: command in a shell", found["docker shell"]))
    print(line("snapshot, 200 MB of which a tenth changed", found["snapshot"], None, SNAPSHOT_TARGET_MS))
    print(line("snapshot, 200 MB written inside", found["written"]))
    print(line("start from a snapshot", found["branch"]))
    print(line(f"{AT_ONCE} commands that sleep a second", found["at once"], found["swe-rex at once"]))


if __name__ == "__main__":
    main()
