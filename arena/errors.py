"""The errors of Arena: four families, kept apart.

::

    ArenaError                      code, message, details; str() is one line
    ├─ UsageError (ValueError)      the caller can fix it; raised at once, nothing has changed
    │  ├─ InvalidActionError        the action is not legal now
    │  ├─ OutOfOrderError           a step index that is neither the next nor a recorded one
    │  ├─ ResetNeededError          step before the episode began, or after it ended
    │  ├─ ConfigError               a scenario, option, file or argument is wrong
    │  ├─ UnknownIdError (LookupError)  no such environment, agent, task, scenario or session
    │  ├─ UnsupportedError          the environment, or this server, does not offer this capability
    │  ├─ UnauthorizedError         no valid credential was given
    │  ├─ ForbiddenError            the credential does not allow this
    │  └─ TooLargeError             the message is larger than the server accepts
    ├─ ToolError                    an expected failure inside an environment; the agent sees it as its observation
    ├─ BoundaryError                something behind a boundary failed; recorded on the episode, retryable or not
    │  ├─ EnvError                  the environment
    │  ├─ AgentError                the agent
    │  ├─ ModelError                a model endpoint
    │  ├─ GraderError               the grader
    │  ├─ SandboxError              a sandbox did not start, or is broken
    │  ├─ ReplayError               a replay did not reproduce what was recorded
    │  ├─ SessionGoneError          the session was reaped, closed, or could not be rebuilt
    │  ├─ CapacityError             a server is full, or asked for too much at once: try again later
    │  └─ TransportError            a server cannot be reached, or answered what no server of ours answers
    ├─ LimitReached                 a limit, turned into a truncation where it is caught: kind, value, limit
    └─ PrerequisiteError            a missing extra, daemon or key; shown without a traceback, exit code 2

A message says what happened, what was given, what is allowed and what to do, in one line. Only `code` crosses a wire,
and it is decoded through the closed table `ERROR_CODES`: a remote string never selects code.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import msgspec

LimitKind: TypeAlias = Literal["steps", "wall_time", "step_time", "tokens", "cost", "invalid_actions"]

__all__ = [
    "ERROR_CODES",
    "AgentError",
    "ArenaError",
    "BoundaryError",
    "CapacityError",
    "ConfigError",
    "EnvError",
    "ErrorRecord",
    "ForbiddenError",
    "GraderError",
    "InvalidActionError",
    "LimitKind",
    "LimitReached",
    "ModelError",
    "OutOfOrderError",
    "PrerequisiteError",
    "ReplayError",
    "ResetNeededError",
    "SandboxError",
    "SessionGoneError",
    "TooLargeError",
    "ToolError",
    "TransportError",
    "UnauthorizedError",
    "UnknownIdError",
    "UnsupportedError",
    "UsageError",
    "did_you_mean",
]


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An error as it is written to a trace or a wire."""

    code: str
    message: str
    retryable: bool = False
    details: dict[str, Any] = {}


class ArenaError(Exception):
    """Base of every error that Arena raises on purpose.

    Args:
        message: One line: what happened, what was given, what is allowed, what to do.
        details: JSON-serialisable facts for machines.
    """

    code: ClassVar[str] = "ARENA_ERROR"
    retryable: bool = False

    def __init__(self, message: str, **details: Any) -> None:
        self.message = " ".join(str(message).split()).encode("utf-8", "replace").decode()
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def record(self) -> ErrorRecord:
        """Return the error as data; details that JSON cannot hold become their `repr`."""
        return ErrorRecord(
            code=self.code, message=self.message, retryable=self.retryable, details=_jsonable(self.details)
        )

    @staticmethod
    def from_record(record: ErrorRecord) -> ArenaError:
        """Return the error that a record describes; an unknown code gives a plain `ArenaError`."""
        cls = ERROR_CODES.get(record.code, ArenaError)
        error = cls.__new__(cls)
        ArenaError.__init__(error, record.message, **record.details)
        error.retryable = record.retryable
        return error


class UsageError(ArenaError, ValueError):
    """The caller's mistake: nothing has changed, and the message says what is allowed."""

    code = "USAGE"


class InvalidActionError(UsageError):
    """The action is not legal now; the environment's state is unchanged."""

    code = "INVALID_ACTION"


class OutOfOrderError(UsageError):
    """The step index is neither the next one nor that of a recorded step with the same actions."""

    code = "OUT_OF_ORDER"


class ResetNeededError(UsageError):
    """The episode has not begun, or it has ended."""

    code = "RESET_NEEDED"


class ConfigError(UsageError):
    """An option, a scenario, a file or an argument is wrong."""

    code = "CONFIG"


class UnknownIdError(UsageError, LookupError):
    """There is nothing with this id; near misses are named."""

    code = "UNKNOWN_ID"


class UnsupportedError(UsageError):
    """The environment, or this server, does not offer the capability that was asked for."""

    code = "UNSUPPORTED"


class UnauthorizedError(UsageError):
    """No valid credential was given."""

    code = "UNAUTHORIZED"


class ForbiddenError(UsageError):
    """The credential that was given does not allow this."""

    code = "FORBIDDEN"


class TooLargeError(UsageError):
    """The message is larger than the server accepts."""

    code = "TOO_LARGE"


class ToolError(ArenaError):
    """An expected failure inside an environment: it becomes the agent's observation."""

    code = "TOOL"


class BoundaryError(ArenaError):
    """Something behind a boundary failed: recorded on the episode, never counted as a score."""

    code = "BOUNDARY"

    def __init__(self, message: str, *, retryable: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.retryable = retryable


class EnvError(BoundaryError):
    """The environment failed or broke its contract."""

    code = "ENV"


class AgentError(BoundaryError):
    """The agent failed."""

    code = "AGENT"


class ModelError(BoundaryError):
    """A model endpoint failed: unreachable, refused, timed out, or answered nonsense."""

    code = "MODEL"


class GraderError(BoundaryError):
    """The grader failed: there is no score."""

    code = "GRADER"


class SandboxError(BoundaryError):
    """A sandbox could not be started, or is broken: nothing that ran in it is to blame, or it cannot be told."""

    code = "SANDBOX"


class ReplayError(BoundaryError):
    """A replay did not reproduce what was recorded."""

    code = "REPLAY"


class SessionGoneError(BoundaryError):
    """The session is no longer there: it was reaped, or could not be rebuilt."""

    code = "SESSION_GONE"


class CapacityError(BoundaryError):
    """A server is full, or was asked for too much at once; `details["retry_after_s"]` says when to try again."""

    code = "CAPACITY_REACHED"

    def __init__(self, message: str, *, retryable: bool = True, **details: Any) -> None:
        super().__init__(message, retryable=retryable, **details)


class TransportError(BoundaryError):
    """A server cannot be reached, or its answer is none of the protocol's."""

    code = "TRANSPORT"


class LimitReached(ArenaError):
    """A limit was reached. An environment or an agent that keeps one itself raises this; the episode is truncated.

    Raises:
        ValueError: Another kind, or a number that is not finite.

    Args:
        kind: What was limited: steps, wall_time, step_time, tokens, cost or invalid_actions.
        value: What was used, in the limit's unit.
        limit: What was allowed.
    """

    code = "LIMIT"

    def __init__(self, kind: LimitKind, value: float, limit: float) -> None:
        if kind not in get_args(LimitKind) or not (math.isfinite(value) and math.isfinite(limit)):
            raise ValueError(f"no limit: {kind!r}, {value} of {limit} (kinds: {', '.join(get_args(LimitKind))})")
        super().__init__(f"limit {kind} reached: {value:g} of {limit:g}", kind=kind, value=value, limit=limit)
        self.kind, self.value, self.limit = kind, float(value), float(limit)


class PrerequisiteError(ArenaError):
    """Something that must be installed, started or set is missing; the message says how to get it."""

    code = "PREREQUISITE"


def _subclasses(cls: type[ArenaError]) -> Iterable[type[ArenaError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _subclasses(sub)


ERROR_CODES: Mapping[str, type[ArenaError]] = {cls.code: cls for cls in _subclasses(ArenaError)}
"""Every code that may cross a wire, and the class that it decodes to."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for a near miss, else the list of what is known, else an empty string."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    if near:
        return f" (did you mean {' or '.join(repr(name) for name in near)}?)"
    return f" (known: {', '.join(names)})" if names else ""


def _jsonable(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)
