"""How the pages show what others wrote: escaped, cut to a bearable length, with nothing hidden in it.

Environments, models and clients write whatever they like. HTML is escaped; control characters, terminal escapes,
bidirectional overrides and invisible characters are replaced by visible marks, so that a reader sees what was sent.
"""

from __future__ import annotations

import datetime
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from markupsafe import Markup, escape

from arena.errors import UsageError
from arena.types import Array

__all__ = ["Excerpts", "duration_text", "line", "path_segment", "signed", "timestamp", "value_text", "visible"]

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_HIDDEN_OR_BREAKING = re.compile(f"[\t\n]|{_HIDDEN.pattern}")
_CONTROLS = (
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
).split()
_MOST_LINE, _MOST_DEPTH, _MOST_ELEMENTS = 200, 24, 64
_WIDTH, _SCALAR = 96, 8
_encode = json.JSONEncoder(ensure_ascii=False, default=repr).encode


def visible(text: str) -> Markup:
    """Return text as HTML: escaped, with a mark in place of every character that could hide or reorder others.

    Line breaks and tabs stay as they are.
    """
    return _marked(text, _HIDDEN)


def line(text: object) -> Markup:
    """Return a name, an id or a message as one line of HTML: as `visible`, line breaks marked too, 200 characters."""
    given = str(text)
    cut = given if len(given) <= _MOST_LINE else given[: _MOST_LINE - 1] + "…"
    return Markup("<bdi>%s</bdi>") % _marked(cut, _HIDDEN_OR_BREAKING)


def _marked(text: str, hidden: re.Pattern[str]) -> Markup:
    return Markup(hidden.sub(_mark, str(escape(text))))


def _mark(match: re.Match[str]) -> str:
    code = ord(match.group())
    shown = _CONTROLS[code] if code < 0x20 else "DEL" if code == 0x7F else f"U+{code:04X}"
    name = unicodedata.name(match.group(), f"control character U+{code:04X}")
    return f'<span class="mark" title="{name}">{shown}</span>'


class Excerpts:
    """Shows the texts of one page: each cut to `each` characters, and all of them to about `total` of HTML.

    Args:
        each: Characters of one text.
        total: Characters of HTML after which every further text is cut to a line.
    """

    def __init__(self, *, each: int = 20_000, total: int = 2_000_000) -> None:
        self._each, self._left = each, total

    def text(self, text: str) -> Markup:
        """Return a text as HTML, with a note of how much was left out."""
        most = self._most()
        shown = visible(text[:most])
        self._left -= len(shown)
        if len(text) <= most:
            return shown
        left = f"{len(text) - most:,}"
        return shown + Markup('<span class="cut"> … %s more characters; the trace has them all</span>') % left

    def value(self, value: Any) -> Markup:
        """Return any value as HTML: text as it is, everything else as `value_text` does."""
        return self.text(value_text(value, self._most()))

    def _most(self) -> int:
        return min(self._each, max(self._left, _MOST_LINE))


def value_text(value: Any, most: int = 20_000) -> str:
    """Return text as it is, and any other value as JSON in short lines, of which about `most` characters are made.

    Arrays of more than 64 elements become a line that says their dtype, shape and range; bytes become their number.
    What is nested deeper than 24 levels, or comes when `most` is used up, is left out. It is to be read, not decoded.
    """
    return value if isinstance(value, str) else _json_text(_Plain(most).of(value))


def _json_text(value: Any, indent: int = 0) -> str:
    """Return JSON, broken into lines only where a part does not fit in one."""
    flat = _as_json(value)
    if len(flat) + indent <= _WIDTH or not value or not isinstance(value, dict | list):
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        lines = [f"{_as_json(name)}: {_json_text(item, indent + 2)}" for name, item in value.items()]
    elif any(isinstance(item, dict | list) for item in value):
        lines = [_json_text(item, indent + 2) for item in value]
    else:
        lines = _filled(map(_as_json, value), _WIDTH - indent - 3)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{pad}" + f",\n{pad}".join(lines) + f"\n{' ' * indent}{closing}"


def _as_json(value: Any) -> str:
    return repr(value) if type(value) is int or type(value) is float else _encode(value)


def _filled(items: Iterable[str], width: int) -> list[str]:
    """Return lines of items with commas between them, as long as `width` allows."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= width:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


class _Plain:
    """Turns values into what JSON can hold, while there are characters `left`."""

    def __init__(self, left: int) -> None:
        self._left = left

    def of(self, value: Any, depth: int = 0) -> Any:
        if depth >= _MOST_DEPTH:
            return "… (nested deeper)"
        match value:
            case str():
                return self._text(value)
            case Mapping():
                array = _array_message(value)
                return self._mapping(value, depth) if array is None else array
            case list() | tuple() | set() | frozenset():
                return self._items(value, depth)
            case msgspec.Struct() if not isinstance(value, Array):
                return self._mapping(msgspec.structs.asdict(value), depth)
        self._left -= _SCALAR
        return _scalar(value)

    def _text(self, value: str) -> str:
        most = max(self._left, 0)
        self._left -= len(value) + _SCALAR
        return value if len(value) <= most else value[:most] + f"… {len(value) - most:,} more characters"

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, item in value.items():
            if self._left <= 0:
                shown["…"] = f"{len(value) - len(shown):,} more"
                break
            shown[self._text(str(key))] = self.of(item, depth + 1)
        return shown

    def _items(self, value: Collection[Any], depth: int) -> list[Any]:
        shown: list[Any] = []
        for item in value:
            if self._left <= 0:
                shown.append(f"… {len(value) - len(shown):,} more")
                break
            shown.append(self.of(item, depth + 1))
        return shown


def _scalar(value: Any) -> Any:
    match value:
        case Array() | np.ndarray():
            return _array(value)
        case np.generic():
            return value.item()
        case bytes() | bytearray() | memoryview():
            return f"({len(value):,} bytes)"
    return value


def _array_message(value: Mapping[Any, Any]) -> Any:
    """Return the array that a decoded message holds, as it is shown; None where it holds none."""
    if value.get("type") != "array" or value.keys() != {"type", "dtype", "shape", "data"}:
        return None
    try:
        return _array(msgspec.convert(value, Array))
    except (msgspec.ValidationError, UsageError):
        return None


def _array(value: Any) -> Any:
    try:
        array = value.numpy() if isinstance(value, Array) else value
    except UsageError as error:
        return f"(an array that cannot be shown: {error})"
    if array.size <= _MOST_ELEMENTS:
        return array.tolist()
    shape = "×".join(map(str, array.shape))
    return f"({array.dtype.name} array of shape {shape}, from {array.min()} to {array.max()}, mean {array.mean():.4g})"


def signed(number: float) -> str:
    """Return a reward with its sign, at most four digits."""
    return f"{number:+.4g}" if number else "0"


def duration_text(seconds: float) -> str:
    """Return a duration in the unit that suits it, from microseconds to days."""
    if seconds < 0.001:
        return f"{max(seconds, 0) * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def timestamp(unix_s: float) -> str:
    """Return a moment in UTC as ISO 8601 writes it, to the second."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def path_segment(text: str) -> str:
    """Return text as one segment of a URL's path."""
    return quote(text, safe="", errors="replace")
