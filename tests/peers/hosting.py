"""A server with environments of the tests' own, in this process, for tests on the wire."""

import contextlib
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.testclient import TestClient

from arena.errors import UnauthorizedError
from arena.server import mcp, openenv
from arena.server.access import Caller, Principal
from arena.server.hub import Hub
from arena.server.settings import ServerSettings

REPOSITORY = Path(__file__).parents[2]


def declare_environments(folder):
    """Write what makes the environments of `tests.peers.envs` found by whoever has `folder` on its path."""
    info = folder / "arena_peer_tests-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: arena-peer-tests\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[arena.envs]\npeers = tests.peers.envs\n")
    return os.pathsep.join([str(folder), str(REPOSITORY)])


@contextlib.contextmanager
def python_path(path):
    """Let processes that are started from now on import from `path`."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = path
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def identify(connection):
    """Everybody is the principal that he says; a capability makes nobody."""
    _, _, secret = connection.headers.get("authorization", "Bearer anybody").partition(" ")
    if secret == "wrong":
        raise UnauthorizedError("no such token")
    return Caller(None if "." in secret else Principal(secret, frozenset({"play"})))


@contextlib.contextmanager
def serving(folder, **settings):
    """Serve OpenEnv and MCP on one worker; yields a client whose `hub` is the hub."""
    hub = None

    @contextlib.asynccontextmanager
    async def lifespan(app):
        nonlocal hub
        hub = Hub(ServerSettings(workers=1, **settings))
        app.router.routes.extend([*openenv.routes(hub, identify), *mcp.routes(hub)])
        await hub.start()
        yield
        await hub.stop()

    with python_path(declare_environments(folder)), TestClient(Starlette(lifespan=lifespan)) as client:
        client.hub = hub
        yield client


def ask(client, request, caller=None):
    """Ask the client's hub, as whoever created sessions asks it."""
    caller = caller or Caller(Principal("owner", frozenset({"play"})))
    return client.portal.call(client.hub.ask, request, caller)
