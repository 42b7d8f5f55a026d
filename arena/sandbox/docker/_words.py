"""What a caller may ask for, and how it is said to a shell in a container."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from arena.errors import UsageError

__all__ = ["absolute", "as_bytes", "check_bounds", "expressions", "variables"]


def check_bounds(timeout_s: float, output_bytes: int) -> None:
    """Refuse a time or a size that makes no sense.

    Raises:
        UsageError: It is out of range.
    """
    if not 0 < timeout_s < 1e6:
        raise UsageError(f"timeout_s is above 0 and below 1,000,000, not {timeout_s}")
    if not 0 <= output_bytes <= 1 << 30:
        raise UsageError(f"output_bytes is between 0 and {1 << 30}, not {output_bytes}")


def as_bytes(text: str, what: str) -> bytes:
    """Return a text as the kernel has it.

    Raises:
        UsageError: It has a NUL, or is no text.
    """
    if "\0" in text:
        raise UsageError(f"{what} has no NUL")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is text, and {text[error.start]!r} is no character") from None


def absolute(path: str | PurePosixPath, directory: str) -> str:
    """Return a path as an absolute one.

    Raises:
        UsageError: It is empty, has a NUL, or is no text.
    """
    if not str(path):
        raise UsageError("a path is not empty")
    found = str(PurePosixPath(directory) / path)
    as_bytes(found, "a path")
    return found


def variables(given: Mapping[str, str]) -> list[str]:
    """Return variables as Docker takes them.

    Raises:
        UsageError: One has no name, has a NUL, or is not UTF-8.
    """
    if bad := [name for name in given if not name or "=" in name]:
        raise UsageError(f"a variable's name is a text without '=', not {bad[0]!r}")
    for name, value in given.items():
        as_bytes(f"{name}={value}", "a variable")
        if not _is_utf8(f"{name}={value}"):
            raise UsageError(f"a variable is UTF-8, and {name!r} is not")
    return [f"{name}={value}" for name, value in given.items()]


def expressions(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what stands for each word in a script, and the script's arguments.

    Docker takes UTF-8 only. A word that is not, as the name of a file may be, is made in the script.

    Raises:
        UsageError: A word has a NUL, or is no text.
    """
    found, arguments = list[str](), list[str]()
    for word in words:
        data = as_bytes(word, "an argument")
        if _is_utf8(word):
            arguments.append(word)
            found.append(f'"${{{len(arguments)}}}"')
        else:
            found.append("".join(_source(part) for part in re.split(r"([\udc80-\udcff]+)", os.fsdecode(data)) if part))
    return found, arguments


def _source(part: str) -> str:
    if _is_utf8(part):
        return shlex.quote(part)
    return "\"$(printf '" + "".join(f"\\{byte:03o}" for byte in os.fsencode(part)) + "')\""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
