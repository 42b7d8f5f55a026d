"""Flows: what a client asks in order to do one thing, written once for both drivers.

A flow is a generator without I/O: it yields a request, is sent the reply (or thrown the error), and returns its result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from arena.env import SeatSpec
from arena.errors import ArenaError, InvalidActionError
from arena.protocol import Reply, Request, SeatInfo
from arena.spaces import rebuild
from arena.types import Action, AgentID, ToolCall, as_action, decode_json, encode_json, encode_msgpack

__all__ = ["UNSENDABLE", "Flow", "advance", "checked_action", "run_awaiting", "run_blocking", "seat_specs"]
T = TypeVar("T")
Flow: TypeAlias = Generator[Request, Any, T]

UNSENDABLE = ToolCall("")
"""Sent in the place of an action that cannot be sent: no tool has this name, so that the server refuses it and counts
the refusal as it counts any other."""


def run_blocking(flow: Flow[T], ask: Callable[[Request], Reply]) -> T:
    """Run a flow with a function that asks, and return its result."""
    outcome: Reply | ArenaError | None = None
    while True:
        try:
            request = advance(flow, outcome)
        except StopIteration as over:
            result: T = over.value
            return result
        try:
            outcome = ask(request)
        except ArenaError as error:
            outcome = error


async def run_awaiting(flow: Flow[T], ask: Callable[[Request], Awaitable[Reply]]) -> T:
    """Run a flow with a coroutine that asks, and return its result."""
    outcome: Reply | ArenaError | None = None
    while True:
        try:
            request = advance(flow, outcome)
        except StopIteration as over:
            result: T = over.value
            return result
        try:
            outcome = await ask(request)
        except ArenaError as error:
            outcome = error


def advance(flow: Flow[Any], outcome: Reply | ArenaError | None) -> Request:
    """Give a flow what its last request led to, None at first, and return the next request.

    Raises:
        StopIteration: The flow is over; `value` is its result.
    """
    if isinstance(outcome, ArenaError):
        return flow.throw(outcome)
    return flow.send(outcome)


def checked_action(value: Any) -> Action:
    """Return an action that arrives as it was sent.

    Raises:
        InvalidActionError: The value is no action, or one that no message can hold.
    """
    action = as_action(value)
    try:
        if isinstance(action, ToolCall):
            if decode_json(encode_json(action.arguments)) != action.arguments:
                raise ValueError("the arguments must be plain JSON values")
            encode_msgpack(action)
        elif isinstance(action, str) and not action.isascii():
            action.encode()
        elif isinstance(action, int) and not -(2**63) <= action < 2**64:
            raise ValueError("it has more than 64 bits")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidActionError(f"{repr(action)[:80]} is no action that can be sent: {error}") from error
    return action


def seat_specs(seats: dict[AgentID, SeatInfo]) -> dict[AgentID, SeatSpec]:
    """Return what each seat sees and can do, spaces rebuilt.

    Raises:
        UsageError: A space is described in a way that this client does not know.
    """
    return {
        agent: SeatSpec(
            rebuild(info.observation_space),
            None if info.action_space is None else rebuild(info.action_space),
            info.tools,
            info.instructions,
        )
        for agent, info in seats.items()
    }
