"""Playing one seat of a session for an agent that only calls tools: the next step, and what the seat sees of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from arena.errors import OutOfOrderError, ResetNeededError, SessionGoneError, UnsupportedError
from arena.protocol import Act, Acted, Attach, Attached, Read, Records, Step, Stepped
from arena.server.access import Caller, Grant
from arena.server.hub import Hub
from arena.server.mcp.tools import View
from arena.types import Action, AgentID, SeatStep

__all__ = ["SeatPlay"]

_WAIT_S = 20.0
_LATER = "It is not your turn yet. Call observe to wait for it."
_NOTED = "Your action is noted; the other players have not acted yet. Call observe to see what follows."


class SeatPlay:
    """Plays a seat, as the owner of a session with one seat or by a seat's own capability.

    Args:
        hub: The server's hub.
        capability: Opens the session.
        wait_s: Seconds that a call waits for other seats at most; shorter than clients' own time limits where None.

    Raises:
        UnauthorizedError: The capability is none of this server's.
    """

    def __init__(self, hub: Hub, capability: str, wait_s: float | None = None) -> None:
        self.hub, self.wait_s = hub, _WAIT_S if wait_s is None else wait_s
        self.grant: Grant = hub.capabilities.open(capability)
        self._capability = capability
        self._caller = Caller(None)
        self._caller.add(self.grant)
        self._pending: asyncio.Future[Any] | None = None

    async def attach(self) -> Attached:
        """Return how the session stands; the seat that is played is the only one in `seats`.

        Raises:
            UnsupportedError: The capability is for watching, or owns a session with several seats.
            SessionGoneError: The session is gone.
        """
        attached = await self._ask(Attach(id=0, capability=self._capability))
        assert isinstance(attached, Attached)
        if attached.role == "watch":
            raise UnsupportedError("this capability is for watching; MCP needs one that plays a seat")
        if attached.status == "closed":
            raise SessionGoneError("the session is closed")
        if len(attached.seats) != 1:
            raise UnsupportedError(f"the session has {len(attached.seats)} seats; show the capability of one of them")
        return attached

    async def look(self, wait_s: float | None = None) -> View:
        """Return what the seat sees now; where it is not its turn, once it is or after `wait_s`.

        Args:
            wait_s: Another limit for this call.

        Raises:
            InvalidActionError: An action that had been noted was refused with those of the others.
        """
        if self._pending is not None:
            acted = await self._settled(self._pending)
            if acted is None:
                return await self._noted()
        attached = await self.attach()
        agent, last = _seat(attached), attached.next - 1
        steps = await self._read(agent, last - 1) or (await self._read(agent, -1))[-1:]
        is_due = agent in attached.acting or attached.status != "running"
        return await self._until_due(agent, last, steps, is_due=is_due, wait_s=wait_s)

    async def act(self, action: Action, request_id: str) -> View:
        """Take the seat's next action and return what it sees then, up to its next turn or for `wait_s`.

        Args:
            action: The action.
            request_id: A repeat with the same one is the same request.

        Raises:
            InvalidActionError: The action is not legal; nothing has changed.
            ResetNeededError: The episode is over.
            OutOfOrderError: It is not the seat's turn.
        """
        if self._pending is not None and not self._pending.done():
            raise OutOfOrderError(_NOTED)
        attached = await self.attach()
        agent = _seat(attached)
        if attached.status != "running":
            raise ResetNeededError("The episode is over; no action is possible any more.")
        if attached.role == "owner":
            return await self._step(agent, attached.next, action, request_id)
        if agent not in attached.acting:
            raise OutOfOrderError(_LATER)
        return await self._take_seat(agent, attached.next, action, request_id)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _step(self, agent: AgentID, index: int, action: Action, request_id: str) -> View:
        request = Step(id=request_id, session=self.grant.session, index=index, actions={agent: action})
        stepped = await self._ask(request)
        assert isinstance(stepped, Stepped)
        return View((stepped.record.time_step.seats[agent],), is_due=not stepped.record.time_step.is_last)

    async def _take_seat(self, agent: AgentID, index: int, action: Action, request_id: str) -> View:
        request = Act(id=request_id, session=self.grant.session, index=index, action=action, seat=agent)
        self._pending = asyncio.ensure_future(self._ask(request))
        self._pending.add_done_callback(_retrieve)
        acted = await self._settled(self._pending)
        if acted is None:
            return await self._noted()
        step = acted.record.step
        is_due = agent in acted.record.acting or step is None or step.is_last
        steps = await self._read(agent, index - 1) if step is None else [step]
        return await self._until_due(agent, index, steps, is_due=is_due)

    async def _settled(self, pending: asyncio.Future[Any]) -> Acted | None:
        """Return what an action led to, or None where that is not known after `wait_s`."""
        await asyncio.wait([pending], timeout=self.wait_s)
        if not pending.done():
            return None
        self._pending = None
        acted = pending.result()
        assert isinstance(acted, Acted)
        return acted

    async def _noted(self) -> View:
        attached = await self.attach()
        steps = await self._read(_seat(attached), attached.next - 2)
        return View(tuple(steps[-1:]), is_due=False, note=_NOTED)

    async def _until_due(
        self, agent: AgentID, last: int, steps: list[SeatStep], *, is_due: bool, wait_s: float | None = None
    ) -> View:
        """Return a view to which the steps after step `last` are added until the seat's action is due."""
        deadline = time.monotonic() + (self.wait_s if wait_s is None else wait_s)
        while not (is_due or steps[-1].is_last) and (left := deadline - time.monotonic()) > 0:
            records = await self._records(agent, last, left)
            steps += _steps(records, agent)
            last = records.next - 1
            is_due = agent in records.acting or records.status != "running"
        is_over = steps[-1].is_last
        return View(tuple(steps), is_due=is_due and not is_over, note="" if is_due or is_over else _LATER)

    async def _read(self, agent: AgentID, after: int) -> list[SeatStep]:
        return _steps(await self._records(agent, after, 0.0), agent)

    async def _records(self, agent: AgentID, after: int, wait_s: float) -> Records:
        seat = agent if self.grant.role == "seat" else None
        request = Read(id=0, session=self.grant.session, after=after, wait_s=wait_s, seat=seat)
        records = await self._ask(request)
        assert isinstance(records, Records)
        return records

    async def _ask(self, request: Any) -> Any:
        try:
            return await self.hub.ask(request, self._caller)
        finally:
            self.hub.release(self._caller)


def _seat(attached: Attached) -> AgentID:
    (agent,) = attached.seats
    return agent


def _steps(records: Records, agent: AgentID) -> list[SeatStep]:
    found = [record.time_step.seats.get(agent) for record in records.records]
    found += [record.step for record in records.seat_records]
    return [step for step in found if step is not None]


def _retrieve(pending: asyncio.Future[Any]) -> None:
    """Look at a failure that nobody may be waiting for."""
    if not pending.cancelled():
        pending.exception()
