"""Issues for made bugs: what was tried, what came of it, and nothing of where the bug is."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence

__all__ = ["statement"]

_MOST_SNIPPETS = 2
_LONGEST_SNIPPET = 1_500
_LONGEST_MESSAGE = 600
_LEAST_TELLING = 12


def statement(
    package: str,
    version: str,
    failing: Sequence[str],
    messages: Mapping[str, str],
    sources: Mapping[str, str],
    patch: str,
) -> str | None:
    """Return an issue.

    Args:
        package: Whose.
        version: Of the package.
        failing: The tests that fail.
        messages: Why, by test.
        sources: Text of the test files, by path.
        patch: The gold patch; no line of it is told.

    Returns:
        The issue; None where nothing can be told without telling the patch.
    """
    secret = _changed(patch)
    shown = list[str]()
    for test in sorted(failing, key=len):
        snippet, message = _snippet(test, sources), messages.get(test, "").strip()
        if snippet is None or len(snippet) > _LONGEST_SNIPPET or not message:
            continue
        part = f"```python\n{snippet}\n```\n\nWhat comes of it:\n\n```\n{_short(message)}\n```"
        if any(line in part for line in secret):
            continue
        shown.append(part)
        if len(shown) == _MOST_SNIPPETS:
            break
    if not shown:
        return None
    others = len(failing) - len(shown)
    more = f"\n\n{others} more checks of the kind fail." if others else ""
    return (
        f"{package} {version} does not behave as it should\n\n"
        f"The following worked before, and fails now:\n\n" + "\n\nAlso:\n\n".join(shown) + more
    )


def _changed(patch: str) -> list[str]:
    """Return the lines that a patch takes away or adds, if they are long enough to tell anything."""
    lines = [line[1:].strip() for line in patch.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return [line for line in lines if len(line) >= _LEAST_TELLING]


def _snippet(test: str, sources: Mapping[str, str]) -> str | None:
    """Return the body of a test."""
    file, *path = test.partition("[")[0].split("::")
    if (source := sources.get(file)) is None or not path:
        return None
    try:
        nodes: Sequence[ast.AST] = ast.parse(source).body
    except SyntaxError:
        return None
    node: ast.AST | None = None
    for name in path:
        named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        node = next((one for one in nodes if isinstance(one, named) and one.name == name), None)
        if node is None:
            return None
        nodes = getattr(node, "body", [])
    first, last = getattr(nodes[0], "lineno", 0), getattr(node, "end_lineno", 0)
    body = "\n".join(source.splitlines()[first - 1 : last])
    if test.endswith("]"):
        body += f"\n# with the parameters [{test.partition('[')[2]}"
    return textwrap.dedent(body)


def _short(message: str) -> str:
    message = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", message)
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]} ..."
