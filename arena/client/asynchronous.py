"""The asynchronous client: many sessions over one connection, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from arena.client.catalog import attaching, beginning, describing, listing, paging, stepping_many
from arena.client.core import Format
from arena.client.episode import RemoteEnvironment, wanted_session
from arena.client.flow import Flow, run_awaiting
from arena.client.holders import SeatVerbs, WatchVerbs
from arena.client.link import Link
from arena.client.verbs import EpisodeVerbs
from arena.env import Environment, EnvSpec
from arena.errors import ArenaError
from arena.protocol import Attached, EnvironmentInfo, SeatRecord, SeatTerms, TaskPage
from arena.trace import EndRecord, StepRecord
from arena.types import Action, AgentID, LimitKind, Limits, SeatStep, Task, Usage

__all__ = ["AsyncClient", "AsyncRemoteSeat", "AsyncRemoteSession", "AsyncRemoteWatch"]

T = TypeVar("T")
CLOSE_S = 10.0
"""Seconds for which closing a session waits for the server's answer."""


class AsyncClient:
    """A client for one event loop: ``async with AsyncClient(url) as client``.

    Args and errors are those of `arena.client.connect`; the connection is made by ``async with``, or by `open`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        reconnect_s: float = 120.0,
        format: Format = "msgpack",
    ) -> None:
        self._link = Link(url, token, format, timeout_s, reconnect_s)

    async def __aenter__(self) -> AsyncClient:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, in one attempt; a connection that is lost later is made again by itself."""
        await self._link.open()

    async def close(self) -> None:
        """End the connection; sessions live on until their leases end."""
        await self._link.close()

    async def environments(self) -> list[EnvSpec]:
        """Return what each environment of the server declares."""
        return await self._run(listing())

    async def describe(self, env: str, /, **options: Any) -> EnvironmentInfo:
        """Return what an environment is with these options."""
        return await self._run(describing(env, options))

    async def tasks(
        self,
        env: str,
        split: str | None = None,
        start: int = 0,
        stop: int = 100,
        options: Mapping[str, Any] | None = None,
    ) -> TaskPage:
        """Return tasks `start` to `stop` of a split, at most 1,000."""
        return await self._run(paging(env, split, start, stop, options))

    async def session(
        self,
        env: str,
        *,
        task: Task | str | None = None,
        split: str | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        options: Mapping[str, Any] | None = None,
        lease_s: float | None = None,
        seats: Mapping[AgentID, SeatTerms] | None = None,
    ) -> AsyncRemoteSession:
        """Begin an episode and return it; see `arena.client.Client.session`."""
        return await self._run(
            beginning(wanted_session(env, options, task, split, seed, limits, lease_s, seats), self._session)
        )

    def new_session(self, env: Environment, task: Task, seed: int, limits: Limits) -> AsyncRemoteSession:
        """Return a session of an environment like this one; it begins when it is opened, as an `arena.Session` does."""
        options = env.options.model_dump(mode="json")
        session = self._session(RemoteEnvironment(env.spec, options))
        session._want(wanted_session(env.spec.id, options, task, None, seed, limits, None, None))
        return session

    async def attach(self, capability: str) -> AsyncRemoteSession | AsyncRemoteSeat | AsyncRemoteWatch:
        """Return what a capability opens; see `arena.client.Client.attach`."""
        return await self._run(attaching(capability, self._session, self._seat, self._watch))

    async def step_many(
        self, steps: Sequence[tuple[AsyncRemoteSession, Mapping[AgentID, Any]]]
    ) -> list[StepRecord | ArenaError]:
        """Take the next step in each of many sessions; see `arena.client.Client.step_many`."""
        return await self._run(stepping_many(steps))

    def _session(self, env: RemoteEnvironment) -> AsyncRemoteSession:
        return AsyncRemoteSession(self, env)

    def _seat(self, attached: Attached) -> AsyncRemoteSeat:
        return AsyncRemoteSeat(self, attached)

    def _watch(self, attached: Attached) -> AsyncRemoteWatch:
        return AsyncRemoteWatch(self, attached)

    async def _run(self, flow: Flow[T]) -> T:
        return await run_awaiting(flow, self._link.ask)


class AsyncRemoteSession(EpisodeVerbs):
    """An episode on a server: `arena.session.Session` with coroutines where something is asked.

    One task at a time uses a session; any number of sessions share a client.
    """

    def __init__(self, client: AsyncClient, env: RemoteEnvironment) -> None:
        super().__init__(env)
        self._client = client

    async def open(self) -> StepRecord:
        """Begin the episode and return its first record; a second call returns the same one."""
        return await self._client._run(self._open())

    async def step(
        self,
        index: int,
        actions: Mapping[AgentID, Any],
        *,
        usage: Usage | None = None,
        agent_s: Mapping[AgentID, float] | None = None,
        decisions: Mapping[AgentID, dict[str, Any]] | None = None,
    ) -> StepRecord:
        """Take step `index`; see `arena.session.Session.step`."""
        return await self._client._run(self._step(index, actions, usage, agent_s, decisions))

    async def act(self, action: Any) -> SeatStep:
        """Play the one seat whose action is due and return its next step."""
        return await self._client._run(self._act(action))

    async def truncate(self, kind: LimitKind, value: float, allowed: float) -> StepRecord:
        """End a running episode between two steps because a limit was reached."""
        return await self._client._run(self._truncate(kind, value, allowed))

    async def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return the environment's expert's action for a seat that is to act."""
        return await self._client._run(self._expert(agent, kind))

    async def read(self, wait_s: float = 0.0) -> list[StepRecord]:
        """Return the steps that others have taken since; see `RemoteSession.read`."""
        return await self._client._run(self._read(wait_s))

    async def fork(self, at: int | None = None) -> AsyncRemoteSession:
        """Return a new session that stands where this one stood after step `at`, the latest where None."""
        twin = AsyncRemoteSession(self._client, self.env)
        await self._client._run(self._fork(twin, at))
        return twin

    async def trace(self) -> str:
        """Return the trace of an episode that is over, as JSON lines."""
        return await self._client._run(self._trace())

    async def end(self) -> EndRecord:
        """Return the verdict; see `arena.session.Session.end`."""
        return await self._client._run(self._finish())

    async def close(self) -> None:
        """End the session on the server; safe to call twice. What goes wrong is logged."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._client._run(self._close())
        except TimeoutError:
            self.status = "closed"  # the server ends it with its lease


class AsyncRemoteSeat(SeatVerbs):
    """One seat of a session that somebody else drives; see `arena.client.RemoteSeat`."""

    def __init__(self, client: AsyncClient, attached: Attached) -> None:
        super().__init__(attached)
        self._client = client

    async def observe(self, wait_s: float = 0.0) -> list[SeatRecord]:
        """Return the steps since the last call; where there are none yet, wait up to `wait_s` seconds for one."""
        return await self._client._run(self._observe(wait_s))

    async def act(self, action: Any) -> SeatRecord:
        """Play this seat's part of the next step, and return the step once every acting seat has acted."""
        return await self._client._run(self._act(action))


class AsyncRemoteWatch(WatchVerbs):
    """A session that somebody else drives, to look at; see `arena.client.RemoteWatch`."""

    def __init__(self, client: AsyncClient, attached: Attached) -> None:
        super().__init__(attached)
        self._client = client

    async def records(self, after: int = -1, wait_s: float = 0.0) -> list[StepRecord]:
        """Return the steps after step `after`; where there are none yet, wait up to `wait_s` seconds for one."""
        return await self._client._run(self._records(after, wait_s))
