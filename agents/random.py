"""The agent that plays at random: a floor to compare with, and the quickest way to see an environment move.

It draws from the seat's own stream only, so the same seed gives the same play.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from arena import Action, Agent, Array, Seat, SeatStep, Tool, ToolCall, UsageError, register_agent

_LETTERS = string.ascii_lowercase + string.digits
_PLAYABLE = (spaces.Text, spaces.Discrete, spaces.Box, spaces.MultiBinary, spaces.MultiDiscrete)


@register_agent("random", summary="Plays uniformly at random.")
class Random(Agent):
    """Draws from the listed legal actions; else from the action space; else from the tools, with random arguments."""

    def begin(self, seat: Seat) -> None:
        """Take a seat that acts by text, number, array or tool."""
        super().begin(seat)
        self._rng = seat.rng()
        self._space: spaces.Space[Any] | None = None
        space = seat.spec.action_space
        if space is None and not seat.spec.tools:
            raise UsageError(f"seat {seat.agent!r} of {seat.env.id} has neither an action space nor tools")
        if space is not None:
            if not isinstance(space, _PLAYABLE):
                raise UsageError(
                    f"cannot draw an action from {space} (allowed: Text, Discrete, Box and the Multi kinds)"
                )
            self._space = copy.deepcopy(space)  # spaces are shared, and sampling advances a space's generator
            self._space.seed(int(self._rng.integers(2**31)))

    def act(self, step: SeatStep) -> Action:
        """Return a random action."""
        if step.legal_actions:
            return step.legal_actions[int(self._rng.integers(len(step.legal_actions)))]
        if self._space is not None:
            return _as_action(self._space.sample())
        tools = self.seat.spec.tools
        return _call(self._rng, tools[int(self._rng.integers(len(tools)))])


def _as_action(sample: Any) -> Action:
    if isinstance(sample, np.ndarray):
        return Array.of(sample)
    return sample if isinstance(sample, str) else int(sample)


def _call(rng: np.random.Generator, tool: Tool) -> ToolCall:
    arguments = _draw(rng, {**tool.parameters, "type": "object"})
    return ToolCall(tool.name, arguments)


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
