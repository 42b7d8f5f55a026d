"""Which commands reach TextWorld's interpreter.

The interpreter is a Z-machine with a full Inform 7 parser, and agents are not trusted. Seen with textworld 1.7.0 and
jericho 3.3.1: ``save`` and ``script`` write files named by the player, ``quit`` asks a question that swallows what
comes next, a full stop or a line break runs several commands of which the state tracking sees only the first, a NUL
byte crashes the process, and a leading backslash never returns. So a command passes only if it is plain and begins
with a verb of play.
"""

from __future__ import annotations

import re

__all__ = ["playable"]

_VERBS = frozenset(
    "close cook chop dice drink drop eat examine x go n s e w north south east west get hold carry insert inventory i "
    "lock look l open pick prepare put slice take unlock wait z".split()
)
"""None of these writes a file, asks whether one is sure, or changes how the game prints."""
_PLAIN = re.compile(r"[a-z0-9' -]{1,150}")
_ENTERING = re.compile(r"(get|pick)\s+(in|into|on|onto|out|off)\b")
_SEVERAL = re.compile(r"\b(then|and|all|everything|every|each|both|except|but)\b")


def playable(text: str) -> str:
    """Return the one command of play that `text` is, in lower case, or an empty string.

    ``get`` and ``pick up`` become ``take``, because TextWorld's state tracking misses some of the former.
    """
    command = re.sub(r" +", " ", text).strip(" ").lower()
    if not _PLAIN.fullmatch(command) or _SEVERAL.search(command) or _ENTERING.match(command):
        return ""
    verb, _, rest = command.partition(" ")
    if verb not in _VERBS:
        return ""
    if verb == "pick":
        return f"take {rest.removeprefix('up ')}" if rest.startswith("up ") else ""
    return f"take {rest}".strip() if verb == "get" else command
