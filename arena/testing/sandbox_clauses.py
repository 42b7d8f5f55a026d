"""The clauses of the sandbox contract; the promise is each one's docstring."""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arena.errors import SandboxError, ToolError, UsageError
from arena.sandbox import GUARANTEES, Mount, Sandbox
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import SMALL, SandboxProbe, output
from arena.testing.verdicts import broken, must_refuse, need

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


def _same(what: str, expected: object, got: object) -> None:
    if expected != got:
        broken(f"{what}: {got!r}, not {expected!r}")


# -- what a sandbox says of itself -------------------------------------------------------------------------------------


@CLAUSES.add
def every_guarantee_is_given_or_missing(probe: SandboxProbe) -> None:
    """How each guarantee is given; why each of the others is not."""
    sandbox = probe.fresh()
    _same("guarantees", sorted(GUARANTEES), sorted([*sandbox.enforced, *sandbox.missing]))
    if not all([*sandbox.enforced.values(), *sandbox.missing.values()]):
        broken("a guarantee has no word to it")


@CLAUSES.add
def what_is_missing_was_allowed(probe: SandboxProbe) -> None:
    """A guarantee that is missing and not named is an error at the start."""
    allowed = probe.settings.unenforced
    if lacking := probe.fresh().missing.keys() - allowed:
        broken(f"it started without {', '.join(sorted(lacking))}")


# -- commands ----------------------------------------------------------------------------------------------------------


@CLAUSES.add
def a_command_gives_its_output_and_code(probe: SandboxProbe) -> None:
    """Exit code, and what it wrote to both streams."""
    done = probe.fresh().exec("echo out; echo err >&2; exit 7")
    _same("result", (7, b"out\n", b"err\n", False), (done.exit_code, done.stdout, done.stderr, done.timed_out))


@CLAUSES.add
def a_list_is_a_program_with_its_arguments(probe: SandboxProbe) -> None:
    """Bash if a text, else a program with its arguments."""
    done = probe.fresh().exec(["printf", "%s|", "a b", "$HOME", "*", "'\""])
    _same("arguments", b"a b|$HOME|*|'\"|", done.stdout)


@CLAUSES.add
def a_signal_is_a_code_above_128(probe: SandboxProbe) -> None:
    """Of one that a signal ended 128 + its number."""
    sandbox = probe.fresh()
    _same("after SIGKILL", 137, sandbox.exec("kill -9 $$").exit_code)
    _same("after SIGTERM", 143, sandbox.exec(["bash", "-c", "kill -15 $$"]).exit_code)


@CLAUSES.add
def a_command_begins_in_the_workspace(probe: SandboxProbe) -> None:
    """Where it begins; the workspace if None."""
    sandbox = probe.fresh()
    _same("directory", probe.settings.directory, output(sandbox, "pwd").strip())
    _same("directory", "/tmp", output(sandbox, "pwd", directory="/tmp").strip())
    output(sandbox, "mkdir sub")
    _same("below", f"{probe.settings.directory}/sub", output(sandbox, "pwd", directory="sub").strip())


@CLAUSES.add
def the_environment_is_what_was_given(probe: SandboxProbe) -> None:
    """Variables of every command; nothing else of this process's environment is there."""
    os.environ["ARENA_PROBE_SECRET"] = "secret"
    try:
        sandbox = probe.fresh(environment={"GIVEN": "one", "PLAIN": "p"})
        told = output(sandbox, "env; cat /proc/*/environ | tr '\\0' '\\n'", environment={"GIVEN": "two words", "X": ""})
    finally:
        del os.environ["ARENA_PROBE_SECRET"]
    lines = told.splitlines()
    if "GIVEN=two words" not in lines or "PLAIN=p" not in lines or "X=" not in lines:
        broken(f"variables are missing in {lines}")
    if "secret" in told:
        broken("a variable of this process is there")


@CLAUSES.add
def standard_input_is_what_was_given(probe: SandboxProbe) -> None:
    """What it can read; nothing if empty."""
    sandbox = probe.fresh()
    given = bytes(range(256)) * 2000
    done = sandbox.exec("wc -c; cat", stdin=given)
    _same("bytes", str(len(given)), done.stdout.split()[0].decode())
    _same("without any", "", output(sandbox, "cat"))


@CLAUSES.add
def output_is_kept_within_its_bounds(probe: SandboxProbe) -> None:
    """Half from the beginning, half from the end; what is left out is thrown away and counted."""
    done = probe.fresh().exec("seq 100000; seq 5 >&2", output_bytes=1000)
    whole = "".join(f"{i}\n" for i in range(1, 100_001)).encode()
    _same("kept", whole[:500] + whole[-500:], done.stdout)
    _same("left out", len(whole) - 1000, done.omitted_stdout)
    _same("the other stream", (b"1\n2\n3\n4\n5\n", 0), (done.stderr, done.omitted_stderr))


@CLAUSES.add
def a_flood_of_output_takes_no_memory_here(probe: SandboxProbe) -> None:
    """What is left out is read and thrown away, so that the command goes on."""
    before = _resident()
    done = probe.fresh().exec("head -c 500000000 /dev/zero; echo end >&2", timeout_s=60, output_bytes=1 << 16)
    _same("result", (0, b"end\n", 500_000_000), (done.exit_code, done.stderr, len(done.stdout) + done.omitted_stdout))
    if _resident() - before > 64 << 20:
        broken(f"this process has grown by {_resident() - before} bytes")


@CLAUSES.add
def output_need_not_be_text(probe: SandboxProbe) -> None:
    """Bytes."""
    done = probe.fresh().exec(r"printf '\000\377\n\001'")
    _same("bytes", b"\0\xff\n\x01", done.stdout)


@CLAUSES.add
def a_time_out_ends_the_whole_tree(probe: SandboxProbe) -> None:
    """All that the command has started is ended, in the background and in sessions of its own too."""
    sandbox = probe.fresh()
    hidden = "setsid bash -c 'trap \"\" TERM INT HUP; (sleep 1001 &) ; exec -a innocent sleep 1002' & "
    done = sandbox.exec(f"{hidden} (setsid sleep 1003 &); nohup sleep 1004 & echo begun; sleep 1005", timeout_s=1.0)
    _same("result", (None, True, b"begun\n"), (done.exit_code, done.timed_out, done.stdout))
    if left := [line for line in output(sandbox, _PROCESSES).splitlines() if "sleep" in line or "innocent" in line]:
        broken(f"after the time-out there is still {left}")


@CLAUSES.add
def a_time_out_spares_others(probe: SandboxProbe) -> None:
    """Only what the command has started is ended."""
    sandbox = probe.fresh()
    output(sandbox, "sleep 1006 > /dev/null 2>&1 &")
    sandbox.exec("sleep 1007", timeout_s=0.5)
    told = output(sandbox, _PROCESSES)
    if "1006" not in told or "1007" in told:
        broken(f"after the time-out of 1007 there is {told!r}")


@CLAUSES.add
def a_time_out_ends_what_forks_on_and_on(probe: SandboxProbe) -> None:
    """What forks faster than it is counted is ended too."""
    sandbox = probe.fresh()
    sandbox.exec("f() { while true; do (sleep 0.01 & sleep 0.01 &) ; done; }; f & f & f", timeout_s=1.0)
    time.sleep(0.3)
    if left := [line for line in output(sandbox, _PROCESSES).splitlines() if "sleep" in line]:
        broken(f"after the time-out there is {left}")


@CLAUSES.add
def the_background_is_not_waited_for(probe: SandboxProbe) -> None:
    """Wait for it, not for what it leaves in the background."""
    sandbox = probe.fresh()
    began = time.monotonic()
    done = sandbox.exec("sleep 20 & echo now", timeout_s=15)
    if done.timed_out or time.monotonic() - began > 10:
        broken("the command in the background was waited for")
    _same("output", b"now\n", done.stdout)
    if "sleep" not in output(sandbox, _PROCESSES):
        broken("the command in the background is gone")


@CLAUSES.add
def a_program_that_is_not_there_is_a_tool_error(probe: SandboxProbe) -> None:
    """There is no such program or directory."""
    sandbox = probe.fresh()
    with must_refuse(ToolError, "a program that is not there"):
        sandbox.exec(["no-such-program"])
    with must_refuse(ToolError, "a directory that is not there"):
        sandbox.exec("true", directory="/no/such/folder")
    _same("afterwards", 0, sandbox.exec("true").exit_code)


@CLAUSES.add
def wrong_arguments_are_refused(probe: SandboxProbe) -> None:
    """An argument is out of range, empty, or has a NUL."""
    sandbox = probe.fresh()
    attempts: dict[str, Callable[[], object]] = {
        "an empty list": lambda: sandbox.exec([]),
        "a NUL": lambda: sandbox.exec("echo \0"),
        "a NUL in a variable": lambda: sandbox.exec("true", environment={"A": "\0"}),
        "a variable without a name": lambda: sandbox.exec("true", environment={"": "x"}),
        "a time of 0": lambda: sandbox.exec("true", timeout_s=0),
        "no time": lambda: sandbox.exec("true", timeout_s=float("nan")),
        "less than no output": lambda: sandbox.exec("true", output_bytes=-1),
        "what is no text": lambda: sandbox.exec("echo \ud83d"),
        "a path that is no text": lambda: sandbox.read_file("\ud83d"),
        "an empty path": lambda: sandbox.read_file(""),
        "a NUL in a path": lambda: sandbox.write_file("a\0b", b""),
        "a mode that is none": lambda: sandbox.write_file("a", b"", mode=0o7777),
    }
    for what, attempt in attempts.items():
        with must_refuse(UsageError, what):
            attempt()


@CLAUSES.add
def a_long_command_is_run(probe: SandboxProbe) -> None:
    """Also one that is too long for an argument."""
    text = "x" * 300_000
    _same("length", f"{len(text)}\n", output(probe.fresh(), f"a='{text}'; echo ${{#a}}"))


@CLAUSES.add
def commands_run_side_by_side(probe: SandboxProbe) -> None:
    """May be called from several threads."""
    sandbox = probe.fresh()
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        done = list(pool.map(lambda i: sandbox.exec(f"sleep 1; echo {i}").stdout, range(8)))
    _same("outputs", [f"{i}\n".encode() for i in range(8)], done)
    if time.monotonic() - began > 6:
        broken(f"eight seconds of sleep took {time.monotonic() - began:.1f} s: they waited for each other")


@CLAUSES.add
def a_command_has_no_other_files_open(probe: SandboxProbe) -> None:
    """Standard input, output and error, and nothing that serves anybody else."""
    sandbox = probe.fresh()
    _same("descriptors", "0\n1\n2\n3\n", output(sandbox, "true; exec ls /proc/self/fd"))  # 3 is the folder
    told = sandbox.exec(["ls", "/proc/self/fd"], stdin=b"given").stdout
    _same("descriptors", b"0\n1\n2\n3\n", told)


# -- the shell ---------------------------------------------------------------------------------------------------------


@CLAUSES.add
def a_shell_keeps_its_state(probe: SandboxProbe) -> None:
    """Its directory, variables and functions stay as they are left."""
    shell = probe.fresh().shell()
    shell.run("cd /tmp; A='one two'; f() { echo \"f $1\"; }; export B=3")
    _same("state", b"/tmp one two 3 f x\n", shell.run('echo "$PWD $A $(printenv B) $(f x)"').stdout)
    _same("code", 4, shell.run("(exit 4)").exit_code)
    _same("the last code", b"4\n", shell.run("(exit 4); echo $?").stdout)


@CLAUSES.add
def a_shell_survives_what_it_is_told(probe: SandboxProbe) -> None:
    """Wrong syntax, unread input and NUL-free noise end a command, not the shell."""
    shell = probe.fresh().shell()
    for command in ("if then fi (", "cat", "read x", "echo 'unclosed", "false | true", "echo $'\\001\\377'", ""):
        shell.run(command, timeout_s=10)
    _same("afterwards", (0, b"fine\n"), (lambda done: (done.exit_code, done.stdout))(shell.run("echo fine")))


@CLAUSES.add
def a_shell_outlives_a_time_out(probe: SandboxProbe) -> None:
    """What it had started is ended; the shell lives on where it can."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("X=kept")
    done = shell.run("echo begun; sleep 1010", timeout_s=1.0)
    _same("result", (None, True, b"begun\n"), (done.exit_code, done.timed_out, done.stdout))
    if not shell.alive:
        broken("the shell is gone")
    _same("state", b"kept\n", shell.run("echo $X").stdout)
    if "1010" in output(sandbox, _PROCESSES):
        broken("what it had started is still there")


@CLAUSES.add
def a_shells_time_out_ends_what_has_no_parent(probe: SandboxProbe) -> None:
    """What it had started is ended, also what it has let go of."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("(setsid sleep 1020 &); (sleep 1021 &); sleep 1022", timeout_s=1.0)
    if left := [line for line in output(sandbox, _PROCESSES).splitlines() if "sleep" in line]:
        broken(f"there is still {left}")
    _same("afterwards", b"fine\n", shell.run("echo fine").stdout)


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
    _same("another shell", b"fine\n", sandbox.shell().run("echo fine").stdout)


@CLAUSES.add
def a_shell_that_exits_gives_its_code(probe: SandboxProbe) -> None:
    """The shell has ended, as by ``exit``."""
    shell = probe.fresh().shell()
    _same("code", 3, shell.run("exit 3").exit_code)
    if shell.alive:
        broken("it has exited and is alive")
    with must_refuse(ToolError, "a command to a shell that has ended"):
        shell.run("true")


@CLAUSES.add
def a_shell_takes_long_commands(probe: SandboxProbe) -> None:
    """Also longer than a pipe holds."""
    text = "y" * 200_000
    _same("length", f"{len(text)}\n".encode(), probe.fresh().shell().run(f"a='{text}'; echo ${{#a}}").stdout)


@CLAUSES.add
def a_closed_shell_leaves_nothing(probe: SandboxProbe) -> None:
    """End it, with all that it has started."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("sleep 1011 & setsid sleep 1012 &")
    shell.close()
    shell.close()
    if "sleep" in output(sandbox, _PROCESSES):
        broken("what it had started is still there")


# -- files -------------------------------------------------------------------------------------------------------------


@CLAUSES.add
def files_come_and_go_as_they_are(probe: SandboxProbe) -> None:
    """Every byte; folders on the way are made."""
    sandbox = probe.fresh()
    content = os.urandom(1 << 20)
    for path in ("a.bin", "new/folders/on the way/\u00fc\n.bin", "/tmp/b.bin"):
        sandbox.write_file(path, content)
        if sandbox.read_file(path) != content:
            broken(f"{path!r} comes back otherwise")
    sandbox.write_file("a.bin", b"short")
    _same("written again", b"short", sandbox.read_file("a.bin"))
    sandbox.write_file("run.sh", b"#!/bin/sh\necho ran\n", mode=0o755)
    _same("mode", "ran\n", output(sandbox, "./run.sh"))


@CLAUSES.add
def what_is_no_file_is_a_tool_error(probe: SandboxProbe) -> None:
    """There is no such file, it cannot be read, is no regular file, or is too large."""
    sandbox = probe.fresh()
    output(sandbox, "mkfifo pipe; mkdir folder; head -c 2000 /dev/zero > big; ln -s loop loop")
    for path in ("nothing", "pipe", "folder", "/dev/zero", "/dev/null", "loop", "big/inside"):
        with must_refuse(ToolError, f"reading {path}"):
            sandbox.read_file(path)
    with must_refuse(ToolError, "reading too much"):
        sandbox.read_file("big", max_bytes=1999)
    for path in ("folder", "big/inside", "/usr/new", "/proc/new", "pipe"):
        with must_refuse(ToolError, f"writing {path}"):
            sandbox.write_file(path, b"x")
    _same("afterwards", 2000, len(sandbox.read_file("big", max_bytes=2000)))


@CLAUSES.add
def links_lead_nowhere_else(probe: SandboxProbe) -> None:
    """Links are followed inside the sandbox."""
    outside = probe.folder / "outside.txt"
    outside.write_text("secret")
    sandbox = probe.fresh()
    output(
        sandbox, f"ln -s {outside} link; ln -s /etc/passwd users; ln -s / root; ln -s ../../../../../../..{outside} up"
    )
    for path in ("link", f"root{outside}", "up", str(outside)):
        with must_refuse(ToolError, f"reading {path}"):
            sandbox.read_file(path)
    if sandbox.read_file("users") == Path("/etc/passwd").read_bytes():
        broken("the users of this machine can be read")
    for path in ("link", "up"):
        try:
            sandbox.write_file(path, b"overwritten")
        except ToolError:
            continue
    _same("outside", "secret", outside.read_text())


@CLAUSES.add
def the_workspace_begins_as_the_folder(probe: SandboxProbe) -> None:
    """A folder of this machine whose content the workspace begins with; it is read, never changed."""
    folder = probe.workspace()
    sandbox = probe.fresh(workspace=folder)
    _same("content", "kept\ndeep\n", output(sandbox, "cat kept.txt sub/deep.txt"))
    output(sandbox, "echo more >> kept.txt; rm -rf sub; mkdir sub; echo new > sub/new.txt")
    _same("inside", "kept\nmore\nnew\n", output(sandbox, "cat kept.txt sub/*"))
    _same("outside", {"kept.txt": "kept\n", "deep.txt": "deep\n"}, _texts(folder))


@CLAUSES.add
def mounts_are_shown_and_cannot_be_changed(probe: SandboxProbe) -> None:
    """A folder or file of this machine that is shown in the sandbox, and cannot be changed there."""
    folder = probe.workspace()
    mounts = (Mount(folder, "/data/shown"), Mount(folder / "kept.txt", "/data/one.txt"))
    sandbox = probe.fresh(mounts=mounts)
    _same("content", "deep\nkept\n", output(sandbox, "cat /data/shown/sub/deep.txt /data/one.txt"))
    for command in (
        "echo x >> /data/shown/kept.txt",
        "rm /data/one.txt",
        "touch /data/shown/new",
        "chmod 777 /data/shown",
    ):
        if sandbox.exec(command).ok:
            broken(f"{command!r} succeeded")
    _same("outside", {"kept.txt": "kept\n", "deep.txt": "deep\n"}, _texts(folder))


# -- snapshots ---------------------------------------------------------------------------------------------------------


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
        _same("restored", before, output(sandbox, _TREE))
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
        _same("branch", ["1", str(min(number, 2)), "a", "sub", "sub2", str(min(number, 2))], told)


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
    _same("after 50", ["50", "kept.txt", "log", "only-49", "sub"], told.split())


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
        _same("restored", expected, output(sandbox, told))
        branch = probe.fresh(snapshot)
        _same("branched", expected, output(branch, told))
        modes = "stat -c '%a %F' sub fifo"
        _same("modes", "500 directory\n644 fifo\n", output(branch, modes))


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
    _same("afterwards", 0, sandbox.exec("true").exit_code)


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
    _same("the shell", b"1\n", shell.run("echo $A").stdout)


# -- what cannot be done -----------------------------------------------------------------------------------------------


@CLAUSES.add
def the_system_cannot_be_changed(probe: SandboxProbe) -> None:
    """Nothing outside the workspace and temporary folders can be changed."""
    sandbox = probe.fresh()
    for path in ("/usr", "/usr/bin", "/etc", "/", "/proc/sys/kernel", "/sys", "/dev", "/run", "/root", "/var"):
        if sandbox.exec(["touch", f"{path}/new"]).ok:
            broken(f"a file can be made in {path}")
    for command in (
        "echo x > /etc/passwd",
        "chmod 777 /usr",
        "rm -f /usr/bin/env",
        "echo 1 > /proc/sys/vm/drop_caches",
    ):
        if sandbox.exec(command).ok:
            broken(f"{command!r} succeeded")


@CLAUSES.add
def this_machines_files_cannot_be_read(probe: SandboxProbe) -> None:
    """Only named folders can be read."""
    sandbox = probe.fresh()
    for path in (Path.home() / "probe", probe.folder / "secret.txt", Path("/etc/shadow"), Path("/etc/hostname")):
        if path.parent == probe.folder:
            path.write_text("secret")
        if sandbox.exec(["cat", str(path)]).ok:
            broken(f"{path} can be read")
    if "secret" in output(sandbox, "cat /proc/*/cmdline /proc/mounts /proc/*/mountinfo 2> /dev/null || true"):
        broken("a name of this machine is shown")


@CLAUSES.add
def nothing_can_be_reached(probe: SandboxProbe) -> None:
    """No address can be reached, that of the machine itself included."""
    need("network" not in probe.settings.unenforced, "the network was not to be closed")
    sandbox = probe.fresh()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for target in (f"/dev/tcp/127.0.0.1/{port}", "/dev/tcp/1.1.1.1/53", "/dev/udp/8.8.8.8/53"):
            if sandbox.exec(f"echo x > {target}", timeout_s=10).ok:
                broken(f"{target} can be reached")
    told = output(sandbox, "cat /proc/net/dev").splitlines()[2:]
    if others := [line for line in told if not line.strip().startswith("lo:")]:
        broken(f"there is another network device: {others}")


@CLAUSES.add
def other_kinds_of_sockets_are_refused(probe: SandboxProbe) -> None:
    """Calls to the kernel that no program of a task needs are refused: a virtual machine's host is a socket away."""
    sandbox = probe.fresh()
    need("syscalls" in sandbox.enforced, "system calls are not filtered")
    need(sandbox.exec("python3 -c pass").ok, "there is no Python")
    for family in (40, 17, 38, 31):
        code = f"import socket; socket.socket({family}, 1 if {family} == 40 else 5 if {family} == 38 else 3)"
        if sandbox.exec(["python3", "-c", code]).ok:
            broken(f"a socket of family {family} can be made")
    if not sandbox.exec(["python3", "-c", "import socket; socket.socketpair(); socket.socket()"]).ok:
        broken("ordinary sockets cannot be made")


@CLAUSES.add
def namespaces_and_mounts_are_refused(probe: SandboxProbe) -> None:
    """No process has, or can gain, a capability outside its own namespaces."""
    sandbox = probe.fresh()
    for command in (
        "unshare -U true",
        "unshare -r true",
        "mount -t tmpfs x /tmp",
        "mount --bind / /tmp",
        "chroot / true",
    ):
        if sandbox.exec(f"PATH=$PATH:/sbin:/usr/sbin; {command}").ok:
            broken(f"{command!r} succeeded")
    caps = re.findall(r"Cap(?:Prm|Eff|Bnd|Amb):\s*(\w+)", output(sandbox, "cat /proc/self/status"))
    if any(int(one, 16) for one in caps):
        broken(f"a command has capabilities: {caps}")
    _same("no new privileges", ["1"], re.findall(r"NoNewPrivs:\s*(\d)", output(sandbox, "cat /proc/self/status")))


@CLAUSES.add
def no_process_outside_is_seen(probe: SandboxProbe) -> None:
    """No process outside can be seen, signalled or traced."""
    told = output(probe.fresh(), _PROCESSES).splitlines()
    if len(told) > 12:
        broken(f"{len(told)} processes are seen")


@CLAUSES.add
def the_first_process_is_out_of_reach(probe: SandboxProbe) -> None:
    """What serves commands can neither be ended nor looked into by them."""
    sandbox = probe.fresh()
    sandbox.exec("for n in $(seq 1 31); do kill -$n 1; done; kill -9 -1", timeout_s=20)
    _same("after all signals", 0, sandbox.exec("true").exit_code)
    for command in (
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "readlink /proc/1/fd/*",
        "cat /proc/1/fd/*",
        "ls /proc/1/root/",
    ):
        if sandbox.exec(command, timeout_s=5).stdout:
            broken(f"{command!r} tells something")


@CLAUSES.add
def the_first_process_keeps_its_limits(probe: SandboxProbe) -> None:
    """What serves commands is not slowed down or starved by them, nor is another command looked into."""
    sandbox = probe.fresh()
    for command in ("prlimit --pid 1 --nofile=4:4", "prlimit --pid 1 --as=1:1", "chrt -i -p 0 1", "renice -n 19 -p 1"):
        if sandbox.exec(command).ok:
            broken(f"{command!r} succeeded")
    _same("of itself", 0, sandbox.exec("prlimit --pid 0 --nofile=32:32 true; ulimit -n 32").exit_code)
    _same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)


@CLAUSES.add
def this_machines_devices_stay_as_they_are(probe: SandboxProbe) -> None:
    """Nothing outside can be changed, not by the mode of a device either."""
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")]
    before = [os.stat(device).st_mode for device in devices]
    sandbox = probe.fresh()
    sandbox.exec(f"chmod 667 {' '.join(devices)} /proc/self/fd/0 /proc/self/fd/1")
    _same("modes", before, [os.stat(device).st_mode for device in devices])
    _same("devices", "0\n3\n", output(sandbox, "echo x > /dev/null; wc -c < /dev/null; head -c 3 /dev/zero | wc -c"))


@CLAUSES.add
def commands_cannot_gain_by_writing_on_others_pipes(probe: SandboxProbe) -> None:
    """A command's code is its own."""
    sandbox = probe.fresh()
    forge = "for p in /proc/[0-9]*/fd/*; do echo 'exit 0' > $p; done 2> /dev/null; exit 5"
    _same("code", 5, sandbox.exec(forge, timeout_s=20).exit_code)


# -- limits ------------------------------------------------------------------------------------------------------------


@CLAUSES.add
def memory_is_limited(probe: SandboxProbe) -> None:
    """All processes together get so much memory; the sandbox survives who takes more."""
    sandbox = probe.fresh()
    need("memory" in sandbox.enforced, "memory is not limited")
    done = sandbox.exec("head -c 1G /dev/zero | tail", timeout_s=60)
    if done.ok:
        broken("four times as much memory could be used")
    _same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)


@CLAUSES.add
def files_in_memory_are_limited(probe: SandboxProbe) -> None:
    """All files together take at most so much room, wherever they are."""
    sandbox = probe.fresh()
    total = 0
    for folder in (".", "/tmp", "$HOME", "/dev/shm", "/run", "/var/tmp", "/"):
        sandbox.exec(f"for i in 1 2 3 4 5 6 7 8; do head -c 16M /dev/zero > {folder}/fill-$i; done", timeout_s=60)
        told = sandbox.exec(f"cat {folder}/fill-* 2> /dev/null | wc -c").stdout
        total += int(told or 0)
    if total > SMALL.disk_bytes + (64 << 20):
        broken(f"{total} bytes were written, of {SMALL.disk_bytes}")
    _same("afterwards", "fine\n", output(sandbox, "rm -f fill-* /tmp/fill-* /dev/shm/fill-*; echo fine"))


@CLAUSES.add
def a_file_is_limited(probe: SandboxProbe) -> None:
    """No file grows beyond its limit."""
    sandbox = probe.fresh()
    need("file_size" in sandbox.enforced, "the size of a file is not limited")
    sandbox.exec("head -c 20M /dev/zero > big")
    _same("size", f"{SMALL.file_bytes}\n", output(sandbox, "stat -c %s big"))
    with must_refuse(ToolError, "a file that is too large"):
        sandbox.write_file("larger", bytes(SMALL.file_bytes + 1))


@CLAUSES.add
def the_number_of_processes_is_limited(probe: SandboxProbe) -> None:
    """There are at most so many processes; the sandbox survives who starts more."""
    sandbox = probe.fresh()
    need("process_count" in sandbox.enforced, "the number of processes is not limited")
    shell = sandbox.shell()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(sandbox.exec, "for i in $(seq 200); do sleep 30 & done", timeout_s=4.0)
        time.sleep(2.0)
        count = int(shell.run("set -- /proc/[0-9]*; echo $#").stdout)
        started.result()
    if count > SMALL.processes:
        broken(f"{count} processes run, of {SMALL.processes}")
    sandbox.kill()
    sandbox.exec(":(){ :|:& };:", timeout_s=5)
    time.sleep(1)
    sandbox.kill()
    _same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)


# -- the end -----------------------------------------------------------------------------------------------------------


@CLAUSES.add
def kill_ends_all_and_keeps_files(probe: SandboxProbe) -> None:
    """End all that runs in the sandbox, shells included. Files stay."""
    sandbox = probe.fresh()
    shell = sandbox.shell()
    shell.run("echo kept > file; sleep 1013 & setsid sleep 1014 &")
    sandbox.exec("(setsid sleep 1015 > /dev/null 2>&1 &)")
    sandbox.kill()
    if "sleep" in output(sandbox, _PROCESSES):
        broken("something still runs")
    _same("file", b"kept\n", sandbox.read_file("file"))
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
            _same("output", f"{number}\n".encode(), done)


def _work(number: int, sandbox: Sandbox) -> bytes:
    sandbox.write_file("mine", b"%d\n" % number)
    return sandbox.exec("sleep 0.2; cat mine; ls | grep -vx mine").stdout


@CLAUSES.add
def nothing_is_left_behind(probe: SandboxProbe) -> None:
    """Processes, mounts, temporary folders and control groups are the same before and after."""
    folder = probe.workspace()
    probe.fresh().stop()
    with _unchanged():
        sandbox = probe.fresh(workspace=folder)
        sandbox.exec("setsid sleep 1017 & echo x > a")
        with sandbox.snapshot() as snapshot:
            sandbox.restore(snapshot)
            sandbox.exec("sleep 1018 &")
        sandbox.stop()


@contextmanager
def _unchanged() -> Iterator[None]:
    before = _machine()
    yield
    deadline = time.monotonic() + 5
    while (after := _machine()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    for what, found in after.items():
        if found != before[what]:
            broken(f"{what}: new {sorted(found - before[what])[:5]}, gone {sorted(before[what] - found)[:5]}")


def _machine() -> dict[str, set[str]]:
    children = {path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if _parent(path) == os.getpid()}
    return {
        "processes": children,
        "mounts": set(_read(Path("/proc/self/mounts")).splitlines()),
        "open files": {f"{len(os.listdir('/proc/self/fd'))} open files"},
        "temporary folders": {str(path) for path in Path("/tmp").glob("arena-sandbox-*/*")},
        "control groups": {str(path) for path in Path("/sys/fs/cgroup").glob("**/arena-sandbox-*")},
    }


def _parent(stat: Path) -> int:
    words = _read(stat).rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_PROCESSES = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2> /dev/null; echo; done | grep -v '^$'"
_TREE = "find . -printf '%P %y %m %l\\n' | sort; find . -type f | sort | xargs cat"
