"""Whether sandboxes can be started here at all."""

from functools import lru_cache

import pytest

from arena import ArenaError
from arena.sandbox import GUARANTEES, SandboxSettings, open_sandbox


@lru_cache(maxsize=1)
def why_not() -> str | None:
    try:
        open_sandbox(SandboxSettings(unenforced=frozenset(GUARANTEES))).stop()
    except ArenaError as error:
        return f"no sandbox starts here: {error}"
    return None


@pytest.fixture(autouse=True)
def can_start() -> None:
    if reason := why_not():
        pytest.skip(reason)
