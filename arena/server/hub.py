"""The hub: every session of the server, and the one way to reach it."""

from __future__ import annotations

from arena.protocol import Reply, Request
from arena.server.access import Caller
from arena.server.settings import ServerSettings

__all__ = ["Hub"]


class Hub:
    """Every session of the server. One event loop calls it.

    Args:
        settings: The server's settings.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings

    async def start(self) -> None:
        """Start the workers."""

    async def stop(self) -> None:
        """Drain, and end the workers."""

    async def ask(self, request: Request, caller: Caller) -> Reply:
        """Return the answer to a request.

        Raises:
            ArenaError: The request was refused or failed; an `ErrorReply` is never returned.
        """
        raise NotImplementedError
