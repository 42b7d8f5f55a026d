"""An echo environment on the unmodified `openenv` package, which runs this file in a virtual environment of its own.

    python openenv_echo.py LOOP KIND

LOOP is uvicorn's event loop, ``uvloop`` or ``asyncio``. KIND is ``sync``, an environment as OpenEnv's own examples
write them, or ``async``, one whose steps run on the event loop. The port is printed once it is bound.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

_MOST_SESSIONS = 4096


class EchoAction(Action):
    """What is to be said back."""

    message: str


class EchoObservation(Observation):
    """What was said."""

    message: str


class EchoEnvironment(Environment):
    """Says back what it is told."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> EchoObservation:
        """Begin an episode."""
        self._state = State(episode_id=episode_id, step_count=0)
        return EchoObservation(message="", reward=0.0)

    def step(self, action: EchoAction, timeout_s: float | None = None, **kwargs: Any) -> EchoObservation:
        """Say back what was said."""
        self._state.step_count += 1
        return EchoObservation(message=action.message, reward=0.0)

    @property
    def state(self) -> State:
        """The episode's state."""
        return self._state


class AsyncEchoEnvironment(EchoEnvironment):
    """The same, on the event loop: no thread is asked."""

    async def reset_async(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Observation:
        """Begin an episode."""
        return self.reset(seed, episode_id)

    async def step_async(self, action: EchoAction, timeout_s: float | None = None, **kwargs: Any) -> Observation:
        """Say back what was said."""
        return self.step(action)


def main() -> None:
    """Serve until a signal comes."""
    loop, kind = sys.argv[1:]
    environment = AsyncEchoEnvironment if kind == "async" else EchoEnvironment
    app = create_app(environment, EchoAction, EchoObservation, env_name="echo", max_concurrent_envs=_MOST_SESSIONS)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, loop=loop, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
