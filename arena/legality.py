"""Whether an action may be passed to an environment; every refusal says what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from gymnasium import spaces

from arena.env import SeatSpec
from arena.errors import InvalidActionError, UsageError, did_you_mean
from arena.types import Action, AgentID, Array, SeatStep, Tool, ToolCall, decode_json, encode_json, encode_msgpack

__all__ = ["check_action"]


def check_action(
    agent: AgentID, seat: SeatSpec, step: SeatStep, action: Action, *, listed: Literal["none", "some", "all"]
) -> None:
    """Refuse an action that the seat cannot take now.

    Args:
        agent: The seat's name, for the message.
        seat: Its spaces and tools.
        step: Its latest step.
        action: From `arena.types.as_action`.
        listed: What the environment declares about `step.legal_actions`.

    Raises:
        InvalidActionError: The message names what is legal.
    """
    kind = type(action)
    if kind is ToolCall:
        _check_tool_call(agent, seat.tools, action)  # type: ignore[arg-type]
    elif seat.action_space is None:
        raise InvalidActionError(
            f"{agent} acts through tools only (tools: {_names(seat.tools)}), not by {_short(action)}"
        )
    elif not _fits(seat.action_space, action):
        raise InvalidActionError(
            f"{_short(action)} is not an action of {agent} (allowed: {seat.action_space}{_or_tools(seat.tools)})"
        )
    elif listed == "all" and step.legal_actions is not None and action not in step.legal_actions:
        raise InvalidActionError(
            f"{_short(action)} is not legal for {agent} now (legal: {_listing(step.legal_actions)})"
        )


def _fits(space: spaces.Space[Any], action: Action) -> bool:
    if isinstance(action, str):
        return isinstance(space, spaces.Text) and space.contains(action)
    if isinstance(action, Array):
        return isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) and _holds(space, action)
    return isinstance(space, spaces.Discrete) and space.contains(action)


def _holds(space: spaces.Space[Any], action: Array) -> bool:
    try:
        return space.contains(action.numpy())
    except UsageError:
        return False


def _check_tool_call(agent: AgentID, tools: Sequence[Tool], call: ToolCall) -> None:
    for tool in tools:
        if tool.name == call.name:
            break
    else:
        names = [tool.name for tool in tools]
        hint = did_you_mean(call.name, names) if names else " (it has none)"
        raise InvalidActionError(f"{agent} has no tool {call.name!r}{hint}")
    _check_sendable(tool, call.arguments)
    errors = sorted(_validator(encode_json(tool.parameters)).iter_errors(call.arguments), key=str)
    if errors:
        where = "/".join(str(part) for part in errors[0].absolute_path) or "arguments"
        raise InvalidActionError(f"tool {tool.name!r}, {where}: {errors[0].message[:300]} (schema: {tool.parameters})")


def _check_sendable(tool: Tool, arguments: dict[str, Any]) -> None:
    """Refuse arguments that a trace or a wire would change or could not hold: NaN, tuples, bytes, huge integers."""
    try:
        encode_msgpack(arguments)
        survives = decode_json(encode_json(arguments)) == arguments
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidActionError(f"tool {tool.name!r}: the arguments cannot be sent as JSON: {error}") from error
    if not survives:
        raise InvalidActionError(f"tool {tool.name!r}: the arguments must be plain JSON values")


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    import json

    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(schema))


def _names(tools: Iterable[Tool]) -> str:
    return ", ".join(tool.name for tool in tools)


def _or_tools(tools: Sequence[Tool]) -> str:
    return f", or tools {_names(tools)}" if tools else ""


def _short(action: Action) -> str:
    text = repr(action)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _listing(legal: Sequence[str | int]) -> str:
    shown = ", ".join(str(item) for item in legal[:30])
    return shown if len(legal) <= 30 else f"{shown} and {len(legal) - 30} more"
