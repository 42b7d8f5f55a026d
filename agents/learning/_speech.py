"""How a model's text becomes an action of a seat, and an action becomes text that a model can learn to say.

A seat that takes text gets the text. A seat that chooses a number gets the number. A seat with tools only is spoken to
in tags, ``<search> who wrote Emma </search>``: the tool's name around its one text argument, or around its arguments as
JSON. Nothing that a model says is ever evaluated.
"""

from __future__ import annotations

import json
import re

from gymnasium import spaces

from arena import Action, EnvSpec, SeatSpec, SeatStep, Tool, ToolCall, UnsupportedError, legal_text, observation_text

__all__ = ["MistakeError", "Speech"]

_TAG = re.compile(r"<([A-Za-z0-9_-]{1,64})>(.*?)</\1>", re.DOTALL)


class MistakeError(Exception):
    """What a model said is no action; the message is what it is told."""


class Speech:
    """The words of one seat.

    Args:
        env: The environment's declaration.
        seat: What the seat sees and can do.
        list_legal: Whether observations end with the legal actions, where these are listed.

    Raises:
        UnsupportedError: The seat acts by arrays.
    """

    def __init__(self, env: EnvSpec, seat: SeatSpec, *, list_legal: bool = False) -> None:
        space = seat.action_space
        if space is not None and not isinstance(space, spaces.Text | spaces.Discrete):
            raise UnsupportedError(f"{env.id}: a language model acts by text, a number or tools, not by {space}")
        self._space, self._list_legal = space, list_legal
        self._tools = {tool.name: tool for tool in seat.tools}
        self.instructions = seat.instructions if space is not None else "\n\n".join([seat.instructions, self._manual()])

    def heard(self, step: SeatStep) -> str:
        """Return what the model reads of a step."""
        text = observation_text(step.observation)
        if self._list_legal and step.legal_actions:
            text = f"{text}\nLegal actions: {legal_text(step.legal_actions)}"
        return text

    def action(self, text: str) -> Action:
        """Return the action that a text means.

        Raises:
            MistakeError: It means none.
        """
        if isinstance(self._space, spaces.Text):
            return text
        if isinstance(self._space, spaces.Discrete):
            number = re.search(r"-?\d{1,18}", text)
            if number is None:
                raise MistakeError("Answer with a number.")
            return int(number.group())
        return self._call(text)

    def said(self, action: Action) -> str:
        """Return the text that means an action.

        Raises:
            UnsupportedError: No text does.
        """
        match action:
            case str():
                return action
            case int():
                return str(action)
            case ToolCall() if action.name in self._tools:
                argument = _one_text(self._tools[action.name])
                held = action.arguments.get(argument) if argument else json.dumps(action.arguments)
                return f"<{action.name}> {held} </{action.name}>"  # with spaces words are the tokens they are elsewhere
        raise UnsupportedError(f"no text means the action {action!r:.100}")

    def _call(self, text: str) -> ToolCall:
        found = _TAG.search(text)
        if found is None or found.group(1) not in self._tools:
            raise MistakeError(f"No tool was called. {self._manual()}")
        tool, held = self._tools[found.group(1)], found.group(2)
        argument = _one_text(tool)
        if argument is not None:
            return ToolCall(tool.name, {argument: held.strip()})
        try:
            arguments = json.loads(held)
        except (ValueError, RecursionError):
            raise MistakeError(f"The arguments of {tool.name} are no JSON.") from None
        if not isinstance(arguments, dict):
            raise MistakeError(f"The arguments of {tool.name} are no JSON object.")
        return ToolCall(tool.name, arguments)

    def _manual(self) -> str:
        """Return how each tool is called."""
        lines = []
        for tool in self._tools.values():
            argument = _one_text(tool)
            held = argument or json.dumps(dict.fromkeys(tool.parameters.get("properties", {}), "..."))
            lines.append(f"<{tool.name}> {held} </{tool.name}>  {tool.description}")
        return "Call one of these:\n" + "\n".join(lines)


def _one_text(tool: Tool) -> str | None:
    """Return the name of a tool's only argument, where that is a text."""
    properties = tool.parameters.get("properties", {})
    if len(properties) == 1:
        name, schema = next(iter(properties.items()))
        return str(name) if schema.get("type") == "string" else None
    return None
