"""A seat as MCP tools: its own tools, `act` where it acts by values too, and `observe`.

An agent is shown what its seat sees. Reward and score are for whoever trains or judges it, and so are beginning and
ending an episode: none of them is a tool, and none of them is in a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arena.errors import InvalidActionError
from arena.rendering import legal_text
from arena.server.jsonrpc import INVALID_PARAMS, RpcError
from arena.server.plain_seat import PlainSeat
from arena.types import Action, SeatStep, ToolCall

__all__ = ["RESERVED_NAMES", "SeatTools", "View", "exposed_name", "refusal", "result"]

RESERVED_NAMES = frozenset(
    ["reset", "step", "state", "close", "verify", "score", "seed_session", "aggregate_metrics", "mcp", "act", "observe"]
)
"""Names that no tool of an environment has here: those of the verbs that agents never get, and of our own tools."""

_MOST_LEGAL = 200


@dataclass(frozen=True, slots=True)
class View:
    """What a seat may know about where it stands.

    Attributes:
        steps: What the seat was given, the latest last; never empty.
        is_due: Its action is due.
        note: What it is told besides.
    """

    steps: tuple[SeatStep, ...]
    is_due: bool
    note: str = ""


class SeatTools:
    """The tools of one seat.

    Args:
        seat: The seat.
    """

    def __init__(self, seat: PlainSeat) -> None:
        self.seat = seat
        self._own: dict[str, str] = {}
        for tool in seat.info.tools:
            self._own[exposed_name(tool.name, self._own.keys() | {t.name for t in seat.info.tools})] = tool.name

    def listing(self, *, with_observe: bool = True) -> list[dict[str, Any]]:
        """Return the tools as MCP lists them."""
        tools = {tool.name: tool for tool in self.seat.info.tools}
        listed = [_tool(shown, tools[own].description, tools[own].parameters) for shown, own in self._own.items()]
        if self.seat.action_schema is not None:
            listed.append(_tool("act", _ACT, _object({"action": self.seat.action_schema})))
        if with_observe:
            listed.append(_tool("observe", _OBSERVE, _object({})) | {"annotations": {"readOnlyHint": True}})
        return listed

    def action(self, name: str, arguments: dict[str, Any]) -> Action:
        """Return the action that a call means.

        Raises:
            RpcError: There is no such tool.
            InvalidActionError: The arguments of `act` are not what its schema says.
        """
        if name in self._own:
            return ToolCall(self._own[name], arguments)
        if name != "act" or self.seat.action_schema is None:
            raise RpcError(INVALID_PARAMS, f"Unknown tool: {name[:80]}")
        if arguments.keys() != {"action"}:
            raise InvalidActionError("act takes one argument, action")
        return self.seat.action(arguments["action"])

    def describe(self, view: View) -> str:
        """Return a view as text for a language model."""
        parts = [self.seat.text(step.observation) for step in view.steps]
        last = view.steps[-1]
        if last.legal_actions is not None and view.is_due:
            parts.append(f"Legal actions: {legal_text(last.legal_actions, _MOST_LEGAL)}")
        if last.is_last:
            parts.append("The episode is over.")
        if view.note:
            parts.append(view.note)
        return "\n\n".join(parts)

    def structure(self, view: View) -> dict[str, Any]:
        """Return a view as data."""
        last = view.steps[-1]
        data: dict[str, Any] = {
            "observation": self.seat.value(last.observation),
            "legal_actions": None if last.legal_actions is None else list(last.legal_actions),
            "terminated": last.terminated,
            "truncated": last.truncated,
            "is_due": view.is_due,
        }
        if len(view.steps) > 1:
            data["earlier_observations"] = [self.seat.value(step.observation) for step in view.steps[:-1]]
        return data


def exposed_name(name: str, taken: set[str]) -> str:
    """Return the name under which a tool of an environment is shown: ``env_`` before a reserved one."""
    if name.casefold() not in RESERVED_NAMES:
        return name
    name = f"env_{name}"
    while name in taken:
        name = f"env_{name}"
    return name


def result(tools: SeatTools, view: View, *, structured: bool) -> dict[str, Any]:
    """Return the result of a call."""
    told: dict[str, Any] = {"content": _text(tools.describe(view)), "isError": False}
    if structured:
        told["structuredContent"] = tools.structure(view)
    return told


def refusal(message: str) -> dict[str, Any]:
    """Return the result of a call that changed nothing, for the agent to read and do better."""
    return {"content": _text(message), "isError": True}


_ACT = (
    "Take your next action. The answer is what you see afterwards. Where legal actions are listed, choose one of them."
)
_OBSERVE = (
    "Show again what you see now, without acting. Where it is another player's turn, this waits a little for yours."
)


def _tool(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "description": description, "inputSchema": schema}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    names: Sequence[str] = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]
