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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from .facts import Schema, Slots, Solver, State

__all__ = ["Grammar", "GrammarError", "Names", "Scope", "Teller", "Template", "Writer", "read_grammar"]

Names: TypeAlias = Mapping[str, str]
"""What an object is called, by its id."""
Teller: TypeAlias = Callable[[State, list[str], Names], str]
"""Makes a text from a state and the values of the variables."""
Scope: TypeAlias = Mapping[str, str]
"""The variables that have values: their types by their names."""

_MAX_DEPTH = 50
_LEADING = re.compile(r"(?:\s+|//[^\n]*)*")
_TOKEN = re.compile(r'"""(?P<block>.*?)"""|"(?P<string>[^"]*)"|(?P<mark>::|[{};])|(?P<word>[\w/-]+)|(?P<odd>\S)', re.S)
_SYMBOL = re.compile(
    r"""\[\{(?P<list>[^{}\[\]]*)\}\] | \{(?P<each>[^{}\[\]]*)\} | \#(?P<rule>[\w()/!<>\-\s,.]+)\#
      | "(?P<quoted>[^;|"<>\[\]\#{}]*)" | (?P<plain>[^;|"<>\[\]\#{}]+)""",
    re.X,
)
_FACT = re.compile(r"\s*(?P<name>!?[\w/]+)\s*\((?P<terms>[^()]*)\)\s*")
_TERM = re.compile(r"\s*(?P<name>[\w']+)\s*(?::\s*(?P<type>[\w/-]+))?\s*")
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
            parts.append(Plain((match["plain"] or match["quoted"] or "").replace("\\n", "\n")))
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
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GrammarError(f"cannot read the expression {text!r}") from error
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name()) if node.attr in _ATTRIBUTES:
                pass
            case ast.BoolOp(op=ast.Or()) | ast.BinOp(op=ast.Add()) | ast.Constant(value=str()):
                pass
            case ast.Name() | ast.Load() | ast.Or() | ast.Add():
                pass
            case _:
                raise GrammarError(f"the expression {text!r} is not supported")
    return tree


class Writer:
    """Compiles a grammar's texts.

    Args:
        rules: The grammar's rules.
        texts: Names of the rules whose text is asked of the game.
        schema: Gets the containers that conditions look into.
        text_slot: The container with the texts of those rules, by name.
    """

    def __init__(
        self, rules: Mapping[str, tuple[Alternative, ...]], texts: frozenset[str], schema: Schema, text_slot: int
    ) -> None:
        self.rules, self.texts, self.schema, self.text_slot = rules, texts, schema, text_slot
        self.asked: set[str] = set()
        """Predicates that a condition asks for."""
        self._depth = 0

    def template(self, template: Template, scope: Scope, slots: Slots) -> Teller:
        """Return what makes a template's text.

        Args:
            template: What is compiled.
            scope: The variables that have values.
            slots: Where variables stand; new ones are added.

        Raises:
            GrammarError: A rule or a variable is not known.
        """
        tellers = [self._part(part, scope, slots) for part in template]
        if len(tellers) == 1:
            return tellers[0]
        return lambda state, values, names: "".join([tell(state, values, names) for tell in tellers])

    def _part(self, part: Plain | RuleRef | Each, scope: Scope, slots: Slots) -> Teller:
        match part:
            case Plain(text):
                return lambda state, values, names: text
            case RuleRef(name):
                return self._rule(name, scope, slots)
            case Each(what, condition, listed):
                inner, search = self._search(condition, scope, slots)
                tell = (
                    self._rule(what.name, inner, slots)
                    if isinstance(what, RuleRef)
                    else self._value(what, inner, slots)
                )
                return self._all(tell, search, self._list(scope, slots) if listed else None)

    def _all(self, tell: Teller, search: _Search, join: Callable[..., str] | None) -> Teller:
        def write(state: State, values: list[str], names: Names) -> str:
            found: list[str] = []

            def note(state: State, values: list[str]) -> bool:
                found.append(tell(state, values, names))
                return False

            search(note, state, values)
            return join(found, state, values, names) if join is not None else "".join(found)

        return write

    def _list(self, scope: Scope, slots: Slots) -> Callable[..., str]:
        empty, between, last = (
            self._rule(name, scope, slots) for name in ("list_empty", "list_separator", "list_last_separator")
        )

        def join(found: list[str], state: State, values: list[str], names: Names) -> str:
            if len(found) < 2:
                return found[0] if found else empty(state, values, names)
            first = between(state, values, names).join(found[:-1])
            return first + last(state, values, names) + found[-1]

        return join

    def _rule(self, name: str, scope: Scope, slots: Slots) -> Teller:
        if name in self.texts:
            container = self.text_slot
            return lambda state, values, names: str(state[container][name])
        if name not in self.rules:
            raise GrammarError(f"there is no rule {name!r}")
        if self._depth >= _MAX_DEPTH:
            raise GrammarError(f"rule {name!r} leads back to itself")
        self._depth += 1
        try:
            choices = [
                (
                    self._search(one.condition, scope, slots)[1] if one.condition else None,
                    self.template(one.template, scope, slots),
                )
                for one in self.rules[name]
            ]
        finally:
            self._depth -= 1
        if choices[0][0] is None:
            return choices[0][1]

        def write(state: State, values: list[str], names: Names) -> str:
            for search, tell in choices:
                if search is None or search(_enough, state, values):
                    return tell(state, values, names)
            raise GrammarError(f"no alternative of rule {name!r} fits")

        return write

    def _value(self, node: ast.expr, scope: Scope, slots: Slots) -> Teller:
        """Return what makes an expression's text; an object by itself stands for its name."""
        match node:
            case ast.Constant(value=str(text)):
                return lambda state, values, names: text
            case ast.Name(id=variable):
                slot = self._slot(variable, scope, slots)
                return lambda state, values, names: names[values[slot]]
            case ast.Attribute(value=ast.Name(id=variable), attr=attribute):
                slot = self._slot(variable, scope, slots)
                match attribute:
                    case "name":
                        return lambda state, values, names: names[values[slot]]
                    case "id":
                        return lambda state, values, names: values[slot]
                article = "a" if attribute == "indefinite" else "the"
                return lambda state, values, names: article
            case ast.BinOp(left=left, right=right):
                one, other = self._value(left, scope, slots), self._value(right, scope, slots)
                return lambda state, values, names: one(state, values, names) + other(state, values, names)
            case ast.BoolOp(values=options):
                tellers = [self._value(option, scope, slots) for option in options]
                return lambda state, values, names: (
                    next(
                        (text for tell in tellers[:-1] if (text := tell(state, values, names))),
                        None,
                    )
                    or tellers[-1](state, values, names)
                )
        raise AssertionError(node)

    def _slot(self, variable: str, scope: Scope, slots: Slots) -> int:
        if variable not in scope:
            raise GrammarError(f"the variable {variable!r} has no value")
        return slots["?" + variable]

    def _search(self, condition: tuple[Fact, ...], scope: Scope, slots: Slots) -> tuple[Scope, _Search]:
        """Return the variables that have values in each solution, and what finds the solutions in order."""
        steps: list[
            tuple[int, tuple[int, ...], list[tuple[int, int]], list[tuple[int, int]], list[int], list[int]]
        ] = []
        inner = dict(scope)
        for fact in condition:
            self.asked.add(fact.predicate)
            known = [(column, "?" + name) for column, (name, type) in enumerate(fact.terms) if inner.get(name) == type]
            columns = tuple(column for column, _ in known)
            taken = [slots["?" + name] for name in inner]
            new: list[tuple[int, int]] = []
            types: list[int] = []
            same: list[tuple[int, int]] = []
            for column, (name, type) in enumerate(fact.terms):
                if column in columns:
                    continue
                if name in inner and inner[name] == type:
                    same.append((slots["?" + name], column))
                    continue
                if name in inner:
                    raise GrammarError(f"the variable {name!r} is of two types")
                inner[name] = type
                new.append((slots["?" + name], column))
                types.append(self.schema.members(type))
            keys = [slots[name] for _, name in known]
            container = self.schema.rows(fact.predicate, columns if len(columns) < len(fact.terms) else ())
            steps.append((container, tuple(keys), new, same, types, taken))
        return inner, _Search(tuple(_Step(*step) for step in steps))


def _enough(state: State, values: list[str]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Step:
    """How one fact of a condition is looked up.

    Attributes:
        container: Where.
        keys: Slots of the known terms.
        new: Slot and column of each term that gets a value.
        same: Slot and column of further terms that must equal a new one.
        types: Containers of the types of the new terms.
        taken: Slots whose values a new term must differ from.
    """

    container: int
    keys: tuple[int, ...]
    new: list[tuple[int, int]]
    same: list[tuple[int, int]]
    types: list[int]
    taken: list[int]


class _Search:
    """Finds the solutions of a grammar's condition, in order."""

    def __init__(self, steps: tuple[_Step, ...]) -> None:
        self.steps = steps

    def __call__(self, then: Solver, state: State, values: list[str], depth: int = 0) -> bool:
        if depth == len(self.steps):
            return then(state, values)
        step = self.steps[depth]
        rows = state[step.container]
        if not step.new:
            key = tuple([values[slot] for slot in step.keys])
            return key in rows and self(then, state, values, depth + 1)
        if step.keys:
            rows = rows.get(values[step.keys[0]] if len(step.keys) == 1 else tuple([values[k] for k in step.keys]), ())
        if not rows:
            return False
        taken = [values[slot] for slot in step.taken]
        for row in sorted(rows):
            used = list(taken)
            for (slot, column), type in zip(step.new, step.types, strict=True):
                if row[column] in used or row[column] not in state[type]:
                    break
                values[slot] = row[column]
                used.append(row[column])
            else:
                if all(values[slot] == row[column] for slot, column in step.same) and self(
                    then, state, values, depth + 1
                ):
                    return True
        return False
