"""What those who run the server see of its sessions: rows, and windows into transcripts."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

import msgspec

from arena.errors import ArenaError, UnknownIdError
from arena.protocol import Status
from arena.server.ending import episode_record
from arena.server.frames import Answer, Survey
from arena.server.hosting import Hosted, settle
from arena.server.ledger import Finished, Ledger
from arena.server.overview import SessionRow, SessionView
from arena.server.pool import Job, Pool
from arena.server.reading import Reader
from arena.server.sessions import Sessions
from arena.trace import EndRecord, EpisodeRecord, StepRecord, read_lines

__all__ = ["Watcher"]

_log = logging.getLogger(__name__)
_SURVEY_FOR_S = 5.0
_decode_end = msgspec.msgpack.Decoder(EndRecord).decode


class Watcher:
    """Looks at sessions without touching them.

    Args:
        sessions: The open ones.
        ledger: The closed ones.
        reader: Reads the open ones.
        pool: Knows what they have earned.
    """

    def __init__(self, sessions: Sessions, ledger: Ledger, reader: Reader, pool: Pool) -> None:
        self._sessions, self._ledger, self._reader, self._pool = sessions, ledger, reader, pool
        self._watched_at = -_SURVEY_FOR_S

    def overview(self) -> list[SessionRow]:
        """Return the open sessions, the newest first; their returns are a second or two old."""
        self._watched_at = time.monotonic()
        return [_row(hosted) for hosted in self._sessions][::-1]

    def finished(self, count: int) -> list[SessionRow]:
        """Return the last closed sessions, the latest first."""
        return [_finished_row(finished) for finished in self._ledger.recent(count)]

    async def view(self, id: str, start: int, stop: int) -> SessionView:
        """Return a window of a session's transcript, open or closed.

        Raises:
            UnknownIdError: There is no such session, or it is no longer kept.
        """
        self._watched_at = time.monotonic()
        hosted = self._sessions.find(id)
        if hosted is not None:
            return await self._open_view(hosted, start, stop)
        kept = self._ledger.finished(id)
        if kept is None:
            raise UnknownIdError(f"no session {id[:80]!r}, or it is no longer kept")
        episode = read_lines(kept.trace())
        return SessionView(
            row=_finished_row(kept),
            header=_without_data(episode.record),
            seats={},
            records=episode.steps[start:stop],
            total=len(episode.steps),
            end=episode.end,
        )

    async def survey(self) -> None:
        """Ask the workers what their sessions have earned, while somebody watches."""
        if time.monotonic() - self._watched_at > _SURVEY_FOR_S:
            return
        for worker in list(self._pool.workers):
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            worker.send(Job(Survey, partial(settle, future), partial(_lost, future)))
            answer = await future
            for id, returns in ({} if answer.code else msgspec.msgpack.decode(answer.body)).items():
                if (hosted := self._sessions.find(id)) is not None:
                    hosted.rewarded = returns

    async def _open_view(self, hosted: Hosted, start: int, stop: int) -> SessionView:
        records: list[StepRecord] = []
        end = None
        try:
            while True:
                found = await self._reader.records(hosted, start + len(records) - 1)
                records, end = records + found.records, found.end
                if not found.records or start + len(records) >= min(stop, found.next):
                    break
        except ArenaError as error:
            _log.info("the session cannot be read: %s", error, extra={"session": hosted.id})
        return SessionView(
            row=_row(hosted),
            header=_without_data(episode_record(hosted.stored)),
            seats={} if hosted.opened is None else hosted.opened.seats,
            records=records[: max(0, stop - start)],
            total=len(hosted.entries),
            end=end,
        )


_LOST = Answer(0, code="LOST")


def _lost(future: asyncio.Future[Answer], job: Job, at_work: int) -> None:
    settle(future, _LOST)


def _row(hosted: Hosted) -> SessionRow:
    status: Status = "failed" if hosted.failure else "over" if hosted.over else "running"
    opening = hosted.stored.opening
    return SessionRow(
        id=hosted.id,
        env=opening.env,
        task=opening.task.id,
        split=opening.task.split,
        seed=opening.seed,
        owner=hosted.stored.owner,
        status=status,
        steps=max(0, len(hosted.entries) - 1),
        returns=hosted.rewarded,
        created_at=hosted.stored.created_at,
        worker=None if hosted.worker is None else hosted.worker.number,
        error=None if hosted.failure is None else hosted.failure.record(),
    )


def _finished_row(finished: Finished) -> SessionRow:
    stored, end = finished.stored, _decode_end(finished.end)
    opening = stored.opening
    return SessionRow(
        id=stored.id,
        env=opening.env,
        task=opening.task.id,
        split=opening.task.split,
        seed=opening.seed,
        owner=stored.owner,
        status="failed" if end.error is not None else "closed",
        steps=finished.steps,
        returns=finished.returns,
        created_at=stored.created_at,
        ended_at=finished.ended_at,
        score=end.score,
        error=end.error,
    )


def _without_data(record: EpisodeRecord) -> EpisodeRecord:
    return msgspec.structs.replace(record, task=msgspec.structs.replace(record.task, data={}))
