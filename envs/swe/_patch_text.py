"""Unified diffs as git writes and reads them, from texts."""

from __future__ import annotations

import difflib

__all__ = ["file_patch"]

_NO_NEWLINE = "\\ No newline at end of file\n"


def file_patch(path: str, before: str | None, after: str | None) -> str:
    """Return what changes a file from one text to another; None is no file."""
    head = f"diff --git a/{path} b/{path}\n"
    if before is None:
        head += "new file mode 100644\n"
    elif after is None:
        head += "deleted file mode 100644\n"
    old, new = ("/dev/null" if text is None else f"{side}/{path}" for side, text in (("a", before), ("b", after)))
    lines = list(difflib.unified_diff(_lines(before), _lines(after), old, new))
    if not lines:
        return head if before is None or after is None else ""
    return head + "".join(line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}" for line in lines)


def _lines(text: str | None) -> list[str]:
    """Return lines with their ends; only line feeds end one, as for git."""
    if not text:
        return []
    parts = text.split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
