"""The retriever contract: what finds documents for queries, for search agents and behind a server's ``/retrieve``.

Shapes of the wire are Search-R1's (Jin et al. 2025, arXiv:2503.09516): a document is ``{"id", "contents"}``, where
`contents` is the title in double quotes, a line break, and the text.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from arena.env import Options

__all__ = ["Document", "Hit", "Retriever", "RetrieverSpec"]


class Document(msgspec.Struct, frozen=True):
    """A document of a corpus.

    Attributes:
        id: Its name in the corpus.
        title: One line.
        text: The rest.
    """

    id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """The title in double quotes, also if it is empty, a line break, and the text."""
        return f'"{self.title}"\n{self.text}'

    @classmethod
    def parse(cls, id: str, contents: str) -> Document:
        """Return the document with these `contents`; without a line break they are a text that has no title."""
        first, newline, rest = contents.partition("\n")
        if not newline:
            return cls(id, "", contents)
        return cls(id, first.removeprefix('"').removesuffix('"'), rest)


class Hit(msgspec.Struct, frozen=True):
    """A document that was found.

    Attributes:
        document: The document.
        score: How well it fits, in the retriever's own measure; more is better.
    """

    document: Document
    score: float


class RetrieverSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a retriever declares about itself.

    Attributes:
        id: ``name`` or ``family/name``.
        summary: One sentence.
        extra: The extra of this distribution that it needs, if any.
        deterministic: The same corpus and queries give the same hits; what asks another server cannot promise it.
        blocking: A search waits for something outside this process, as `EnvSpec.blocking` says of a step.
    """

    id: str
    summary: str
    extra: str | None = None
    deterministic: bool = True
    blocking: bool = False


class Retriever(abc.ABC):
    """Finds documents. Constructing one is cheap; `open` does the slow work. Safe to search from several threads.

    Attributes:
        spec: The declaration, set by `arena.register_retriever`.
        Options: The options' model.
    """

    spec: ClassVar[RetrieverSpec]
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.Options() if options is None else options

    @property
    def size(self) -> int | None:
        """Number of documents; None where it is not known, or not yet."""
        return None

    def open(self) -> None:  # noqa: B027 - optional: some have nothing to build
        """Load the index, and build it if it is not in the cache; safe to call twice, also at once.

        Raises:
            ConfigError: There is no such corpus, or its files are not what they should be.
            PrerequisiteError: A package is missing.
        """

    @abc.abstractmethod
    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Return the best documents for each query, the best first: at most `topk`, fewer where nothing more fits.

        Raises:
            UsageError: The queries are none that can be searched for.
            EnvError: The search failed for a reason that is not theirs.
        """

    def close(self) -> None:  # noqa: B027 - optional: some hold nothing
        """Free everything; safe to call twice."""
