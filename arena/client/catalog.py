"""What a client asks of a server beside a session's own verbs: flows, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from arena.client.episode import RemoteEnvironment
from arena.client.flow import Flow
from arena.client.holders import SeatVerbs, WatchVerbs
from arena.client.verbs import EpisodeVerbs
from arena.env import EnvSpec
from arena.errors import ArenaError, InvalidActionError, TransportError
from arena.protocol import (
    Attach,
    Attached,
    Create,
    Created,
    Describe,
    EnvironmentInfo,
    EnvironmentList,
    Environments,
    ErrorReply,
    StepItem,
    StepMany,
    SteppedMany,
    TaskPage,
    Tasks,
)
from arena.trace import StepRecord
from arena.types import AgentID

__all__ = ["attaching", "beginning", "describing", "listing", "paging", "stepping_many"]

E = TypeVar("E", bound=EpisodeVerbs)
S = TypeVar("S", bound=SeatVerbs)
W = TypeVar("W", bound=WatchVerbs)
_Taken: TypeAlias = tuple[StepItem, dict[AgentID, InvalidActionError]]


def listing() -> Flow[list[EnvSpec]]:
    """Ask what the server offers."""
    reply: EnvironmentList = yield Environments(id=0)
    return reply.environments


def describing(env: str, options: Mapping[str, Any]) -> Flow[EnvironmentInfo]:
    """Ask what an environment is with some options."""
    reply: EnvironmentInfo = yield Describe(id=0, env=env, options=dict(options))
    return reply


def paging(env: str, split: str | None, start: int, stop: int, options: Mapping[str, Any] | None) -> Flow[TaskPage]:
    """Ask for some tasks of a split."""
    reply: TaskPage = yield Tasks(id=0, env=env, options=dict(options or {}), split=split, start=start, stop=stop)
    return reply


def beginning(create: Create, make: Callable[[RemoteEnvironment], E]) -> Flow[E]:
    """Begin a session of the driver's class."""
    created: Created = yield create
    session = make(RemoteEnvironment(created.spec, created.options))
    session._begin(created)
    session._take(created.record)
    return session


def attaching(
    capability: str,
    make: Callable[[RemoteEnvironment], E],
    seat: Callable[[Attached], S],
    watch: Callable[[Attached], W],
) -> Flow[E | S | W]:
    """Open whatever a capability opens, each as the driver's class."""
    attached: Attached = yield Attach(id=0, capability=capability)
    if attached.role == "seat":
        return seat(attached)
    if attached.role == "watch":
        return watch(attached)
    session = make(RemoteEnvironment(attached.spec, attached.options))
    yield from session._adopt(capability, attached)
    return session


def stepping_many(
    steps: Sequence[tuple[EpisodeVerbs, Mapping[AgentID, Any]]],
) -> Flow[list[StepRecord | ArenaError]]:
    """Take the next step in each of many sessions with one request; an error stands in the place of its record."""
    taken: list[_Taken | ArenaError] = [_taken(session, actions) for session, actions in steps]
    sent = [entry[0] for entry in taken if not isinstance(entry, ArenaError)]
    if not sent:
        return [entry for entry in taken if isinstance(entry, ArenaError)]
    reply: SteppedMany = yield StepMany(id=0, steps=sent)
    if len(reply.results) != len(sent):
        raise TransportError(f"{len(sent)} steps were sent, and {len(reply.results)} results came")
    results, outcomes = iter(reply.results), list[StepRecord | ArenaError]()
    for (session, _), entry in zip(steps, taken, strict=True):
        try:
            if isinstance(entry, ArenaError):
                raise entry
            result = next(results)
            outcome = ArenaError.from_record(result.error) if isinstance(result, ErrorReply) else result
            outcomes.append((yield from session._stepped(entry[0].index, outcome, entry[1])))
        except ArenaError as error:
            outcomes.append(error)
    return outcomes


def _taken(session: EpisodeVerbs, actions: Mapping[AgentID, Any]) -> _Taken | ArenaError:
    try:
        return session._item(len(session.journal), actions)
    except ArenaError as error:
        return error
