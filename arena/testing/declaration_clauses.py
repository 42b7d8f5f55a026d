"""The clauses that the environments' and the agents' contracts share: of their summaries and of their options."""

from __future__ import annotations

from typing import Any, Protocol

import pydantic

from arena.errors import ConfigError
from arena.registry import parse_options
from arena.testing.verdicts import broken

__all__ = [
    "Declaring",
    "options_are_described",
    "options_survive_json",
    "summary_is_one_sentence",
    "unknown_option_is_refused",
]


class Declaring(Protocol):
    """A probe of something that has a declaration and options."""

    @property
    def spec(self) -> Any:
        """Its declaration, with `id` and `summary`."""

    def fresh(self) -> Any:
        """Return a new one, with `Options` and `options`."""


def summary_is_one_sentence(probe: Declaring) -> None:
    """One sentence."""
    summary = probe.spec.summary
    if not summary.strip() or "\n" in summary or not summary.endswith("."):
        broken(f"the summary is {summary!r}; it must be one sentence on one line, with a full stop")


def options_are_described(probe: Declaring) -> None:
    """The options' model: each field described."""
    for name, info in probe.fresh().Options.model_fields.items():
        if not (info.description or "").strip():
            broken(f"option {name!r} has no description")


def unknown_option_is_refused(probe: Declaring) -> None:
    """Frozen, strict, unknown names refused."""
    model = probe.fresh().Options
    try:
        parse_options(probe.spec.id, model, {"no_such_option": 1})
    except ConfigError:
        if not model.model_config.get("frozen"):
            broken("the options can be changed; derive them from arena.Options")
        return
    broken("the unknown option 'no_such_option' was accepted; derive the options from arena.Options")


def options_survive_json(probe: Declaring) -> None:
    """A trace holds the resolved options, and a replay makes its subject from them."""
    subject = probe.fresh()
    if not isinstance(subject.options, pydantic.BaseModel):
        broken(f"options are a {type(subject.options).__name__}; they must be the subject's Options")
    again = parse_options(probe.spec.id, subject.Options, subject.options.model_dump(mode="json"))
    if again != subject.options:
        broken(f"the options {subject.options!r} came back from JSON as {again!r}")
