"""A process that searches one corpus.

It has an interpreter of its own, so that neither the server's event loop nor the environments' workers wait for a
search; an index that the retriever maps into memory is shared with every other process that has it open.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

import msgspec

from arena.errors import ArenaError, EnvError
from arena.registry import make_retriever
from arena.retrieval import Hit, Retriever
from arena.server.frames import FrameReader
from arena.server.retrieve.frames import Found, Part, PartFound, Search, Up, pack

__all__ = ["Worker", "main"]

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_WAITING_LANES = 8
"""Searches at once in a retriever that asks another server: they wait, they do not compute."""
_RECEIVE_BYTES = 1 << 18
_decode_search = msgspec.msgpack.Decoder(Search).decode
_encode_json = msgspec.json.Encoder().encode


class Worker:
    """Answers `Search` frames from a socket.

    Args:
        channel: The socket.
        corpus: The corpus's name, for the log.
        retriever: What searches; it is open.
    """

    def __init__(self, channel: socket.socket, corpus: str, retriever: Retriever) -> None:
        self._channel, self._corpus, self._retriever = channel, corpus, retriever
        self._reader, self._read = FrameReader(), list[bytes]()
        self._reading, self._sending = threading.Lock(), threading.Lock()

    @property
    def lanes(self) -> int:
        """Searches that are done at once; what computes would only share one interpreter among more."""
        return _WAITING_LANES if self._retriever.spec.blocking else 1

    def run(self) -> None:
        """Search until the server hangs up."""
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.lanes - 1)]
        for thread in threads:
            thread.start()
        self._serve()

    def _serve(self) -> None:
        try:
            while (search := self._receive()) is not None:
                answer = pack(Found(search.req, self.found(search)))
                with self._sending:
                    self._channel.sendall(answer)
        except ConnectionError:
            pass

    def _receive(self) -> Search | None:
        """Return the next frame; None where the server has hung up."""
        with self._reading:
            while not self._read:
                data = self._channel.recv(_RECEIVE_BYTES)
                if not data:
                    return None
                self._read = self._reader.feed(data)
            return _decode_search(self._read.pop(0))

    def found(self, search: Search) -> list[PartFound]:
        """Return what a search finds; one part's failure is not the others'."""
        try:
            return self._found_at_once(search)
        except ArenaError as error:
            return [PartFound(error=error.record())] * len(search.parts)
        except Exception as error:  # the boundary to a retriever; it may be one query's, so each part has its own try
            if len(search.parts) > 1:
                return [self.found(Search(search.req, search.topk, [part]))[0] for part in search.parts]
            _log.error("a search in corpus %s failed: %s", self._corpus, _where(error))
            return [PartFound(error=EnvError(f"the search failed: {type(error).__name__}").record())]

    def _found_at_once(self, search: Search) -> list[PartFound]:
        queries = [query for part in search.parts for query in part.queries]
        hits = self._retriever.search(queries, search.topk)
        if len(hits) != len(queries):
            raise EnvError(f"the retriever answered {len(queries)} queries with {len(hits)} lists")
        parts, start = [], 0
        for part in search.parts:
            stop = start + len(part.queries)
            parts.append(PartFound(_body(part, hits[start:stop])))
            start = stop
        return parts


def _body(part: Part, hits: Sequence[Sequence[Hit]]) -> bytes:
    result = [[_scored(hit) if part.return_scores else _document(hit) for hit in found] for found in hits]
    return _encode_json(result)[1:-1]


def _document(hit: Hit) -> dict[str, str]:
    return {"id": hit.document.id, "contents": hit.document.contents}


def _scored(hit: Hit) -> dict[str, Any]:
    return {"document": _document(hit), "score": float(hit.score)}


def _where(error: Exception) -> str:
    """Return an error's class and place: its message may hold a query, which is nobody's business."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {place.filename}:{place.lineno}"


def _opened(corpus: str, retriever_id: str, imports: Sequence[str]) -> Retriever:
    for module in imports:  # the operator's own, never a client's
        importlib.import_module(module)
    retriever = make_retriever(retriever_id, {"corpus": corpus})
    retriever.open()
    return retriever


def _configure_logs() -> None:
    """Write warnings alone, whatever level a library gives its own logger: what it tells of may be queries."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", handlers=[handler])


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Search for the server process whose id and socket the command line names."""
    parent, fd, corpus, retriever_id, *imports = sys.argv[1:]
    _die_with_parent(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _configure_logs()
    channel = socket.socket(fileno=int(fd))
    try:
        retriever = _opened(corpus, retriever_id, imports)
    except ArenaError as error:
        channel.sendall(pack(Up(error=error.record())))
        return
    worker = Worker(channel, corpus, retriever)
    documents = retriever.size
    gc.freeze()  # what has been imported and loaded stays: collecting need not look at it
    channel.sendall(pack(Up(documents, worker.lanes)))
    try:
        worker.run()
        retriever.close()
    finally:
        os._exit(0)  # searches of other threads, whose answers nobody wants, must not keep the process


if __name__ == "__main__":
    main()
