"""What a player can do: the tools, and the plain text that says the same.

In plain text a message acts by its one fenced block: three backticks and ``bash``, ``edit`` or ``submit``, as
mini-swe-agent's models write their commands. The arguments of ``edit`` are the tool's, as a JSON object. Text around
the block is thought, and does nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal, TypeAlias

import msgspec

from arena import Tool, ToolCall, ToolError
from arena.sandbox import ExecResult, Sandbox

__all__ = [
    "TOOLS",
    "Bash",
    "Edit",
    "Malformed",
    "Move",
    "Submit",
    "edit",
    "instructions",
    "read_call",
    "read_text",
    "told",
]

_LONGEST: Final = 100_000
_FENCE = re.compile(r"^```(bash|sh|edit|submit)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_EDIT_WAYS = ("view", "create", "replace", "insert")
TOOLS: Final = (
    Tool(
        "bash",
        "Run a command in a new shell that begins in the repository. Nothing but files is left for the next one.",
        {
            "type": "object",
            "properties": {
                "command": {"type": "string", "minLength": 1, "maxLength": _LONGEST, "description": "Bash."},
            },
            "required": ["command"],
            "additionalProperties": False,
        },
    ),
    Tool(
        "edit",
        "View a file or folder; create a file; replace a text that occurs once; insert lines after a line.",
        {
            "type": "object",
            "properties": {
                "do": {"type": "string", "enum": list(_EDIT_WAYS)},
                "path": {"type": "string", "minLength": 1, "maxLength": 4_000, "description": "Of the file."},
                "text": {"type": "string", "maxLength": _LONGEST, "description": "The file's content; what is put in."},
                "old": {
                    "type": "string",
                    "maxLength": _LONGEST,
                    "description": "replace: what gives way to `text`.",
                },
                "line": {"type": "integer", "minimum": 0, "description": "insert: after which line; view: from which."},
                "end": {"type": "integer", "minimum": 1, "description": "view: the last line."},
            },
            "required": ["do", "path"],
            "additionalProperties": False,
        },
    ),
    Tool(
        "submit",
        "Hand in the repository as it is. The episode ends.",
        {"type": "object", "properties": {}, "additionalProperties": False},
    ),
)


class Bash(msgspec.Struct, frozen=True):
    """Run a command."""

    command: str


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Look at a file, or change it; the fields are the tool's."""

    do: Literal["view", "create", "replace", "insert"]
    path: str
    text: str = ""
    old: str = ""
    line: int | None = None
    end: int | None = None


class Submit(msgspec.Struct, frozen=True):
    """Hand in."""


@dataclass(frozen=True)
class Malformed:
    """Neither of these, and why, in words for the model."""

    reason: str


Move: TypeAlias = Bash | Edit | Submit | Malformed
_HOW = "Write one fenced block: bash with a command, edit with a JSON object, or submit with nothing in it."


_INSTRUCTIONS: Final = """\
You are given a repository and an issue. Change the repository so that the issue is resolved.
There is no network. Tests that you do not see decide; changes to existing tests, and to what configures them, do not
count. You have {turns} turns; a command may take {timeout_s:g} seconds. Each command runs in a new shell that begins in
the repository. When you are done, submit. If you are given the tools bash, edit and submit, call them. Otherwise end
each message with one fenced block, and nothing after it:

```bash
grep -rn "def parse" --include=*.py .
```

Other blocks: edit with one JSON object (do: view, create, replace or insert), and submit with nothing in it:

```edit
{{"do": "replace", "path": "a.py", "old": "x = 1", "text": "x = 2"}}
```"""


def instructions(*, turns: int, timeout_s: float) -> str:
    """Return what a player is told before the issue."""
    return _INSTRUCTIONS.format(turns=turns, timeout_s=timeout_s)


def read_call(call: ToolCall) -> Move:
    """Return what a tool call, which fits the tool's schema, asks for."""
    match call.name:
        case "bash":
            return _command(call.arguments["command"])
        case "edit":
            return msgspec.convert(call.arguments, Edit)
    return Submit()


def read_text(text: str) -> Move:
    """Return what a message of a model that calls no tools asks for. No text raises."""
    found = _FENCE.findall(text)
    if len(found) != 1:
        what = "There is no block in that." if not found else f"There are {len(found)} blocks in that."
        return Malformed(f"{what} {_HOW}")
    (kind, content) = found[0]
    if kind == "submit":
        return Submit()
    if not content.strip():
        return Malformed(f"The block is empty. {_HOW}")
    if kind == "edit":
        try:
            return msgspec.json.decode(content, type=Edit)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return Malformed(
                f"That is no edit: {error}. It is a JSON object with do, path, and text, old, line or end."
            )
    return _command(content)


def _command(text: str) -> Move:
    return Malformed("A command has no NUL.") if "\0" in text else Bash(text)


# -- editing -----------------------------------------------------------------------------------------------------------

_LARGEST_FILE: Final = 4 << 20
_LISTED: Final = 200


def edit(sandbox: Sandbox, asked: Edit) -> str:
    """Do an edit, and return what to tell.

    Raises:
        ToolError: It cannot be done; nothing has changed.
        SandboxError: The sandbox is broken.
    """
    path = PurePosixPath(asked.path)
    if "\0" in asked.path:
        raise ToolError("a path has no NUL")
    match asked.do:
        case "view":
            return _view(sandbox, path, asked)
        case "create":
            sandbox.write_file(path, asked.text.encode())
            return f"{path}: {len(asked.text.splitlines())} lines were written."
        case "replace":
            return _replace(sandbox, path, asked)
    lines = _read(sandbox, path).splitlines(keepends=True)
    if asked.line is None or asked.line > len(lines):
        raise ToolError(f"{path} has {len(lines)} lines; say after which one, `line`, to insert (0: before the first)")
    new = asked.text if asked.text.endswith("\n") else f"{asked.text}\n"
    if asked.line and not lines[asked.line - 1].endswith("\n"):
        lines[asked.line - 1] += "\n"
    _write(sandbox, path, "".join([*lines[: asked.line], new, *lines[asked.line :]]))
    return f"{path}: {len(new.splitlines())} lines were inserted after line {asked.line}."


def _view(sandbox: Sandbox, path: PurePosixPath, asked: Edit) -> str:
    try:
        lines = _read(sandbox, path).splitlines()
    except ToolError:
        folder = f"./{path}" if str(path).startswith("-") else str(path)
        if not sandbox.exec(["test", "-d", folder]).ok:
            raise
        listed = sandbox.exec(["find", folder, "-maxdepth", "2", "-not", "-path", "*/.*"])
        names = sorted(listed.stdout.decode(errors="replace").splitlines())
        cut = [f"[{len(names) - _LISTED} more]"] if len(names) > _LISTED else []
        return "\n".join(names[:_LISTED] + cut)
    first, last = max(asked.line or 1, 1), min(asked.end or len(lines), len(lines))
    shown = [f"{number:6}\t{line}" for number, line in enumerate(lines[first - 1 : last], first)]
    return "\n".join(shown) if shown else f"{path} has {len(lines)} lines, none of them between {first} and {last}."


def _replace(sandbox: Sandbox, path: PurePosixPath, asked: Edit) -> str:
    content = _read(sandbox, path)
    if not asked.old:
        raise ToolError("say what to replace: `old` is empty")
    if (count := content.count(asked.old)) != 1:
        raise ToolError(f"{path}: the text `old` occurs {count} times (allowed: once); take more of what is around it")
    line = content[: content.index(asked.old)].count("\n") + 1
    _write(sandbox, path, content.replace(asked.old, asked.text))
    return f"{path}: replaced at line {line}."


def _read(sandbox: Sandbox, path: PurePosixPath) -> str:
    try:
        return sandbox.read_file(path, max_bytes=_LARGEST_FILE).decode()
    except UnicodeDecodeError:
        raise ToolError(f"{path} is no UTF-8 text") from None


def _write(sandbox: Sandbox, path: PurePosixPath, content: str) -> None:
    try:
        sandbox.write_file(path, content.encode())
    except UnicodeEncodeError:
        raise ToolError("the text has characters that are none") from None


# -- what a command said -----------------------------------------------------------------------------------------------

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


def told(result: ExecResult, most: int) -> str:
    """Return what a command wrote and how it ended, for a player, in at most about `most` characters."""
    output = result.stdout + (b"\n" if result.stdout and result.stderr else b"") + result.stderr
    text = _CONTROL.sub("", output.decode(errors="replace").replace("\r\n", "\n"))
    omitted = result.omitted_stdout + result.omitted_stderr
    if len(text) > most or omitted:
        half = min(most, len(text)) // 2
        omitted += len(text) - 2 * half
        text = f"{text[:half]}\n[{omitted} characters left out]\n{text[len(text) - half :]}"
    if result.timed_out:
        end = f"[ended after {result.duration_s:.0f} s: its time was up]"
    else:
        end = f"[exit code {result.exit_code}]"
    return f"{text.rstrip()}\n{end}".lstrip("\n")
