"""Reading PDDL: the domain and the problem that a game file carries, as small immutable trees.

The subset is that of the ALFRED domain: types, constants, predicates, actions with conditions (`and`, `or`, `not`,
`exists`, `forall`, `imply`, `=`) and effects (`and`, `not`, `when`); costs are read over. Names are lower case, as PDDL
does not tell cases apart. As in Fast Downward, a type that is not declared has no members, so a slip such as
``(?l - location, ?r - receptacle)`` in ALFRED's domain makes its condition false for ever; transcripts depend on it.

Source: McDermott et al. 1998, PDDL; Helmert 2006, arXiv:1109.6051, whose reader is followed where PDDL leaves doubt.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

__all__ = [
    "Action",
    "And",
    "Atom",
    "Domain",
    "Effect",
    "Equal",
    "Exists",
    "ForAll",
    "Formula",
    "Is",
    "Not",
    "Or",
    "PddlError",
    "Problem",
    "Typed",
    "read_domain",
    "read_problem",
]

Atom: TypeAlias = tuple[str, ...]
"""A predicate and its terms; terms that begin with ``?`` are variables."""
Typed: TypeAlias = tuple[tuple[str, str], ...]
"""Names, each with its type."""

_MAX_DEPTH = 100
_TOKEN = re.compile(r"[()]|\??[^\s()?]+|\?")
_ROOT = "object"


class PddlError(ValueError):
    """The text is not PDDL, or uses what this reader does not know; one line says what."""


@dataclass(frozen=True, slots=True)
class Is:
    """An atom holds."""

    atom: Atom


@dataclass(frozen=True, slots=True)
class Equal:
    """Two terms are the same object."""

    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Formula


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; so does the empty conjunction."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Some part holds."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """The part holds for some objects of the variables' types."""

    variables: Typed
    part: Formula


@dataclass(frozen=True, slots=True)
class ForAll:
    """The part holds for all objects of the variables' types."""

    variables: Typed
    part: Formula


Formula: TypeAlias = Is | Equal | Not | And | Or | Exists | ForAll


@dataclass(frozen=True, slots=True)
class Effect:
    """An atom becomes true or false, where a condition holds (None: always)."""

    atom: Atom
    holds: bool
    condition: Formula | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What an agent can do.

    Attributes:
        name: Lower case.
        parameters: Variables with their types, in order.
        precondition: Where the action is possible.
        effects: In the order of the text, without costs.
    """

    name: str
    parameters: Typed
    precondition: Formula
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """The rules of a world.

    Attributes:
        name: The domain's name.
        types: Every declared type with its supertype; ``object`` is the root.
        constants: Objects of every problem.
        arities: Number of terms of each predicate.
        actions: By name, in the order of the text.
        text: What it was read from.
    """

    name: str
    types: Mapping[str, str]
    constants: Typed
    arities: Mapping[str, int]
    actions: Mapping[str, Action]
    text: str

    def is_a(self, type: str, wanted: str) -> bool:
        """Return whether objects of a type count as ones of another."""
        seen = set()
        while type not in seen:
            if type == wanted:
                return True
            seen.add(type)
            type = self.types.get(type, _ROOT)
        return False


@dataclass(frozen=True, slots=True)
class Problem:
    """One world of a domain, and what is wanted in it.

    Attributes:
        objects: Type of each object, constants included, in the order of the text.
        init: The atoms that hold at the start; assignments such as distances are left out.
        goal: What is wanted.
    """

    objects: Mapping[str, str]
    init: frozenset[Atom]
    goal: Formula


@lru_cache(maxsize=32)
def read_domain(text: str) -> Domain:
    """Return the domain of a text; the same text again costs nothing.

    Raises:
        PddlError: The text is no domain of the subset.
    """
    name, sections = _definition(text, "domain")
    types: dict[str, str] = {}
    constants: Typed = ()
    arities: dict[str, int] = {}
    actions: dict[str, Action] = {}
    for section in sections:
        head = _head(section)
        match head:
            case ":requirements" | ":functions":
                pass
            case ":types":
                types = dict(_typed(section[1:]))
            case ":constants":
                constants = _typed(section[1:])
            case ":predicates":
                for entry in section[1:]:
                    arities[_head(entry)] = len(_typed(entry[1:]))
            case ":action":
                action = _Reader(arities).action(section)
                if action.effects:
                    actions[action.name] = action
            case _:
                raise PddlError(f"a domain with {head} is not supported")
    if not actions:
        raise PddlError("the domain has no actions")
    types = {name: above for name, above in types.items() if name != _ROOT}
    return Domain(name, types, constants, arities, actions, text)


def read_problem(text: str, domain: Domain) -> Problem:
    """Return the problem of a text, which must be one of the domain.

    Raises:
        PddlError: The text is no problem of the subset, or not one of this domain.
    """
    _, sections = _definition(text, "problem")
    objects = dict(domain.constants)
    init: set[Atom] = set()
    goal: Formula | None = None
    reader = _Reader(domain.arities)
    for section in sections:
        head = _head(section)
        match head:
            case ":domain":
                if section[1:] != [domain.name]:
                    raise PddlError(f"the problem belongs to another domain than {domain.name!r}")
            case ":objects":
                objects.update(_typed(section[1:]))
            case ":init":
                for fact in section[1:]:
                    if _head(fact) not in ("=", "not"):
                        init.add(reader.atom(fact))
            case ":goal":
                if len(section) != 2:
                    raise PddlError("a goal is one condition")
                goal = reader.formula(section[1])
                _check_terms("the goal", goal, set())
            case ":requirements" | ":metric":
                pass
            case _:
                raise PddlError(f"a problem with {head} is not supported")
    if goal is None:
        raise PddlError("the problem has no goal")
    unknown = _constants(goal) - objects.keys()
    if unknown:
        raise PddlError(f"the goal names {min(unknown)!r}, which is not among the objects")
    unknown = {term for atom in init for term in atom[1:]} - objects.keys()
    if unknown:
        raise PddlError(f"the initial state names {min(unknown)!r}, which is not among the objects")
    return Problem(objects, frozenset(init), goal)


def _definition(text: str, kind: str) -> tuple[str, list[list[Any]]]:
    """Return the name and the sections of ``(define (kind name) ...)``."""
    tree = _tree(text)
    if len(tree) < 2 or tree[0] != "define" or not isinstance(tree[1], list) or tree[1][:1] != [kind]:
        raise PddlError(f"expected (define ({kind} ...) ...)")
    if len(tree[1]) != 2 or not isinstance(tree[1][1], str):
        raise PddlError(f"a {kind} has one name")
    for section in tree[2:]:
        if not isinstance(section, list) or not section:
            raise PddlError(f"{_short(section)} stands where a section of the {kind} should")
    return tree[1][1], tree[2:]


def _tree(text: str) -> list[Any]:
    """Return the nested lists of lower-case names that the text is."""
    stack: list[list[Any]] = [[]]
    for token in _tokens(text):
        if token == "(":
            if len(stack) > _MAX_DEPTH:
                raise PddlError(f"brackets are nested over {_MAX_DEPTH} deep")
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise PddlError("a bracket closes that was never opened")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) > 1:
        raise PddlError(f"the text ends with {len(stack) - 1} brackets open: it is cut off")
    if len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise PddlError("expected one bracketed definition")
    whole: list[Any] = stack[0][0]
    return whole


def _tokens(text: str) -> Iterator[str]:
    if not text.isascii():
        text = "\n".join(line.partition(";")[0] for line in text.split("\n"))
        if not text.isascii():
            raise PddlError("names must be ASCII")
    lines = (line.partition(";")[0] for line in text.split("\n")) if ";" in text else (text,)
    return map(sys.intern, _TOKEN.findall("\n".join(lines).lower()))


def _head(entry: Any) -> str:
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], str):
        raise PddlError(f"{_short(entry)} stands where a bracket that begins with a name should")
    return entry[0]


def _typed(items: Sequence[Any]) -> Typed:
    """Return names with types from ``a b - t c``; what has no type is an ``object``."""
    found: list[tuple[str, str]] = []
    waiting: list[str] = []
    names = iter(items)
    for name in names:
        if not isinstance(name, str):
            raise PddlError(f"{_short(name)} stands where a name should")
        if name != "-":
            waiting.append(name)
            continue
        type = next(names, None)
        if not isinstance(type, str):
            raise PddlError("a type is missing after '-'")
        found += [(one, type) for one in waiting]
        waiting = []
    return tuple(found + [(one, _ROOT) for one in waiting])


def _short(entry: Any) -> str:
    text = _written(entry)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _written(entry: Any) -> str:
    return entry if isinstance(entry, str) else "(" + " ".join(map(_written, entry)) + ")"


def _check_terms(where: str, formula: Formula, known: Set[str]) -> None:
    """Refuse a condition with variables that nothing gives a value."""
    terms: Sequence[str] = ()
    match formula:
        case Is(atom):
            terms = atom[1:]
        case Equal(left, right):
            terms = (left, right)
        case Not(part):
            _check_terms(where, part, known)
        case And(parts) | Or(parts):
            for part in parts:
                _check_terms(where, part, known)
        case Exists(variables, part) | ForAll(variables, part):
            _check_terms(where, part, known | {name for name, _ in variables})
    for term in terms:
        if term.startswith("?") and term not in known:
            raise PddlError(f"{where} has the variable {term}, which nothing gives a value")


def _constants(formula: Formula) -> set[str]:
    """Return the objects that a condition names."""
    match formula:
        case Is(atom):
            return {term for term in atom[1:] if not term.startswith("?")}
        case Equal(left, right):
            return {term for term in (left, right) if not term.startswith("?")}
        case And(parts) | Or(parts):
            return set().union(*map(_constants, parts))
        case Not(part) | Exists(_, part) | ForAll(_, part):
            return _constants(part)


class _Reader:
    """Reads conditions and effects over known predicates."""

    def __init__(self, arities: Mapping[str, int]) -> None:
        self.arities = arities

    def atom(self, entry: Any) -> Atom:
        name = _head(entry)
        if name not in self.arities:
            raise PddlError(f"{_short(entry)} uses no predicate of the domain")
        if len(entry) - 1 != self.arities[name] or not all(isinstance(term, str) for term in entry):
            raise PddlError(f"{_short(entry)} must have {self.arities[name]} names after the predicate")
        return tuple(entry)

    def formula(self, entry: Any) -> Formula:
        if entry == []:
            return And(())
        head, rest = _head(entry), entry[1:]
        match head:
            case "and":
                return And(tuple(map(self.formula, rest)))
            case "or":
                return Or(tuple(map(self.formula, rest)))
            case "not":
                self._count(entry, 1)
                return Not(self.formula(rest[0]))
            case "imply":
                self._count(entry, 2)
                return Or((Not(self.formula(rest[0])), self.formula(rest[1])))
            case "exists" | "forall":
                self._count(entry, 2)
                if not isinstance(rest[0], list):
                    raise PddlError(f"{_short(entry)} must list its variables in brackets")
                return (Exists if head == "exists" else ForAll)(_typed(rest[0]), self.formula(rest[1]))
            case "=":
                self._count(entry, 2)
                if not all(isinstance(term, str) for term in rest):
                    raise PddlError(f"{_short(entry)} must compare two names")
                return Equal(rest[0], rest[1])
        return Is(self.atom(entry))

    def action(self, section: list[Any]) -> Action:
        if len(section) < 2 or len(section) % 2 or not isinstance(section[1], str):
            raise PddlError(f"{_short(section)} is no action with a name and pairs of a keyword and a value")
        parts = dict(zip(map(_written, section[2::2]), section[3::2], strict=True))
        unknown = parts.keys() - {":parameters", ":precondition", ":effect"}
        if unknown:
            raise PddlError(f"action {section[1]}: {min(unknown)} is not supported")
        effects = tuple(self.effects(parts.get(":effect", []), None))
        parameters, precondition = _typed(parts.get(":parameters", [])), self.formula(parts.get(":precondition", []))
        for part in (precondition, *(Is(one.atom) for one in effects), *(one.condition for one in effects)):
            if part is not None:
                _check_terms(f"action {section[1]}", part, {name for name, _ in parameters})
        return Action(section[1], parameters, precondition, effects)

    def effects(self, entry: Any, condition: Formula | None) -> Iterator[Effect]:
        if entry == []:
            return
        head, rest = _head(entry), entry[1:]
        match head:
            case "and":
                for part in rest:
                    yield from self.effects(part, condition)
            case "increase":
                return
            case "when":
                self._count(entry, 2)
                if condition is not None:
                    raise PddlError(f"{_short(entry)} stands in another condition")
                yield from self.effects(rest[1], self.formula(rest[0]))
            case "forall":
                raise PddlError(f"the effect {_short(entry)} is not supported")
            case "not":
                self._count(entry, 1)
                yield Effect(self.atom(rest[0]), False, condition)
            case _:
                yield Effect(self.atom(entry), True, condition)

    def _count(self, entry: list[Any], count: int) -> None:
        if len(entry) != count + 1:
            raise PddlError(f"{_short(entry)} must have {count} parts")
