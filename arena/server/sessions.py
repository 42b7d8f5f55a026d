"""The sessions of a server: which there are, whose they are, who holds them, and whether another one fits in."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator

from arena.errors import CapacityError, SessionGoneError, UsageError
from arena.server.access import Caller
from arena.server.hosting import Hosted
from arena.server.ledger import Finished, Ledger
from arena.server.pace import TokenBucket
from arena.server.settings import ServerSettings

__all__ = ["Sessions"]

_BUSY_S = 1.0
_MOST_BYTES = 64 * 2**20
_MOST_SPENT_KEYS = 4096


class Sessions:
    """Every open session by id, and the closed ones while they are kept.

    Args:
        settings: How many there may be, and how fast they may go.
        ledger: Keeps the closed ones.

    Attributes:
        draining: Nothing new begins.
    """

    def __init__(self, settings: ServerSettings, ledger: Ledger) -> None:
        self._settings, self._ledger = settings, ledger
        self._open: dict[str, Hosted] = {}
        self._owned: Counter[str] = Counter()
        self._keys: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._spent: deque[tuple[str, str]] = deque()
        self._buckets: dict[str, TokenBucket] = {}
        self.draining = False

    def __iter__(self) -> Iterator[Hosted]:
        return iter(list(self._open.values()))

    def __contains__(self, id: str) -> bool:
        return id in self._open

    def find(self, id: str) -> Hosted | None:
        """Return an open session, or None."""
        return self._open.get(id)

    def get(self, id: str) -> Hosted:
        """Return an open session, and note that it was asked for.

        Raises:
            SessionGoneError: It is closed, or no longer here.
        """
        hosted = self._open.get(id)
        if hosted is None:
            gone = self._ledger.finished(id) is not None
            raise SessionGoneError("the session is closed" if gone else "the session is no longer here")
        hosted.last_seen = time.monotonic()
        return hosted

    def closed(self, id: str) -> Finished:
        """Return a closed session.

        Raises:
            SessionGoneError: It is not kept.
        """
        kept = self._ledger.finished(id)
        if kept is None:
            raise SessionGoneError("the session is no longer here")
        return kept

    # -- coming and going -------------------------------------------------------------------------------------------

    def admit(self, owner: str) -> None:
        """Count a session that is about to begin; `add` or `dismiss` follows.

        Raises:
            CapacityError: There are too many.
        """
        settings = self._settings
        if self.draining:
            raise CapacityError("the server is stopping", retry_after_s=_BUSY_S)
        for who, held, most in (
            ("the server", self._owned.total(), settings.max_sessions),
            (repr(owner), self._owned[owner], settings.max_sessions_per_token),
        ):
            if held >= most:
                raise CapacityError(
                    f"{who} holds {most} sessions, the most it may",
                    retry_after_s=_BUSY_S,
                    active_sessions=held,
                    max_sessions=most,
                )
        self._owned[owner] += 1

    def dismiss(self, owner: str, key: str) -> None:
        """Forget a session that was admitted and did not begin."""
        self._keys.pop((owner, key), None)
        self._discount(owner)

    def add(self, hosted: Hosted) -> None:
        """Take in a session that was admitted."""
        self._open[hosted.id] = hosted

    def restore(self, hosted: Hosted) -> None:
        """Take in a session of an earlier server process."""
        owner = hosted.stored.owner
        self._owned[owner] += 1
        self._new_key(owner, hosted.stored.key).set_result(hosted.id)
        self.add(hosted)

    def remove(self, hosted: Hosted) -> None:
        """Forget a session that is closed."""
        stored = hosted.stored
        if self._open.pop(hosted.id, None) is not None:
            self._spend(stored.owner, stored.key)
            self._buckets.pop(hosted.id, None)
            self._discount(stored.owner)

    def claim(self, owner: str, key: str) -> tuple[asyncio.Future[str], bool]:
        """Return the future id of the session with this key, and whether the caller is to begin it.

        Raises:
            UsageError: The key is too short to be unique, or too long.
        """
        if not 8 <= len(key) <= 200:
            raise UsageError("a key is 8 to 200 characters, such as a UUID")
        known = self._keys.get((owner, key))
        return (known, False) if known is not None else (self._new_key(owner, key), True)

    def _spend(self, owner: str, key: str) -> None:
        """Let a key go on naming its closed session for a while: a late repeat must not begin another one."""
        self._spent.append((owner, key))
        if len(self._spent) > _MOST_SPENT_KEYS:
            self._keys.pop(self._spent.popleft(), None)

    def release_key(self, owner: str, key: str) -> None:
        """Let a key be used again, because no session began with it."""
        self._keys.pop((owner, key), None)

    def _new_key(self, owner: str, key: str) -> asyncio.Future[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._keys[owner, key] = future
        return future

    def _discount(self, owner: str) -> None:
        self._owned[owner] -= 1
        if self._owned[owner] <= 0:
            del self._owned[owner]
            self._buckets.pop("owner " + owner, None)

    # -- holding ----------------------------------------------------------------------------------------------------

    def hold(self, hosted: Hosted, caller: Caller) -> None:
        """Note that a connection holds a session: it lives at least as long."""
        if hosted.id not in caller.held and not caller.gone:
            caller.held.add(hosted.id)
            hosted.holders += 1
        hosted.last_seen = time.monotonic()

    def release(self, caller: Caller) -> None:
        """Note that a connection is gone; the sessions that it held live on for their leases."""
        now = time.monotonic()
        for id in caller.held:
            hosted = self._open.get(id)
            if hosted is not None:
                hosted.holders -= 1
                hosted.last_seen = now
        caller.held.clear()

    # -- pace -------------------------------------------------------------------------------------------------------

    def pace(self, hosted: Hosted) -> None:
        """Count a step that is about to be taken.

        Raises:
            CapacityError: It would be more than the allowed steps per second, or the journal is full.
        """
        settings = self._settings
        if settings.max_steps_per_s:
            self._take(hosted.id, settings.max_steps_per_s)
        if settings.max_token_steps_per_s:
            self._take("owner " + hosted.stored.owner, settings.max_token_steps_per_s)
        if hosted.size > _MOST_BYTES:
            raise CapacityError(f"the session's journal is full ({_MOST_BYTES} bytes)", retryable=False)

    def _take(self, name: str, rate_per_s: float) -> None:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(rate_per_s, max(1.0, rate_per_s))
        retry_after_s = bucket.take(1)
        if retry_after_s:
            raise CapacityError(f"more than {rate_per_s:g} steps per second", retry_after_s=retry_after_s)
