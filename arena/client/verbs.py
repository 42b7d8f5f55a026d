"""A remote session's verbs, without I/O: what to ask for each, and what its answer means."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from arena.client.episode import Episode
from arena.client.flow import UNSENDABLE, Flow, checked_action, seat_specs
from arena.errors import ArenaError, BoundaryError, InvalidActionError, ResetNeededError, TransportError, UsageError
from arena.protocol import (
    Attached,
    Close,
    Closed,
    Created,
    Expert,
    ExpertAction,
    Fork,
    GetTrace,
    Read,
    Records,
    Request,
    Step,
    StepItem,
    Stepped,
    TraceText,
    Truncate,
)
from arena.trace import EndRecord, StepRecord
from arena.types import Action, AgentID, Limit, LimitKind, SeatStep, Task, Usage

__all__ = ["EpisodeVerbs"]

_log = logging.getLogger(__name__)


class EpisodeVerbs(Episode):
    """An episode with a flow for each verb; the drivers' sessions run them."""

    def _open(self) -> Flow[StepRecord]:
        if self.journal:
            return self.journal[0]
        if self.status != "new" or self._create is None:
            self._raise_not_running()
        try:
            created: Created = yield self._create
        except BoundaryError as error:
            self.fail(error)
            raise
        self._begin(created)
        self._take(created.record)
        return self.journal[0]

    def _adopt(self, capability: str, attached: Attached) -> Flow[None]:
        """Take over a session that somebody else began."""
        self.id, self.capability = attached.session, capability
        if attached.status == "closed":  # what is left are its trace and its verdict
            self.status = "closed"
            return
        task = attached.task
        if task is None or attached.seed is None or attached.limits is None or attached.lease_s is None:
            raise TransportError("the server did not say what the session is about")
        self.task, self.seed, self.limits = Task(task.id, task.split), attached.seed, attached.limits
        self.lease_s, self.seats, self.status = attached.lease_s, seat_specs(attached.seats), "running"
        yield from self._read(0.0)

    # -- playing ----------------------------------------------------------------------------------------------------

    def _step(
        self,
        index: int,
        actions: Mapping[AgentID, Any],
        usage: Usage | None,
        agent_s: Mapping[AgentID, float] | None,
        decisions: Mapping[AgentID, dict[str, Any]] | None,
    ) -> Flow[StepRecord]:
        item, unsendable = self._item(index, actions, usage, agent_s, decisions)
        request = Step(id=0, **{name: getattr(item, name) for name in item.__struct_fields__})
        try:
            outcome = yield request
        except ArenaError as error:
            outcome = error
        return (yield from self._stepped(index, outcome, unsendable))

    def _item(
        self,
        index: int,
        actions: Mapping[AgentID, Any],
        usage: Usage | None = None,
        agent_s: Mapping[AgentID, float] | None = None,
        decisions: Mapping[AgentID, dict[str, Any]] | None = None,
    ) -> tuple[StepItem, dict[AgentID, InvalidActionError]]:
        """Return the step to be sent, and which actions it stands in for because they cannot be sent."""
        if self.status != "running" and index >= len(self.journal):
            self._raise_not_running()
        self.spend(usage)
        sent: dict[AgentID, Action] = {}
        unsendable: dict[AgentID, InvalidActionError] = {}
        for agent, value in actions.items():
            try:
                sent[agent] = checked_action(value)
            except InvalidActionError as error:
                sent[agent], unsendable[agent] = UNSENDABLE, error
        item = StepItem(
            session=self.id,
            index=index,
            actions=sent,
            usage=self._unsent,
            agent_s=dict(agent_s or {}),
            decisions=dict(decisions or {}),
        )
        return item, unsendable

    def _stepped(
        self, index: int, outcome: Stepped | ArenaError, unsendable: Mapping[AgentID, InvalidActionError]
    ) -> Flow[StepRecord]:
        """Take down what a step led to, and return its record or raise its error."""
        if isinstance(outcome, InvalidActionError):
            yield from self._refused(outcome, unsendable)
        if isinstance(outcome, ArenaError):
            raise self._failure(outcome)
        return self._advance(index, outcome)

    def _refused(self, error: InvalidActionError, unsendable: Mapping[AgentID, InvalidActionError]) -> Flow[None]:
        self.refused += 1
        self._unsent = None
        over = bool(error.details.get("truncated"))
        own = unsendable.get(error.details.get("agent", ""))
        if own is not None:
            error.message = own.message + ("; the episode is over, because a limit was reached" if over else "")
        if over:
            yield from self._read(0.0)

    def _advance(self, index: int, reply: Stepped) -> StepRecord:
        self._unsent = None
        self._end = self._end or reply.end
        self._take(reply.record)
        return self.journal[index]

    def _truncate(self, kind: LimitKind, value: float, allowed: float) -> Flow[StepRecord]:
        if self.status != "running":
            self._raise_not_running()
        index = len(self.journal)
        limit = Limit(kind, float(value), float(allowed))
        request = Truncate(id=0, session=self.id, index=index, limit=limit, usage=self._unsent)
        reply: Stepped = yield from self._asked(request)
        return self._advance(index, reply)

    def _expert(self, agent: AgentID, kind: str | None) -> Flow[Action]:
        if self.status != "running":
            self._raise_not_running()
        reply: ExpertAction = yield from self._asked(Expert(id=0, session=self.id, seat=agent, kind=kind))
        return reply.action

    def _read(self, wait_s: float) -> Flow[list[StepRecord]]:
        known = last = len(self.journal)
        reply: Records = yield from self._asked(Read(id=0, session=self.id, after=known - 1, wait_s=wait_s))
        for record in reply.records:
            self._take(record)
        while last < len(self.journal) < reply.next:  # a page of many
            last = len(self.journal)
            reply = yield from self._asked(Read(id=0, session=self.id, after=last - 1))
            for record in reply.records:
                self._take(record)
        self._end = self._end or reply.end
        if self.status not in ("failed", "closed"):
            self.status = reply.status
        return self.journal[known:]

    def _act(self, action: Any) -> Flow[SeatStep]:
        acting = self.acting
        if len(acting) != 1:
            due = ", ".join(acting) or "nobody"
            raise UsageError(f"act plays the one seat whose action is due; due are those of {due}: use step")
        record = yield from self._step(len(self.journal), {acting[0]: action}, None, None, None)
        return record.time_step.seats[acting[0]]

    # -- forks, traces, the end -------------------------------------------------------------------------------------

    def _fork(self, twin: EpisodeVerbs, at: int | None) -> Flow[None]:
        """Make `twin`, a new episode of the same environment, stand where this one stood after step `at`."""
        if self.status == "new":
            raise UsageError("a session is forked once it is open")
        created: Created = yield from self._asked(Fork(id=0, session=self.id, key=uuid4().hex, at=at))
        twin._begin(created)
        for record in self.journal[: created.record.index]:
            twin._take(record)
        if len(twin.journal) < created.record.index:
            yield from twin._read(0.0)
        twin._take(created.record)
        twin.usage = sum((record.usage for record in twin.journal if record.usage), Usage())

    def _trace(self) -> Flow[str]:
        reply: TraceText = yield from self._asked(GetTrace(id=0, session=self.id))
        return reply.lines

    def _finish(self) -> Flow[EndRecord]:
        if self._end is None or (self.error is not None and self._end.score is not None):
            if self.status in ("new", "running"):
                raise ResetNeededError("the episode is still running; it is scored once it is over")
            try:
                self._end = self._failed_end() if self.error is not None else (yield from self._closing()).end
            except BoundaryError as error:  # a verdict that cannot be had is none, and never a score
                self.fail(error)
                self._end = self._failed_end()
        return self._end

    def _closing(self) -> Flow[Closed]:
        error = None if self.error is None else self.error.record()
        closed: Closed = yield from self._asked(Close(id=0, session=self.id, error=error, usage=self._unsent))
        return closed

    def _close(self) -> Flow[None]:
        """Let the server's session go; what goes wrong is logged, because the episode is over."""
        if self.status == "closed":
            return
        opened, self.status = bool(self.id), "closed"
        if not opened:
            return
        try:
            reply = yield from self._closing()
        except ArenaError as error:
            _log.info("session %s was not closed: %s", self.id, error)
        else:
            self._end = self._end or reply.end

    def _asked(self, request: Request) -> Flow[Any]:
        try:
            return (yield request)
        except ArenaError as error:
            raise self._failure(error) from error.__cause__
