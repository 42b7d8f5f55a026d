"""An OpenEnv session: one environment that is reset again and again; each reset is a new session of Arena."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from typing import Any

from arena.errors import (
    ArenaError,
    CapacityError,
    ConfigError,
    ForbiddenError,
    InvalidActionError,
    OutOfOrderError,
    ResetNeededError,
    SessionGoneError,
    UnknownIdError,
    UnsupportedError,
)
from arena.protocol import (
    Attach,
    Attached,
    Close,
    Create,
    Created,
    Describe,
    EnvironmentInfo,
    SeatInfo,
    Step,
    Stepped,
    TaskRef,
)
from arena.seeding import MAX_SEED
from arena.server.access import Caller
from arena.server.hub import Hub
from arena.server.openenv.dialect import FieldError, observation_data, parse_action, tool_error_data, tools_data
from arena.server.plain_seat import PlainSeat
from arena.types import Action, AgentID, ToolCall

__all__ = ["OpenEnvSession", "describe", "only_seat"]

_OWN_ARGUMENTS = frozenset({"seed", "episode_id", "task", "task_id", "split"})
_SEED_BELOW = 2**31


class OpenEnvSession:
    """What OpenEnv calls a session, over Arena's sessions of which it holds at most one.

    Args:
        hub: The server's hub.
        caller: Who plays; sessions are created in its name.
        info: The environment.
        lease_s: Seconds that an episode outlives its last contact; the server's default where None.

    Attributes:
        lock: Whoever uses the session holds it, so that requests do not overlap.
        capability: Opens the present episode; None before the first reset.
        episode_id: The client's own name of the episode, or Arena's session id.
        used_at: When it was used last, in monotonic seconds.
        lease_s: Seconds after which an unused episode that no connection holds is gone.
        done: The episode is over.
        sockets: Connections that hold the episode.
    """

    def __init__(self, hub: Hub, caller: Caller, info: EnvironmentInfo, *, lease_s: float | None = None) -> None:
        self.hub, self.caller, self.info = hub, caller, info
        self.agent, seat = only_seat(info)
        self.seat = PlainSeat(seat)
        self.lock = asyncio.Lock()
        self.capability: str | None = None
        self.episode_id: str | None = None
        self.used_at, self.lease_s = time.monotonic(), lease_s or hub.settings.lease_s
        self.done = False
        self.sockets = 0
        self._asked_lease_s = lease_s
        self._replay: tuple[str, dict[str, Any]] | None = None
        self._session: str | None = None
        self._task: TaskRef | None = None
        self._seed: int | None = None
        self._next = 1

    # -- the verbs --------------------------------------------------------------------------------------------------

    async def reset(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Begin a new episode and return what the client reads; the old one goes on until the new one has begun.

        Args:
            arguments: `seed` (drawn where absent), `episode_id`, `task` or `task_id`, `split`, and the environment's
                options by name. Others are dropped, as OpenEnv does, and named in the metadata.

        Raises:
            FieldError: An argument is of a wrong type.
            ArenaError: The episode cannot begin.
        """
        self._touch()
        request, ignored = _create(self.info, arguments, self._asked_lease_s)
        episode_id = _text(arguments, "episode_id")
        try:
            created = await self._ask(request)
        except CapacityError:
            if self._session is None:
                raise
            await self.close()
            created = await self._ask(request)
        except (UnknownIdError, ConfigError, UnsupportedError) as error:
            raise _as_field_error(error, arguments) from error
        assert isinstance(created, Created)
        await self.close()
        self._replay = None
        self._adopt(created, episode_id)
        step = created.record.time_step.seats[self.agent]
        told: dict[str, Any] = {"episode_id": self.episode_id, "task": created.task, "seed": created.seed}
        if ignored:
            told["ignored"] = ignored
        return observation_data(self.seat, created.record, step, None, None, **told)

    async def step(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take a step and return what the client reads.

        Where ``metadata.step`` gives the step's number, a repeat gets the recorded answer.

        Raises:
            FieldError: The data are no action.
            ArenaError: The step was refused or failed; see `play`.
        """
        action, index = parse_action(data, self.seat)
        if action is None:
            return tools_data(self.seat.info.tools, done=self.done)
        try:
            stepped = await self.play(action, index)
        except InvalidActionError as error:
            if isinstance(action, ToolCall):
                return tool_error_data(action, self.seat.info, error.message, done=self.done)
            raise
        step = stepped.record.time_step.seats[self.agent]
        return observation_data(self.seat, stepped.record, step, action, stepped.end)

    async def step_once(self, request_id: str | None, data: dict[str, Any]) -> dict[str, Any]:
        """Take a step as `step` does, unless `request_id` is that of the last one: then return the same again."""
        if request_id is not None and self._replay is not None and self._replay[0] == request_id:
            return self._replay[1]
        answer = await self.step(data)
        self._replay = None if request_id is None else (request_id, answer)
        return answer

    async def play(self, action: Action, index: int | None = None) -> Stepped:
        """Take a step, the next one unless `index` names another.

        Raises:
            ResetNeededError: There is no episode.
            ArenaError: The step was refused or failed.
        """
        self._touch()
        if self._session is None:
            raise ResetNeededError("there is no episode yet; send reset first")
        index = self._next if index is None else index
        try:
            stepped = await self._ask(
                Step(id=uuid.uuid4().hex, session=self._session, index=index, actions={self.agent: action})
            )
        except InvalidActionError as error:
            self.done = self.done or bool(error.details.get("truncated"))
            raise
        except OutOfOrderError as error:
            self._next = max(self._next, int(error.details.get("next", 0)))
            raise
        assert isinstance(stepped, Stepped)
        self._next = max(self._next, stepped.record.index + 1)
        self.done = self.done or stepped.record.time_step.is_last
        return stepped

    def state(self) -> dict[str, Any]:
        """Return the state; `session_id` re-attaches to the episode, so whoever holds it owns it."""
        return {
            "episode_id": self.episode_id,
            "step_count": self._next - 1 if self._session else 0,
            "done": self.done,
            "session_id": self.capability,
            "env": self.info.spec.id,
            "task": self._task,
            "seed": self._seed,
        }

    async def attach(self, capability: str) -> None:
        """Go on with an episode whose connection was lost.

        Raises:
            UnknownIdError: It is an episode of another environment.
            ArenaError: The capability is not valid, or the session is gone.
        """
        self._touch()
        attached = await self._ask(Attach(id=0, capability=capability))
        assert isinstance(attached, Attached)
        if attached.env != self.info.spec.id or attached.role != "owner":
            raise UnknownIdError(f"this session_id opens no session of {self.info.spec.id} as its owner")
        if attached.status == "closed":
            raise SessionGoneError("the session is closed")
        self._session, self.capability, self.episode_id = attached.session, capability, attached.session
        self._task, self._seed, self.lease_s = attached.task, attached.seed, attached.lease_s or self.lease_s
        self.seat = PlainSeat(attached.seats[self.agent])
        self._next, self.done = attached.next, attached.status != "running"

    async def hold(self) -> None:
        """Keep the episode alive while a connection is there, until `release`.

        Raises:
            ArenaError: The episode is gone.
        """
        if self.capability is not None:
            await self._ask(Attach(id=0, capability=self.capability))
        self.sockets += 1

    def release(self, *, socket: bool = False) -> None:
        """Note that a request is answered or a connection gone: with no connection left, the lease begins."""
        self.sockets -= socket
        if self.sockets == 0:
            self.hub.release(self.caller)

    async def close(self) -> None:
        """End the present episode, if there is one; safe to call twice."""
        session, self._session, self.capability = self._session, None, None
        if session is not None:
            try:
                await self._ask(Close(id=0, session=session))
            except ArenaError:
                pass  # it is gone already
            self.caller.held.discard(session)
            self.caller.grants.pop(session, None)

    def check_owner(self, caller: Caller) -> None:
        """Refuse a caller in whose name no new episode of this session may begin.

        Raises:
            ForbiddenError: The session is another principal's; a capability alone allows to step, not to reset.
        """
        if caller.principal != self.caller.principal:
            raise ForbiddenError("a session's capability allows to step it; to reset it, show its owner's token")

    @property
    def session(self) -> str | None:
        """Arena's id of the present episode's session."""
        return self._session

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _ask(self, request: Any) -> Any:
        return await self.hub.ask(request, self.caller)

    def _touch(self) -> None:
        self.used_at = time.monotonic()

    def _adopt(self, created: Created, episode_id: str | None) -> None:
        self._session, self.capability = created.session, created.capability
        self.episode_id = episode_id or created.session
        self._task, self._seed, self.lease_s = created.task, created.seed, created.lease_s
        self.seat = PlainSeat(created.seats[self.agent])
        step = created.record.time_step.seats[self.agent]
        self._next, self.done = created.record.index + 1, step.is_last


async def describe(hub: Hub, caller: Caller, env: str) -> EnvironmentInfo:
    """Return an environment with its default options.

    Raises:
        UnknownIdError: There is none.
        UnsupportedError: It has several seats.
    """
    info = await hub.ask(Describe(id=0, env=env), caller)
    assert isinstance(info, EnvironmentInfo)
    only_seat(info)
    return info


def only_seat(info: EnvironmentInfo) -> tuple[AgentID, SeatInfo]:
    """Return the one seat of an environment.

    Raises:
        UnsupportedError: It has several: OpenEnv's protocol knows one agent only.
    """
    if len(info.seats) != 1:
        raise UnsupportedError(
            f"{info.spec.id} has {len(info.seats)} seats, and OpenEnv's protocol knows one agent only; use /v1"
        )
    ((agent, seat),) = info.seats.items()
    return agent, seat


def _create(info: EnvironmentInfo, arguments: dict[str, Any], lease_s: float | None) -> tuple[Create, list[str]]:
    """Return the request that a reset means, and the arguments that mean nothing here."""
    seed = arguments.get("seed")
    if seed is None:
        seed = secrets.randbelow(_SEED_BELOW)
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise FieldError(f"seed is an integer from 0 to {MAX_SEED}", "seed", given=seed)
    tasks = {_text(arguments, name) for name in ("task", "task_id")} - {None}
    if len(tasks) > 1:
        raise FieldError("task and task_id name different tasks", "task_id", given=arguments["task_id"])
    declared = info.options_schema.get("properties", {})
    others = [name for name in arguments if name not in _OWN_ARGUMENTS]
    request = Create(
        id=0,
        env=info.spec.id,
        key=uuid.uuid4().hex,
        options={name: arguments[name] for name in others if name in declared},
        task=next(iter(tasks), None),
        split=_text(arguments, "split"),
        seed=seed,
        lease_s=lease_s,
    )
    return request, sorted(name for name in others if name not in declared)


def _text(arguments: dict[str, Any], name: str) -> str | None:
    value = arguments.get(name)
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 255):
        raise FieldError(f"{name} is a text of 1 to 255 characters", name, given=value)
    return value


def _as_field_error(error: ArenaError, arguments: dict[str, Any]) -> FieldError:
    name = next((name for name in ("task", "task_id", "split") if name in arguments), "data")
    return FieldError(error.message, name, given=arguments.get(name))
