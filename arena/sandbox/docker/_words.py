"""What a caller may ask for, and how it is said to a shell in a container."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from arena.errors import UsageError
from arena.sandbox._words import as_bytes

__all__ = ["absolute", "expressions", "variables"]


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
