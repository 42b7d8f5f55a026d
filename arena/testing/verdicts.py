"""How a clause comes to its verdict: it does not apply, it is broken, answers differ, or a refusal did not come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from arena.errors import ArenaError
from arena.testing.report import ContractError, NotApplicable
from arena.types import decode_msgpack

__all__ = ["broken", "must_be_same", "must_refuse", "need", "need_deterministic", "short"]


def broken(what: str) -> NoReturn:
    """Fail the clause that is running."""
    raise ContractError(what)


def need(declared: bool, why: str) -> None:
    """Declare the running clause not applicable unless something is declared."""
    if not declared:
        raise NotApplicable(why)


def need_deterministic(spec: Any) -> None:
    """Declare the running clause not applicable unless a declaration says that its subject is deterministic."""
    need(spec.deterministic, "it is not deterministic")


def must_be_same(what: str, expected: Sequence[bytes], got: Sequence[bytes]) -> None:
    """Fail at the first encoded answer that differs."""
    for index, (a, b) in enumerate(zip(expected, got, strict=False)):
        if a != b:
            broken(f"{what}: answer {index} was {short(decode_msgpack(a))} and is {short(decode_msgpack(b))}")
    if len(expected) != len(got):
        broken(f"{what}: the episode had {len(expected)} answers and has {len(got)}")


@contextmanager
def must_refuse(expected: type[ArenaError], what: str) -> Iterator[None]:
    """Fail unless the block raises an error of a kind, whose message is one line that says something."""
    try:
        yield
    except expected as error:
        if not str(error).strip() or "\n" in str(error):
            broken(f"{what}: the message is {str(error)!r}; it must be one line that says what is allowed")
        return
    except Exception as error:  # reported as what it is: the wrong kind of error
        broken(f"{what} raised {type(error).__name__} ({error}); it must raise {expected.__name__}")
    broken(f"{what} was accepted; it must raise {expected.__name__}")


def short(value: Any) -> str:
    """Return a value as text of at most 300 characters."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."
