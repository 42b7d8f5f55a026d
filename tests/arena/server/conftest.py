"""Servers for tests: one that many share, and as many of their own as they want."""

import pytest

from tests.arena.server.harness import ServerProcess


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that nobody harms."""
    shared = ServerProcess(tmp_path_factory.mktemp("shared"), keep_traces=200).start()
    yield shared
    assert shared.stop() == 0
    assert shared.left_behind() == []


@pytest.fixture
def serve(tmp_path):
    """Start a server with settings of the test's own; it must end without a trace."""
    started = []

    def start(**settings):
        started.append(ServerProcess(tmp_path / f"server{len(started)}", **settings).start())
        return started[-1]

    yield start
    codes = [one.stop() for one in started]
    assert [code for code in codes if code not in (0, -9)] == []
    assert [left for one in started for left in one.left_behind()] == []
