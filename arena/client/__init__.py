"""The client of the remote API: synchronous and asynchronous drivers, both thin, over one core without I/O.

::

    with arena.connect("http://127.0.0.1:8700") as client:
        session = client.session("text/guess-v0", seed=1)
        while session.acting:
            session.act(session.expert_action("player"))
        print(session.end().score)

Below the drivers (`synchronous`, `asynchronous`) nothing waits or sends: `verbs`, `holders` and `catalog` say what to
ask for each verb and what the answers mean, `core` pairs answers with requests and knows what to send again. `link`
alone has a connection.
"""

from arena.client.asynchronous import AsyncClient, AsyncRemoteSeat, AsyncRemoteSession, AsyncRemoteWatch
from arena.client.episode import RemoteEnvironment
from arena.client.synchronous import Client, RemoteSeat, RemoteSession, RemoteWatch, connect

__all__ = [
    "AsyncClient",
    "AsyncRemoteSeat",
    "AsyncRemoteSession",
    "AsyncRemoteWatch",
    "Client",
    "RemoteEnvironment",
    "RemoteSeat",
    "RemoteSession",
    "RemoteWatch",
    "connect",
]
