"""The chat-completions protocol, as far as it is read: an answer, and the pieces that a streamed answer comes in.

Fields that are absent, null or unknown do no harm; a body without choices is not the protocol.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ._chat_failures import NotTheProtocolError

__all__ = ["Body", "Completion", "RequestedCall", "TokenCount", "add_chunk", "convert", "parse"]


class RequestedCall(msgspec.Struct, frozen=True):
    """A tool call as the model wrote it.

    Attributes:
        id: What the result must name; may be empty.
        name: The tool's name, perhaps of a tool that does not exist.
        arguments: What should be a JSON object.
    """

    id: str
    name: str
    arguments: str


class Completion(msgspec.Struct, frozen=True):
    """An answer of the model.

    Attributes:
        text: Its words; may be empty.
        reasoning: Its thoughts, where the endpoint gives them apart.
        calls: The tool calls that it asked for.
        finish_reason: Why it stopped.
        model: The model's name, as answered.
        input_tokens: Tokens read; None where the endpoint does not say.
        output_tokens: Tokens written; None where the endpoint does not say.
        retries: Requests that were repeated to get it.
    """

    text: str
    reasoning: str
    calls: tuple[RequestedCall, ...]
    finish_reason: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    retries: int = 0


class Function(msgspec.Struct):
    """What a call wants to run."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """A tool call, or in a stream a part of the one with this index."""

    index: int | None = None
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Message(msgspec.Struct):
    """What the model says, or in a stream what it says next."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    """One answer; `delta` stands for `message` in a stream."""

    message: Message | None = None
    delta: Message | None = None
    finish_reason: str | None = None


class TokenCount(msgspec.Struct):
    """What an answer used."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Body(msgspec.Struct):
    """A whole response, or one event of a stream."""

    choices: list[Choice]
    usage: TokenCount | None = None
    model: str | None = None


def parse(content: bytes) -> Any:
    """Return a response as plain data; `NotTheProtocolError` where it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise NotTheProtocolError(f"no JSON: {content[:100].decode(errors='replace')!r}") from None


def convert(value: Any) -> Body:
    """Return plain data as a response or an event; `NotTheProtocolError` where it is neither."""
    try:
        return msgspec.convert(value, Body, strict=False)
    except msgspec.ValidationError as error:
        raise NotTheProtocolError(f"{error}: {json.dumps(value, default=repr)[:100]}") from None


def add_chunk(whole: Body, chunk: Body) -> None:
    """Add one event of a stream to what has arrived; the last one carries the usage and no choice."""
    whole.usage = chunk.usage or whole.usage
    whole.model = chunk.model or whole.model
    for choice in chunk.choices[:1]:
        if not whole.choices:
            whole.choices.append(Choice(message=Message("", "", "", [])))
        first = whole.choices[0]
        first.finish_reason = choice.finish_reason or first.finish_reason
        if first.message is not None and choice.delta is not None:
            _add_delta(first.message, choice.delta)


def _add_delta(message: Message, delta: Message) -> None:
    message.content = (message.content or "") + (delta.content or "")
    message.reasoning_content = (message.reasoning_content or "") + (delta.reasoning_content or delta.reasoning or "")
    calls = message.tool_calls or []
    for part in delta.tool_calls or ():
        call = _open_call(calls, part)
        call.id = call.id or part.id
        call.function.name = (call.function.name or "") + (part.function.name or "")
        call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")
    message.tool_calls = calls


def _open_call(calls: list[Call], part: Call) -> Call:
    """Return the call that a part belongs to: by its index; without one, a part that has an id begins a new call."""
    for call in calls:
        if part.index is not None and call.index == part.index:
            return call
    if part.index is None and calls and not part.id:
        return calls[-1]
    calls.append(Call(part.index))
    return calls[-1]
