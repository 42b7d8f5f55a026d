import pytest

from tests.arena.server.harness import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of a server that nobody harms."""
    shared = ServerProcess(tmp_path_factory.mktemp("client-server"), workers=1).start()
    yield shared.url
    assert shared.stop() == 0
