"""Where Arena keeps what it can make again: generated games, built indexes."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["CACHE_VARIABLE", "cache_dir"]

CACHE_VARIABLE = "ARENA_CACHE_DIR"
"""Environment variable that names another place for the cache."""


def cache_dir(*parts: str) -> Path:
    """Return a folder below the cache, made if it was not there.

    Args:
        parts: Names that the caller chose; never anything that a client sent.
    """
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("arena")
    path = Path(root, *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path
