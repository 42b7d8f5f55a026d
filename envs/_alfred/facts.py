"""The state of a house, as relations, and conditions compiled to look things up in them.

A state is a list of containers, one for each way in which something is looked up: all rows of a predicate, its rows by
some of their columns, the members of a type. `Schema` says which container is which; conditions are compiled once for a
domain into closures over container numbers, and then run on the state of any game and session. Nothing is grounded: a
condition with free variables finds its solutions by nested look-ups, the most selective first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from .pddl import And, Atom, Equal, Exists, ForAll, Formula, Is, Not, Or, Typed

__all__ = [
    "ROOT_TYPE",
    "Row",
    "Rows",
    "Schema",
    "Slots",
    "Solver",
    "State",
    "Test",
    "compile_condition",
    "predicates",
    "renamed",
]

ROOT_TYPE = "object"

Row: TypeAlias = tuple[str, ...]
"""The terms of a fact, without its predicate."""
Rows: TypeAlias = Mapping[str, Collection[Row]]
"""Rows of each predicate."""
State: TypeAlias = list[Any]
"""One container for each entry of a `Schema`."""
Solver: TypeAlias = Callable[[State, list[str]], bool]
"""Looks solutions up in a state, writes each into the variables, and stops with True once its continuation wants no
more of them."""
Test: TypeAlias = Solver
"""A solver that is asked only whether there is a solution."""


class Slots:
    """Where the variables of one compiled condition or text stand in its list of values.

    Constants have slots too, so that every term is looked up alike.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.of: dict[str, int] = {}
        self.initial: list[str] = []
        for name in names:
            self[name]

    def __getitem__(self, term: str) -> int:
        """Return the slot of a variable or a constant, a new one where it had none."""
        if term not in self.of:
            self.of[term] = len(self.initial)
            self.initial.append(term)
        return self.of[term]

    def fresh(self, like: str) -> str:
        """Return the name of a new variable."""
        name = like
        while name in self.of:
            name += "'"
        self[name]
        return name


class Schema:
    """Which containers a state has, and how a fact enters them."""

    def __init__(self) -> None:
        self.size = 0
        self._members: dict[str, int] = {}
        self._indexes: dict[str, dict[tuple[int, ...], int]] = {}
        self._texts: int | None = None

    def members(self, type: str) -> int:
        """Return the container with the ids of a type's objects: a frozenset."""
        if type not in self._members:
            self._members[type] = self._next()
        return self._members[type]

    def rows(self, predicate: str, columns: tuple[int, ...] = ()) -> int:
        """Return the container with a predicate's rows: a set, or with `columns` a dict of sets.

        The dict's keys are the values of the columns: a string for one column, else a tuple.
        """
        indexes = self._indexes.setdefault(predicate, {})
        if () not in indexes:
            indexes[()] = self._next()
        if columns not in indexes:
            indexes[columns] = self._next()
        return indexes[columns]

    def texts(self) -> int:
        """Return the container with the texts that differ from game to game: a dict by name."""
        if self._texts is None:
            self._texts = self._next()
        return self._texts

    @property
    def looked_up(self) -> Collection[str]:
        """The predicates that have containers."""
        return self._indexes.keys()

    def writer(self, predicate: str) -> tuple[int, tuple[tuple[int, Callable[[Row], Any]], ...]]:
        """Return the number of a predicate's rows, and of its other containers, each with what makes a row's key."""
        self.rows(predicate)
        indexes = self._indexes[predicate]
        return indexes[()], tuple((slot, itemgetter(*columns)) for columns, slot in indexes.items() if columns)

    def fill(self, rows: Rows, members: Callable[[str], frozenset[str]], texts: Mapping[str, str]) -> State:
        """Return a state with these facts, types and texts; predicates that no condition asks for are left out."""
        state: State = [None] * self.size
        if self._texts is not None:
            state[self._texts] = texts
        for type, slot in self._members.items():
            state[slot] = members(type)
        for predicate in self._indexes:
            self.refill(state, predicate, rows.get(predicate, ()))
        return state

    def refill(self, state: State, predicate: str, rows: Iterable[Row]) -> None:
        """Give a predicate these rows and no others, in containers of their own."""
        slot, indexes = self.writer(predicate)
        state[slot] = set(rows)
        for index, key in indexes:
            by_key: dict[Any, set[Row]] = {}
            for row in state[slot]:
                by_key.setdefault(key(row), set()).add(row)
            state[index] = by_key

    def _next(self) -> int:
        self.size += 1
        return self.size - 1


def predicates(formula: Formula) -> frozenset[str]:
    """Return the predicates that a condition asks for."""
    match formula:
        case Is(atom):
            return frozenset(atom[:1])
        case And(parts) | Or(parts):
            return frozenset().union(*map(predicates, parts))
        case Not(part) | Exists(_, part) | ForAll(_, part):
            return predicates(part)
        case _:
            return frozenset()


def compile_condition(
    formula: Formula, *, schema: Schema, slots: Slots, free: Typed, bound: Collection[str], then: Solver
) -> Solver:
    """Return what finds every way in which a condition holds.

    Args:
        formula: The condition.
        schema: Gets the containers that the condition looks into.
        slots: Gets the slots of the condition's variables and constants.
        free: Variables to be found, with their types.
        bound: Variables whose values stand in their slots already, and are of the right type.
        then: Called at each solution; True ends the search.
    """
    for name, _ in free:
        slots[name]
    return _Compiler(schema, slots).join([formula, *_members(free)], frozenset(bound), then)


class _Member(Is):
    """A variable is of a type: `atom` is the type's name and the variable."""

    __slots__ = ()


def _members(variables: Typed) -> list[Formula]:
    return [_Member((type, name)) for name, type in variables]


class _Compiler:
    def __init__(self, schema: Schema, slots: Slots) -> None:
        self.schema, self.slots = schema, slots

    def join(self, parts: Sequence[Formula], bound: frozenset[str], then: Solver) -> Solver:
        """Return what finds the values of all unbound variables for which every part holds."""
        waiting = [piece for part in parts for piece in self._pieces(part)]
        if not waiting:
            return then
        for index, part in enumerate(waiting):
            if _unbound(part, bound):
                continue
            rest = self.join(waiting[:index] + waiting[index + 1 :], bound, then)
            return self._filter(part, bound, rest)
        index = min(range(len(waiting)), key=lambda one: _cost(waiting[one], bound))
        part, others = waiting[index], waiting[:index] + waiting[index + 1 :]
        match part:
            case _Member():
                rest = self.join(others, bound | {part.atom[1]}, then)
                return self._each_member(part.atom, rest)
            case Is(atom):
                known = bound | set(atom[1:])
                return self._each_row(atom, bound, self.join(others, known, then))
            case Or(options):
                return _either([self.join([option, *others], bound, then) for option in options])
        name = min(_unbound(part, bound))
        return self._each_member((ROOT_TYPE, name), self.join(waiting, bound | {name}, then))

    def _pieces(self, part: Formula) -> list[Formula]:
        """Return the parts of a conjunction, with the variables of `exists` made its own."""
        match part:
            case And(parts):
                return [piece for one in parts for piece in self._pieces(one)]
            case Exists(variables, inner):
                names = {name: self.slots.fresh(name) for name, _ in variables}
                typed = tuple((names[name], type) for name, type in variables)
                return [*self._pieces(renamed(inner, names)), *_members(typed)]
            case _:
                return [part]

    def _filter(self, part: Formula, bound: frozenset[str], then: Solver) -> Solver:
        """Return what goes on where a part without unbound variables holds."""
        match part:
            case _Member((type, _)) if type == ROOT_TYPE:
                return then
            case Is():
                return self._if_row(part, True, then)
            case Not(Is() as inner):
                return self._if_row(inner, False, then)
        test = self._test(part, bound)
        return lambda state, values: test(state, values) and then(state, values)

    def _test(self, part: Formula, bound: frozenset[str]) -> Test:
        match part:
            case Equal(left, right):
                one, other = self.slots[left], self.slots[right]
                return lambda state, values: values[one] == values[other]
            case Not(inner):
                test = self._test(inner, bound)
                return lambda state, values: not test(state, values)
            case Or(options):
                return _either([self._test(option, bound) for option in options])
            case ForAll(variables, inner):
                return self._test(Not(Exists(variables, Not(inner))), bound)
        return self.join([part], bound, lambda state, values: True)

    def _if_row(self, part: Is, wanted: bool, then: Solver) -> Solver:
        if isinstance(part, _Member):
            container, value = self.schema.members(part.atom[0]), self.slots[part.atom[1]]
            return lambda state, values: (values[value] in state[container]) is wanted and then(state, values)
        container = self.schema.rows(part.atom[0])
        terms = [self.slots[term] for term in part.atom[1:]]
        if len(terms) == 1:
            (only,) = terms
            return lambda state, values: ((values[only],) in state[container]) is wanted and then(state, values)
        if len(terms) == 2:
            one, other = terms
            return lambda state, values: (
                ((values[one], values[other]) in state[container]) is wanted and then(state, values)
            )
        return lambda state, values: (
            (tuple([values[term] for term in terms]) in state[container]) is wanted and then(state, values)
        )

    def _each_member(self, atom: Atom, then: Solver) -> Solver:
        container, target = self.schema.members(atom[0]), self.slots[atom[1]]

        def search(state: State, values: list[str]) -> bool:
            for id in state[container]:
                values[target] = id
                if then(state, values):
                    return True
            return False

        return search

    def _each_row(self, atom: Atom, bound: frozenset[str], then: Solver) -> Solver:
        columns, targets, twice = [], [], []
        first: dict[str, int] = {}
        for column, term in enumerate(atom[1:]):
            if not _is_unbound(term, bound):
                columns.append(column)
            elif term in first:
                twice.append((first[term], column))
            else:
                first[term] = column
                targets.append((self.slots[term], column))
        container = self.schema.rows(atom[0], tuple(columns))
        keys = [self.slots[atom[1 + column]] for column in columns]

        def found(state: State, values: list[str]) -> Iterable[Row]:
            rows: Iterable[Row]
            if not keys:
                rows = state[container]
            elif len(keys) == 1:
                rows = state[container].get(values[keys[0]], ())
            else:
                rows = state[container].get(tuple([values[key] for key in keys]), ())
            return rows

        if len(keys) == 1 and len(targets) == 1 and not twice:
            (key,), ((target, column),) = keys, targets

            def search_one(state: State, values: list[str]) -> bool:
                for row in state[container].get(values[key], ()):
                    values[target] = row[column]
                    if then(state, values):
                        return True
                return False

            return search_one

        def search(state: State, values: list[str]) -> bool:
            for row in found(state, values):
                if twice and any(row[one] != row[other] for one, other in twice):
                    continue
                for target, column in targets:
                    values[target] = row[column]
                if then(state, values):
                    return True
            return False

        return search


def _either(solvers: Sequence[Solver]) -> Solver:
    """Return what tries one solver after the other until one has enough."""
    if len(solvers) == 2:
        one, other = solvers
        return lambda state, values: one(state, values) or other(state, values)

    def search(state: State, values: list[str]) -> bool:
        for solver in solvers:
            if solver(state, values):
                return True
        return False

    return search


def _is_unbound(term: str, bound: Collection[str]) -> bool:
    return term.startswith("?") and term not in bound


def _unbound(formula: Formula, bound: Collection[str]) -> frozenset[str]:
    """Return the variables of a condition that have no value yet, other than its own quantified ones."""
    match formula:
        case Is(atom):
            return frozenset(term for term in atom[1:] if _is_unbound(term, bound))
        case Equal(left, right):
            return frozenset(term for term in (left, right) if _is_unbound(term, bound))
        case Not(part):
            return _unbound(part, bound)
        case And(parts) | Or(parts):
            return frozenset().union(*(_unbound(part, bound) for part in parts))
        case Exists(variables, part) | ForAll(variables, part):
            return _unbound(part, bound) - {name for name, _ in variables}
    raise AssertionError(formula)


def _cost(part: Formula, bound: Collection[str]) -> tuple[int, int]:
    """Return how late a part should be looked up: parts with many known columns first, all objects of a type last."""
    match part:
        case _Member():
            return (3, 0)
        case Is(atom):
            known = sum(not _is_unbound(term, bound) for term in atom[1:])
            return (0, -known) if known else (1, 0)
        case Or():
            return (2, 0)
    return (4, 0)


def renamed(formula: Formula, names: Mapping[str, str]) -> Formula:
    """Return a condition with other names for its free variables."""
    match formula:
        case Is(atom):
            return type(formula)((atom[0], *(names.get(term, term) for term in atom[1:])))
        case Equal(left, right):
            return Equal(names.get(left, left), names.get(right, right))
        case Not(part):
            return Not(renamed(part, names))
        case And(parts):
            return And(tuple(renamed(part, names) for part in parts))
        case Or(parts):
            return Or(tuple(renamed(part, names) for part in parts))
        case Exists(variables, part) | ForAll(variables, part):
            own = {name for name, _ in variables}
            kept = {old: new for old, new in names.items() if old not in own}
            return type(formula)(variables, renamed(part, kept))
    raise AssertionError(formula)
