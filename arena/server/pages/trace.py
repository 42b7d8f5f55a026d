"""The trace viewer's model: which steps a page shows, and each step seat by seat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from arena.server.pages.text import value_text
from arena.trace import StepRecord
from arena.types import Action, AgentID, Array, SeatStep, ToolCall

__all__ = ["STEPS_PER_PAGE", "Page", "SeatColumn", "ShownAction", "page_at", "seat_columns", "shown_action"]

STEPS_PER_PAGE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Items `start` to `stop` of `total`: page `number` of `pages`, both from 1."""

    number: int
    pages: int
    start: int
    stop: int
    total: int


@dataclass(frozen=True, slots=True)
class ShownAction:
    """An action, ready to be read.

    Attributes:
        kind: ``text``, ``choice``, ``tool call`` or ``array``.
        text: The text, the number, the tool's name, or the elements.
        arguments: Of a tool call; the first 100.
    """

    kind: str
    text: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeatColumn:
    """What one seat did at a step, and what it was given.

    Attributes:
        seat: The seat.
        action: What it did; None where it was not to act.
        step: What it was given; None where it had ended before.
        agent_s: Seconds that it took to decide, where that is known.
        decision: What its agent wanted recorded.
        acts_next: Whether its action is due next.
    """

    seat: AgentID
    action: ShownAction | None
    step: SeatStep | None
    agent_s: float | None
    decision: Mapping[str, Any]
    acts_next: bool


def page_at(total: int, size: int, *, number: int | None = None, item: int | None = None) -> Page:
    """Return a page of `total` items: page `number`, or the one that shows `item`; the nearest where there is none."""
    pages = max(1, -(-total // size))
    wanted = item // size + 1 if item is not None else 1 if number is None else number
    number = min(max(wanted, 1), pages)
    return Page(number, pages, (number - 1) * size, min(number * size, total), total)


def shown_action(action: Action) -> ShownAction:
    """Return an action in words."""
    match action:
        case ToolCall():
            return ShownAction("tool call", action.name, dict(islice(action.arguments.items(), 100)))
        case Array():
            return ShownAction("array", value_text(action))
        case int():
            return ShownAction("choice", str(action))
    return ShownAction("text", str(action))


def seat_columns(record: StepRecord, seats: Iterable[AgentID]) -> list[SeatColumn]:
    """Return a step seat by seat: in the environment's order, then any that the environment did not name."""
    return [_column(record, seat) for seat in dict.fromkeys([*seats, *record.actions, *record.time_step.seats])]


def _column(record: StepRecord, seat: AgentID) -> SeatColumn:
    action = record.actions.get(seat)
    return SeatColumn(
        seat=seat,
        action=None if action is None else shown_action(action),
        step=record.time_step.seats.get(seat),
        agent_s=record.agent_s.get(seat),
        decision=record.decisions.get(seat, {}),
        acts_next=seat in record.time_step.acting,
    )
