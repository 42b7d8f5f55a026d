"""Remote seats: several clients play one session, each in its own seat.

A seat's action is checked when it comes, and kept until every acting seat has acted; then the step is taken. A seat
that has not acted when its deadline passes is played by its default. What a seat is told is its own view alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec

from arena.errors import ArenaError, InvalidActionError, OutOfOrderError, ResetNeededError
from arena.protocol import Read, Records, SeatRecord, SeatTerms, Step, Stepped
from arena.server.frames import Check, Default
from arena.server.hosting import Host, Hosted
from arena.trace import StepRecord
from arena.types import Action, AgentID

__all__ = ["Match", "seat_view"]

_log = logging.getLogger(__name__)
_decode_action = msgspec.msgpack.Decoder(Action).decode
_DEFAULTED = {"default": True}


def seat_view(record: StepRecord, seat: AgentID) -> SeatRecord:
    """Return what a seat may see of a step."""
    return SeatRecord(
        index=record.index,
        step=record.time_step.seats.get(seat),
        action=record.actions.get(seat),
        defaulted=record.decisions.get(seat) == _DEFAULTED,
        acting=record.time_step.acting,
        limit=record.limit,
    )


class Match:
    """The seats of one session that is played remotely.

    Args:
        host: Reaches the session.
        hosted: The session.
        terms: How each seat is played.
        latest: The session's latest step.
    """

    def __init__(self, host: Host, hosted: Hosted, terms: dict[AgentID, SeatTerms], latest: StepRecord) -> None:
        self._host, self._hosted, self._terms = host, hosted, terms
        self._latest = latest
        self._actions: dict[AgentID, Action] = {}
        self._defaulted: set[AgentID] = set()
        self._taken: asyncio.Future[StepRecord] = asyncio.get_running_loop().create_future()
        self._due_since = time.monotonic()
        self._agent_s: dict[AgentID, float] = {}
        self._stepping = False
        self._alarms: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._arm()

    async def act(self, seat: AgentID, index: int, action: Action) -> SeatRecord:
        """Play a seat's part of a step, and return the step once every acting seat has played.

        Raises:
            OutOfOrderError: Another step is due, or the seat has played it otherwise.
            InvalidActionError: The action is not legal.
            ResetNeededError: The episode is over.
        """
        if index <= self._latest.index:
            return await self._recorded(seat, index, action)
        if index != self._latest.index + 1:
            raise OutOfOrderError(f"step {index} was sent; the next step is {self._latest.index + 1}")
        if not self._latest.time_step.acting:
            raise ResetNeededError("the episode is over; begin a new one")
        if seat not in self._actions:
            await self._admit(seat, index, action)
        if self._latest.index >= index:
            return await self._recorded(seat, index, action)
        if self._actions.get(seat) != action:
            raise OutOfOrderError(f"seat {seat!r} has already played step {index} otherwise")
        taken = self._taken
        self._try_step()
        return seat_view(await asyncio.shield(taken), seat)

    def close(self) -> None:
        """Forget the deadlines, and tell whoever waits that the session is closed."""
        for alarm in self._alarms:
            alarm.cancel()
        for task in self._tasks:
            task.cancel()
        self._fail(ResetNeededError("the session is closed"))

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _admit(self, seat: AgentID, index: int, action: Action, *, defaulted: bool = False) -> None:
        """Have an action checked, and keep it."""
        due_s = time.monotonic() - self._due_since
        try:
            await self._host.request(self._hosted, lambda req: Check(req, self._hosted.id, seat, action))
        except InvalidActionError as error:
            if error.details.get("truncated"):
                await self._catch_up()
            raise
        if self._latest.index + 1 == index and seat not in self._actions:
            self._actions[seat] = action
            self._agent_s[seat] = due_s
            if defaulted:
                self._defaulted.add(seat)

    async def _recorded(self, seat: AgentID, index: int, action: Action) -> SeatRecord:
        """Answer the repeat of an action."""
        record = await self._read(index)
        if index < 1 or record.actions.get(seat) != action:
            raise OutOfOrderError(
                f"step {index} is recorded, with another action of seat {seat!r}; "
                f"the next step is {self._latest.index + 1}"
            )
        return seat_view(record, seat)

    async def _read(self, index: int) -> StepRecord:
        if index == self._latest.index:
            return self._latest
        reply = await self._host.ask(self._hosted, Read(id=0, session=self._hosted.id, after=index - 1))
        records = reply.records if isinstance(reply, Records) else []
        if not records:
            raise OutOfOrderError(f"there is no step {index}")
        return records[0]

    async def _catch_up(self) -> None:
        """Learn of a step that the session took by itself: a limit that was reached."""
        self._took(await self._read(self._latest.index + 1))

    def _try_step(self) -> None:
        acting = self._latest.time_step.acting
        if not self._stepping and acting and all(seat in self._actions for seat in acting):
            self._stepping = True
            self._spawn(self._step(acting))

    async def _step(self, acting: Iterable[AgentID]) -> None:
        step = Step(
            id=0,
            session=self._hosted.id,
            index=self._latest.index + 1,
            actions={seat: self._actions[seat] for seat in acting},
            agent_s=self._agent_s,
            decisions={seat: _DEFAULTED for seat in self._defaulted},
        )
        try:
            reply = await self._host.ask(self._hosted, step)
        except InvalidActionError as error:  # legal one by one, but not together
            self._stepping = False
            self._refused(error)
        except ArenaError as error:
            self._stepping = False
            self._fail(error)
        else:
            self._stepping = False
            assert isinstance(reply, Stepped)
            self._took(reply.record)

    def _refused(self, error: InvalidActionError) -> None:
        culprit = error.details.get("agent")
        for seat in [culprit] if culprit in self._actions else list(self._actions):
            del self._actions[seat]
        self._fail(error)
        if error.details.get("truncated"):
            self._spawn(self._catch_up())

    def _took(self, record: StepRecord) -> None:
        if record.index <= self._latest.index:
            return
        self._latest = record
        self._actions, self._agent_s, self._defaulted = {}, {}, set()
        taken, self._taken = self._taken, asyncio.get_running_loop().create_future()
        taken.set_result(record)
        self._due_since = time.monotonic()
        self._arm()

    def _fail(self, error: ArenaError) -> None:
        taken, self._taken = self._taken, asyncio.get_running_loop().create_future()
        if not taken.done():
            taken.set_exception(error)
            taken.exception()  # nobody may be waiting

    # -- deadlines --------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        for alarm in self._alarms:
            alarm.cancel()
        loop, index = asyncio.get_running_loop(), self._latest.index + 1
        self._alarms = [
            loop.call_later(deadline_s, self._passed, seat, index)
            for seat in self._latest.time_step.acting
            if (deadline_s := self._terms.get(seat, SeatTerms()).deadline_s) is not None
        ]

    def _passed(self, seat: AgentID, index: int) -> None:
        if self._latest.index + 1 == index and seat not in self._actions:
            self._spawn(self._play_default(seat, index))

    async def _play_default(self, seat: AgentID, index: int) -> None:
        """Play a seat whose deadline has passed: its default, or what is drawn where that is not legal."""
        default = self._terms[seat].default
        try:
            if default is not None:
                try:
                    await self._admit(seat, index, default, defaulted=True)
                except InvalidActionError as error:
                    _log.info("default of seat %r is not legal: %s", seat, error, extra={"session": self._hosted.id})
            if seat not in self._actions and self._latest.index + 1 == index:
                answer = await self._host.request(self._hosted, lambda req: Default(req, self._hosted.id, seat))
                await self._admit(seat, index, _decode_action(answer.body), defaulted=True)
        except ArenaError as error:
            _log.warning("seat %r could not be played: %s", seat, error, extra={"session": self._hosted.id})
            self._fail(error)
        self._try_step()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
