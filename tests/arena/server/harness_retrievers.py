"""Retrievers for the server's tests: a process that searches imports this module, the test process does not."""

import os
import signal
import tempfile
import time
from pathlib import Path

from arena.env import Options
from arena.errors import ConfigError, EnvError, PrerequisiteError
from arena.registry import register_retriever
from arena.retrieval import Document, Hit, Retriever

COLOURS = ("red", "green", "blue", "amber")


class ToyOptions(Options):
    corpus: str


@register_retriever("test/toy", summary="Numbered documents, whatever is asked, and some trouble.")
class Toy(Retriever):
    """Document ``i`` of a query is about the query; a query's first word may do harm."""

    Options = ToyOptions

    def open(self):
        if self.options.corpus == "lacking":
            raise PrerequisiteError("the package 'toys' is not installed; run: pip install toys")
        if self.options.corpus not in ("toys", "others"):
            raise ConfigError(f"there is no corpus {self.options.corpus!r} here")

    @property
    def size(self):
        return 1000

    def search(self, queries, topk):
        for query in queries:
            self._harm(*query.split())
        if "short" in queries:
            return []
        return [[self._hit(query, rank) for rank in range(topk)] for query in queries]

    def _hit(self, query, rank):
        return Hit(Document(f"{rank}", f"{self.options.corpus} {rank}", f"What is known of {query}."), 1.0 / (1 + rank))

    def _harm(self, verb="", name="", *_):
        if verb == "fail":
            raise EnvError("the toys are broken")
        if verb == "crash":
            raise KeyError(name)
        if verb == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        held = Path(tempfile.gettempdir(), name)
        if verb == "hold" and held.exists():
            (held / "begun").touch()
            while held.exists():
                time.sleep(0.005)


@register_retriever("test/elsewhere", summary="As toy, but as if it asked another server.", blocking=True)
class Elsewhere(Toy):
    """It waits; it does not compute."""
