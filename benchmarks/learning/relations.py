"""Questions about invented people that have to be followed from one to the next, with a corpus to search.

Everyone has a mentor, a rival, a cousin and a neighbour; a document says who they are. "Who is the cousin of the rival
of Bazo Litu?" has two hops. People of one split know nobody of another one, so that nothing can be known by heart;
their names are made of the same words.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["NAME", "write"]

NAME = "relations"
"""What the questions and their corpus are called below `ARENA_SEARCH_DATA`."""
_RELATIONS = ("mentor", "rival", "cousin", "neighbour")
_NAMES = 80
"""First names, and as many last names: so many that each is in few questions, so few that each is often read."""
_PEOPLE: Mapping[str, int] = {"train": 800, "dev": 100, "test": 200}
_QUESTIONS: Mapping[str, Mapping[int, int]] = {  # of each number of hops
    "train": {1: 1200, 2: 1600, 3: 1200},
    "dev": {1: 30, 2: 40, 3: 30},
    "test": {1: 90, 2: 120, 3: 90},
}


def write(data: Path) -> None:
    """Write the questions of all splits and the corpus into a folder of `data`; the same files each time."""
    rng = random.Random(0)
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    words = rng.sample(["".join(pair).title() for pair in itertools.product(syllables, syllables)], 2 * _NAMES)
    names = [f"{first} {last}" for first, last in itertools.product(words[:_NAMES], words[_NAMES:])]
    people = rng.sample(names, sum(_PEOPLE.values()))
    folder = data / NAME
    folder.mkdir(parents=True, exist_ok=True)
    documents = list[dict[str, Any]]()
    for split, count in _PEOPLE.items():
        known, people = people[:count], people[count:]
        related = {one: _related(one, known, rng) for one in known}
        documents += [_document(one, others) for one, others in related.items()]
        _write_lines(folder / f"{split}.jsonl", _questions(split, related, rng))
    _write_lines(folder / "corpus.jsonl", documents)


def _related(person: str, known: list[str], rng: random.Random) -> dict[str, str]:
    others = rng.sample([one for one in known if one != person], len(_RELATIONS))
    return dict(zip(_RELATIONS, others, strict=True))


def _document(person: str, related: Mapping[str, str]) -> dict[str, Any]:
    text = f"{person}: whom {person} knows. "  # so often that a search prefers it to those that mention the person
    text += " ".join(f"The {relation} is {other}." for relation, other in related.items())
    return {"id": person.lower().replace(" ", "-"), "contents": f'"{person}"\n{text}'}


def _questions(split: str, related: Mapping[str, Mapping[str, str]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Return different questions, in an order of chance."""
    wanted = [hops for hops, count in _QUESTIONS[split].items() for _ in range(count)]
    rng.shuffle(wanted)
    asked = set[tuple[str, ...]]()
    for hops in wanted:
        while True:
            start, *path = rng.choice(list(related)), *rng.choices(_RELATIONS, k=hops)
            chain = [start]
            for relation in path:
                chain.append(related[chain[-1]][relation])
            if (start, *path) not in asked and len(set(chain)) == len(chain):
                break
        asked.add((start, *path))
        yield {
            "id": f"{split}-{len(asked) - 1}",
            "question": f"Who is {''.join(f'the {relation} of ' for relation in reversed(path))}{start}?",
            "answers": [chain[-1]],
            "hops": hops,
            "support": chain[:-1],
        }


def _write_lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
