"""Commands: their results, arguments, streams and surroundings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arena.errors import ToolError, UsageError
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import SandboxProbe, output, same
from arena.testing.verdicts import broken, must_refuse

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def a_command_gives_its_output_and_code(probe: SandboxProbe) -> None:
    """Exit code, and what it wrote to both streams."""
    done = probe.fresh().exec("echo out; echo err >&2; exit 7")
    same("result", (7, b"out\n", b"err\n", False), (done.exit_code, done.stdout, done.stderr, done.timed_out))


@CLAUSES.add
def a_list_is_a_program_with_its_arguments(probe: SandboxProbe) -> None:
    """Bash if a text, else a program with its arguments."""
    done = probe.fresh().exec(["printf", "%s|", "a b", "$HOME", "*", "'\""])
    same("arguments", b"a b|$HOME|*|'\"|", done.stdout)


@CLAUSES.add
def a_signal_is_a_code_above_128(probe: SandboxProbe) -> None:
    """Of one that a signal ended 128 + its number."""
    sandbox = probe.fresh()
    same("after SIGKILL", 137, sandbox.exec("kill -9 $$").exit_code)
    same("after SIGTERM", 143, sandbox.exec(["bash", "-c", "kill -15 $$"]).exit_code)


@CLAUSES.add
def a_command_begins_in_the_workspace(probe: SandboxProbe) -> None:
    """Where it begins; the workspace if None."""
    sandbox = probe.fresh()
    same("directory", probe.settings.directory, output(sandbox, "pwd").strip())
    same("directory", "/tmp", output(sandbox, "pwd", directory="/tmp").strip())
    output(sandbox, "mkdir sub")
    same("below", f"{probe.settings.directory}/sub", output(sandbox, "pwd", directory="sub").strip())


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
    same("bytes", str(len(given)), done.stdout.split()[0].decode())
    same("without any", "", output(sandbox, "cat"))


@CLAUSES.add
def output_is_kept_within_its_bounds(probe: SandboxProbe) -> None:
    """Half from the beginning, half from the end; what is left out is thrown away and counted."""
    done = probe.fresh().exec("seq 100000; seq 5 >&2", output_bytes=1000)
    whole = "".join(f"{i}\n" for i in range(1, 100_001)).encode()
    same("kept", whole[:500] + whole[-500:], done.stdout)
    same("left out", len(whole) - 1000, done.omitted_stdout)
    same("the other stream", (b"1\n2\n3\n4\n5\n", 0), (done.stderr, done.omitted_stderr))


@CLAUSES.add
def a_flood_of_output_takes_no_memory_here(probe: SandboxProbe) -> None:
    """What is left out is read and thrown away, so that the command goes on."""
    before = _resident()
    done = probe.fresh().exec("head -c 500000000 /dev/zero; echo end >&2", timeout_s=60, output_bytes=1 << 16)
    same("result", (0, b"end\n", 500_000_000), (done.exit_code, done.stderr, len(done.stdout) + done.omitted_stdout))
    if _resident() - before > 64 << 20:
        broken(f"this process has grown by {_resident() - before} bytes")


@CLAUSES.add
def output_need_not_be_text(probe: SandboxProbe) -> None:
    """Bytes."""
    done = probe.fresh().exec(r"printf '\000\377\n\001'")
    same("bytes", b"\0\xff\n\x01", done.stdout)


@CLAUSES.add
def a_program_that_is_not_there_is_a_tool_error(probe: SandboxProbe) -> None:
    """There is no such program or directory."""
    sandbox = probe.fresh()
    with must_refuse(ToolError, "a program that is not there"):
        sandbox.exec(["no-such-program"])
    with must_refuse(ToolError, "a directory that is not there"):
        sandbox.exec("true", directory="/no/such/folder")
    same("afterwards", 0, sandbox.exec("true").exit_code)


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
    same("length", f"{len(text)}\n", output(probe.fresh(), f"a='{text}'; echo ${{#a}}"))


@CLAUSES.add
def commands_run_side_by_side(probe: SandboxProbe) -> None:
    """May be called from several threads."""
    sandbox = probe.fresh()
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        done = list(pool.map(lambda i: sandbox.exec(f"sleep 1; echo {i}").stdout, range(8)))
    same("outputs", [f"{i}\n".encode() for i in range(8)], done)
    if time.monotonic() - began > 6:
        broken(f"eight seconds of sleep took {time.monotonic() - began:.1f} s: they waited for each other")


@CLAUSES.add
def a_command_has_no_other_files_open(probe: SandboxProbe) -> None:
    """Standard input, output and error, and nothing that serves anybody else."""
    sandbox = probe.fresh()
    same("descriptors", "0\n1\n2\n3\n", output(sandbox, "true; exec ls /proc/self/fd"))  # 3 is the folder
    told = sandbox.exec(["ls", "/proc/self/fd"], stdin=b"given").stdout
    same("descriptors", b"0\n1\n2\n3\n", told)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
