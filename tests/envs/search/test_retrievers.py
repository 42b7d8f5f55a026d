"""Retrievers and the corpora that they search."""

from __future__ import annotations

import email.utils
import gzip
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bm25s
import numpy as np
import pytest
from fastapi import Response
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arena import ConfigError, EnvError, PrerequisiteError, Retriever, UsageError, make_retriever
from arena.envs.search import _corpora
from arena.envs.search._corpora import corpus, folder_of
from arena.envs.search.retrievers import _store, bm25, dense, remote
from arena.envs.search.retrievers._breaker import Breaker, Open

from .retrieve_server import Broken, Dripping, RetrieveServer, answer

ANIMALS = {
    "cat": '"Cat"\nThe cat is a small carnivorous mammal with soft fur.',
    "dog": '"Dog"\nThe dog is a domesticated mammal that barks.',
    "ant": '"Ant"\nAnts are social insects; a small ant carries leaves.',
    "oak": '"Oak"\nAn oak is a tree, and leaves fall from the oak in autumn.',
}
METHODS = ("lucene", "robertson", "atire", "bm25l", "bm25+")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    """A folder for corpora and a cache that nothing else uses."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("ARENA_SEARCH_DATA", str(folder))
    monkeypatch.setenv("ARENA_CACHE_DIR", str(tmp_path / "cache"))
    forget()
    return folder


def lines(documents: dict[str, str]) -> bytes:
    return b"".join(json.dumps({"id": id, "contents": text}).encode() + b"\n" for id, text in documents.items())


def write(data: Path, name: str, content: bytes) -> Path:
    (data / name).mkdir(exist_ok=True)
    path = data / name / "corpus.jsonl"
    path.write_bytes(content)
    return path


@contextmanager
def opened(id: str, **options) -> Iterator[Retriever]:
    retriever = make_retriever(id, options)
    retriever.open()
    yield retriever
    retriever.close()


def found(retriever: Retriever, query: str, topk: int = 3) -> list[str]:
    return [hit.document.id for hit in retriever.search([query], topk)[0]]


def indexes() -> list[Path]:
    """The folders of all finished BM25 indexes."""
    below = Path(os.environ["ARENA_CACHE_DIR"], "search", "bm25")
    return sorted(path.parent for path in below.glob("*/*/manifest.json") if path.parent.suffix != ".unfinished")


def forget() -> None:
    """Let go of what this process shares, as if it had just started."""
    for shared in (_corpora._shared, bm25._indexes, dense._indexes, dense._encoders, remote._servers):
        shared._recent.clear()


# corpora


def test_documents_are_those_of_the_file(data):
    write(data, "animals", lines(ANIMALS))
    animals = corpus("animals")
    assert len(animals) == 4
    assert [document.id for document in animals] == list(ANIMALS)
    assert [document.contents for document in animals] == list(ANIMALS.values())
    assert animals.document(1).title == "Dog"
    assert animals.folder == data / "animals" == folder_of("animals")
    with pytest.raises(IndexError, match="has 4 documents"):
        animals.document(4)
    with pytest.raises(IndexError):
        animals.document(-1)


TRAPS = {
    "byte order mark": (b'\xef\xbb\xbf{"id": "a", "contents": "one"}\n', ["one"]),
    "carriage returns": (b'{"id": "a", "contents": "one"}\r\n{"id": "b", "contents": "two"}\r\n', ["one", "two"]),
    "empty lines": (
        b'\n{"id": "a", "contents": "one"}\n\n  \t\r\n{"id": "b", "contents": "two"}\n\n\n',
        ["one", "two"],
    ),
    "no last line feed": (b'{"id": "a", "contents": "one"}\n{"id": "b", "contents": "two"}', ["one", "two"]),
    "line separators in a text": (
        '{"id": "a", "contents": "one\u2028two\u2029three\x85four"}\n{"id": "b", "contents": "five"}\n'.encode(),
        ["one\u2028two\u2029three\x85four", "five"],
    ),
    "escaped line feeds": (b'{"id": "a", "contents": "one\\r\\ntwo"}\n', ["one\r\ntwo"]),
    "other keys": (b'{"contents": "one", "id": "a", "url": "http://x", "metadata": {"id": [1]}}\n', ["one"]),
    "a megabyte": (lines({"a": "x" * (1 << 20), "b": "two"}), ["x" * (1 << 20), "two"]),
    "astral characters": ('{"id": "a", "contents": "\\ud83d\\ude00 😀"}\n'.encode(), ["😀 😀"]),
}


@pytest.mark.parametrize("name", TRAPS)
def test_lines_are_read_as_they_are_meant(data, name):
    content, texts = TRAPS[name]
    write(data, "trap", content)
    for _ in range(2):  # read, then remembered
        documents = corpus("trap")
        assert [_raw(documents, index) for index in range(len(documents))] == texts
        forget()
        del documents


def _raw(documents, index: int) -> str:
    document = documents.document(index)
    return document.text if not document.title else f"{document.title}\n{document.text}"


def test_ids_may_be_numbers_as_in_wiki_18(data):
    write(data, "wiki-18", b'{"id": 0, "contents": "\\"A\\"\\nx"}\n{"id": "1", "contents": "\\"B\\"\\ny"}\n')
    assert [document.id for document in corpus("wiki-18")] == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"id": "a", "contents": "x"}\n{"id": "b"\n', "line 2 of corpus.jsonl is not a document"),
        (b'{"id": "a", "contents": "x"}\n\n[1]\n', "line 3 of corpus.jsonl is not a document"),
        (b'{"id": "a"}\n', "line 1 .*missing required field `contents`"),
        (b'{"id": null, "contents": "x"}\n', "line 1 .*Expected `int | str`"),
        (b'{"id": true, "contents": "x"}\n', "line 1 "),
        (b'{"id": 1.5, "contents": "x"}\n', "line 1 "),
        (b'{"id": "a", "contents": "\xff"}\n', "line 1 "),
        (b'{"id": "a", "contents": "\\ud800"}\n', "line 1 "),
        (b'{"id": "a", "contents": "x"} {"id": "b", "contents": "y"}\n', "line 1 "),
        (b'{"id": "a", "contents": "x"}\n\xef\xbb\xbf{"id": "b", "contents": "y"}\n', "line 2 "),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "line 1 "),
        (b"", "has no documents"),
        (b"\xef\xbb\xbf\n\r\n", "has no documents"),
        (lines({"a": "x", "b": "y"}) + b'\n{"id": "a", "contents": "z"}\n', "lines 1 and 4 .* the same id 'a'"),
        (b'{"id": 1, "contents": "x"}\n{"id": "1", "contents": "y"}\n', "lines 1 and 2 .* the same id '1'"),
    ],
)
def test_a_file_that_is_no_corpus_is_refused_in_one_line(data, content, says):
    write(data, "broken", content)
    for _ in range(2):  # nothing of it is remembered
        with pytest.raises(ConfigError, match=says) as refused:
            corpus("broken")
        assert "broken" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_ids_with_the_same_hash_are_no_duplicates(data, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    monkeypatch.setattr(_corpora, "hash", lambda id: 7, raising=False)
    assert len(corpus("animals")) == 4
    write(data, "twice", lines(ANIMALS) + lines({"dog": "again"}))
    with pytest.raises(ConfigError, match="lines 2 and 5"):
        corpus("twice")


def test_names_are_compared_and_never_part_of_a_path(data, tmp_path):
    write(data, "animals", lines(ANIMALS))
    write(tmp_path, "outside", lines(ANIMALS))
    (data / "Upper").mkdir()
    (data / "file").touch()
    for name in ("../outside", "animals/../animals", "..", ".", "", "Upper", "file", "animals/", "a\x00b", str(data)):
        with pytest.raises(ConfigError, match="there is no corpus"):
            corpus(name)
        with pytest.raises(ConfigError):
            make_retriever("bm25", {"corpus": name}).open()
    with pytest.raises(ConfigError, match="did you mean 'animals'"):
        corpus("animal")


def test_a_missing_file_or_folder_is_told(data, monkeypatch):
    (data / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"corpus 'empty': corpus.jsonl cannot be read"):
        corpus("empty")
    (data / "empty" / "corpus.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"corpus.jsonl is not a file"):
        corpus("empty")
    (data / "pipe").mkdir()
    os.mkfifo(data / "pipe" / "corpus.jsonl")
    with pytest.raises(ConfigError, match=r"corpus.jsonl is not a file"):
        corpus("pipe")
    monkeypatch.setenv("ARENA_SEARCH_DATA", str(data / "nowhere"))
    with pytest.raises(ConfigError, match=r"\$ARENA_SEARCH_DATA is .*No such file"):
        corpus("empty")
    monkeypatch.delenv("ARENA_SEARCH_DATA")
    with pytest.raises(ConfigError, match=r"no corpus 'empty' \(known: facts\); \$ARENA_SEARCH_DATA is not set"):
        corpus("empty")


def test_one_corpus_is_shared_by_all_threads_and_its_file_is_closed_afterwards(data):
    path = write(data, "animals", lines(ANIMALS))
    held = []
    threads = [threading.Thread(target=lambda: held.append(corpus("animals"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 16
    assert len({id(one) for one in held}) == 1
    assert times_open(path) == 1
    held.clear()
    forget()
    assert times_open(path) == 0


def times_open(path: Path) -> int:
    """Return how many of this process's descriptors are of a file."""
    return sum(os.path.realpath(f"/proc/self/fd/{number}") == str(path) for number in os.listdir("/proc/self/fd"))


def test_a_file_is_read_again_only_when_it_has_changed(data, monkeypatch):
    path = write(data, "animals", lines(ANIMALS))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    scans = []
    scan = _corpora.Corpus._scan
    monkeypatch.setattr(_corpora.Corpus, "_scan", lambda self: scans.append(1) or scan(self))

    def reopened() -> str:
        forget()
        return corpus("animals").digest

    first = reopened()
    assert reopened() == first
    assert len(scans) == 1
    time.sleep(0.05)  # a file system's clock may tick a hundred times a second only
    changed = lines(ANIMALS).replace(b"soft", b"hard")
    path.write_bytes(changed)
    os.utime(path, (1_000_000_000, 1_000_000_000))  # same size, same time stamp: as `rsync --times` would leave it
    assert reopened() != first
    assert len(scans) == 2
    path.write_bytes(lines(ANIMALS))  # just now: nothing tells a change in the same instant from none
    reopened()
    reopened()
    assert len(scans) == 4


def test_a_damaged_record_of_a_file_is_not_believed(data):
    path = write(data, "animals", lines(ANIMALS))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    digest = corpus("animals").digest
    cache = Path(os.environ["ARENA_CACHE_DIR"], "search", "corpora")
    (record,) = cache.glob("*.json")
    for damage in (b"", b"{", b"[]", b'{"stamp": 1}'):
        forget()
        record.write_bytes(damage)
        assert corpus("animals").digest == digest
    offsets = cache / digest / "offsets.npy"
    offsets.write_bytes(offsets.read_bytes()[:-8])
    forget()
    assert [document.id for document in corpus("animals")] == list(ANIMALS)


def test_a_file_that_changes_while_it_is_in_use_is_an_error_and_not_a_wrong_document(data):
    path = write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as retriever:
        path.write_bytes(lines({"cat": "x"}))
        with pytest.raises(EnvError, match="has changed while it was in use"):
            retriever.search(["cat"], 1)


def test_a_file_that_is_replaced_stays_what_it_was_for_those_who_hold_it(data):
    path = write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as retriever:
        other = path.with_name("new.jsonl")
        other.write_bytes(lines({"fox": '"Fox"\nThe cat is no fox.'}))
        other.rename(path)
        assert found(retriever, "cat") == ["cat"]
        with opened("bm25", corpus="animals") as second:
            assert found(second, "cat") == ["fox"]
        assert found(retriever, "cat") == ["cat"]


# BM25


def test_bm25_finds_what_shares_words_with_the_query(data):
    write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as retriever:
        assert found(retriever, "which small INSECTS carry leaves?") == ["ant", "cat", "oak"]
        assert found(retriever, "leaves", topk=1) == [found(retriever, "leaves")[0]]
        assert retriever.search([], 3) == []
        assert retriever.search(["", "the of and is", "zebra", "a ! ?", "x"], 3) == [[], [], [], [], []]
        hits = retriever.search(["mammal", "oak"], 3)
        assert [[hit.document.title for hit in found] for found in hits] == [["Dog", "Cat"], ["Oak"]]
        assert all(hit.score > 0 for found in hits for hit in found)


def test_searching_needs_an_open_retriever_and_a_positive_topk(data):
    write(data, "animals", lines(ANIMALS))
    retriever = make_retriever("bm25", {"corpus": "animals"})
    with pytest.raises(UsageError, match="not open"):
        retriever.search(["cat"], 1)
    retriever.open()
    retriever.open()
    assert found(retriever, "cat") == ["cat"]
    for topk in (0, -1):
        with pytest.raises(UsageError, match="at least 1"):
            retriever.search(["cat"], topk)
    retriever.close()
    retriever.close()
    with pytest.raises(UsageError, match="not open"):
        retriever.search(["cat"], 1)


def test_documents_without_a_word_cannot_be_indexed(data):
    write(data, "mute", lines({"a": "the of", "b": "", "c": "x y z !"}))
    with pytest.raises(ConfigError, match="no document has a word"):
        make_retriever("bm25", {"corpus": "mute"}).open()


WORDS = st.sampled_from(
    ["cat", "Dog", "ANT", "oak", "the", "a", "été", "İstanbul", "ß", "x_1", "42", "猫犬", "e\u0301t"]
)
TEXTS = st.lists(WORDS, max_size=8).map(" ".join) | st.text(max_size=20)


@settings(max_examples=60)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=12),
    queries=st.lists(TEXTS, min_size=1, max_size=4),
    topk=st.sampled_from([1, 2, 3, 7, 65, 1000]),
    method=st.sampled_from(METHODS),
)
@example(texts=["cat", "cat", "cat cat", "dog cat"], queries=["cat", "dog dog cat"], topk=2, method="bm25+")
def test_hits_are_those_of_bm25s(texts, queries, topk, method):
    tokens = bm25s.tokenize(texts, show_progress=False, return_ids=False)
    if not any(tokens):
        return
    index = bm25s.BM25(method=method)
    index.index(tokens, show_progress=False)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARENA_SEARCH_DATA", folder)
        patch.setenv("ARENA_CACHE_DIR", f"{folder}/cache")
        write(Path(folder), "random", lines({str(number): text for number, text in enumerate(texts)}))
        with opened("bm25", corpus="random", method=method) as retriever:
            hits = retriever.search(queries, topk)
    for query, ours in zip(queries, hits, strict=True):
        assert_equal_to_bm25s(index, tokens, query, topk, [(int(hit.document.id), hit.score) for hit in ours])


def assert_equal_to_bm25s(index, tokens, query: str, topk: int, ours: list[tuple[int, float]]) -> None:
    """The same scores as `retrieve`, which leaves open which of equally good documents it returns."""
    words = bm25s.tokenize(query, show_progress=False, return_ids=False)
    theirs = index.retrieve(words, k=min(topk, len(tokens)), show_progress=False)
    scores = index.get_scores(words[0]) if words[0] else np.zeros(len(tokens))
    fitting = [number for number, document in enumerate(tokens) if set(words[0]) & set(document) and scores[number] > 0]
    best = sorted(fitting, key=lambda number: (-scores[number], number))[:topk]
    assert ours == [(number, float(scores[number])) for number in best]
    assert [score for _, score in ours] == theirs.scores[0].tolist()[: len(ours)]


@pytest.mark.parametrize("method", METHODS)
def test_hits_are_those_of_bm25s_in_a_larger_corpus(data, method):
    rng = np.random.default_rng(5)
    vocabulary = [f"word{number}" for number in range(400)]
    frequency = 1 / np.arange(1, 401)
    draw = lambda size: " ".join(rng.choice(vocabulary, size, p=frequency / frequency.sum()))  # noqa: E731
    texts = [draw(rng.integers(5, 60)) for _ in range(1500)]
    write(data, "zipf", lines({str(number): text for number, text in enumerate(texts)}))
    tokens = bm25s.tokenize(texts, show_progress=False, return_ids=False)
    index = bm25s.BM25(k1=0.9, b=0.4, method=method)
    index.index(tokens, show_progress=False)
    with opened("bm25", corpus="zipf", k1=0.9, b=0.4, method=method) as retriever:
        for topk in (3, 200):
            queries = [draw(6) for _ in range(20)]
            for query, hits in zip(queries, retriever.search(queries, topk), strict=True):
                ours = [(int(hit.document.id), hit.score) for hit in hits]
                assert_equal_to_bm25s(index, tokens, query, topk, ours)


def test_the_index_is_built_once_and_memory_mapped(data, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    built = []
    build = bm25._build
    monkeypatch.setattr(bm25, "_build", lambda *given: built.append(1) or build(*given))
    with opened("bm25", corpus="animals") as first, opened("bm25", corpus="animals") as second:
        index = first._opened[1]
        assert second._opened[1] is index
        for part in (index._scores, index._documents, index._starts):
            assert isinstance(part.base, np.memmap)
            assert not part.flags.writeable
    held = weakref.ref(index)
    del index, part
    forget()
    assert held() is None
    with opened("bm25", corpus="animals") as third:
        assert found(third, "cat") == ["cat"]
    assert built == [1]
    with opened("bm25", corpus="animals", k1=1.2):
        pass
    assert built == [1, 1]
    assert len(indexes()) == 2


def test_a_changed_corpus_gets_another_index(data):
    write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as retriever:
        assert found(retriever, "cat") == ["cat"]
    write(data, "animals", lines({**ANIMALS, "lion": '"Lion"\nA lion is a large cat cat.'}))
    with opened("bm25", corpus="animals") as retriever:
        assert sorted(found(retriever, "cat")) == ["cat", "lion"]
    assert len(indexes()) == 2


DAMAGES = {
    "a flipped bit": lambda path: path.write_bytes(path.read_bytes()[:-3] + b"\x01" + path.read_bytes()[-2:]),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["data.csc.index.npy", "indptr.csc.index.npy", "vocab.index.json", "params.index.json", "manifest.json"]
)
def test_a_damaged_index_is_built_again(data, caplog, name, damage):
    write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as retriever:
        before = retriever.search(["small mammal", "leaves"], 3)
    (folder,) = indexes()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGES[damage](folder / name)
    forget()
    with caplog.at_level(logging.WARNING), opened("bm25", corpus="animals") as retriever:
        assert retriever.search(["small mammal", "leaves"], 3) == before
    assert "the BM25 index of corpus 'animals' is made again" in caplog.text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


OPEN = """
import json, sys, time
from arena import make_retriever
from arena.envs.search.retrievers import bm25

if sys.argv[1] == "stop":
    build = bm25._tokenized
    def _tokenized(documents):
        made = build(documents)
        print("half", flush=True)
        time.sleep(60)
        return made
    bm25._tokenized = _tokenized
print("ready", flush=True)
sys.stdin.readline()
retriever = make_retriever("bm25", {"corpus": "animals"})
retriever.open()
print([hit.document.id for hit in retriever.search(["small leaves"], 3)[0]], flush=True)
"""


def another_process(how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_build_that_is_killed_leaves_nothing_that_is_taken_for_an_index(data):
    write(data, "animals", lines(ANIMALS))
    process = another_process("stop")
    begin(process)
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert indexes() == []
    with opened("bm25", corpus="animals") as retriever:
        assert found(retriever, "small leaves") == ["ant", "cat", "oak"]
    assert len(indexes()) == 1
    below = Path(os.environ["ARENA_CACHE_DIR"], "search", "bm25")
    assert not list(below.glob("*/*.unfinished"))


@pytest.mark.parametrize("left", ["data.csc.index.npy", "manifest.json"])
def test_what_a_killed_build_left_does_not_get_into_an_index(data, left):
    write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals"):
        pass
    (folder,) = indexes()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    _store.unfinished(folder).mkdir()
    (_store.unfinished(folder) / left).write_bytes(b"half")
    forget()
    with opened("bm25", corpus="animals"):
        pass
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_processes_that_build_at_once_all_end_with_a_good_index(data):
    write(data, "animals", lines(ANIMALS))
    processes = [another_process("") for _ in range(3)]
    for process in processes:
        begin(process)
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output == "['ant', 'cat', 'oak']\n"
    assert len(indexes()) == 1


def test_threads_may_search_at_once(data):
    write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as retriever:
        alone = retriever.search(["small leaves", "mammal"], 3)
        results = []
        threads = [
            threading.Thread(
                target=lambda: results.extend(retriever.search(["small leaves", "mammal"], 3) for _ in "ab" * 20)
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 320
    assert all(result == alone for result in results)


def test_a_long_build_says_how_far_it_is(data, caplog, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    monkeypatch.setattr(_store, "_PROGRESS_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO), opened("bm25", corpus="animals"):
        pass
    assert "reading the words of corpus 'animals': 3 of 4 documents, about" in caplog.text
    assert "indexing corpus 'animals': 2 of 4 documents, about" in caplog.text


def test_shared_values_are_made_once_and_dropped_when_nobody_holds_them():
    made = []

    class Value:
        pass

    def make() -> Value:
        made.append(time.monotonic())
        time.sleep(0.01)
        return Value()

    shared: _store.Shared[str, Value] = _store.Shared(keep=1)
    held: list[Value] = []
    threads = [threading.Thread(target=lambda: held.append(shared.get("a", make))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(map(id, held))) == 1
    held.clear()
    shared.get("a", make)  # one is kept
    assert len(made) == 1
    shared.get("b", make)
    shared.get("a", make)
    assert len(made) == 3


# remote servers


class Animals:
    """A search over the animals: documents that contain the query's first word, in their order."""

    def __init__(self, *, ids: bool = True) -> None:
        self.ids = ids

    def __call__(self, query: str, topk: int) -> list[tuple[dict[str, str], float]]:
        word = query.lower().split()[0]
        fitting = [(id, text) for id, text in ANIMALS.items() if word in text.lower()]
        return [
            ({"contents": text, **({"id": id} if self.ids else {})}, 0.9 - rank / 10)
            for rank, (id, text) in enumerate(fitting[:topk])
        ]


@pytest.fixture
def server(monkeypatch) -> Iterator[RetrieveServer]:
    """A server that is well; those who ask it wait hardly at all between attempts."""
    monkeypatch.setattr(remote, "_FIRST_DELAY_S", 0.001)
    with RetrieveServer(Animals()).running() as running:
        yield running


def configure(data: Path, url: str, **settings) -> None:
    (data / "far").mkdir(exist_ok=True)
    (data / "far" / "retriever.json").write_text(json.dumps({"url": url, **settings}))


@contextmanager
def asking(data: Path, server: RetrieveServer, **settings) -> Iterator[Retriever]:
    configure(data, server.url, **settings)
    with opened("remote", corpus="far") as retriever:
        yield retriever


def test_a_server_is_asked_as_search_r1_describes_it(data, server):
    with asking(data, server) as retriever:
        hits = retriever.search(["mammal", "leaves fall", "zebra"], 2)
        assert [[(hit.document.id, hit.score) for hit in found] for found in hits] == [
            [("cat", 0.9), ("dog", 0.8)],
            [("ant", 0.9), ("oak", 0.8)],
            [],
        ]
        assert hits[0][1].document.title == "Dog"
        assert hits[0][1].document.contents == ANIMALS["dog"]
        assert retriever.search([], 2) == []
    assert server.asked == [{"queries": ["mammal", "leaves fall", "zebra"], "topk": 2, "return_scores": True}]
    assert "authorization" not in server.headers[0]
    assert (retriever.spec.deterministic, retriever.spec.blocking) == (False, True)


def test_answers_without_scores_and_ids_are_understood(data, server):
    server.scores, server.search = False, Animals(ids=False)
    with asking(data, server) as retriever:
        (hits,) = retriever.search(["mammal"], 3)
        assert [hit.score for hit in hits] == [1.0, 0.5]
        assert [hit.document.title for hit in hits] == ["Cat", "Dog"]
        assert len({hit.document.id for hit in hits}) == 2
        assert retriever.search(["mammal"], 3) == [hits]


def test_a_server_that_answers_more_than_was_asked_for_is_cut_short(data, server):
    server.search = lambda query, topk: Animals()(query, 10)
    with asking(data, server) as retriever:
        assert found(retriever, "a", topk=2) == ["cat", "dog"]


def test_a_token_is_sent_and_must_be_set(data, server, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_FAR", " secret\n")
    with asking(data, server, token_variable="TOKEN_OF_FAR") as retriever:
        retriever.search(["cat"], 1)
    assert server.headers[0]["authorization"] == "Bearer secret"
    monkeypatch.setenv("TOKEN_OF_FAR", "a\nb")
    with pytest.raises(ConfigError, match="must be printable"):
        make_retriever("remote", {"corpus": "far"}).open()
    monkeypatch.delenv("TOKEN_OF_FAR")
    with pytest.raises(PrerequisiteError, match=r"set \$TOKEN_OF_FAR"):
        make_retriever("remote", {"corpus": "far"}).open()


PASSING = {
    "500": lambda: Response(status_code=500),
    "503": lambda: Response(status_code=503, headers={"Retry-After": "0"}),
    "429": lambda: Response(status_code=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "a date of no zone": lambda: Response(
        status_code=429, headers={"Retry-After": "Mon, 01 Jan 2026 00:00:00 +99999999999999999999"}
    ),
    "dropped": Broken,
    "slow": lambda: 5.0,
    "dripping": Dripping,
}


@pytest.mark.parametrize("fault", PASSING)
def test_failures_that_pass_are_not_noticed(data, server, fault):
    server.faults = [PASSING[fault]()]
    with asking(data, server, timeout_s=2, retries=1) as retriever:
        assert found(retriever, "leaves") == ["ant", "oak"]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("fault", "timeout_s", "says"),
    [
        ("500", 10, "answered with status 500"),
        ("429", 10, "answered with status 429"),
        ("dropped", 10, "cannot be reached or broke off"),
        ("slow", 0.3, "did not finish its answer within 0.3 s"),
        ("dripping", 0.3, "did not finish its answer within 0.3 s"),
    ],
)
def test_failures_that_stay_end_as_one_line(data, server, fault, timeout_s, says):
    server.faults = [PASSING[fault](), PASSING[fault](), PASSING[fault]()]
    with asking(data, server, timeout_s=timeout_s, retries=2) as retriever:
        refused_with(retriever, says, retryable=True)
    assert len(server.asked) == 3


def refused_with(retriever: Retriever, says: str, *, retryable: bool, queries=("leaves",)) -> EnvError:
    with pytest.raises(EnvError, match=f"^the retrieval server of corpus 'far' .*{says}") as failed:
        retriever.search(list(queries), 3)
    assert "\n" not in str(failed.value)
    assert failed.value.retryable is retryable
    return failed.value


NONSENSE = {
    "no JSON": (b"<html>", "no list of hits"),
    "nothing": (b"", "no list of hits"),
    "not UTF-8": (b'{"result": [[{"document": {"contents": "\xff"}, "score": 1}]]}', "no list of hits"),
    "not a number": (b'{"result": [[{"document": {"contents": "x"}, "score": NaN}]]}', "no list of hits"),
    "too deep": (b'{"result": ' + b"[" * 100_000, "no list of hits"),
    "no result": ({"results": []}, "missing required field `result`"),
    "no list": ({"result": None}, "no list of hits"),
    "one list for all": ({"result": [{"document": {"contents": "x"}, "score": 1}]}, "no list of hits"),
    "no contents": ({"result": [[{"document": {"id": "x"}, "score": 1}]]}, "missing required field `contents`"),
    "too few lists": ({"result": []}, "answered 0 lists of hits for 1 queries"),
    "too many lists": ({"result": [[], []]}, "answered 2 lists of hits for 1 queries"),
    "a score that is text": ({"result": [[{"document": {"contents": "x"}, "score": "1"}]]}, "no list of hits"),
    "huge": (b" " * 5_000_000, "more than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_and_not_asked_for_again(data, server, monkeypatch, name):
    monkeypatch.setattr(remote, "_MOST_BYTES", 1_000_000)
    body, says = NONSENSE[name]
    server.faults = [answer(body)]
    with asking(data, server) as retriever:
        refused_with(retriever, says, retryable=False)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (Response(status_code=302, headers={"Location": "http://127.0.0.1:9/"}), "302; redirects are not followed"),
        (Response(status_code=307, headers={"Location": "/retrieve"}), "307; redirects are not followed"),
        (Response(status_code=401), "refused the request with status 401"),
        (Response(status_code=404), "refused the request with status 404"),
        (Response(status_code=501), "answered with status 501"),
        (Response(status_code=204), "answered with status 204"),
        (Response(gzip.compress(b'{"result": [[]]}'), headers={"Content-Encoding": "gzip"}), "compressed"),
    ],
)
def test_other_answers_are_refused_and_not_asked_for_again(data, server, response, says):
    server.faults = [response]
    with asking(data, server) as retriever:
        refused_with(retriever, says, retryable=False)
        assert found(retriever, "leaves") == ["ant", "oak"]
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_query_that_the_server_refuses_is_the_asker_s(data, server, status):
    server.faults = [Response(status_code=status)]
    with asking(data, server) as retriever:
        with pytest.raises(UsageError, match=f"refused the request with status {status}"):
            found(retriever, "leaves")
        assert found(retriever, "leaves") == ["ant", "oak"]


def test_nobody_listens(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    configure(data, f"http://127.0.0.1:{port}/retrieve", retries=0)
    with opened("remote", corpus="far") as retriever:
        refused_with(retriever, "cannot be reached or broke off: Connection refused", retryable=True)


def test_a_server_that_keeps_failing_is_left_alone_for_a_while(data, server):
    now = [0.0]
    with asking(data, server, retries=0) as retriever, opened("remote", corpus="far") as other:
        retriever._server._breaker._clock = lambda: now[0]
        server.faults = [Response(status_code=500) for _ in range(6)]
        for _ in range(4):
            assert refused_with(retriever, "status 500", retryable=True).details == {}
        assert refused_with(retriever, "status 500", retryable=True).details == {"retry_after_s": 15.0}
        now[0] = 14.0
        for _ in range(3):
            failed = refused_with(other, "failed 5 times in a row; it is asked again in 1.0 s", retryable=True)
            assert failed.details == {"retry_after_s": 1.0}
        assert len(server.asked) == 5
        now[0] = 15.0
        refused_with(retriever, "status 500", retryable=True)  # one finds out
        refused_with(retriever, "failed 5 times in a row; it is asked again in 15.0 s", retryable=True)
        assert len(server.asked) == 6
        now[0] = 30.0
        assert found(other, "leaves") == ["ant", "oak"]
        assert found(retriever, "leaves") == ["ant", "oak"]
    assert len(server.asked) == 8


def test_a_breaker_lets_one_call_through_at_a_time_when_it_has_cooled_down():
    now = [0.0]
    breaker = Breaker(2, 10.0, clock=lambda: now[0])

    def call(error: Exception | None = None) -> None:
        with breaker.call(ValueError):
            if error:
                raise error

    for _ in range(3):  # a good call, or another error, begins the count anew
        with pytest.raises(ValueError, match="x"):
            call(ValueError("x"))
        call()
        with pytest.raises(ValueError, match="x"):
            call(ValueError("x"))
        with pytest.raises(KeyError):
            call(KeyError("x"))
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            call(ValueError("x"))
    now[0] = 4.0
    with pytest.raises(Open) as is_open:
        call()
    assert is_open.value.for_s == 6.0
    now[0] = 10.0
    with breaker.call(ValueError), pytest.raises(Open):
        call()
    call()


def test_a_server_that_asks_for_patience_gets_it(data, server):
    server.faults = [Response(status_code=503, headers={"Retry-After": "1"})]
    with asking(data, server, retries=1, deadline_s=60) as retriever:
        began = time.monotonic()
        assert found(retriever, "leaves") == ["ant", "oak"]
        assert time.monotonic() - began >= 1.0
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("86400", 3600.0), ("soon", 0.0), ("-1", 0.0), ("", 0.0), (None, 0.0)]
)
def test_how_long_a_server_wants_to_be_left_alone(value, seconds):
    assert remote._retry_after_s(value) == seconds


def test_a_server_may_say_until_when_it_wants_to_be_left_alone():
    soon = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 5.0 < remote._retry_after_s(soon) <= 20.0


@pytest.mark.parametrize(("asked", "told_s"), [("3600", 3600.0), ("9" * 400, 3600.0), ("60", 60.0)])
def test_a_server_that_asks_for_more_patience_than_there_is_time_is_not_waited_for(data, server, asked, told_s):
    server.faults = [Response(status_code=503, headers={"Retry-After": asked})]
    with asking(data, server, retries=6) as retriever:
        failed = refused_with(retriever, "status 503", retryable=True)
        assert failed.details == {"retry_after_s": told_s}
        assert found(retriever, "leaves") == ["ant", "oak"]
    assert len(server.asked) == 2


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STUCK = {
    "never answers": [],
    "drips its headers": [b"HTTP/1.1 200 OK\r\nx: ", *[b"x"] * 10_000],
    "drips its body": [HEAD + b"content-length: 100000\r\n\r\n", *[b" "] * 10_000],
    "asks for an hour": [HEAD.replace(b"200 OK", b"503 Busy") + b"retry-after: 3600\r\ncontent-length: 0\r\n\r\n"],
}


@contextmanager
def stuck_server(parts: list[bytes]) -> Iterator[tuple[str, list[threading.Event]]]:
    """Yield the URL of a server that sends one part each 0.2 s, and an event for each connection's end."""
    ended: list[threading.Event] = []
    over = threading.Event()

    def serve(connection: socket.socket, end: threading.Event) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            for part in parts:
                connection.sendall(part)
                if over.wait(0.2):
                    return
            connection.settimeout(60)
            while connection.recv(1 << 16):
                pass
        end.set()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                ended.append(threading.Event())
                threading.Thread(target=serve, args=(connection, ended[-1])).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/retrieve", ended
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("how", STUCK)
def test_a_search_takes_no_longer_than_its_deadline(data, how):
    with stuck_server(STUCK[how]) as (url, connections):
        configure(data, url, timeout_s=0.7, deadline_s=2, retries=20)
        with opened("remote", corpus="far") as retriever:
            began = time.monotonic()
            says = "status 503" if how == "asks for an hour" else "did not finish its answer within"
            refused_with(retriever, says, retryable=True)
            assert time.monotonic() - began < 20  # not the hour, nor the 2000 s of the drip
            attempts = len(connections)
            assert attempts == 1 if how == "asks for an hour" else 2 <= attempts <= 4
            if how != "asks for an hour":
                assert all(end.wait(30) for end in connections)  # what was given up is closed, and drips no more


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must be like"),
        (b'{"timeout_s": 3}', "missing required field `url`"),
        (b'{"url": "file:///etc/passwd"}', "url"),
        (b'{"url": "http://user:word@host/retrieve"}', "must be like http://host:8000/retrieve"),
        (b'{"url": "http:///retrieve"}', "must be like http://host:8000/retrieve"),
        (b'{"url": "http://host:99999999/retrieve"}', "must be like http://host:8000/retrieve"),
        (b'{"url": "http://h/retrieve", "timeout_s": 0}', "timeout_s"),
        (b'{"url": "http://h/retrieve", "timeout_s": 1e9}', "timeout_s"),
        (b'{"url": "http://h/retrieve", "deadline_s": 0}', "deadline_s"),
        (b'{"url": "http://h/retrieve", "timeout_s": 60}', "one attempt 60 s and a whole search 15 s"),
        (b'{"url": "http://h/retrieve", "retries": -1}', "retries"),
        (b'{"url": "http://h/retrieve", "retry": 1}', "retry"),
    ],
)
def test_settings_that_are_wrong_are_refused(data, content, says):
    (data / "far").mkdir()
    (data / "far" / "retriever.json").write_bytes(content)
    with pytest.raises(ConfigError, match=says) as refused:
        make_retriever("remote", {"corpus": "far"}).open()
    assert "corpus 'far'" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_that_are_missing_are_told(data):
    (data / "far").mkdir()
    with pytest.raises(ConfigError, match=r"corpus 'far': retriever.json cannot be read: No such file"):
        make_retriever("remote", {"corpus": "far"}).open()
    with pytest.raises(ConfigError, match="no corpus 'near'"):
        make_retriever("remote", {"corpus": "near"}).open()
    with pytest.raises(UsageError, match="not open"):
        make_retriever("remote", {"corpus": "far"}).search(["cat"], 1)


def test_connections_are_shared_and_closed(data, server):
    with asking(data, server) as first, opened("remote", corpus="far") as second:
        assert first._server is second._server
        results = []
        threads = [threading.Thread(target=lambda: results.append(first.search(["leaves"], 3))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 20
        assert all(result == results[0] for result in results)
        client = first._server._client
    forget()
    assert client.is_closed


def test_our_index_behind_a_server_of_search_r1_is_what_it_is_at_home(data, server):
    write(data, "animals", lines(ANIMALS))
    with opened("bm25", corpus="animals") as home:

        def search(query: str, topk: int) -> list[tuple[dict[str, str], float]]:
            hits = home.search([query], topk)[0]
            return [({"id": hit.document.id, "contents": hit.document.contents}, hit.score) for hit in hits]

        server.search = search
        with asking(data, server) as retriever:
            queries = ["small leaves", "the", "mammal"]
            assert retriever.search(queries, 3) == home.search(queries, 3)


# dense retrieval

STUB = '''
"""Has the interface of `sentence_transformers` that `dense` uses; embeds a text as the counts of its words."""

import os
import time
import zlib

import numpy as np


class SentenceTransformer:
    def __init__(self, model, device=None):
        if model == "missing":
            raise OSError("there is no such model\\non this machine")
        self.model, self.device, self.passes = model, device, []

    def encode(self, texts, *, normalize_embeddings, convert_to_numpy, show_progress_bar):
        assert normalize_embeddings and convert_to_numpy and not show_progress_bar
        self.passes.append(list(texts))
        if self.model == "full":
            raise RuntimeError("out of memory")
        if len(self.passes) == int(os.environ.get("STOP_AT_PASS", 0)):
            print("half", flush=True)
            time.sleep(60)
        counts = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(counts, texts):
            for word in text.lower().replace(".", " ").replace('"', " ").split():
                row[zlib.crc32(f"{word}{self.model}".encode()) % 64] += 1
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)
'''


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A package in the place of `sentence_transformers`, which is not among the tests' dependencies."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "sentence_transformers.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path / "stub")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    monkeypatch.setenv("ARENA_SEARCH_DENSE_MODEL", "stub-1")
    yield
    sys.modules.pop("sentence_transformers", None)


def test_dense_retrieval_names_the_package_that_it_needs(data, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(PrerequisiteError, match=r"arena-rl\[dense\]"):
        make_retriever("dense", {"corpus": "animals"}).open()


def test_the_nearest_embeddings_are_found(data, stub, monkeypatch):
    monkeypatch.setattr(dense, "_BLOCK", 7)
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(list("abcdefgh"), 5)) for _ in range(60)]
    write(data, "letters", lines({str(number): text for number, text in enumerate(texts)}))
    queries = ["a b", "", "c c d", " ", "h"]
    with opened("dense", corpus="letters") as retriever:
        embeddings = retriever._opened[1]._embeddings
        assert isinstance(embeddings.base, np.memmap)
        assert embeddings.dtype == np.float16
        for topk in (1, 5, 100):
            found = retriever.search(queries, topk)
            for query, hits in zip(queries, found, strict=True):
                if not query.strip():
                    assert hits == []
                    continue
                (asked,) = retriever._opened[1]._encoder.queries([query])
                products = embeddings.astype(np.float32) @ asked
                best = sorted(range(60), key=lambda number: (-round(float(products[number]), 5), number))[:topk]
                assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]
                assert [hit.score for hit in hits] == pytest.approx([products[number] for number in best], abs=1e-5)
                assert len({hit.document.id for hit in hits}) == min(topk, 60)
                assert all(hit.score == pytest.approx(products[int(hit.document.id)], abs=1e-5) for hit in hits)
    with pytest.raises(UsageError, match="not open"):
        retriever.search(["a"], 1)


def test_queries_and_passages_get_the_operators_prefixes(data, stub, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    with opened("dense", corpus="animals") as retriever:
        retriever.search(["cat", ""], 1)
        passes = retriever._opened[1]._encoder._model.passes
        assert passes[1] == [f"passage: {text}" for text in ANIMALS.values()]
        assert passes[2] == ["query: cat"]
    monkeypatch.setenv("ARENA_SEARCH_DENSE_QUERY_PREFIX", "Q ")
    monkeypatch.setenv("ARENA_SEARCH_DENSE_PASSAGE_PREFIX", "")
    monkeypatch.setenv("ARENA_SEARCH_DENSE_DEVICE", "cpu")
    with opened("dense", corpus="animals") as retriever:
        retriever.search(["cat"], 1)
        model = retriever._opened[1]._encoder._model
        assert model.passes[1] == list(ANIMALS.values())
        assert model.passes[2] == ["Q cat"]
        assert model.device == "cpu"
    with pytest.raises(ConfigError, match="model"):
        make_retriever("dense", {"corpus": "animals", "model": "/etc"})


def test_embeddings_are_made_once_for_each_model_and_corpus(data, stub, monkeypatch):
    write(data, "animals", lines(ANIMALS))

    def passages_embedded() -> int:
        forget()
        with opened("dense", corpus="animals") as retriever:
            assert found(retriever, "small leaves", topk=4)[0] == "ant"
            return sum(len(texts) for texts in retriever._opened[1]._encoder._model.passes) - 2

    assert passages_embedded() == 4
    assert passages_embedded() == 0
    monkeypatch.setenv("ARENA_SEARCH_DENSE_MODEL", "stub-2")
    assert passages_embedded() == 4
    write(data, "animals", lines({**ANIMALS, "owl": "An owl."}))
    assert passages_embedded() == 5
    for path in Path(os.environ["ARENA_CACHE_DIR"], "search", "dense").glob("*/*/embeddings.npy"):
        path.write_bytes(path.read_bytes()[:-2])
    assert passages_embedded() == 5


def test_embedding_goes_on_where_it_was_killed(data, stub, monkeypatch):
    texts = {str(number): f"word{number} and word{number + 1}" for number in range(20)}
    write(data, "animals", lines(texts))
    monkeypatch.setenv("STOP_AT_PASS", "4")
    smaller = "from arena.envs.search.retrievers import dense; dense._CHUNK = 4"
    script = smaller + OPEN.replace('"bm25"', '"dense"')
    with subprocess.Popen(
        [sys.executable, "-c", script, ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        begin(process)
        assert process.stdout.readline() == "half\n"  # the first passage, and two chunks of four
        process.send_signal(signal.SIGKILL)
    monkeypatch.delenv("STOP_AT_PASS")
    monkeypatch.setattr(dense, "_CHUNK", 4)
    with opened("dense", corpus="animals") as retriever:
        passes = retriever._opened[1]._encoder._model.passes
        assert [len(texts) for texts in passes] == [1, 4, 4, 4]
        resumed = np.array(retriever._opened[1]._embeddings)
        folder = next(Path(os.environ["ARENA_CACHE_DIR"], "search", "dense").glob("*/*/embeddings.npy")).parent
        assert sorted(path.name for path in folder.iterdir()) == ["embeddings.npy", "manifest.json"]
    shutil.rmtree(folder)
    forget()
    with opened("dense", corpus="animals") as retriever:
        assert np.array_equal(retriever._opened[1]._embeddings, resumed)


def test_another_model_of_the_same_name_is_noticed(data, stub, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    with opened("dense", corpus="animals"):
        pass
    forget()
    encode = dense._Encoder._encode
    monkeypatch.setattr(dense._Encoder, "_encode", lambda self, prefix, texts: -encode(self, prefix, texts))
    with pytest.raises(ConfigError, match="are another model's of the same name"):
        make_retriever("dense", {"corpus": "animals"}).open()


def test_a_model_that_is_missing_or_fails_is_told_in_one_line(data, stub, monkeypatch):
    write(data, "animals", lines(ANIMALS))
    for model, error, says in (
        ("missing", ConfigError, "the model 'missing' of .* cannot be loaded: there is no such model on this machine"),
        ("full", EnvError, "the model 'full' failed: out of memory"),
    ):
        monkeypatch.setenv("ARENA_SEARCH_DENSE_MODEL", model)
        with pytest.raises(error, match=says):
            make_retriever("dense", {"corpus": "animals"}).open()
