"""What callers of any back end give, checked."""

from __future__ import annotations

import os

from arena.errors import UsageError

__all__ = ["as_bytes", "check_bounds"]


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
