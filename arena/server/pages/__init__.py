"""The pages: environments, live sessions, transcripts."""

from arena.server.pages.endpoint import routes
from arena.server.pages.login import Login

__all__ = ["Login", "routes"]
