"""Compiling a grammar's texts: from a state and the values of some variables to a sentence."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .facts import Schema, Slots, Solver, State
from .grammar import Alternative, Each, Fact, GrammarError, Plain, RuleRef, Template

__all__ = ["Names", "Scope", "Teller", "Writer"]

Names: TypeAlias = Mapping[str, str]
"""What an object is called, by its id."""
Teller: TypeAlias = Callable[[State, list[str], Names], str]
"""Makes a text from a state and the values of the variables."""
Scope: TypeAlias = Mapping[str, str]
"""The variables that have values: their types by their names."""

_MAX_DEPTH, _MAX_REFERENCES = 50, 10_000
"""How deep rules may refer to rules, and how many references all texts together may come to; ALFRED's come to 300."""


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
        self.used: set[str] = set()
        """Variables with a value that a text or a condition depends on."""
        self._depth = self._references = 0

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
        self._references += 1
        if self._references > _MAX_REFERENCES:
            raise GrammarError(f"rules refer to rules over {_MAX_REFERENCES:,} times, {name!r} among them")
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
        self.used.add(variable)
        return slots["?" + variable]

    def _search(self, condition: tuple[Fact, ...], scope: Scope, slots: Slots) -> tuple[Scope, _Search]:
        """Return the variables that have values in each solution, and what finds the solutions in order."""
        steps: list[
            tuple[int, tuple[int, ...], list[tuple[int, int]], list[tuple[int, int]], list[int], list[int]]
        ] = []
        inner = dict(scope)
        for fact in condition:
            self.asked.add(fact.predicate)
            self.used |= {*inner} if any(name not in inner for name, _ in fact.terms) else {*dict(fact.terms)}
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
