r"""The text of a game: its grammar, read from a game file and compiled.

A game file carries TextWorld's ``twl2`` text: for each action a command template and a feedback rule, and rules in the
form of JSON. A rule has alternatives; the first whose condition holds is taken. Its right side mixes plain text with

* ``#name#``: the rule of this name, under the same variables;
* ``{expression}``: text made of a variable's ``name``, ``indefinite``, ``definite`` or ``id`` with ``+`` and ``or``;
* ``{... | condition}``: the same for each way in which a conjunction of facts holds;
* ``[{...}]``: those as a list, joined by the rules ``list_separator`` and ``list_last_separator``; ``list_empty``.

Conditions are searched from left to right, facts in the order of their ids, and different variables stand for different
objects: the order of what is listed depends on all three, so they are kept. ``not_p(...)`` asks whether an action has
made a fact false: facts that never held are not found by it.

Expressions are read as syntax trees and nothing in a file is ever evaluated.

Source: TextWorld 1.7 `textworld.envs.pddl` (its behaviour; none of its code).
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

__all__ = [
    "Alternative",
    "Each",
    "Fact",
    "Grammar",
    "GrammarError",
    "Plain",
    "RuleRef",
    "Template",
    "read_grammar",
    "read_template",
]

_LEADING = re.compile(r"(?:\s+|//[^\n]*)*")
_TOKEN = re.compile(r'"""(?P<block>.*?)"""|"(?P<string>[^"]*)"|(?P<mark>::|[{};])|(?P<word>[\w/-]+)|(?P<odd>\S)', re.S)
_SYMBOL = re.compile(
    r"""\[\{(?P<list>[^{}\[\]]*)\}\] | \{(?P<each>[^{}\[\]]*)\} | \#(?P<rule>[\w()/!<>\-\s,.]+)\#
      | "(?P<quoted>[^;|"<>\[\]\#{}]*)" | (?P<plain>[^;|"<>\[\]\#{}]+)""",
    re.X,
)
_FACT = re.compile(r"\s*(?P<name>!?[\w/]+)\s*\((?P<terms>[^()]*)\)\s*")
_TERM = re.compile(r"\s*(?P<name>[\w']+)\s*(?::\s*(?P<type>[\w/-]+))?\s*")
_MAX_EXPRESSION = 1_000
_ATTRIBUTES = ("name", "id", "indefinite", "definite")


class GrammarError(ValueError):
    """The grammar is not one of TextWorld's, or uses what this reader does not know; one line says what."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of a condition: variables with their types."""

    predicate: str
    terms: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Plain:
    """Text as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class RuleRef:
    """The text of a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Each:
    """Something for each solution of a condition; once, where there is none.

    Attributes:
        what: A rule, or an expression.
        condition: Facts, all of which hold.
        listed: Whether the results are joined as a list.
    """

    what: RuleRef | ast.expr
    condition: tuple[Fact, ...]
    listed: bool


Template: TypeAlias = tuple[Plain | RuleRef | Each, ...]
"""The right side of a rule, or of a command."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One alternative of a rule."""

    condition: tuple[Fact, ...]
    template: Template


@dataclass(frozen=True, slots=True)
class Grammar:
    """A game's grammar.

    Attributes:
        commands: The template of each action's command, by the action's name in lower case.
        feedback: The template of each action's feedback.
        rules: Alternatives of each rule.
        texts: The rules that are nothing but text, which differ from game to game.
        text: What the rest was read from: the same for games that differ in `texts` only.
    """

    commands: Mapping[str, Template]
    feedback: Mapping[str, Template]
    rules: Mapping[str, tuple[Alternative, ...]]
    texts: Mapping[str, str]
    text: str


def read_grammar(text: str) -> Grammar:
    """Return the grammar of a game file.

    Raises:
        GrammarError: The text is no such grammar.
    """
    commands, feedback, raw = _read_document(text)
    rules: dict[str, tuple[Alternative, ...]] = {}
    texts: dict[str, str] = {}
    for name, alternatives in raw.items():
        rule = tuple(_alternative(name, one) for one in alternatives)
        template = () if len(rule) > 1 or rule[0].condition else rule[0].template
        if template and all(isinstance(part, Plain) for part in template):
            texts[name] = "".join(part.text for part in template if isinstance(part, Plain))
        else:
            rules[name] = rule
    rest = json.dumps([commands, feedback, {name: raw[name] for name in rules}, sorted(texts)])
    return Grammar(
        {name: read_template(one) for name, one in commands.items()},
        {name: read_template(one) for name, one in feedback.items()},
        rules,
        texts,
        rest,
    )


def _read_document(text: str) -> tuple[dict[str, str], dict[str, str], dict[str, list[Any]]]:
    """Return the command templates and the feedback of each action, and the rules, as they stand in the text."""
    commands: dict[str, str] = {}
    feedback: dict[str, str] = {}
    raw: dict[str, list[Any]] = {}
    tokens = _Tokens(text)
    while not tokens.done:
        keyword = tokens.word()
        if keyword == "grammar":
            raw.update(tokens.rules())
        elif keyword == "action":
            name = tokens.word().lower()
            tokens.mark("{")
            while not tokens.ends_block():
                field = tokens.word()
                if field == "grammar":
                    raw.update(tokens.rules())
                elif field == "pddl":
                    tokens.value("block")
                elif field in ("template", "feedback"):
                    (commands if field == "template" else feedback)[name] = tokens.value("string")
                else:
                    raise GrammarError(f"action {name}: a field named {field!r} is not supported")
            if name not in commands or name not in feedback:
                raise GrammarError(f"action {name} lacks a template or a feedback")
        else:
            raise GrammarError(f"{keyword!r} stands where 'action' or 'grammar' should")
    return commands, feedback, raw


class _Tokens:
    """The tokens of a twl2 document, read from the first to the last."""

    def __init__(self, text: str) -> None:
        self._left: list[re.Match[str]] = []
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
            elif text[at] == "#":
                at = text.find("\n", at) if "\n" in text[at:] else len(text)
            else:
                match = _TOKEN.match(text, at)
                assert match is not None
                self._left.append(match)
                at = match.end()
        self._left.reverse()

    @property
    def done(self) -> bool:
        return not self._left

    def word(self) -> str:
        return self._next("word")

    def mark(self, wanted: str) -> None:
        found = self._next("mark")
        if found != wanted:
            raise GrammarError(f"{found!r} stands where {wanted!r} should")

    def ends_block(self) -> bool:
        if self._left and self._left[-1]["mark"] == "}":
            self._left.pop()
            return True
        return False

    def value(self, kind: str) -> str:
        """Return the text of ``:: text ;``."""
        self.mark("::")
        found = self._next(kind)
        self.mark(";")
        return found

    def rules(self) -> dict[str, list[Any]]:
        block = textwrap.dedent(self.value("block"))
        lines = [line for line in block.split("\n") if not line.lstrip().startswith("#")]
        try:
            found = json.loads("\n".join(lines))
        except (ValueError, RecursionError) as error:
            raise GrammarError(f"a block of rules is no JSON: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(one, list) and one for one in found.values()):
            raise GrammarError("a block of rules must give each rule a list of alternatives")
        return found

    def _next(self, kind: str) -> str:
        if not self._left:
            raise GrammarError("the text is cut off")
        match = self._left.pop()
        found = match[kind]
        if found is None:
            raise GrammarError(f"{match[0][:40]!r} stands where a {kind} should")
        return found


def _alternative(name: str, entry: Any) -> Alternative:
    if not isinstance(entry, dict) or not isinstance(entry.get("rhs"), str):
        raise GrammarError(f"rule {name!r}: an alternative must have a text 'rhs'")
    condition = entry.get("condition", "")
    if not isinstance(condition, str):
        raise GrammarError(f"rule {name!r}: a condition must be text")
    return Alternative(_condition(condition) if condition else (), read_template(entry["rhs"]))


@lru_cache(maxsize=1024)
def read_template(text: str) -> Template:
    """Return the parts of a right side.

    Raises:
        GrammarError: Brackets do not match, or an expression is not supported.
    """
    parts: list[Plain | RuleRef | Each] = []
    leading = _LEADING.match(text)
    at = leading.end() if leading else 0
    while at < len(text):
        match = _SYMBOL.match(text, at)
        if match is None and text[at] in "[{#":
            raise GrammarError(f"cannot read {text[at : at + 40]!r}")
        if match is None:
            break  # TextWorld's reader drops the rest, too; ALFRED's own grammar has such a slip
        at = match.end()
        if match["rule"] is not None:
            parts.append(RuleRef(match["rule"]))
        elif match["list"] is not None or match["each"] is not None:
            parts.append(_each(match["list"] or match["each"], match["list"] is not None))
        else:
            parts.append(Plain(match["plain"] or match["quoted"] or ""))
    return tuple(parts)


def _each(text: str, listed: bool) -> Each:
    what, _, condition = text.partition("|")
    what = what.strip()
    reference = re.fullmatch(r"#([^#]+)#", what)
    return Each(
        RuleRef(reference[1]) if reference else _expression(what), _condition(condition) if condition else (), listed
    )


@lru_cache(maxsize=256)
def _condition(text: str) -> tuple[Fact, ...]:
    facts = []
    for piece in text.split("&"):
        match = _FACT.fullmatch(piece)
        if match is None:
            raise GrammarError(f"{piece.strip()!r} is no fact")
        terms = []
        for term in match["terms"].split(",") if match["terms"].strip() else []:
            found = _TERM.fullmatch(term)
            if found is None:
                raise GrammarError(f"{term.strip()!r} is no variable")
            terms.append((found["name"], found["type"] or found["name"]))
        facts.append(Fact(match["name"], tuple(terms)))
    return tuple(facts)


def _expression(text: str) -> ast.expr:
    if len(text) > _MAX_EXPRESSION:
        raise GrammarError(f"the expression {text[:40]!r}... is longer than {_MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GrammarError(f"cannot read the expression {text[:40]!r}") from error
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name()) if node.attr in _ATTRIBUTES:
                pass
            case ast.BoolOp(op=ast.Or()) | ast.BinOp(op=ast.Add()) | ast.Constant(value=str()):
                pass
            case ast.Name() | ast.Load() | ast.Or() | ast.Add():
                pass
            case _:
                raise GrammarError(f"the expression {text[:40]!r} is not supported")
    return tree
