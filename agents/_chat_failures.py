"""What can go wrong with a chat-completions endpoint, and what the user is told about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._chat_endpoint import EndpointOptions

__all__ = ["BrokenOffError", "Failure", "NotTheProtocolError", "explain"]

_CONTEXT = re.compile(
    r"context_length|maximum context|context (length|window|size)|max_model_len"
    r"|(prompt|input) is too long|too many tokens",
    re.IGNORECASE,
)


class NotTheProtocolError(Exception):
    """The server answered, but not as the protocol says; the message is what it answered instead."""


class BrokenOffError(Exception):
    """The answer ended too early."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed.

    Attributes:
        message: What happened and what to do; may repeat what the server said, and with it the key.
        retryable: Whether another episode may succeed later.
        ask_again: Whether the same request may succeed soon.
        retry_after_s: How long the server asked to wait.
        status: The HTTP status, where there is one.
    """

    message: str
    retryable: bool = True
    ask_again: bool = False
    retry_after_s: float | None = None
    status: int | None = None


def explain(error: Exception, options: EndpointOptions, openai: Any) -> Failure | None:
    """Return the failure that an exception means; None for one that is neither the network's nor the server's."""
    where = options.base_url or "OpenAI"
    if isinstance(error, openai.APIStatusError):
        return _explain_status(error, options, where)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        allowed = f"{options.timeout_s:g} s (option timeout_s)"
        return Failure(f"{where} did not answer within {allowed}; the server may be overloaded", ask_again=True)
    if isinstance(error, NotTheProtocolError | json.JSONDecodeError):
        return Failure(f"{where} is no chat-completions endpoint: {error}; check base_url, which usually ends in /v1")
    if _is_connection_error(error, openai):
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {str(cause)[:200]}"
        advice = "check that the server runs, and the option base_url"
        return Failure(f"the connection to {where} failed ({reason}); {advice}", ask_again=True)
    if isinstance(error, BrokenOffError | openai.APIError):  # the latter: an error event in a stream
        return Failure(f"{where} broke off its answer: {str(error)[:200]}", ask_again=True)
    return None


def _is_connection_error(error: Exception, openai: Any) -> bool:
    """Return whether a connection failed; the package lets some errors of its HTTP library (httpx or httpx2) pass."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, openai.APIConnectionError | OSError) or library in ("httpx", "httpx2")


def _explain_status(error: Any, options: EndpointOptions, where: str) -> Failure:
    status: int = error.status_code
    said = _words(error)
    message = f"{where} answered {status}: {said}{_advice(status, said, error.code, options)}"
    if not (status in (408, 409, 429) or status >= 500) or error.code == "insufficient_quota":
        return Failure(message, retryable=False, status=status)
    wait_s = _retry_after_s(error.response.headers)
    if wait_s is not None and wait_s > options.max_wait_s:
        message = f"{message}; it asks to wait {wait_s:.0f} s, longer than max_wait_s"
        return Failure(message, status=status)
    return Failure(message, ask_again=True, retry_after_s=wait_s, status=status)


def _advice(status: int, said: str, code: str | None, options: EndpointOptions) -> str:
    """Return what to do about a status, to be appended to the message; may be empty."""
    if status in (401, 403):
        variable = options.api_key_env
        return f"; check the key in the environment variable {variable}" if variable else "; set the option api_key_env"
    if status == 404:
        return f"; check the option model ({options.model!r}) and base_url, which usually ends in /v1"
    if status in (400, 413, 422) and (code == "context_length_exceeded" or _CONTEXT.search(said)):
        return "; set history: window with fewer window_turns, or lower max_tokens"
    if status == 429:
        return "; run fewer episodes at once, or raise max_retries"
    return ""


def _words(error: Any) -> str:
    """Return what the server said, in at most 300 characters."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    words = " ".join(str(message or error.response.text or "no reason given").split())
    return words if len(words) <= 300 else f"{words[:297]}..."


def _retry_after_s(headers: Any) -> float | None:
    """Return the wait that the server asks for, in seconds; None where it asks for none or cannot be understood."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", headers.get(name, "")):
            return float(headers[name]) * unit_s
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
