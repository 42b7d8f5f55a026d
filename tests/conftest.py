import os

import hypothesis
import pytest

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session", autouse=True)
def _fresh_cache(tmp_path_factory):
    """Generated games are made anew for each test run, so that no stale one hides a change."""
    before = os.environ.get("ARENA_CACHE_DIR")
    os.environ["ARENA_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ARENA_CACHE_DIR"]
    else:
        os.environ["ARENA_CACHE_DIR"] = before
