"""Refusing what a journal or a trace could not hold, before anything is done with it."""

from __future__ import annotations

import math
import re
from typing import Any

from arena.errors import (
    UsageError,
)
from arena.protocol import (
    Step,
    Truncate,
)
from arena.recovery import check_usage
from arena.types import encode_json, encode_msgpack

__all__ = ["check_keepable"]

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
"""What may be an integer beyond 64 bits, which JSON holds and MessagePack does not."""


def check_keepable(request: Step | Truncate, json: bytes) -> None:
    """Refuse what a journal or a trace could not hold, before anything is done with it.

    Raises:
        UsageError: A number is too large or is none, or a decision is no plain value.
    """
    if _LONG_NUMBER.search(json) is not None:
        _check_encodable(request)
    if request.usage is not None:
        check_usage(request.usage)
    if isinstance(request, Truncate):
        if not (math.isfinite(request.limit.value) and math.isfinite(request.limit.limit)):
            raise UsageError(f"a limit is {request.limit.value} of {request.limit.limit}; both must be numbers")
        return
    if request.agent_s and not all(0 <= seconds < math.inf for seconds in request.agent_s.values()):
        raise UsageError("agent_s must be seconds, 0 or more")
    if request.decisions:
        _check_encodable(request.decisions)


def _check_encodable(value: Any) -> None:
    try:
        encode_msgpack(value)
        encode_json(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"this cannot be sent or kept: {error}") from error
