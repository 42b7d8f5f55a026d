"""What callers give, checked and made into what a process gets."""

from __future__ import annotations

import os
from collections.abc import Sequence

from arena.errors import UsageError

__all__ = ["check_times", "opened_memory", "program_of", "word"]

_LONG_SCRIPT = 100_000


def check_times(timeout_s: float, output_bytes: int) -> None:
    if not 0 < timeout_s < 1e6:
        raise UsageError(f"timeout_s is above 0 and below 1,000,000, not {timeout_s}")
    if not 0 <= output_bytes <= 1 << 30:
        raise UsageError(f"output_bytes is between 0 and {1 << 30}, not {output_bytes}")


def program_of(command: str | Sequence[str]) -> tuple[Sequence[str], bytes]:
    """Return a program with its arguments, and the script that it reads if that is too long for an argument."""
    if isinstance(command, str):
        script = word(command, "a command")
        if len(script) > _LONG_SCRIPT:
            return ["bash", "/dev/fd/3"], script
        return ["bash", "-c", command], b""
    if not command or not command[0]:
        raise UsageError("a command names a program")
    return command, b""


def word(text: str, what: str) -> bytes:
    if "\0" in text:
        raise UsageError(f"{what} has no NUL")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is text, and {text[error.start]!r} is no character") from None


def opened_memory(content: bytes) -> int:
    """Return a descriptor of a file in memory."""
    fd = os.memfd_create("content", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
