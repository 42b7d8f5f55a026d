"""What a request for documents asks, and how much it may ask."""

from __future__ import annotations

import re

import msgspec

from arena.errors import UsageError

__all__ = ["MOST_CHARACTERS", "MOST_DOCUMENTS", "MOST_QUERIES", "Query", "read_query"]

MOST_QUERIES, MOST_DOCUMENTS, MOST_CHARACTERS, MOST_WORDS = 4096, 100, 4000, 512
"""Of a request: queries, documents for each, characters and words of each. Search-R1's trainer asks for all episodes of
a step at once: 512 tasks, five of each."""
MOST_TOGETHER, MOST_FOUND = 524_288, 51_200
"""Characters and documents of all queries of a request, which bound its work and its answer: words of five letters are
about 4 s in 100,000 documents, documents of 300 characters about 16 MB."""
_WORD = re.compile(r"\w+")
_SHAPE = '{"queries": [text, ...], "topk": 1 to 100 or null, "return_scores": true or false}'


class Query(msgspec.Struct):
    """A request's body; other fields are ignored, as Search-R1's server does."""

    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


_decode = msgspec.json.Decoder(Query).decode


def read_query(body: bytes) -> Query:
    """Return what a body asks.

    Raises:
        UsageError: It is not what it should be, or more than is allowed.
    """
    try:
        query = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"not a valid request: {error}; it is {_SHAPE}") from error
    if len(query.queries) > MOST_QUERIES:
        raise UsageError(f"{len(query.queries)} queries in one request; at most {MOST_QUERIES} are allowed")
    if query.topk is not None and not 1 <= query.topk <= MOST_DOCUMENTS:
        raise UsageError(f"'topk' is 1 to {MOST_DOCUMENTS}, not {query.topk}")
    if query.topk is not None and len(query.queries) * query.topk > MOST_FOUND:
        raise UsageError(
            f"{query.topk} documents for each of {len(query.queries)} queries; at most {MOST_FOUND} are allowed in one "
            "request: send them in several"
        )
    together = sum(map(len, query.queries))
    if together > MOST_TOGETHER:
        raise UsageError(
            f"the queries have {together} characters together; at most {MOST_TOGETHER} are allowed in one request: "
            "send them in several"
        )
    for position, text in enumerate(query.queries):
        if len(text) > MOST_CHARACTERS:
            raise UsageError(f"query {position} has {len(text)} characters; at most {MOST_CHARACTERS} are allowed")
        if len(text) > MOST_WORDS and sum(1 for _ in _WORD.finditer(text)) > MOST_WORDS:
            raise UsageError(f"query {position} has more than {MOST_WORDS} words")
    return query
