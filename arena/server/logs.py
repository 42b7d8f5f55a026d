"""The server's log: one line an event, on standard error, with ids and without secrets.

Whoever handles a request opens a `log_context`, and every record written meanwhile carries its ids. Tokens,
capabilities and credential headers are blotted out of every line, wherever in a message, an argument or a traceback
they stand; so are line breaks in messages, so that nobody can forge a line.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, TextIO, TypeAlias, get_args

from arena.errors import ConfigError

__all__ = ["LogFormat", "configure_logs", "log_context", "redact"]

LogFormat: TypeAlias = Literal["text", "json"]

_IDS = ("session", "request", "principal", "worker")
_NO_IDS: Mapping[str, object] = MappingProxyType({})
_context: ContextVar[Mapping[str, object]] = ContextVar("arena_log_context", default=_NO_IDS)

_HEADERS = r"(?:proxy-)?authorization|(?:set-)?cookie"
_ASSIGNED = r"""(?:['"]\s*[,:]\s*b?['"]|\s*[:=]\s*b?['"]?)"""
_SECRETS = (
    (re.compile(r"\barena_[A-Za-z0-9_-]{40,}"), "arena_[redacted]"),
    (re.compile(r"\b([A-Za-z0-9_-]+\.(?:owner|watch|seat(?:-[A-Za-z0-9_-]*)?))\.[A-Za-z0-9_-]{16,}"), r"\1.[redacted]"),
    (re.compile(rf"(?i)\b((?:{_HEADERS}){_ASSIGNED})[^'\"\r\n]+"), r"\1[redacted]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 [redacted]"),
)


def redact(text: str) -> str:
    """Return a text with every token, capability and credential header blotted out."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Give every record that is written meanwhile these ids, besides those that hold already.

    Args:
        ids: Any of session, request, principal and worker; never a secret.
    """
    token = _context.set({**_context.get(), **ids})
    try:
        yield
    finally:
        _context.reset(token)


def configure_logs(log_format: LogFormat = "text", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every logger of this process through one handler.

    uvicorn's loggers go the same way, from errors up: below that it tells of single connections, and a flood of bad
    ones must not become a flood of lines. Requests are not logged at all.

    Args:
        log_format: JSON objects, or text for people.
        level: The lowest level that is written.
        stream: Standard error where absent.

    Raises:
        ConfigError: There is no such format.
    """
    if log_format not in get_args(LogFormat):
        raise ConfigError(f"no log format {log_format!r}; allowed are {', '.join(get_args(LogFormat))}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name != "uvicorn.access"
        logger.setLevel(max(level, logging.ERROR))


class _Formatter(logging.Formatter):
    def ids(self, record: logging.LogRecord) -> dict[str, str]:
        """Return the record's ids: those of its context, and those given with it as ``extra``."""
        given = {**_context.get(), **{name: getattr(record, name) for name in _IDS if hasattr(record, name)}}
        return {name: redact(str(given[name])) for name in _IDS if given.get(name) is not None}

    def time(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def traceback(self, record: logging.LogRecord) -> str:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        return redact("\n".join(part for part in (text, record.stack_info) if part))


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.time(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": redact(record.getMessage())} | self.ids(record)
        if traceback := self.traceback(record):
            line["traceback"] = traceback
        return json.dumps(line)


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = _escaped(redact(record.getMessage()))
        ids = "".join(f" {name}={_escaped(value)}" for name, value in self.ids(record).items())
        line = f"{self.time(record)} {record.levelname.lower():<7} {record.name}: {message}{ids}"
        return "\n    ".join([line, *self.traceback(record).splitlines()])


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
