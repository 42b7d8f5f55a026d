"""OpenEnv's protocol: what its unmodified clients speak."""

from arena.server.openenv.endpoint import routes

__all__ = ["routes"]
