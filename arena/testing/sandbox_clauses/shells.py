"""Shells, which live on between commands."""

from __future__ import annotations

from arena.errors import ToolError
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import PROCESSES, SandboxProbe, output, same
from arena.testing.verdicts import broken, must_refuse

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def a_shell_keeps_its_state(probe: SandboxProbe) -> None:
    """Its directory, variables and functions stay as they are left."""
    shell = probe.fresh().shell()
    shell.run("cd /tmp; A='one two'; f() { echo \"f $1\"; }; export B=3")
    same("state", b"/tmp one two 3 f x\n", shell.run('echo "$PWD $A $(printenv B) $(f x)"').stdout)
    same("code", 4, shell.run("(exit 4)").exit_code)
    same("the last code", b"4\n", shell.run("(exit 4); echo $?").stdout)


@CLAUSES.add
def a_shell_survives_what_it_is_told(probe: SandboxProbe) -> None:
    """Wrong syntax, unread input and NUL-free noise end a command, not the shell."""
    shell = probe.fresh().shell()
    for command in ("if then fi (", "cat", "read x", "echo 'unclosed", "false | true", "echo $'\\001\\377'", ""):
        shell.run(command, timeout_s=10)
    same("afterwards", (0, b"fine\n"), (lambda done: (done.exit_code, done.stdout))(shell.run("echo fine")))


@CLAUSES.add
def a_shell_outlives_a_time_out(probe: SandboxProbe) -> None:
    """What it had started is ended; the shell lives on where it can."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("X=kept")
    done = shell.run("echo begun; sleep 1010", timeout_s=1.0)
    same("result", (None, True, b"begun\n"), (done.exit_code, done.timed_out, done.stdout))
    if not shell.alive:
        broken("the shell is gone")
    same("state", b"kept\n", shell.run("echo $X").stdout)
    if "1010" in output(sandbox, PROCESSES):
        broken("what it had started is still there")


@CLAUSES.add
def a_shells_time_out_ends_what_has_no_parent(probe: SandboxProbe) -> None:
    """What it had started is ended, also what it has let go of."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("(setsid sleep 1020 &); (sleep 1021 &); sleep 1022", timeout_s=1.0)
    if left := [line for line in output(sandbox, PROCESSES).splitlines() if "sleep" in line]:
        broken(f"there is still {left}")
    same("afterwards", b"fine\n", shell.run("echo fine").stdout)


@CLAUSES.add
def who_writes_to_a_shells_pipes_loses_the_shell(probe: SandboxProbe) -> None:
    """A code is that of the command: what else is written for it ends the shell."""
    sandbox = probe.fresh()
    for forged in (r"0\0", r"abc\0", r"0"):
        shell = sandbox.shell()
        codes = list[int | None]()
        try:
            for command in (
                f"for n in /proc/$$/fd/*; do printf '{forged}' > $n; done 2> /dev/null; (exit 7)",
                "(exit 9)",
            ):
                codes.append(shell.run(command, timeout_s=5).exit_code)
        except ToolError:
            pass
        if codes[1:] not in ([], [9]):  # of itself a command may say what it likes
            broken(f"codes of 7 and 9 were {codes}")


@CLAUSES.add
def a_shell_that_cannot_be_stopped_is_ended(probe: SandboxProbe) -> None:
    """Else `alive` is False."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    done = shell.run("while true; do :; done", timeout_s=0.5)
    if not done.timed_out or shell.alive:
        broken(f"after an endless loop: timed_out {done.timed_out}, alive {shell.alive}")
    with must_refuse(ToolError, "a command to a shell that has ended"):
        shell.run("true")
    same("another shell", b"fine\n", sandbox.shell().run("echo fine").stdout)


@CLAUSES.add
def a_shell_that_exits_gives_its_code(probe: SandboxProbe) -> None:
    """The shell has ended, as by ``exit``."""
    shell = probe.fresh().shell()
    same("code", 3, shell.run("exit 3").exit_code)
    if shell.alive:
        broken("it has exited and is alive")
    with must_refuse(ToolError, "a command to a shell that has ended"):
        shell.run("true")


@CLAUSES.add
def a_shell_takes_long_commands(probe: SandboxProbe) -> None:
    """Also longer than a pipe holds."""
    text = "y" * 200_000
    same("length", f"{len(text)}\n".encode(), probe.fresh().shell().run(f"a='{text}'; echo ${{#a}}").stdout)


@CLAUSES.add
def a_closed_shell_leaves_nothing(probe: SandboxProbe) -> None:
    """End it, with all that it has started."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("sleep 1011 & setsid sleep 1012 &")
    shell.close()
    shell.close()
    if "sleep" in output(sandbox, PROCESSES):
        broken("what it had started is still there")
