"""Bugs: small changes to a module's syntax tree, one at a time, of kinds that people make.

Every place where a kind fits is a `Mutation`; applying one gives the module's text with that change and no other, all
white space and comments as they were. Docstrings, type annotations, assertions and what stands outside functions are
left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from arena import import_extra

__all__ = ["KINDS", "Mutation", "mutated", "mutations", "spread"]

KINDS: Final = {
    "comparison-boundary": "< for <=, > for >=, and the other way round",
    "comparison-negated": "== for !=, in for not in, is for is not",
    "arithmetic": "another operator: + for -, * for +, // for /, % for //",
    "boolean": "and for or",
    "condition-negated": "if not, for if",
    "off-by-one": "a whole number that is one too large",
    "return-value": "nothing is returned, or the opposite truth value",
    "branch-dropped": "an if without what it does, or its else",
    "statement-dropped": "an assignment to something known, or a call, is not made",
    "arguments-swapped": "the first two arguments of a call the other way round",
    "keyword-dropped": "a keyword argument is not passed",
    "slice-bound": "a slice without its first or last bound",
    "default-changed": "another default: True for False, None for a number",
    "loop-exit": "continue for break",
    "exception-kind": "another exception is caught",
    "assignment-operator": "-= for +=, = for |=",
}
"""Kinds of bugs, in words."""


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        kind: One of `KINDS`.
        function: Dotted name of the function that it is in.
        line: Where, from 1.
        number: Which of the module's mutations it is.
    """

    kind: str
    function: str
    line: int
    number: int


def mutations(source: str) -> list[Mutation]:
    """Return every mutation of a module; none where it is no Python of this version.

    Raises:
        PrerequisiteError: `libcst` is missing.
    """
    return [] if (visited := _visit(source, None)) is None else visited[1]


def mutated(source: str, mutation: Mutation) -> str:
    """Return the module's text with one of its mutations."""
    visited = _visit(source, mutation.number)
    assert visited is not None
    return visited[0]


def _visit(source: str, wanted: int | None) -> tuple[str, list[Mutation]] | None:
    cst = import_extra("libcst", extra="swe")
    metadata = import_extra("libcst.metadata", extra="swe")
    try:
        wrapper = metadata.MetadataWrapper(cst.parse_module(source))
    except cst.ParserSyntaxError:
        return None
    mutator = _mutator(cst, metadata)(wanted)
    return wrapper.visit(mutator).code, mutator.found


def _mutator(cst: Any, metadata: Any) -> Any:
    """Return the class of visitors; libcst's classes are there only now."""
    boundary = {
        cst.LessThan: cst.LessThanEqual,
        cst.LessThanEqual: cst.LessThan,
        cst.GreaterThan: cst.GreaterThanEqual,
        cst.GreaterThanEqual: cst.GreaterThan,
    }
    negated = {
        cst.Equal: cst.NotEqual,
        cst.NotEqual: cst.Equal,
        cst.In: cst.NotIn,
        cst.NotIn: cst.In,
        cst.Is: cst.IsNot,
        cst.IsNot: cst.Is,
    }
    arithmetic = {
        cst.Add: cst.Subtract,
        cst.Subtract: cst.Add,
        cst.Multiply: cst.Add,
        cst.Divide: cst.FloorDivide,
        cst.FloorDivide: cst.Divide,
        cst.Modulo: cst.FloorDivide,
    }
    assigning = {
        cst.AddAssign: cst.SubtractAssign,
        cst.SubtractAssign: cst.AddAssign,
        cst.MultiplyAssign: cst.AddAssign,
        cst.BitOrAssign: cst.BitAndAssign,
    }
    truth = {"True": "False", "False": "True"}

    def space(operator: Any, new: Any) -> Any:
        """Return an operator with the white space of another."""
        kept = {"whitespace_before": operator.whitespace_before, "whitespace_after": operator.whitespace_after}
        return new(**kept)

    def without(node: Any) -> Any:
        return cst.SimpleStatementLine([cst.Pass()], leading_lines=node.leading_lines)

    class Mutator(cst.CSTTransformer):  # type: ignore[misc]
        METADATA_DEPENDENCIES = (metadata.PositionProvider,)

        def __init__(self, wanted: int | None) -> None:
            super().__init__()
            self._wanted, self._within = wanted, list[str]()
            self.found = list[Mutation]()
            self._functions = 0

        # -- where we are ---------------------------------------------------------------------------------------------

        def visit_FunctionDef(self, node: Any) -> None:
            self._within.append(node.name.value)
            self._functions += 1

        def visit_ClassDef(self, node: Any) -> None:
            self._within.append(node.name.value)

        def visit_Annotation(self, node: Any) -> bool:
            return False

        def visit_Assert(self, node: Any) -> bool:
            return False

        def visit_Decorator(self, node: Any) -> bool:
            return False

        def leave_ClassDef(self, original_node: Any, updated_node: Any) -> Any:
            self._within.pop()
            return updated_node

        def change(self, kind: str, original: Any, updated: Any, changed: Any) -> Any:
            """Note a place; return what is there afterwards."""
            if not self._functions:
                return updated
            line = self.get_metadata(metadata.PositionProvider, original).start.line
            self.found.append(Mutation(kind, ".".join(self._within), line, len(self.found)))
            return changed if self._wanted == len(self.found) - 1 else updated

        # -- kinds ----------------------------------------------------------------------------------------------------

        def leave_FunctionDef(self, original_node: Any, updated_node: Any) -> Any:
            params = updated_node.params
            for index, param in enumerate(params.params):
                if isinstance(param.default, cst.Name) and param.default.value in truth:
                    new = param.with_changes(default=cst.Name(truth[param.default.value]))
                elif isinstance(param.default, cst.Integer):
                    new = param.with_changes(default=cst.Name("None"))
                else:
                    continue
                listed = [*params.params[:index], new, *params.params[index + 1 :]]
                changed = updated_node.with_changes(params=params.with_changes(params=listed))
                updated_node = self.change("default-changed", original_node, updated_node, changed)
            self._within.pop()
            self._functions -= 1
            return updated_node

        def leave_ComparisonTarget(self, original_node: Any, updated_node: Any) -> Any:
            operator = updated_node.operator
            for kind, table in (("comparison-boundary", boundary), ("comparison-negated", negated)):
                if type(operator) in table:
                    new = table[type(operator)]
                    if new in (cst.NotIn, cst.IsNot, cst.In, cst.Is):
                        made = new()
                    else:
                        made = space(operator, new)
                    return self.change(kind, original_node, updated_node, updated_node.with_changes(operator=made))
            return updated_node

        def leave_BinaryOperation(self, original_node: Any, updated_node: Any) -> Any:
            operator = updated_node.operator
            if type(operator) not in arithmetic or isinstance(updated_node.left, cst.BaseString):
                return updated_node
            made = space(operator, arithmetic[type(operator)])
            return self.change("arithmetic", original_node, updated_node, updated_node.with_changes(operator=made))

        def leave_AugAssign(self, original_node: Any, updated_node: Any) -> Any:
            operator = updated_node.operator
            if type(operator) not in assigning:
                return updated_node
            made = space(operator, assigning[type(operator)])
            return self.change(
                "assignment-operator", original_node, updated_node, updated_node.with_changes(operator=made)
            )

        def leave_BooleanOperation(self, original_node: Any, updated_node: Any) -> Any:
            operator = updated_node.operator
            made = space(operator, cst.Or if isinstance(operator, cst.And) else cst.And)
            return self.change("boolean", original_node, updated_node, updated_node.with_changes(operator=made))

        def leave_If(self, original_node: Any, updated_node: Any) -> Any:
            test = updated_node.test
            inner = (
                test
                if isinstance(test, cst.Name | cst.Call | cst.Attribute)
                else test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
            )
            opposite = cst.UnaryOperation(cst.Not(), inner)
            if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
                opposite = test.expression
            updated_node = self.change(
                "condition-negated", original_node, updated_node, updated_node.with_changes(test=opposite)
            )
            if updated_node.orelse is not None and isinstance(updated_node.orelse, cst.Else):
                now = updated_node
                return self.change("branch-dropped", original_node, now, now.with_changes(orelse=None))
            nothing = cst.IndentedBlock([cst.SimpleStatementLine([cst.Pass()])])
            now = updated_node
            return self.change("branch-dropped", original_node, now, now.with_changes(body=nothing))

        def leave_Integer(self, original_node: Any, updated_node: Any) -> Any:
            if not updated_node.value.isdigit():
                return updated_node
            more = str(int(updated_node.value) + 1)
            return self.change("off-by-one", original_node, updated_node, updated_node.with_changes(value=more))

        def leave_Return(self, original_node: Any, updated_node: Any) -> Any:
            value = updated_node.value
            if value is None or (isinstance(value, cst.Name) and value.value == "None"):
                return updated_node
            word = truth.get(value.value, "None") if isinstance(value, cst.Name) else "None"
            return self.change(
                "return-value", original_node, updated_node, updated_node.with_changes(value=cst.Name(word))
            )

        def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
            (first, *more) = updated_node.body
            is_call = isinstance(first, cst.Expr) and isinstance(first.value, cst.Call)
            is_store = isinstance(first, cst.Assign) and any(
                isinstance(target.target, cst.Attribute | cst.Subscript) for target in first.targets
            )
            if more or not (is_call or is_store):
                return updated_node
            return self.change("statement-dropped", original_node, updated_node, without(updated_node))

        def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
            args = list(updated_node.args)
            plain = [arg for arg in args if arg.keyword is None and not arg.star]
            if len(plain) >= 2 and args[:2] == plain[:2]:
                one, two = args[0], args[1]
                swapped = [one.with_changes(value=two.value), two.with_changes(value=one.value), *args[2:]]
                now = updated_node
                updated_node = self.change("arguments-swapped", original_node, now, now.with_changes(args=swapped))
            if args and args[-1].keyword is not None:
                kept = [*args[:-2], args[-2].with_changes(comma=cst.MaybeSentinel.DEFAULT)] if len(args) > 1 else []
                now = updated_node
                updated_node = self.change("keyword-dropped", original_node, now, now.with_changes(args=kept))
            return updated_node

        def leave_Slice(self, original_node: Any, updated_node: Any) -> Any:
            if updated_node.lower is not None:
                return self.change("slice-bound", original_node, updated_node, updated_node.with_changes(lower=None))
            if updated_node.upper is not None:
                return self.change("slice-bound", original_node, updated_node, updated_node.with_changes(upper=None))
            return updated_node

        def leave_Break(self, original_node: Any, updated_node: Any) -> Any:
            return self.change("loop-exit", original_node, updated_node, cst.Continue())

        def leave_ExceptHandler(self, original_node: Any, updated_node: Any) -> Any:
            if not isinstance(updated_node.type, cst.Name) or updated_node.type.value == "MemoryError":
                return updated_node
            other = cst.Name("MemoryError")
            return self.change("exception-kind", original_node, updated_node, updated_node.with_changes(type=other))

    return Mutator


def spread(
    found: Sequence[tuple[str, Mutation]], shuffle: Callable[[list[tuple[str, Mutation]]], None]
) -> list[tuple[str, Mutation]]:
    """Return mutations of files in an order in which kinds take turns.

    Args:
        found: The mutations, each with its file.
        shuffle: Puts a list in a random order.
    """
    by_kind: dict[str, list[tuple[str, Mutation]]] = {}
    mixed = list(found)
    shuffle(mixed)
    for one in mixed:
        by_kind.setdefault(one[1].kind, []).append(one)
    ordered = list[tuple[str, Mutation]]()
    while by_kind:
        for kind in list(by_kind):
            ordered.append(by_kind[kind].pop())
            if not by_kind[kind]:
                del by_kind[kind]
    return ordered
