"""A seat in plain JSON, for the protocols of others: observations go out, actions come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from arena.errors import InvalidActionError, UsageError
from arena.protocol import SeatInfo
from arena.rendering import observation_text
from arena.spaces import rebuild, restore
from arena.types import Action, Array, decode_json, encode_msgpack

__all__ = ["PlainSeat", "decode_plain", "value_schema"]


class PlainSeat:
    """What a seat sees and can do, in JSON that any client writes: arrays are nested lists.

    Args:
        info: From the protocol.

    Attributes:
        info: The same.
        is_text: Observations are text.
        observation_schema: JSON schema of an observation.
        action_schema: JSON schema of an action that is no tool call; None where the seat acts through tools only.
    """

    def __init__(self, info: SeatInfo) -> None:
        self.info = info
        self._observations = rebuild(info.observation_space)
        self._actions = None if info.action_space is None else rebuild(info.action_space)
        self.is_text = isinstance(self._observations, spaces.Text)
        self.observation_schema = value_schema(self._observations)
        self.action_schema = None if self._actions is None else value_schema(self._actions)

    def text(self, observation: Any) -> str:
        """Return an observation, as the protocol holds it, as text."""
        return observation_text(observation if self.is_text else restore(self._observations, observation))

    def value(self, observation: Any) -> Any:
        """Return an observation, as the protocol holds it, as plain JSON."""
        return observation if self.is_text else decode_json(self.text(observation))

    def action(self, value: Any) -> Action:
        """Return the action that a plain JSON value means; whether it is legal is for the session to say.

        Raises:
            InvalidActionError: It is of another kind than the seat's actions.
        """
        space = self._actions
        if isinstance(space, spaces.Text) and isinstance(value, str):
            return value
        if isinstance(space, spaces.Discrete) and type(value) is int:
            return value
        if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) and isinstance(value, list):
            return _array(value, space)
        allowed = "its tools only" if space is None else str(space)
        raise InvalidActionError(f"{_short(value)} is no action here (allowed: {allowed})")


def value_schema(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return the JSON schema of a space's elements as plain JSON."""
    match space:
        case spaces.Text():
            return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length}
        case spaces.Discrete():
            return {"type": "integer", "minimum": int(space.start), "maximum": int(space.start + space.n - 1)}
        case spaces.Dict():
            parts = {name: value_schema(part) for name, part in space.spaces.items()}
            return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
        case spaces.Tuple():
            return {"type": "array", "prefixItems": [value_schema(part) for part in space.spaces], "items": False}
    return _array_schema(space.shape or (), np.dtype(space.dtype), str(space))


def decode_plain(data: bytes | str) -> Any:
    """Return the JSON value of `data`, holding nothing that MessagePack could not.

    Raises:
        UsageError: Not JSON, or an integer in it needs more than 64 bits.
    """
    value = decode_json(data)
    try:
        encode_msgpack(value)
    except (OverflowError, RecursionError, ValueError) as error:
        raise UsageError(f"not a valid message: {error}") from error
    return value


def _array_schema(shape: Sequence[int], dtype: np.dtype[Any], description: str) -> dict[str, Any]:
    kind = {"b": "boolean", "f": "number"}.get(dtype.kind, "integer")
    schema: dict[str, Any] = {"type": kind}
    for length in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": length, "maxItems": length}
    return schema | {"description": description[:1000]}


def _array(value: list[Any], space: spaces.Space[Any]) -> Array:
    """Return nested lists as an array of the space's type; nothing is rounded, cut or read from text."""
    dtype = np.dtype(space.dtype)
    try:
        given = np.asarray(value)
        fits = given.dtype.kind in ("bui" if dtype.kind in "bui" else "buif")
        array = given.astype(dtype) if fits else given
        fits = fits and (dtype.kind == "f" or bool((array == given).all()))
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise InvalidActionError(f"{_short(value)} is no action here (allowed: nested lists for {space})")
    return Array.of(array)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
