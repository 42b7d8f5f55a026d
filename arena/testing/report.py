"""The report of a contract: what became of each clause, and the table that a contract's clauses stand in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from arena.errors import ArenaError

__all__ = ["Clauses", "ContractError", "NotApplicable", "Outcome", "Report", "run_clauses"]

P = TypeVar("P")


class ContractError(ArenaError, AssertionError):
    """Clauses of a contract do not hold; the message names each and says why."""

    code = "CONTRACT"


class NotApplicable(Exception):
    """Raised by a clause whose promise this subject does not make."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one clause.

    Attributes:
        clause: Its name.
        verdict: Whether the promise is kept, or not made.
        why: One line, empty where it passed.
    """

    clause: str
    verdict: Literal["passed", "failed", "not applicable"]
    why: str = ""

    def __str__(self) -> str:
        return f"{self.clause}: {self.verdict}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of every clause, in the order of the contract.

    Attributes:
        subject: What was checked.
        outcomes: One for each clause.
    """

    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> dict[str, str]:
        """The clauses that failed, and why."""
        return {outcome.clause: outcome.why for outcome in self.outcomes if outcome.verdict == "failed"}

    def raise_if_failed(self) -> None:
        """Raise one error that lists every failed clause.

        Raises:
            ContractError: At least one clause failed.
        """
        if self.failed:
            reasons = "; ".join(f"{clause}: {why}" for clause, why in self.failed.items())
            raise ContractError(f"{self.subject} breaks {len(self.failed)} clauses: {reasons}", failed=self.failed)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {outcome}" for outcome in self.outcomes)])


class Clauses(dict[str, Callable[[P], None]], Generic[P]):
    """Clauses by name, in order. A clause passes by returning and fails by raising."""

    def add(self, clause: Callable[[P], None]) -> Callable[[P], None]:
        """Add a function under its own name and return it: a decorator."""
        self[clause.__name__] = clause
        return clause


def run_clauses(subject: str, clauses: Mapping[str, Callable[[Any], None]], probe: Any) -> Report:
    """Return the report of running every clause on a probe, which is swept after each one."""
    return Report(subject, tuple(_run_clause(name, clause, probe) for name, clause in clauses.items()))


def _run_clause(name: str, clause: Callable[[Any], None], probe: Any) -> Outcome:
    try:
        try:
            clause(probe)
        finally:
            probe.sweep()
    except NotApplicable as reason:
        return Outcome(name, "not applicable", str(reason))
    except ContractError as error:
        return Outcome(name, "failed", str(error))
    except Exception as error:  # the subject is a stranger's code: whatever it raises fails the clause
        return Outcome(name, "failed", " ".join(f"{type(error).__name__}: {error}".split()))
    return Outcome(name, "passed")
