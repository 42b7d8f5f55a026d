"""A domain and a grammar, compiled into the rules of a game: what can be done, what it does, and how it is told.

Where Fast Downward and TextWorld decide what a transcript shows, these rules do what they do: actions whose conditions
say that they change nothing do not exist (there is no way to go where one is), and texts can ask whether an action has
made a fact false.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .facts import ROOT_TYPE, Schema, Slots, Solver, State, Test, compile_condition, predicates, renamed
from .grammar import Grammar, GrammarError, RuleRef
from .pddl import (
    Action,
    And,
    Atom,
    Domain,
    Effect,
    Equal,
    Exists,
    ForAll,
    Formula,
    Is,
    Not,
    Or,
    Typed,
)
from .telling import Teller, Writer

__all__ = ["AGENT", "DENIED", "Change", "Program", "Rule", "program_of"]

AGENT = "agent"
"""The type of those who act."""
DENIED = "not_"
"""Begins the name of the predicate that says what an action has made false."""
_FOUND, _ONE_AGENT = "!found", "?the-agent"
_KEPT_PROGRAMS = 32


@dataclass(frozen=True, slots=True)
class Change:
    """An effect: a row of a predicate appears or disappears."""

    predicate: str
    terms: tuple[int, ...]
    appears: bool
    test: Test | None


@dataclass(frozen=True, slots=True)
class Rule:
    """An action, compiled.

    Attributes:
        name: The action's name.
        initial: Values of the slots before anything is looked up.
        agent: Slots that hold who acts.
        parameters: Slots of the parameters.
        out: Slot of the list that gets the parameters of each way to do it.
        reads: The predicates on whose facts the possible commands depend.
        find: Finds every way to do it.
        command: Makes the command's text.
        told: Places, among the parameters, of those that the command's text depends on.
        feedback: Makes the feedback's text, after the changes.
        changes: What it does: first what disappears, so that what appears as well stays.
    """

    name: str
    initial: list[str]
    agent: tuple[int, ...]
    parameters: tuple[int, ...]
    out: int
    reads: frozenset[str]
    find: Solver
    command: Teller
    told: tuple[int, ...]
    feedback: Teller
    changes: tuple[Change, ...]


class Program:
    """A domain and a grammar, compiled: the same one serves all games that differ in their houses and goals only."""

    def __init__(self, domain: Domain, grammar: Grammar) -> None:
        self.domain = domain
        self.schema = Schema()
        self._goals: dict[Formula, tuple[Slots, Test]] = {}
        self._text_slot = self.schema.texts()
        self.members = tuple(self.schema.members(type) for type in (AGENT, ROOT_TYPE))
        writer = Writer(grammar.rules, frozenset(grammar.texts), self.schema, self._text_slot)
        self.intro_slots = Slots()
        self.intro: Teller = writer.template((RuleRef("intro"),), {"a": AGENT}, self.intro_slots)
        self.fluents = frozenset(effect.atom[0] for action in domain.actions.values() for effect in action.effects)
        missing = domain.actions.keys() - grammar.commands.keys()
        if missing:
            raise GrammarError(f"the grammar has no action {min(missing)!r}, which the domain has")
        self.rules = tuple(self._rule(action, grammar, writer) for _, action in sorted(domain.actions.items()))
        self.readers = {
            predicate: tuple(number for number, rule in enumerate(self.rules) if predicate in rule.reads)
            for predicate in self.fluents
        }
        for rule in self.rules:
            for change in rule.changes:
                if change.test is not None and change.predicate in writer.asked:
                    raise GrammarError(f"the grammar asks for {change.predicate!r}, which changes under a condition")
        self.denied = frozenset(
            name.removeprefix(DENIED) for name in writer.asked if name.startswith(DENIED) and name not in domain.arities
        )

    def goal(self, formula: Formula) -> tuple[list[str], Test]:
        """Return what tests a goal, and the values that it starts from; goals that differ in names only share it.

        Whatever a goal says of agents must be true of the same one, so that a team does not look at a book by one of
        them holding it and another one standing at the lamp. For one agent that changes nothing.
        """
        general, names = _generalised(_by_one_agent(formula))
        if general not in self._goals:
            slots = Slots()
            for number in range(len(names)):
                slots[f"?{number}"]
            bound = frozenset(slots.of)
            test = compile_condition(
                general, schema=self.schema, slots=slots, free=(), bound=bound, then=lambda state, values: True
            )
            self._goals[general] = slots, test
        slots, test = self._goals[general]
        return [*names, *slots.initial[len(names) :]], test

    def _rule(self, action: Action, grammar: Grammar, writer: Writer) -> Rule:
        slots = Slots(name for name, _ in action.parameters)
        parameters = tuple(slots[name] for name, _ in action.parameters)
        agents = tuple(name for name, type in action.parameters if type == AGENT)
        free: Typed = tuple((name, type) for name, type in action.parameters if type != AGENT)
        scope = {name.removeprefix("?"): type for name, type in action.parameters}
        out = slots[_FOUND]
        is_idle = _idle_test(action, slots)

        def found(state: State, values: list[Any]) -> bool:
            if is_idle is None or not is_idle(values):
                values[out].append(tuple([values[slot] for slot in parameters]))
            return False

        find = compile_condition(
            action.precondition, schema=self.schema, slots=slots, free=free, bound=agents, then=found
        )
        effects = sorted(action.effects, key=lambda effect: effect.holds)
        changes = tuple(self._change(effect, slots, action) for effect in effects)
        asked_before = set(writer.asked)
        writer.asked.clear()
        writer.used.clear()
        command = writer.template(grammar.commands[action.name], scope, slots)
        if writer.asked & self.fluents:
            raise GrammarError(f"the command of {action.name} depends on what changes")
        writer.asked |= asked_before
        told = tuple(place for place, name in enumerate(scope) if name in writer.used)
        feedback = writer.template(grammar.feedback[action.name], scope, slots)
        return Rule(
            action.name,
            slots.initial,
            tuple(slots[name] for name in agents),
            parameters,
            out,
            predicates(action.precondition) & self.fluents,
            find,
            command,
            told,
            feedback,
            changes,
        )

    def _change(self, effect: Effect, slots: Slots, action: Action) -> Change:
        test = None
        if effect.condition is not None:
            bound = frozenset(name for name, _ in action.parameters)
            test = compile_condition(
                effect.condition,
                schema=self.schema,
                slots=slots,
                free=(),
                bound=bound,
                then=lambda state, values: True,
            )
        return Change(effect.atom[0], tuple(slots[term] for term in effect.atom[1:]), effect.holds, test)


def _idle_test(action: Action, slots: Slots) -> Callable[[list[str]], bool] | None:
    """Return the test whether the conditions of an action say that it changes nothing; None where they cannot.

    Fast Downward drops such actions: there is no way to go where one is.
    """
    literals = action.precondition.parts if isinstance(action.precondition, And) else (action.precondition,)
    given = [one.atom for one in literals if isinstance(one, Is)]
    denied = [one.part.atom for one in literals if isinstance(one, Not) and isinstance(one.part, Is)]
    added = [effect.atom for effect in action.effects if effect.holds and effect.condition is None]

    def matches(atom: Atom, others: Sequence[Atom]) -> list[list[tuple[int, int]]]:
        pairs = [zip(atom[1:], known[1:], strict=True) for known in others if known[0] == atom[0]]
        return [[(slots[one], slots[other]) for one, other in terms if one != other] for terms in pairs]

    tests = []
    for effect in action.effects:
        if effect.condition is not None:
            return None
        ways = matches(effect.atom, given) if effect.holds else matches(effect.atom, denied + added)
        if not ways:
            return None
        tests.append(ways)

    def is_idle(values: list[str]) -> bool:
        for ways in tests:
            for way in ways:
                for one, other in way:
                    if values[one] != values[other]:
                        break
                else:
                    break
            else:
                return False
        return True

    return is_idle


def _by_one_agent(formula: Formula) -> Formula:
    """Return a formula in which all agents that exist are the same one, where it speaks of agents that exist."""

    def joined(one: Formula) -> Formula:
        match one:
            case And(parts):
                return And(tuple(map(joined, parts)))
            case Exists(variables, part):
                agents = {name: _ONE_AGENT for name, type in variables if type == AGENT}
                others = tuple((name, type) for name, type in variables if type != AGENT)
                part = joined(renamed(part, agents))
                return Exists(others, part) if others else part
        return one

    of_one = joined(formula)
    return formula if of_one == formula else Exists(((_ONE_AGENT, AGENT),), of_one)


def _generalised(formula: Formula) -> tuple[Formula, list[str]]:
    """Return a formula with ``?0``, ``?1``... for its constants, and the constants."""
    names: list[str] = []

    def term(one: str) -> str:
        if one.startswith("?"):
            return one
        if one not in names:
            names.append(one)
        return f"?{names.index(one)}"

    def general(one: Formula) -> Formula:
        match one:
            case Is(atom):
                return Is((atom[0], *map(term, atom[1:])))
            case Equal(left, right):
                return Equal(term(left), term(right))
            case Not(part):
                return Not(general(part))
            case And(parts):
                return And(tuple(map(general, parts)))
            case Or(parts):
                return Or(tuple(map(general, parts)))
            case Exists(variables, part):
                return Exists(variables, general(part))
            case ForAll(variables, part):
                return ForAll(variables, general(part))
        raise AssertionError(one)

    return general(formula), names


_programs: dict[tuple[str, str], Program] = {}


def program_of(domain: Domain, grammar: Grammar) -> Program:
    """Return the rules; the same ones for games that differ in their houses, goals and plain texts only.

    Raises:
        GrammarError: The grammar does not fit the domain.
    """
    key = (domain.text, grammar.text)
    if key not in _programs:
        if len(_programs) >= _KEPT_PROGRAMS:
            _programs.clear()
        _programs[key] = Program(domain, grammar)
    return _programs[key]
