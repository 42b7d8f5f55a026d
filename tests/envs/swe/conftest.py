"""Whether instances can be set up here at all."""

import shutil
import subprocess
import sys
from functools import lru_cache

import pytest

from arena import ArenaError, make


@lru_cache(maxsize=1)
def why_not() -> str | None:
    if shutil.which("git") is None:
        return "there is no git"
    env = make("swe/repo-v0")
    try:
        env.reset(env.taskset("test").task(0), 0)
    except ArenaError as error:
        return f"no instance can be set up here: {error}"
    finally:
        env.close()
    return None


@pytest.fixture
def can_play() -> None:
    if reason := why_not():
        pytest.skip(reason)


@lru_cache(maxsize=1)
def why_no_index() -> str | None:
    asked = [sys.executable, "-c", "from arena.envs.swe._sources import find_source; find_source('toolz', '1.0.0')"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"the package index cannot be asked: {done.stderr.strip().splitlines()[-1:]}" if done.returncode else None


@pytest.fixture
def index() -> None:
    if reason := why_no_index():
        pytest.skip(reason)
