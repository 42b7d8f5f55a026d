"""A person at the terminal.

What is typed: text as it is; the number of a discrete action; ``[1, 0]`` for an array; a tool call as
``name {"key": 1}`` or ``name key=value …``, which begins with ``/`` where the seat also acts by text or number. Ctrl-D
or Ctrl-C ends the play.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import Field
from rich.console import Console

from arena import (
    Action,
    Agent,
    AgentError,
    Array,
    InvalidActionError,
    Options,
    Seat,
    SeatSpec,
    SeatStep,
    Tool,
    ToolCall,
    did_you_mean,
    legal_text,
    observation_text,
    register_agent,
)


class HumanOptions(Options):
    """Options of `human`."""

    most_listed: int = Field(50, ge=0, description="Legal actions listed at most; 0 lists none.")


@register_agent("human", summary="A person at the terminal.", deterministic=False, exclusive=True)
class Human(Agent):
    """Shows each step, reads a line, and asks again when the line is no action or the action is refused."""

    Options = HumanOptions

    def begin(self, seat: Seat) -> None:
        """Show the task and the tools."""
        super().begin(seat)
        self._console = Console(highlight=False)
        self._asked_again = False
        self._show(f"{seat.env.id}, task {seat.task.id}: you play {seat.agent}", style="bold")
        self._show(seat.spec.instructions)
        for tool in seat.spec.tools:
            self._show(f"  {_signature(tool)}", style="cyan")
            self._show(f"      {tool.description}")

    def act(self, step: SeatStep) -> Action:
        """Show the step and return what the person types.

        Raises:
            AgentError: The input ended.
        """
        if not self._asked_again:
            self._show_step(step)
        self._asked_again = False
        while True:
            try:
                return parse_action(self._read(), self.seat.spec)
            except InvalidActionError as error:
                self._show(str(error), style="red")

    def observe(self, step: SeatStep) -> None:
        """Show what happened, and at the end how it ended."""
        self._show_step(step)
        if step.is_last:
            self._show(f"It ended: {step.ending} (last reward {step.reward:g})", style="bold")

    def refuse(self, error: InvalidActionError) -> None:
        """Show why the action was refused."""
        self._asked_again = True
        self._show(f"Refused: {error}", style="red")

    def _show_step(self, step: SeatStep) -> None:
        self._show(observation_text(step.observation))
        most = self.options.most_listed
        if step.legal_actions and most:
            self._show(f"Legal: {legal_text(step.legal_actions, most)}", style="cyan")

    def _show(self, text: str, style: str | None = None) -> None:
        """Print text as it is: an environment's brackets are no markup, its control characters no commands."""
        if text:
            self._console.print(_printable(text), style=style, markup=False, emoji=False, soft_wrap=True)

    def _read(self) -> str:
        try:
            with _interruptible():
                return input("> ")
        except EOFError:
            raise AgentError("input ended") from None
        except UnicodeDecodeError:
            raise InvalidActionError("that line is no valid text in the terminal's encoding; type it again") from None


def parse_action(line: str, spec: SeatSpec) -> Action:
    """Return the action that a line means in a seat.

    Raises:
        InvalidActionError: It means none; the message says what to type.
    """
    space = spec.action_space
    if spec.tools and (space is None or line.startswith("/")):
        return _parse_call(line.strip().removeprefix("/"), spec.tools)
    if isinstance(space, spaces.Text):
        return line
    if isinstance(space, spaces.Discrete):
        if not re.fullmatch(r"-?[0-9]{1,18}", line.strip()):
            raise InvalidActionError(f"type a whole number ({space}), not {line!r}")
        return int(line)
    return _parse_array(line, space)


def _parse_array(line: str, space: Any) -> Array:
    try:
        array: np.ndarray[Any, Any] = np.array(json.loads(line)).astype(space.dtype, casting="same_kind")
    except (ValueError, TypeError, RecursionError):
        raise InvalidActionError(f"type an array as JSON, for instance [1, 0] ({space}), not {line!r}") from None
    return Array.of(array)


def _parse_call(line: str, tools: tuple[Tool, ...]) -> ToolCall:
    name, _, rest = line.partition(" ")
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        raise InvalidActionError(f"no tool {name!r}{did_you_mean(name, [tool.name for tool in tools])}")
    rest = rest.strip()
    return ToolCall(name, _json_arguments(rest) if rest.startswith("{") else _named_arguments(rest, tool))


def _json_arguments(text: str) -> dict[str, Any]:
    try:
        arguments: dict[str, Any] = json.loads(text)  # an object: it begins with a brace
    except (ValueError, RecursionError) as error:
        raise InvalidActionError(f"the arguments are not JSON: {error}") from None
    return arguments


def _named_arguments(text: str, tool: Tool) -> dict[str, Any]:
    """Return ``key=value …`` as arguments; a value is JSON where it can be, unless the schema wants text."""
    properties = tool.parameters.get("properties", {})
    arguments: dict[str, Any] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidActionError(f"the arguments cannot be read: {error}") from None
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidActionError(f"type {_signature(tool)}, or {tool.name} with a JSON object, not {word!r}")
        arguments[key] = value if properties.get(key, {}).get("type") == "string" else _json_or_text(value)
    return arguments


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _signature(tool: Tool) -> str:
    properties = tool.parameters.get("properties", {})
    return " ".join([tool.name, *(f"{name}=<{schema.get('type', 'value')}>" for name, schema in properties.items())])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt the reading: asyncio's handler only cancels tasks, which a blocking read does not see."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
