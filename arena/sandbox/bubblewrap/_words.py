"""What callers give, checked and made into what a process gets."""

from __future__ import annotations

import os
from collections.abc import Sequence

from arena.errors import UsageError
from arena.sandbox._words import as_bytes

__all__ = ["opened_memory", "program_of"]

_LONG_SCRIPT = 100_000


def program_of(command: str | Sequence[str]) -> tuple[Sequence[str], bytes]:
    """Return a program with its arguments, and the script that it reads if that is too long for an argument."""
    if isinstance(command, str):
        script = as_bytes(command, "a command")
        if len(script) > _LONG_SCRIPT:
            return ["bash", "/dev/fd/3"], script
        return ["bash", "-c", command], b""
    if not command or not command[0]:
        raise UsageError("a command names a program")
    return command, b""


def opened_memory(content: bytes) -> int:
    """Return a descriptor of a file in memory."""
    fd = os.memfd_create("content", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
