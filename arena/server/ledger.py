"""The ledger: what must survive of every session, and the traces of those that are closed.

`Ledger` keeps it in memory; `DurableLedger` also in an SQLite file (write-ahead logging), which a thread of its own
writes in groups: whatever was done in one turn of the event loop is committed together. An answer leaves the server
only after the step that it answers has been committed, so a server that is killed forgets no step that somebody was
told about.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import secrets
import sqlite3
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from arena.errors import ConfigError, ErrorRecord
from arena.protocol import SeatTerms
from arena.recovery import Opening
from arena.server.frames import Refusal
from arena.session import Counts
from arena.types import AgentID

__all__ = ["DurableLedger", "Finished", "Ledger", "Standing", "Stored"]

_log = logging.getLogger(__name__)
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, stored BLOB NOT NULL, standing BLOB);
CREATE TABLE IF NOT EXISTS entries (session TEXT, step INTEGER, entry BLOB NOT NULL, PRIMARY KEY (session, step))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS finished (number INTEGER PRIMARY KEY, id TEXT UNIQUE, finished BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS server (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """What never changes about a session.

    Attributes:
        id: Its id.
        owner: Name of the principal that created it.
        key: The key that it was created with.
        opening: What it is played on.
        lease_s: Its lease.
        created_at: Unix seconds.
        begin: Index of the step that it began at: 0, or the one it was forked at.
        seats: The terms of its remote seats, if it has any.
    """

    id: str
    owner: str
    key: str
    opening: Opening
    lease_s: float
    created_at: float
    begin: int = 0
    seats: dict[AgentID, SeatTerms] | None = None


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """What changes without a step: what was counted, the latest refusals, and what failed for good."""

    counts: Counts | None = None
    refusals: list[Refusal] = []
    failure: ErrorRecord | None = None


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """A closed session.

    Attributes:
        stored: What it was.
        ended_at: Unix seconds.
        end: Its end record, as MessagePack.
        lines: Its trace as JSON lines, compressed.
        returns: The sum of each seat's rewards.
        steps: Steps taken.
    """

    stored: Stored
    ended_at: float
    end: bytes
    lines: bytes
    returns: dict[AgentID, float]
    steps: int

    def trace(self) -> bytes:
        """Return the trace as JSON lines."""
        return zlib.decompress(self.lines)

    @staticmethod
    def compress(lines: bytes) -> bytes:
        """Return a trace as `lines` holds it."""
        return zlib.compress(lines, 1)


class Ledger:
    """Keeps closed sessions in memory, and forgets everything else: the hub has it.

    Args:
        keep_traces: Closed sessions that are kept.
        keep_bytes: Bytes of traces that are kept.
    """

    durable = False

    def __init__(self, keep_traces: int, keep_bytes: int) -> None:
        self._keep, self._keep_bytes = keep_traces, keep_bytes
        self._finished: OrderedDict[str, Finished] = OrderedDict()
        self._bytes = 0
        self.key = secrets.token_bytes(32)
        """The server's secret, from which capabilities are made."""

    async def open(self) -> list[tuple[Stored, list[bytes], Standing]]:
        """Return the sessions that were open when the ledger was last closed: their entries, and how they stood."""
        return []

    async def close(self) -> None:
        """Write what is still to be written."""

    def begin(self, stored: Stored, entries: list[bytes]) -> None:
        """Note a new session and its first entries."""

    def drop(self, session: str) -> None:
        """Forget a session that was noted and is not to be."""

    def append(self, session: str, step: int, entry: bytes, then: Callable[[], None]) -> None:
        """Note a step; `then` is called on the event loop once it is safe."""
        then()

    def stand(self, session: str, standing: Standing) -> None:
        """Note what changed without a step."""

    def after(self, then: Callable[[], None]) -> None:
        """Call `then` once everything noted so far is safe."""
        then()

    def finish(self, finished: Finished) -> None:
        """Move a session to the closed ones."""
        self._finished[finished.stored.id] = finished
        self._bytes += len(finished.lines)
        while len(self._finished) > self._keep or (self._bytes > self._keep_bytes and len(self._finished) > 1):
            _, oldest = self._finished.popitem(last=False)
            self._bytes -= len(oldest.lines)

    def finished(self, session: str) -> Finished | None:
        """Return a closed session, while it is kept."""
        return self._finished.get(session)

    def recent(self, count: int) -> list[Finished]:
        """Return the last closed sessions, the latest first."""
        newest = reversed(self._finished.values())
        return [finished for finished, _ in zip(newest, range(count), strict=False)]


class DurableLedger(Ledger):
    """Keeps everything in ``<folder>/sessions.sqlite``.

    Args:
        folder: Made where it is missing, readable by its owner only.
        keep_traces: Closed sessions that are kept.
        keep_bytes: Bytes of traces that are also kept in memory.

    Raises:
        ConfigError: The folder cannot be used, or another server uses it.
    """

    durable = True

    def __init__(self, folder: Path, keep_traces: int, keep_bytes: int) -> None:
        super().__init__(keep_traces, keep_bytes)
        self._lock = _lock(folder)
        self._path = folder / "sessions.sqlite"
        self._queue: queue.SimpleQueue[tuple[str, tuple[Any, ...], Callable[[], None] | None] | None] = (
            queue.SimpleQueue()
        )
        try:
            with closing(_connect(self._path)) as db:
                db.executescript(_SCHEMA)
                self.key = _server_key(db)
            self._reader = _connect(self._path)
        except sqlite3.Error as error:
            self._lock.close()
            raise ConfigError(f"cannot use {self._path}: {error}") from error
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> list[tuple[Stored, list[bytes], Standing]]:
        """Return the sessions that were open when the last server stopped or was killed."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return list(self._stored())

    async def close(self) -> None:
        """Write what is still to be written, and let another server have the folder."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._reader.close()
        self._lock.close()

    def begin(self, stored: Stored, entries: list[bytes]) -> None:
        """Note a new session and its first entries."""
        self._put("INSERT OR REPLACE INTO sessions (id, stored) VALUES (?, ?)", stored.id, _pack(stored))
        for step, entry in enumerate(entries):
            self._put("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", stored.id, step, entry)

    def drop(self, session: str) -> None:
        """Forget a session that was noted and is not to be."""
        self._put("DELETE FROM entries WHERE session = ?", session)
        self._put("DELETE FROM sessions WHERE id = ?", session)

    def append(self, session: str, step: int, entry: bytes, then: Callable[[], None]) -> None:
        """Note a step; `then` is called on the event loop once it is committed."""
        self._queue.put(("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (session, step, entry), then))

    def stand(self, session: str, standing: Standing) -> None:
        """Note what changed without a step."""
        self._put("UPDATE sessions SET standing = ? WHERE id = ?", _pack(standing), session)

    def after(self, then: Callable[[], None]) -> None:
        """Call `then` once everything noted so far is committed."""
        self._queue.put(("", (), then))

    def finish(self, finished: Finished) -> None:
        """Move a session to the closed ones."""
        super().finish(finished)
        id = finished.stored.id
        self._put("INSERT OR REPLACE INTO finished (id, finished) VALUES (?, ?)", id, _pack(finished))
        self.drop(id)
        self._put("DELETE FROM finished WHERE number <= (SELECT MAX(number) FROM finished) - ?", self._keep)

    def finished(self, session: str) -> Finished | None:
        """Return a closed session, while it is kept."""
        found = super().finished(session)
        if found is None:
            row = self._reader.execute("SELECT finished FROM finished WHERE id = ?", (session,)).fetchone()
            found = None if row is None else msgspec.msgpack.decode(row[0], type=Finished)
        return found

    def recent(self, count: int) -> list[Finished]:
        """Return the last closed sessions, the latest first."""
        rows = self._reader.execute("SELECT finished FROM finished ORDER BY number DESC LIMIT ?", (count,))
        return [msgspec.msgpack.decode(row[0], type=Finished) for row in rows]

    def _put(self, statement: str, *values: Any) -> None:
        self._queue.put((statement, values, None))

    def _stored(self) -> Iterator[tuple[Stored, list[bytes], Standing]]:
        for id, stored, standing in self._reader.execute("SELECT id, stored, standing FROM sessions").fetchall():
            rows = self._reader.execute("SELECT entry FROM entries WHERE session = ? ORDER BY step", (id,))
            yield (
                msgspec.msgpack.decode(stored, type=Stored),
                [row[0] for row in rows],
                Standing() if standing is None else msgspec.msgpack.decode(standing, type=Standing),
            )

    def _write(self) -> None:
        """Commit what is queued, group by group, until None comes."""
        db = _connect(self._path)
        running = True
        while running:
            group = [self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get())
            running = None not in group
            work = [item for item in group if item is not None]
            try:
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    for statement, values, _ in work:
                        if statement:
                            db.execute(statement, values)
            except sqlite3.Error:  # a full disk: nobody may be told that the step is safe
                _log.exception("the ledger cannot be written; the server ends so that no step is forgotten")
                os._exit(1)
            self._release([then for _, _, then in work if then is not None])
        db.close()

    def _release(self, done: list[Callable[[], None]]) -> None:
        if done and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(_call_all, done)
            except RuntimeError:  # the loop is closed: nobody waits
                return


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        try:
            call()
        except Exception:  # the boundary: one that waits must not cost the others their answers
            _log.exception("an answer could not be handed out")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _server_key(db: sqlite3.Connection) -> bytes:
    """Return the server's secret, made at first use; refuse a file of another version."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _SCHEMA_VERSION):
        raise ConfigError(f"the state folder has format {version}; this Arena uses {_SCHEMA_VERSION}")
    db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    db.execute("INSERT OR IGNORE INTO server VALUES ('key', ?)", (secrets.token_bytes(32),))
    return bytes(db.execute("SELECT value FROM server WHERE name = 'key'").fetchone()[0])


def _lock(folder: Path) -> Any:
    """Hold the folder for this process alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise ConfigError(f"cannot keep state in {folder}: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(f"{folder} is used by another server") from error
    os.chmod(folder, 0o700)
    return lock


_pack = msgspec.msgpack.Encoder().encode
