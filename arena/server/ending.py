"""How sessions end: closed by their owners, or reaped because nobody holds or uses them any more."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from arena.errors import AgentError, ArenaError, ErrorRecord
from arena.protocol import Close, Closed, Truncate
from arena.recovery import check_usage
from arena.server.frames import Drop, Dropped
from arena.server.hosting import Host, Hosted
from arena.server.ledger import Finished, Ledger, Stored
from arena.server.matches import Matches
from arena.server.metrics import Metrics, SessionOutcome
from arena.server.sessions import Sessions
from arena.server.settings import ServerSettings
from arena.trace import EndRecord, EpisodeRecord
from arena.types import Limit, Usage, encode_json, encode_msgpack

__all__ = ["Closer", "episode_record"]

_log = logging.getLogger(__name__)
_REAPED = "the session was reaped"
_decode_dropped = msgspec.msgpack.Decoder(Dropped).decode
_decode_end = msgspec.msgpack.Decoder(EndRecord).decode


class Closer:
    """Ends sessions.

    Args:
        settings: How long a session may last and be idle.
        sessions: Where an ended session is removed from.
        host: Where it lives.
        ledger: Where its trace is kept.
        matches: Its remote seats.
        metrics: Counts how it ended.
    """

    def __init__(
        self,
        settings: ServerSettings,
        sessions: Sessions,
        host: Host,
        ledger: Ledger,
        matches: Matches,
        metrics: Metrics,
    ) -> None:
        self._settings, self._sessions, self._host = settings, sessions, host
        self._ledger, self._matches, self._metrics = ledger, matches, metrics
        self._ending: dict[str, asyncio.Task[EndRecord]] = {}
        self._truncating: dict[str, asyncio.Task[None]] = {}

    async def close(self, request: Close) -> Closed:
        """Close a session, or say how it was closed.

        Raises:
            SessionGoneError: It is neither open nor kept.
            UsageError: What it is said to have cost cannot be kept.
        """
        if request.usage is not None:
            check_usage(request.usage)
        hosted = self._sessions.find(request.session)
        if hosted is None:
            end = _decode_end(self._sessions.closed(request.session).end)
        else:
            end = await asyncio.shield(self._end(hosted, request.error, request.usage))
        return Closed(id=request.id, session=request.session, end=end)

    def reap(self, now: float, unix: float) -> None:
        """End the sessions whose time has come.

        Args:
            now: Monotonic seconds.
            unix: Unix seconds.
        """
        for hosted in self._sessions:
            if hosted.id in self._ending:
                continue
            if (why := self._why(hosted, now)) is not None:
                _log.info("the session is reaped: %s", why, extra={"session": hosted.id})
                self._end(hosted, AgentError(f"{_REAPED}: {why}").record())
            elif unix - hosted.stored.created_at > self._settings.max_wall_time_s and not hosted.over:
                if hosted.id not in self._truncating:  # a step may be under way for long
                    task = self._truncating[hosted.id] = asyncio.create_task(self._stop_the_clock(hosted))
                    task.add_done_callback(partial(self._stopped, hosted.id))

    def cancel(self) -> None:
        """Give up what is ending: the server stops."""
        for task in [*self._ending.values(), *self._truncating.values()]:
            task.cancel()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _why(self, hosted: Hosted, now: float) -> str | None:
        """Return why a session is to be reaped, or None."""
        lease_s, unseen_s = hosted.stored.lease_s, now - hosted.last_seen
        if hosted.holders <= 0 and unseen_s > lease_s:
            return f"nobody came back for {lease_s:g} s"
        if unseen_s > max(self._settings.idle_s, lease_s):
            return f"it was idle for {unseen_s:.0f} s"
        return None

    async def _stop_the_clock(self, hosted: Hosted) -> None:
        """Truncate a session that has lasted as long as the server allows."""
        allowed_s = self._settings.max_wall_time_s
        limit = Limit("wall_time", allowed_s, allowed_s)
        request = Truncate(id=0, session=hosted.id, index=len(hosted.entries), limit=limit)
        with suppress(ArenaError):
            await self._host.ask(hosted, request)

    def _stopped(self, id: str, task: asyncio.Task[None]) -> None:
        self._truncating.pop(id, None)

    def _end(self, hosted: Hosted, why: ErrorRecord | None, usage: Usage | None = None) -> asyncio.Task[EndRecord]:
        """Begin to end a session, once."""
        task = self._ending.get(hosted.id)
        if task is None:
            task = self._ending[hosted.id] = asyncio.create_task(self._finish(hosted, why, usage))
            task.add_done_callback(lambda done: self._ended(hosted.id, done))
        return task

    def _ended(self, id: str, task: asyncio.Task[Any]) -> None:
        self._ending.pop(id, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the session could not be ended: %r", task.exception(), extra={"session": id})

    async def _finish(self, hosted: Hosted, why: ErrorRecord | None, usage: Usage | None) -> EndRecord:
        stored = hosted.stored
        self._matches.close(hosted.id)
        try:
            answer = await self._host.request(hosted, lambda req: Drop(req, stored.id, why, usage))
            dropped = _decode_dropped(answer.body)
            end, lines = _decode_end(dropped.end), dropped.lines
        except ArenaError as error:  # it could not even be rebuilt
            failure = hosted.failure or error
            end = EndRecord(outcome="failed", steps=max(0, len(hosted.entries) - 1), error=failure.record())
            lines = b"".join(encode_json(record) + b"\n" for record in (episode_record(stored), end))
        self._host.leave(hosted)
        self._ledger.finish(
            Finished(stored, time.time(), encode_msgpack(end), Finished.compress(lines), dict(end.returns), end.steps)
        )
        self._sessions.remove(hosted)
        self._metrics.env(stored.opening.env).ended(_outcome(end))
        hosted.tell()
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ledger.after(lambda: None if safe.done() else safe.set_result(None))
        await safe
        return end


def episode_record(stored: Stored) -> EpisodeRecord:
    """Return the first line of a session's trace, without what only its worker knows."""
    opening = stored.opening
    return EpisodeRecord(
        episode=stored.id,
        env=opening.env,
        options=opening.options,
        task=opening.task,
        seed=opening.seed,
        limits=opening.limits,
    )


def _outcome(end: EndRecord) -> SessionOutcome:
    if end.error is None:
        return "over"
    if end.error.code != "AGENT":
        return "failed"
    return "expired" if end.error.message.startswith(_REAPED) else "abandoned"
