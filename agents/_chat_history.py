"""The conversation of one episode, as the messages of a chat-completions request.

It consists of an *opening* (the system message and everything up to the model's first answer) and of *turns*: one
answer of the model and what came back for it. A window keeps the opening and the last N turns and drops whole turns
between them, so a tool call is never parted from its result. Feedback on a malformed or refused answer is a turn like
any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from ._chat_protocol import Completion, RequestedCall

__all__ = ["History", "Message"]

Message: TypeAlias = dict[str, Any]


class History:
    """A conversation that grows.

    Args:
        system: The system message; none where empty.
        window_turns: Turns that are sent; all of them where None.
    """

    def __init__(self, system: str, window_turns: int | None) -> None:
        self._opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self._turns: list[list[Message]] = []
        self._window_turns = window_turns
        self._unanswered: list[str] = []
        self._calls = 0

    def tell(self, text: str) -> None:
        """Add what comes back from the environment: the result of an open tool call, else the user's words."""
        turn = self._turns[-1] if self._turns else self._opening
        for id in self._unanswered:
            turn.append({"role": "tool", "tool_call_id": id, "content": text})
        if not self._unanswered:
            turn.append({"role": "user", "content": text})
        self._unanswered = []

    def answer(self, completion: Completion) -> None:
        """Begin a turn with the model's answer, whose tool calls are then open."""
        message: Message = {"role": "assistant", "content": completion.text}
        if completion.calls:
            calls = [self._repeated(call) for call in completion.calls]
            message |= {"content": completion.text or None, "tool_calls": calls}
            self._unanswered = [call["id"] for call in calls]
        empty = not completion.text and not completion.calls  # endpoints refuse empty messages
        self._turns.append([] if empty else [message])

    def messages(self) -> list[Message]:
        """Return the messages of the next request; neighbours of the user become one, as some chat templates demand."""
        turns = self._turns if self._window_turns is None else self._turns[-self._window_turns :]
        messages: list[Message] = []
        for message in [*self._opening, *(message for turn in turns for message in turn)]:
            if messages and message["role"] == messages[-1]["role"] == "user":
                messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n\n{message['content']}"}
            else:
                messages.append(message)
        return messages

    def _repeated(self, call: RequestedCall) -> Message:
        """Return a call as it is sent back: with an id, and without arguments that endpoints could not parse."""
        self._calls += 1
        arguments = call.arguments if is_json_object(call.arguments) else "{}"
        function = {"name": call.name, "arguments": arguments}
        return {"id": call.id or f"call_{self._calls}", "type": "function", "function": function}


def is_json_object(text: str) -> bool:
    """Return whether `text` is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def join_paragraphs(parts: Sequence[str]) -> str:
    """Return the parts that are not empty, a blank line between them."""
    return "\n\n".join(part.strip() for part in parts if part.strip())
