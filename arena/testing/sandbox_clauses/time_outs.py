"""Time-outs, and what is left in the background."""

from __future__ import annotations

import time

from arena.testing.report import Clauses
from arena.testing.sandbox_probe import PROCESSES, SandboxProbe, output, same
from arena.testing.verdicts import broken

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def a_time_out_ends_the_whole_tree(probe: SandboxProbe) -> None:
    """All that the command has started is ended, in the background and in sessions of its own too."""
    sandbox = probe.fresh()
    hidden = "setsid bash -c 'trap \"\" TERM INT HUP; (sleep 1001 &) ; exec -a innocent sleep 1002' & "
    done = sandbox.exec(f"{hidden} (setsid sleep 1003 &); nohup sleep 1004 & echo begun; sleep 1005", timeout_s=1.0)
    same("result", (None, True, b"begun\n"), (done.exit_code, done.timed_out, done.stdout))
    if left := [line for line in output(sandbox, PROCESSES).splitlines() if "sleep" in line or "innocent" in line]:
        broken(f"after the time-out there is still {left}")


@CLAUSES.add
def a_time_out_spares_others(probe: SandboxProbe) -> None:
    """Only what the command has started is ended."""
    sandbox = probe.fresh()
    output(sandbox, "sleep 1006 > /dev/null 2>&1 &")
    sandbox.exec("sleep 1007", timeout_s=0.5)
    told = output(sandbox, PROCESSES)
    if "1006" not in told or "1007" in told:
        broken(f"after the time-out of 1007 there is {told!r}")


@CLAUSES.add
def a_time_out_ends_what_forks_on_and_on(probe: SandboxProbe) -> None:
    """What forks faster than it is counted is ended too."""
    sandbox = probe.fresh()
    sandbox.exec("f() { while true; do (sleep 0.01 & sleep 0.01 &) ; done; }; f & f & f", timeout_s=1.0)
    time.sleep(0.3)
    if left := [line for line in output(sandbox, PROCESSES).splitlines() if "sleep" in line]:
        broken(f"after the time-out there is {left}")


@CLAUSES.add
def the_background_is_not_waited_for(probe: SandboxProbe) -> None:
    """Wait for it, not for what it leaves in the background."""
    sandbox = probe.fresh()
    began = time.monotonic()
    done = sandbox.exec("sleep 20 & echo now", timeout_s=15)
    if done.timed_out or time.monotonic() - began > 10:
        broken("the command in the background was waited for")
    same("output", b"now\n", done.stdout)
    if "sleep" not in output(sandbox, PROCESSES):
        broken("the command in the background is gone")
