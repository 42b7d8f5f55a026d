"""`arena serve --corpus` under many clients, beside a plain FastAPI server and beside `bm25s` called directly.

    python -m benchmarks.search [--corpus NAME] [--clients 1 50 400] [--queries 2000] [--rounds 3]

Servers and the load generator are processes of their own. Each client keeps its connection, sends a query and waits for
the answer before it sends the next one, so at 400 clients latency is mostly waiting in line. What is measured:

* errors: queries without the answer that was asked for;
* latency from request to answer, seen by the client; queries/s; processor time, user and system, of all processes of
  the server and of the generator, divided by queries;
* whether the documents are those that `bm25s` finds, called in this process: exactly the best of its `get_scores`, and
  those with the same score in the corpus's order. Its `retrieve` leaves equal scores as numpy's partition does, so that
  chance decides which of them is the third; its recall is printed too.

Ends with 1 where there are errors, or lists that differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from arena import installed_version
from benchmarks.search_load import TOPK, Found
from benchmarks.search_plain import Direct
from benchmarks.server_processes import ServerProcess
from benchmarks.server_report import quantile

_DOCUMENTS = 25_000
_WORDS_OF_A_DOCUMENT = 30, 90
_VOCABULARY = 30_000
_COLUMNS = ("errors", "queries/s", "p50 ms", "p99 ms", "max ms", "CPU us/q", "load us/q")


Hits: TypeAlias = list[tuple[str, float]]


@dataclass
class Row:
    """A server under test.

    Attributes:
        name: As it is printed.
        server: The server.
    """

    name: str
    server: ServerProcess


# -- the corpus and the queries -------------------------------------------------------------------------------------


def generate(folder: Path) -> None:
    """Write a corpus of made-up words, the common ones as common as in real text (Zipf)."""
    rng = random.Random("benchmarks.search:corpus")
    syllables = [first + second for first in "bcdfglmnprst" for second in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(_VOCABULARY)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    folder.mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as lines:
        for number in range(_DOCUMENTS):
            title = " ".join(rng.choices(words, k=2)).title()
            text = " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(*_WORDS_OF_A_DOCUMENT)))
            lines.write(json.dumps({"id": str(number), "contents": f'"{title}"\n{title} {text}.'}) + "\n")


def make_queries(documents: list[dict[str, str]], count: int) -> tuple[list[str], list[str]]:
    """Return queries of some words each, and the id of the document from which the words of each are."""
    rng = random.Random("benchmarks.search:queries")
    sources = rng.choices(documents, k=count)
    words = [re.findall(r"\w+", document["contents"]) for document in sources]
    queries = [" ".join(rng.sample(some, min(len(some), rng.randint(3, 9)))) for some in words]
    return queries, [document["id"] for document in sources]


def corpus_file(name: str | None, scratch: Path) -> tuple[str, Path]:
    """Return the name and the file of the corpus that is to be searched; a generated one lies in `scratch`."""
    if name is None:
        name = "facts" if importlib.util.find_spec("arena.envs.search._facts") else "generated"
    if name == "facts":
        facts = importlib.import_module("arena.envs.search._facts")
        return name, facts.facts_folder() / "corpus.jsonl"
    if name == "generated":
        os.environ["ARENA_SEARCH_DATA"] = str(scratch)
        generate(scratch / name)
    return name, Path(os.environ["ARENA_SEARCH_DATA"]) / name / "corpus.jsonl"


# -- the servers ----------------------------------------------------------------------------------------------------


def start(stack: ExitStack, name: str, corpus: Path, workers: list[int]) -> list[Row]:
    """Start the servers."""
    rows = []
    for count in workers:
        options = ["--port", "0", "--workers", "1", "--corpus", name, "--corpus-workers", str(count)]
        command = [sys.executable, "-c", "from arena.cli import main; main()", "serve", *options]
        title = f"arena, {count} search process{'es' * (count != 1)}"
        rows.append(Row(title, stack.enter_context(ServerProcess(title, command))))
    plain = ServerProcess("plain FastAPI", [sys.executable, "-m", "benchmarks.search_plain", str(corpus)])
    return [*rows, Row("plain FastAPI", stack.enter_context(plain))]


def ask(server: ServerProcess, clients: int, queries: Path) -> tuple[Found, float]:
    """Let clients ask a server; return what they found, and the server's processor time."""
    before_s = server.cpu_s()
    answers = queries.with_name("answers.json")
    command = [sys.executable, "-m", "benchmarks.search_load", str(server.port), str(clients), str(queries)]
    subprocess.run([*command, str(answers)], check=True)
    return msgspec.json.decode(answers.read_bytes(), type=Found), server.cpu_s() - before_s


def measure(rows: list[Row], clients: list[int], queries: Path, rounds: int) -> dict[str, list[Found]]:
    """Ask every server in turn, print medians over the rounds, and return what was found."""
    everything: dict[str, list[Found]] = {row.name: [] for row in rows}
    for count in clients:
        samples: dict[str, list[list[float]]] = {row.name: [] for row in rows}
        for number in range(rounds):
            for row in rows if number % 2 == 0 else reversed(rows):
                found, cpu_s = ask(row.server, count, queries)
                everything[row.name].append(found)
                samples[row.name].append(_sample(found, cpu_s))
        print(f"\n{count} client{'s' * (count != 1)}" + f", medians of {rounds} rounds" * (rounds > 1))
        print(" " * 28 + "".join(f"  {title:>9}" for title in _COLUMNS) + "  worst p99")
        for name, values in samples.items():
            middle = [sum(value[0] for value in values), *map(statistics.median, list(zip(*values, strict=True))[1:])]
            worst = max(value[3] for value in values)
            print(f"{name:<28}" + "".join(f"  {value:9.{_digits(value)}f}" for value in middle) + f"  {worst:9.1f}")
    return everything


def _sample(found: Found, cpu_s: float) -> list[float]:
    count = max(1, len(found.latencies_s))
    latencies_ms = [latency_s * 1e3 for latency_s in found.latencies_s] or [float("nan")]
    return [
        found.errors,
        count / found.took_s,
        quantile(latencies_ms, 0.5),
        quantile(latencies_ms, 0.99),
        max(latencies_ms),
        cpu_s / count * 1e6,
        found.cpu_s / count * 1e6,
    ]


def _digits(value: float) -> int:
    return 0 if value >= 1000 or value == int(value) else 1


# -- the documents --------------------------------------------------------------------------------------------------


def expected_hits(direct: Direct, query: str) -> Hits:
    """Return the best documents by the scores of `bm25s`; documents of score 0 share no word with the query."""
    words = direct.tokens([query])[0]
    if not words:  # all of them are stopwords, which `get_scores` takes for a mistake
        return []
    scores = direct.index.get_scores(words)
    best = np.argsort(-scores, kind="stable")[:TOPK]
    return [(direct.documents[number]["id"], float(scores[number])) for number in best if scores[number] > 0]


def retrieved_hits(direct: Direct, query: str) -> Hits:
    """Return what the `retrieve` of `bm25s` finds, equal scores in whatever order."""
    (found,) = direct.search([query], TOPK)
    return [(direct.documents[number]["id"], score) for number, score in found if score > 0]


def recall(sources: list[str], found: list[Hits]) -> float:
    """Return the share of queries with the document among their hits from which they were made."""
    return statistics.fmean(id in dict(hits) for id, hits in zip(sources, found, strict=True))


def queries_per_s(search: Callable[[list[str], int], object], queries: list[str]) -> float:
    """Return how many queries a second `search` answers, called with one after the other."""
    began_s = time.perf_counter()
    for query in queries:
        search([query], TOPK)
    return len(queries) / (time.perf_counter() - began_s)


def main() -> int:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="name of a corpus; default: facts, else one that is generated")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 50, 400])
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus-workers", type=int, nargs="+", default=[1, 2], help="processes; a row for each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        name, corpus = corpus_file(given.corpus, Path(scratch) / "corpora")
        direct = Direct(corpus)
        queries, sources = make_queries(direct.documents, given.queries)
        file = Path(scratch) / "queries.json"
        file.write_bytes(msgspec.json.encode(queries))
        versions = ", ".join(f"{one} {installed_version(one)}" for one in ("arena-rl", "bm25s", "fastapi", "uvicorn"))
        print(f"{versions}; Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"corpus {name!r}: {len(direct.documents)} documents; {len(queries)} queries, {TOPK} documents each")
        found = measure(start(stack, name, corpus, given.corpus_workers), given.clients, file, given.rounds)
        return _report(direct, queries, sources, found)


def _report(direct: Direct, queries: list[str], sources: list[str], found: dict[str, list[Found]]) -> int:
    """Print what was found beside what `bm25s` finds; return the exit code."""
    expected = [expected_hits(direct, query) for query in queries]
    retrieved = [retrieved_hits(direct, query) for query in queries]
    print(f"\nbm25s called directly, one query at a time: {queries_per_s(direct.search, queries):.0f} queries/s")
    print(f"recall@{TOPK} of the document that a query was made from: bm25s {recall(sources, expected):.4f}", end=" ")
    print(f"(by its `retrieve` {recall(sources, retrieved):.4f})")
    failed = False
    for name, runs in found.items():
        if name.startswith("plain"):
            continue
        wanted = [[id for id, _ in hits] for hits in expected]
        same = sum([id for id, _ in hits] == ids for hits, ids in zip(runs[0].hits, wanted, strict=True))
        agreed = all(run.hits == runs[0].hits for run in runs)
        print(
            f"{name}: recall@{TOPK} {recall(sources, runs[0].hits):.4f}; {same} of {len(queries)} lists are those of "
            f"bm25s; all runs found {'the same' if agreed else 'OTHERS'}"
        )
        failed = failed or same < len(queries) or sum(run.errors for run in runs) > 0 or not agreed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
