"""How a sandbox ends, and what is left then."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from arena.errors import SandboxError, ToolError
from arena.sandbox import Sandbox
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import PROCESSES, SandboxProbe, output, same
from arena.testing.verdicts import broken, must_refuse

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def kill_ends_all_and_keeps_files(probe: SandboxProbe) -> None:
    """End all that runs in the sandbox, shells included. Files stay."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("echo kept > file; sleep 1013 & setsid sleep 1014 &")
    sandbox.exec("(setsid sleep 1015 > /dev/null 2>&1 &)")
    sandbox.kill()
    if "sleep" in output(sandbox, PROCESSES):
        broken("something still runs")
    same("file", b"kept\n", sandbox.read_file("file"))
    with must_refuse(ToolError, "a command to a shell that was killed"):
        shell.run("true")


@CLAUSES.add
def a_stopped_sandbox_is_gone(probe: SandboxProbe) -> None:
    """End all that runs, and delete all that was written. May be called twice."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    mark = f"{time.monotonic_ns()}"
    shell.run(f"echo x > file; exec -a arena-probe-{mark} sleep 1016 &")
    sandbox.stop()
    sandbox.stop()
    if sandbox.alive or shell.alive:
        broken("it is alive")
    attempts: list[Callable[[], Any]] = [lambda: sandbox.exec("true"), sandbox.shell, sandbox.kill, sandbox.snapshot]
    attempts += [lambda: sandbox.read_file("file"), lambda: sandbox.write_file("file", b"")]
    for attempt in attempts:
        with must_refuse(SandboxError, "using a sandbox that was stopped"):
            attempt()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if mark in _read(path):
            broken("a process of it still runs")


@CLAUSES.add
def a_sandbox_that_is_lost_is_no_result(probe: SandboxProbe) -> None:
    """What the back end fails to do never counts as a command's result."""
    sandbox = probe.fresh()
    for _ in range(3):
        done = sandbox.exec(
            "head -c 20M /dev/zero > a; head -c 14M /dev/zero > /tmp/b; head -c 1G /dev/zero | tail", timeout_s=30
        )
        if not sandbox.alive or done.ok:
            broken(f"it gave {done.exit_code} and is alive: {sandbox.alive}")


@CLAUSES.add
def stop_ends_a_command_that_runs(probe: SandboxProbe) -> None:
    """A command that was running ends as a `SandboxError`, and at once."""
    sandbox = probe.fresh()
    found = list[object]()

    def run() -> None:
        try:
            found.append(sandbox.exec("sleep 30", timeout_s=40))
        except Exception as error:  # it is looked at below
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    sandbox.stop()
    thread.join(20)
    if time.monotonic() - began > 10 or not found or not isinstance(found[0], SandboxError):
        broken(f"after {time.monotonic() - began:.1f} s it gave {found}")


@CLAUSES.add
def many_sandboxes_run_side_by_side(probe: SandboxProbe) -> None:
    """32 of them, which know nothing of each other."""
    with ThreadPoolExecutor(32) as pool:
        sandboxes = list(pool.map(lambda _: probe.fresh(), range(32)))
        for number, done in zip(itertools.count(), pool.map(_work, range(32), sandboxes), strict=False):
            same("output", f"{number}\n".encode(), done)


def _work(number: int, sandbox: Sandbox) -> bytes:
    sandbox.write_file("mine", b"%d\n" % number)
    return sandbox.exec("sleep 0.2; cat mine; ls | grep -vx mine").stdout


@CLAUSES.add
def nothing_is_left_behind(probe: SandboxProbe) -> None:
    """Processes, mounts, temporary folders and control groups are the same before and after."""
    folder = probe.workspace()
    probe.fresh().stop()
    mark = f"arena-probe-{time.monotonic_ns()}"
    with _unchanged(mark):
        sandbox = probe.fresh(workspace=folder)
        sandbox.exec(f"setsid bash -c 'exec -a {mark}-1 sleep 1017' & echo x > a")
        with sandbox.snapshot() as snapshot:
            sandbox.restore(snapshot)
            shell = sandbox.shell()
            shell.run(f"(exec -a {mark}-2 sleep 1018) & (setsid bash -c 'exec -a {mark}-3 sleep 1024' &)")
            if len([line for line in output(sandbox, PROCESSES).splitlines() if mark in line]) < 2:
                broken("what was to be left behind does not run")
            shell.close()
        sandbox.stop()


@contextmanager
def _unchanged(mark: str) -> Iterator[None]:
    before = _machine(mark)
    yield
    deadline = time.monotonic() + 5
    while (after := _machine(mark)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    for what, found in after.items():
        if found != before[what]:
            broken(f"{what}: new {sorted(found - before[what])[:5]}, gone {sorted(before[what] - found)[:5]}")


def _machine(mark: str) -> dict[str, set[str]]:
    parents = {int(path.parent.name): _parent(path) for path in Path("/proc").glob("[0-9]*/stat")}
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    own = _own_folders()  # others may open sandboxes at the same time
    return {
        "processes": {str(pid) for pid in ours},
        "processes that were in it": {str(pid) for pid in parents if mark in _read(Path(f"/proc/{pid}/cmdline"))},
        "mounts": {
            line for line in _read(Path("/proc/self/mounts")).splitlines() if "docker" not in line
        },  # any daemon's
        "open files": {f"{len(os.listdir('/proc/self/fd'))} open files"},
        "temporary folders": {str(path) for name in own for path in Path(gettempdir()).glob(f"{name}/*")},
        "control groups": {str(path) for name in own for path in Path("/sys/fs/cgroup").glob(f"**/{name}-*")},
    }


def _own_folders() -> set[str]:
    """Return the names of folders whose lock this process holds open."""
    found = set[str]()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found |= {name for name in Path(os.readlink(link)).parts if name.startswith("arena-sandbox-")}
    return found


def _parent(stat: Path) -> int:
    words = _read(stat).rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
