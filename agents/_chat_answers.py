"""From a model's answer to an action.

What the model did wrong is a `MistakeError`, whose message is the feedback that the model gets. Whether a well-formed
action is legal is not decided here: the session refuses what is not.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec
from gymnasium import spaces

from arena import Action, SeatSpec, Tool, ToolCall, did_you_mean

from ._chat_protocol import Completion, RequestedCall

__all__ = ["MistakeError", "format_hint", "parse_answer"]


class MistakeError(Exception):
    """The model's answer is no action; the message tells the model what to do instead."""


def format_hint(spec: SeatSpec, *, tools: bool) -> str:
    """Return the sentence that tells a model the form of its actions, where the instructions cannot know it."""
    parts = []
    if isinstance(spec.action_space, spaces.Discrete):
        low = int(spec.action_space.start)
        parts.append(f"An action is a whole number from {low} to {low + int(spec.action_space.n) - 1}.")
    if tools and spec.action_space is None:
        parts.append("Act by calling one tool at a time.")
    return " ".join(parts)


def parse_answer(
    completion: Completion,
    spec: SeatSpec,
    *,
    tools: tuple[Tool, ...],
    pattern: str | None,
    unmatched: Literal["ask", "whole"],
) -> Action:
    """Return the action that an answer means.

    Args:
        completion: The answer.
        spec: What the seat can do.
        tools: The tools that were offered.
        pattern: Regular expression whose group is the action in a text; the last match counts.
        unmatched: What an answer without a match is: a mistake (``ask``), or the action as a ``whole``.

    Raises:
        MistakeError: It means none.
    """
    if completion.calls:
        return _parse_calls(completion.calls, tools)
    if spec.action_space is None:
        raise MistakeError(f"You did not call a tool. Call one of: {_names(tools)}.{_cut_off(completion)}")
    text = completion.text.strip()
    if not text:
        raise MistakeError(f"Your answer was empty. Answer with your action.{_cut_off(completion)}")
    text = _extract(text, pattern, unmatched, completion)
    return _whole_number(text) if isinstance(spec.action_space, spaces.Discrete) else text


def _parse_calls(calls: tuple[RequestedCall, ...], tools: tuple[Tool, ...]) -> ToolCall:
    if len(calls) > 1:
        raise MistakeError(f"You called {len(calls)} tools at once; none was run. Call one tool at a time.")
    name, written = calls[0].name, calls[0].arguments
    known = [tool.name for tool in tools]
    if name not in known:
        raise MistakeError(f"There is no tool {name!r}{did_you_mean(name, known) or ', and no other'}.")
    try:
        arguments = msgspec.json.decode(written or "{}", type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise MistakeError(
            f"The arguments of {name} must be a JSON object ({error}); you wrote: {written[:500]}"
        ) from None
    return ToolCall(name, arguments)


def _extract(text: str, pattern: str | None, unmatched: Literal["ask", "whole"], completion: Completion) -> str:
    if pattern is None:
        return text
    if matches := list(re.finditer(pattern, text)):
        return (matches[-1].group(1) or "").strip()
    if unmatched == "whole":
        return text
    raise MistakeError(f"No action was found in your answer; it must match {pattern!r}.{_cut_off(completion)}")


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise MistakeError(f"Answer with a whole number and nothing else, not {text[:100]!r}.")
    return int(text)


def _cut_off(completion: Completion) -> str:
    return " Your answer was cut off; be brief." if completion.finish_reason == "length" else ""


def _names(tools: tuple[Tool, ...]) -> str:
    return ", ".join(tool.name for tool in tools)
