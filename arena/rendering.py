"""What environments hand out and agents do, as text for a language model or a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from arena.types import Action, Array, ToolCall, encode_json

__all__ = ["action_text", "legal_text", "observation_text"]


def observation_text(observation: Any) -> str:
    """Return text as it is and anything else as JSON, arrays as nested lists."""
    if isinstance(observation, str):
        return observation
    return msgspec.json.encode(_plain(observation)).decode()


def legal_text(actions: Sequence[str | int], most: int | None = None) -> str:
    """Return the legal actions in one line, at most `most` of them."""
    shown = ", ".join(str(action) for action in actions[:most])
    left = 0 if most is None else len(actions) - most
    return f"{shown} and {left} more" if left > 0 else shown


def action_text(action: Action) -> str:
    """Return an action as one line."""
    match action:
        case ToolCall():
            return f"{action.name}({encode_json(action.arguments).decode()})"
        case Array():
            return str(action.numpy().tolist())
        case _:
            return str(action)


def _plain(value: Any) -> Any:
    match value:
        case Array():
            return value.numpy().tolist()
        case np.ndarray() | np.generic():
            return value.tolist()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return msgspec.to_builtins(value, enc_hook=repr)
