"""Random actions of a seat: one that is listed as legal, else an element of its action space; or a call of a tool.

A space is never drawn from itself but from a seeded copy: spaces are shared, and sampling advances their generators.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from arena.env import SeatSpec
from arena.errors import UsageError
from arena.types import Action, SeatStep, Tool, ToolCall, as_action

__all__ = ["ACTION_SPACES", "ActionSampler", "sample_action", "sample_element"]

ACTION_SPACES = (spaces.Text, spaces.Discrete, spaces.Box, spaces.MultiBinary, spaces.MultiDiscrete)
"""The kinds of space whose elements are actions."""

_LETTERS = string.ascii_lowercase + string.digits


class ActionSampler:
    """Draws random actions for one seat in one episode, from one copy of its action space.

    Args:
        seat: What the seat can do.
        rng: Where all draws come from.

    Raises:
        UsageError: The seat cannot act, or the elements of its action space are no actions.
    """

    def __init__(self, seat: SeatSpec, rng: np.random.Generator) -> None:
        _check_can_act(seat)
        self._seat, self._rng = seat, rng
        self._space: Any = None if seat.action_space is None else _seeded_copy(rng, seat.action_space)

    def sample(self, step: SeatStep) -> Action:
        """Return a random action: the action space, through what is listed, and every tool have equal chances."""
        return _choose(self._rng, self._seat, step, lambda: self._space.sample())


def sample_action(rng: np.random.Generator, seat: SeatSpec, step: SeatStep) -> Action:
    """Return a random action as an `ActionSampler` does, for one step only: the space is copied where it is needed.

    Raises:
        UsageError: The seat cannot act, or an element of its action space is needed and would be no action.
    """
    _check_can_act(seat)
    return _choose(rng, seat, step, lambda: _seeded_copy(rng, seat.action_space).sample())


def sample_element(rng: np.random.Generator, seat: SeatSpec) -> Action:
    """Return an element of the action space, legal now or not; a call of a tool where the seat has no such space.

    Raises:
        UsageError: The seat cannot act, or the elements of its action space are no actions.
    """
    _check_can_act(seat)
    if seat.action_space is None:
        return _call(rng, _pick(rng, seat.tools))
    return as_action(_seeded_copy(rng, seat.action_space).sample())


def _check_can_act(seat: SeatSpec) -> None:
    if seat.action_space is None and not seat.tools:
        raise UsageError("cannot draw an action: the seat has neither an action space nor tools")


def _seeded_copy(rng: np.random.Generator, space: Any) -> Any:
    if not isinstance(space, ACTION_SPACES):
        allowed = ", ".join(kind.__name__ for kind in ACTION_SPACES)
        raise UsageError(f"cannot draw an action from {space} (allowed: {allowed})")
    mine = copy.deepcopy(space)
    mine.seed(int(rng.integers(2**31)))
    return mine


def _choose(rng: np.random.Generator, seat: SeatSpec, step: SeatStep, element: Callable[[], Any]) -> Action:
    """Return a call of a tool, or an action that is listed, or `element` of the action space where none is."""
    way = int(rng.integers(len(seat.tools) + (seat.action_space is not None)))
    if way < len(seat.tools):
        return _call(rng, seat.tools[way])
    return _pick(rng, step.legal_actions) if step.legal_actions else as_action(element())


# -- calls of tools ----------------------------------------------------------------------------------------------------


def _call(rng: np.random.Generator, tool: Tool) -> ToolCall:
    return ToolCall(tool.name, _draw(rng, {**tool.parameters, "type": "object"}))


def _draw(rng: np.random.Generator, schema: Mapping[str, Any]) -> Any:
    """Return a random value of a JSON schema; patterns, formats and references are not understood."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _pick(rng, schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _draw(rng, _pick(rng, schema[union]))
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = _pick(rng, kind) if isinstance(kind, list) else kind
    return _draw_kind(rng, kind, schema)


def _draw_kind(rng: np.random.Generator, kind: str, schema: Mapping[str, Any]) -> Any:
    match kind:
        case "object":
            return _draw_object(rng, schema)
        case "array":
            length = _length(rng, schema.get("minItems", 0), schema.get("maxItems"), 3)
            return [_draw(rng, schema.get("items", {})) for _ in range(length)]
        case "integer":
            low, high = _bounds(schema, 1)
            return int(rng.integers(int(np.ceil(low)), int(np.floor(high)), endpoint=True))
        case "number":
            return float(rng.uniform(*_bounds(schema, 1e-9)))
        case "boolean":
            return bool(rng.integers(2))
        case "null":
            return None
    length = _length(rng, schema.get("minLength", 0), schema.get("maxLength"), 8)
    return "".join(_pick(rng, _LETTERS) for _ in range(length))


def _draw_object(rng: np.random.Generator, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with every required property and each other one in half of the draws."""
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    chosen = [name for name in properties if name in required or rng.integers(2)]
    return {name: _draw(rng, properties[name]) for name in chosen}


def _bounds(schema: Mapping[str, Any], margin: float) -> tuple[float, float]:
    """Return the smallest and largest allowed number; an open side lies 100 away, an exclusive one `margin` inside."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + margin
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - margin
    if low is None:
        low = 0 if high is None else min(0, high - 100)
    return low, low + 100 if high is None else high


def _length(rng: np.random.Generator, least: int, most: int | None, usual: int) -> int:
    most = max(least, usual) if most is None else min(most, max(least, usual))
    return int(rng.integers(least, most, endpoint=True))


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]
