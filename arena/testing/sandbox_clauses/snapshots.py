"""Snapshots: what they hold, and what begins with them."""

from __future__ import annotations

import time

from arena.errors import UsageError
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import SandboxProbe, output, same
from arena.testing.verdicts import broken, must_refuse

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()
_TREE = "find . -printf '%P %y %m %l\\n' | sort; find . -type f | sort | xargs cat"


@CLAUSES.add
def a_workspace_can_be_restored(probe: SandboxProbe) -> None:
    """Make the workspace what it was."""
    sandbox = probe.fresh(workspace=probe.workspace())
    output(sandbox, "echo one > a; mkdir -p d/e; echo two > d/e/b; ln -s a l; rm sub/deep.txt; chmod 600 kept.txt")
    before = output(sandbox, _TREE)
    snapshot = probe.snapshot(sandbox)
    output(sandbox, "rm -rf d kept.txt; echo changed > a; mkdir sub/more; echo back > sub/deep.txt; ln -sf b l")
    for _ in range(2):
        sandbox.restore(snapshot)
        same("restored", before, output(sandbox, _TREE))
        output(sandbox, "rm -rf ./*")


@CLAUSES.add
def sandboxes_branch_from_a_snapshot(probe: SandboxProbe) -> None:
    """Sandboxes can be started from it, and each goes its own way."""
    first = probe.fresh(workspace=probe.workspace())
    output(first, "echo 1 > a; rm kept.txt")
    snapshot = probe.snapshot(first)
    first.stop()
    branches = [probe.fresh(snapshot) for _ in range(3)]
    for number, branch in enumerate(branches):
        output(branch, f"echo {number} >> a; mkdir sub2; echo x > sub2/{number}")
    deeper = probe.fresh(probe.snapshot(branches[2]))
    for number, branch in enumerate([*branches, deeper]):
        told = output(branch, "cat a; ls; ls sub2").split()
        same("branch", ["1", str(min(number, 2)), "a", "sub", "sub2", str(min(number, 2))], told)


@CLAUSES.add
def snapshots_of_snapshots_are_whole(probe: SandboxProbe) -> None:
    """However many there were before."""
    sandbox = probe.fresh(workspace=probe.workspace())
    for number in range(50):
        output(sandbox, f"echo {number} >> log; rm -f only-*; touch only-{number}")
        snapshot = sandbox.snapshot()
        sandbox.restore(snapshot)
        snapshot.close()
    told = output(sandbox, "cat log | wc -l; ls")
    same("after 50", ["50", "kept.txt", "log", "only-49", "sub"], told.split())


@CLAUSES.add
def a_snapshot_holds_whatever_there_is(probe: SandboxProbe) -> None:
    """The workspace as it is: files and folders without rights, deep ones, special ones."""
    sandbox = probe.fresh(workspace=probe.workspace())
    output(
        sandbox,
        "mkdir none; echo x > none/x; echo y > y; chmod 500 sub; chmod 000 none y; mkfifo fifo; echo z > $'a\\nb'",
    )
    output(
        sandbox,
        "ln y hard; ln -s /etc/passwd link; rm kept.txt; d=deep; for i in $(seq 300); do d=$d/d; done; mkdir -p $d",
    )
    told = (
        "chmod 700 none; chmod 600 y hard; cat none/x y hard $'a\\nb'; readlink link; find deep | wc -l; "
        "ls kept.txt 2>&1 | wc -l"
    )
    expected = "x\ny\ny\nz\n/etc/passwd\n301\n1\n"
    with sandbox.snapshot() as snapshot:
        sandbox.restore(snapshot)
        same("restored", expected, output(sandbox, told))
        branch = probe.fresh(snapshot)
        same("branched", expected, output(branch, told))
        modes = "stat -c '%a %F' sub fifo"
        same("modes", "500 directory\n644 fifo\n", output(branch, modes))


@CLAUSES.add
def a_closed_snapshot_is_refused(probe: SandboxProbe) -> None:
    """The snapshot is closed."""
    sandbox = probe.fresh()
    snapshot = sandbox.snapshot()
    snapshot.close()
    snapshot.close()
    with must_refuse(UsageError, "restoring a closed snapshot"):
        sandbox.restore(snapshot)
    with must_refuse(UsageError, "starting from a closed snapshot"):
        probe.fresh(snapshot)
    same("afterwards", 0, sandbox.exec("true").exit_code)


@CLAUSES.add
def a_snapshot_holds_processes_and_lets_them_go(probe: SandboxProbe) -> None:
    """Processes are held meanwhile."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("A=1; (while true; do date +%s%N > ticks; sleep 0.05; done) > /dev/null 2>&1 &")
    output(sandbox, "until [ -s ticks ]; do sleep 0.05; done", timeout_s=20)
    probe.snapshot(sandbox)
    first = sandbox.read_file("ticks")
    time.sleep(0.5)
    if sandbox.read_file("ticks") == first:
        broken("what ran in the background stands still")
    same("the shell", b"1\n", shell.run("echo $A").stdout)
