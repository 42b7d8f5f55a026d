"""Demonstrations with other names: who cannot know a thing by heart has to read what it is called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from arena import ConfigError

from ._demonstrations import Demonstration

__all__ = ["Renaming"]

_COMMON = 0.2
"""Words in a larger share of the demonstrations are the language, and no names."""
_word = re.compile(r"[^\W\d_]+|\d+")


class Renaming:
    """Puts other names, of those that occur anywhere, in the place of a demonstration's names.

    A name is a word that few demonstrations have and that nobody says before having read it: a verb or a fact that has
    to be known is none. Names are dealt out anew throughout a demonstration, in what was heard and in what was said, no
    two the same. What is left to be learned is to say what was read. Symbol tuning (Wei et al. 2023, arXiv 2305.08298)
    does that with labels.

    Args:
        shown: All demonstrations.

    Raises:
        ConfigError: They have no two names.

    Attributes:
        names: In lower case.
    """

    def __init__(self, shown: Sequence[Demonstration]) -> None:
        counts = Counter(word for one in shown for word in {word for text in one.texts() for word in _words(text)})
        rare = {word for word, count in counts.items() if count <= _COMMON * len(shown)}
        self.names = sorted(rare - {word for one in shown for word in _known(one)})
        if len(self.names) < 2:
            raise ConfigError(
                f"the {len(shown)} demonstrations have no names that could be exchanged, which are words that at most "
                f"{_COMMON:.0%} of them have, and that are said only where they were read: leave renamed at 0"
            )

    def renamed(self, shown: Demonstration, rng: np.random.Generator) -> Demonstration:
        """Return a demonstration with other names."""
        names = dict(zip(self.names, (self.names[i] for i in rng.permutation(len(self.names))), strict=True))
        return Demonstration(
            task=shown.task,
            instructions=_exchanged(shown.instructions, names),
            heard=tuple(_exchanged(text, names) for text in shown.heard),
            said=tuple(_exchanged(text, names) for text in shown.said),
            success=shown.success,
            slips=shown.slips,
        )


def _known(shown: Demonstration) -> set[str]:
    """Return the words that the expert said before they were read."""
    read, known = set(_words(shown.instructions)), set[str]()
    for number, (heard, said) in enumerate(zip(shown.heard, shown.said, strict=True)):
        read.update(_words(heard))
        if number in shown.slips:
            read.update(_words(said))
        known.update(word for word in _words(said) if word not in read)
    return known


def _words(text: str) -> list[str]:
    return [word.lower() for word in _word.findall(text)]


def _exchanged(text: str, names: Mapping[str, str]) -> str:
    """Return a text in which names are others; a capital letter at the beginning stays one."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        name = names.get(word.lower())
        if name is None:
            return word
        return name[0].upper() + name[1:] if word[0].isupper() else name

    return _word.sub(other, text)
