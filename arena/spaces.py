"""Gymnasium spaces as data, and a text space that real text fits.

`describe` and `rebuild` turn a space into JSON and back through a closed table; `restore` turns a decoded observation
back into the exact element of its space. Nothing is pickled, and no class is chosen by a remote string.
"""

from __future__ import annotations

import math
import string
from typing import Any

import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arena.errors import UsageError
from arena.types import Array

__all__ = ["FreeText", "describe", "rebuild", "restore"]

_INTEGERS = {
    name: np.dtype(name).type for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}
_MOST_BITS = 2**31


class FreeText(spaces.Text):
    """Any Unicode text of up to `max_length` characters.

    Gymnasium's own `Text` admits only the characters of a given set. Lone surrogates are refused: they are not text
    and cannot be sent as UTF-8.
    """

    def __init__(self, max_length: int = 100_000, *, min_length: int = 0, seed: int | None = None) -> None:
        super().__init__(max_length, min_length=min_length, charset=string.printable, seed=seed)

    def contains(self, x: Any) -> bool:
        """Return whether `x` is text of an allowed length."""
        if not isinstance(x, str) or not self.min_length <= len(x) <= self.max_length:
            return False
        return x.isascii() or is_utf8(x)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Return random printable text of at most 80 characters."""
        longest = max(self.min_length, min(self.max_length, 80))
        length = int(self.np_random.integers(self.min_length, longest, endpoint=True))
        return "".join(self.np_random.choice(list(string.printable), size=length))

    def __repr__(self) -> str:
        return f"FreeText({self.max_length}, min_length={self.min_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeText) and (self.min_length, self.max_length) == (
            other.min_length,
            other.max_length,
        )

    __hash__ = None  # type: ignore[assignment]


def is_utf8(text: str) -> bool:
    """Return whether `text` has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return a space as JSON-serialisable data.

    Raises:
        UsageError: The kind of space cannot be sent.
    """
    match space:
        case FreeText():
            return {"type": "free_text", "min_length": space.min_length, "max_length": space.max_length}
        case spaces.Text():
            charset = "".join(sorted(space.character_set))
            return {"type": "text", "min_length": space.min_length, "max_length": space.max_length, "charset": charset}
        case spaces.Discrete():
            return {"type": "discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
        case spaces.MultiBinary():
            n = space.n if isinstance(space.n, int) else [int(k) for k in space.shape]
            return {"type": "multi_binary", "n": n}
        case spaces.MultiDiscrete():
            return {"type": "multi_discrete", "nvec": _plain(space.nvec), "start": _plain(space.start)}
        case spaces.Box():
            return {"type": "box", "low": _plain(space.low), "high": _plain(space.high)}
        case spaces.Dict():
            return {"type": "dict", "spaces": {name: describe(sub) for name, sub in space.spaces.items()}}
        case spaces.Tuple():
            return {"type": "tuple", "spaces": [describe(sub) for sub in space.spaces]}
    raise UsageError(
        f"a space of type {type(space).__name__} cannot be sent "
        "(allowed: Box, Dict, Discrete, FreeText, MultiBinary, MultiDiscrete, Text, Tuple)"
    )


def rebuild(data: dict[str, Any]) -> spaces.Space[Any]:
    """Return the space that `describe` described.

    Raises:
        UsageError: The data describe no space.
    """
    try:
        return _rebuild(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, AssertionError) as error:
        raise UsageError(f"not the description of a space: {error}") from error


def _rebuild(data: dict[str, Any]) -> spaces.Space[Any]:
    match data["type"]:
        case "free_text":
            return FreeText(data["max_length"], min_length=data["min_length"])
        case "text":
            return spaces.Text(data["max_length"], min_length=data["min_length"], charset=data["charset"])
        case "discrete":
            dtype = _INTEGERS[data["dtype"]]
            return spaces.Discrete(data["n"], start=data["start"], dtype=dtype)
        case "multi_binary":
            return spaces.MultiBinary(_sizes(data["n"]))
        case "multi_discrete":
            nvec, start = _array(data["nvec"]), _array(data["start"])
            return spaces.MultiDiscrete(nvec, dtype=nvec.dtype.type, start=start)
        case "box":
            low, high = _array(data["low"]), _array(data["high"])
            return spaces.Box(low, high, dtype=low.dtype.type)
        case "dict":
            return spaces.Dict({name: _rebuild(sub) for name, sub in data["spaces"].items()})
        case "tuple":
            return spaces.Tuple([_rebuild(sub) for sub in data["spaces"]])
    raise ValueError(f"unknown type {data['type']!r}")


def restore(space: spaces.Space[Any], value: Any) -> Any:
    """Return the element of `space` that a decoded message holds as plain data.

    Raises:
        UsageError: The value is not an element of the space.
    """
    try:
        element = _restore(space, value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"not an element of {space}: {error}") from error
    if not space.contains(element):
        raise UsageError(f"not an element of {space}: {str(value)[:200]}")
    return element


def _restore(space: spaces.Space[Any], value: Any) -> Any:
    match space:
        case spaces.Text():
            return value
        case spaces.Discrete():
            if type(value) is not int:
                raise ValueError(f"{value!r} is no integer")
            return space.dtype.type(value)
        case spaces.Box() | spaces.MultiBinary() | spaces.MultiDiscrete():
            return _array(value)
        case spaces.Dict():
            if value.keys() != space.spaces.keys():
                raise ValueError(f"the keys are {sorted(value)}")
            return {name: _restore(sub, value[name]) for name, sub in space.spaces.items()}
        case spaces.Tuple():
            return tuple(_restore(sub, item) for sub, item in zip(space.spaces, value, strict=True))
    raise ValueError(f"a space of type {type(space).__name__} cannot be received")


def _sizes(n: Any) -> int | list[int]:
    """Return the shape of a MultiBinary space, refused where no machine could hold an element."""
    sizes = [n] if isinstance(n, int) else list(n)
    if not all(isinstance(size, int) and size > 0 for size in sizes) or math.prod(sizes) > _MOST_BITS:
        raise ValueError(f"a shape of {n}; allowed are at most {_MOST_BITS} bits")
    return sizes if isinstance(n, list) else n


def _plain(array: NDArray[Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(Array.of(array))
    return plain


def _array(value: Any) -> NDArray[Any]:
    message = value if isinstance(value, Array) else msgspec.convert(value, Array, strict=True)
    return message.numpy()
