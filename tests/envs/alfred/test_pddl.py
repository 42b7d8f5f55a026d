"""Reading PDDL text, and finding the solutions of conditions."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.envs._alfred.facts import Schema, Slots, compile_condition
from arena.envs._alfred.pddl import (
    And,
    Effect,
    Equal,
    Exists,
    ForAll,
    Is,
    Not,
    Or,
    PddlError,
    read_domain,
    read_problem,
)

DOMAIN = """
(define (domain d) ; a comment with ( in it
  (:requirements :adl) (:types thing place - object cup - thing)
  (:constants Home - place)
  (:predicates (at ?t - thing ?p - place) (red ?t) (done))
  (:functions (cost) - number)
  (:action Move :parameters (?t - thing ?from ?to - place)
    :precondition (and (at ?t ?from) (not (= ?from ?to)))
    :effect (and (not (at ?t ?from)) (at ?t ?to) (when (red ?t) (done)) (increase (cost) 1)))
  (:action rest :parameters () :precondition () :effect ()))
"""
PROBLEM = """(define (problem p) (:domain d) (:objects Mug - cup shed - place)
  (:init (at mug home) (= (cost) 0)) (:goal (exists (?t - cup) (at ?t shed))))"""


def test_a_domain_is_read_in_lower_case_without_costs_and_without_actions_that_do_nothing():
    domain = read_domain(DOMAIN)
    assert domain.types == {"thing": "object", "place": "object", "cup": "thing"}
    assert (domain.constants, dict(domain.arities)) == ((("home", "place"),), {"at": 2, "red": 1, "done": 0})
    (move,) = domain.actions.values()
    assert move.parameters == (("?t", "thing"), ("?from", "place"), ("?to", "place"))
    assert move.precondition == And((Is(("at", "?t", "?from")), Not(Equal("?from", "?to"))))
    assert move.effects == (
        Effect(("at", "?t", "?from"), False),
        Effect(("at", "?t", "?to"), True),
        Effect(("done",), True, Is(("red", "?t"))),
    )
    assert domain.is_a("cup", "thing")
    assert domain.is_a("cup", "object")
    assert not domain.is_a("thing", "cup")


def test_a_problem_is_read_with_the_domains_constants():
    problem = read_problem(PROBLEM, read_domain(DOMAIN))
    assert dict(problem.objects) == {"home": "place", "mug": "cup", "shed": "place"}
    assert problem.init == {("at", "mug", "home")}
    assert problem.goal == Exists((("?t", "cup"),), Is(("at", "?t", "shed")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected one bracketed"),
        ("(define (domain d)", "2 brackets open: it is cut off"[2:]),
        ("(define (domain d)))", "never opened"),
        ("(define (problem d))", "expected .define .domain"),
        ("(define (domain d) x)", "stands where a section"),
        ("(define (domain d) (:derived (a) (b)))", ":derived is not supported"),
        ("(define (domain d))", "no actions"),
        ("(" * 200, "nested over"),
        ("(define (domain dé))", "ASCII"),
        (DOMAIN.replace("(at ?t ?to)", "(att ?t ?to)"), "uses no predicate"),
        (DOMAIN.replace("(at ?t ?to)", "(at ?t)"), "must have 2 names"),
        (DOMAIN.replace("(not (at ?t ?from))", "(not (at ?t ?from) (done))"), "must have 1 parts"),
        (DOMAIN.replace(":effect (and", ":effekt (and"), ":effekt is not supported"),
        (DOMAIN.replace("?to - place", "?to -"), "type is missing"),
    ],
)
def test_a_wrong_domain_is_told_in_one_line(text, message):
    with pytest.raises(PddlError, match=message) as told:
        read_domain(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(:domain d)", "(:domain e)", "another domain than 'd'"),
        ("(at mug home)", "(at mug away)", "'away', which is not among the objects"),
        ("(:goal (exists (?t - cup) (at ?t shed)))", "", "no goal"),
        ("(:goal", "(:gaol", ":gaol is not supported"),
        ("(at ?t shed)", "(on ?t shed)", "uses no predicate"),
    ],
)
def test_a_wrong_problem_is_told_in_one_line(old, new, message):
    with pytest.raises(PddlError, match=message):
        read_problem(PROBLEM.replace(old, new), read_domain(DOMAIN))


OBJECTS = {"a": "dot", "b": "dot", "c": "dot", "x": "ring", "y": "ring"}
TERMS = ["?u", "?v", "?w", *OBJECTS]


def formulas(variables):
    terms = st.sampled_from([*variables, "a", "x"])
    atoms = st.one_of(
        st.builds(lambda t: Is(("p", t)), terms),
        st.builds(lambda t, u: Is(("q", t, u)), terms, terms),
        st.builds(Equal, terms, terms),
    )
    typed = st.sampled_from(variables).flatmap(
        lambda name: st.sampled_from(["dot", "ring", "object", "nothing"]).map(lambda type: ((name, type),))
    )
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
            st.builds(Exists, typed, inner),
            st.builds(ForAll, typed, inner),
        ),
        max_leaves=8,
    )


def members(type):
    return frozenset(name for name, own in OBJECTS.items() if type in (own, "object"))


def holds(formula, facts, values):
    """Evaluate a formula by its definition."""
    match formula:
        case Is(atom):
            return (atom[0], *(values.get(term, term) for term in atom[1:])) in facts
        case Equal(left, right):
            return values.get(left, left) == values.get(right, right)
        case Not(part):
            return not holds(part, facts, values)
        case And(parts):
            return all(holds(part, facts, values) for part in parts)
        case Or(parts):
            return any(holds(part, facts, values) for part in parts)
        case Exists(((name, type),), part):
            return any(holds(part, facts, {**values, name: one}) for one in members(type))
        case ForAll(((name, type),), part):
            return all(holds(part, facts, {**values, name: one}) for one in members(type))
    raise AssertionError(formula)


@given(
    formulas(["?u", "?v", "?w"]),
    st.sets(st.sampled_from([*(("p", o) for o in OBJECTS), *(("q", o, i) for o in OBJECTS for i in OBJECTS)])),
    st.sampled_from(["dot", "ring", "object"]),
    st.booleans(),
)
def test_compiled_conditions_find_what_the_definition_of_the_formula_does(formula, facts, type, known):
    """Whatever the condition, its solutions are those of trying every object for every variable."""
    free = (("?u", type), ("?v", "object"), ("?w", "dot"))
    found = set()
    schema, slots = Schema(), Slots(["?u", "?v", "?w"])
    bound = {"?w"} if known else set()

    def note(state, values):
        found.add((values[slots["?u"]], values[slots["?v"]], values[slots["?w"]]))
        return False

    solver = compile_condition(
        formula, schema=schema, slots=slots, free=free[: 2 if known else 3], bound=bound, then=note
    )
    rows = {name: [fact[1:] for fact in facts if fact[0] == name] for name in "pq"}
    state = schema.fill(rows, members, {})
    values = slots.initial.copy()
    values[slots["?w"]] = "b"
    solver(state, values)
    expected = {
        (u, v, w)
        for u, v, w in product(members(type), OBJECTS, ["b"] if known else members("dot"))
        if holds(formula, facts, {"?u": u, "?v": v, "?w": w})
    }
    assert found == expected
