"""Files in a container, read and written by programs in it, so that links lead nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from arena.errors import ToolError
from arena.sandbox.contract import ExecResult
from arena.sandbox.docker._scripts import READ, WRITE

__all__ = ["read", "write"]

_REASONS = {
    91: "No such file or directory",
    92: "Is a directory",
    93: "not a regular file",
    94: "Permission denied",
}


def read(run: Callable[..., ExecResult], path: str, shown: str, most: int) -> bytes:
    """Return the content of a file.

    Args:
        run: Runs a program with its arguments, with `stdin` and `output_bytes`.
        path: An absolute path.
        shown: What it is called in messages.
        most: The largest file that is read.

    Raises:
        ToolError: There is none, it cannot be read, or is larger.
    """
    done = run(_words(READ, path, str(most + 1)), output_bytes=2 * (most + 1))
    _require_ok(done, shown)
    if len(done.stdout) > most:
        raise ToolError(f"{shown}: more than the {most} bytes that may be read")
    return done.stdout


def write(run: Callable[..., ExecResult], path: str, shown: str, content: bytes, mode: int) -> None:
    """Write a file; folders on the way are made.

    Args:
        run: Runs a program with its arguments, with `stdin` and `output_bytes`.
        path: An absolute path.
        shown: What it is called in messages.
        content: All of it.
        mode: Of a file that was not there before.

    Raises:
        ToolError: It cannot be written.
    """
    _require_ok(run(_words(WRITE, path, f"{mode:o}"), stdin=content, output_bytes=1000), shown)


def _words(script: str, *arguments: str) -> Sequence[str]:
    return ["sh", "-c", script, "sh", *arguments]


def _require_ok(done: ExecResult, shown: str) -> None:
    if done.ok:
        return
    said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
    if done.timed_out:
        raise ToolError(f"{shown}: not done within its time")
    raise ToolError(f"{shown}: {_REASONS.get(done.exit_code or 0) or said or f'code {done.exit_code}'}")
