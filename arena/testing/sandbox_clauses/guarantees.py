"""What a sandbox says of itself."""

from __future__ import annotations

from arena.sandbox import GUARANTEES
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import SandboxProbe, same
from arena.testing.verdicts import broken

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def every_guarantee_is_given_or_missing(probe: SandboxProbe) -> None:
    """How each guarantee is given; why each of the others is not."""
    sandbox = probe.fresh()
    same("guarantees", sorted(GUARANTEES), sorted([*sandbox.enforced, *sandbox.missing]))
    if not all([*sandbox.enforced.values(), *sandbox.missing.values()]):
        broken("a guarantee has no word to it")


@CLAUSES.add
def what_is_missing_was_allowed(probe: SandboxProbe) -> None:
    """A guarantee that is missing and not named is an error at the start."""
    allowed = probe.settings.unenforced
    if lacking := probe.fresh().missing.keys() - allowed:
        broken(f"it started without {', '.join(sorted(lacking))}")
