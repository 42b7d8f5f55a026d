"""Records as they come over the wire, with observations restored to elements of their spaces."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from gymnasium import spaces

from arena.env import SeatSpec
from arena.errors import EnvError, UsageError
from arena.protocol import SeatRecord
from arena.spaces import restore
from arena.trace import StepRecord
from arena.types import AgentID, SeatStep, TimeStep

__all__ = ["restored_record", "restored_seat_record"]


def restored_record(record: StepRecord, seats: Mapping[AgentID, SeatSpec]) -> StepRecord:
    """Return a record whose observations are what the environment gave in its own process.

    Raises:
        EnvError: An observation is no element of its seat's space.
    """
    given = record.time_step.seats
    restored = {agent: _restored(agent, step, seats.get(agent)) for agent, step in given.items()}
    if all(restored[agent] is step for agent, step in given.items()):
        return record
    return msgspec.structs.replace(record, time_step=TimeStep(restored, record.time_step.acting))


def restored_seat_record(record: SeatRecord, agent: AgentID, seat: SeatSpec) -> SeatRecord:
    """Return a seat's record with its observation restored.

    Raises:
        EnvError: The observation is no element of the seat's space.
    """
    if record.step is None:
        return record
    return msgspec.structs.replace(record, step=_restored(agent, record.step, seat))


def _restored(agent: AgentID, step: SeatStep, seat: SeatSpec | None) -> SeatStep:
    if seat is None:
        raise EnvError(f"the server sent a step of {agent!r}, which is none of the session's seats")
    if type(step.observation) is str and isinstance(seat.observation_space, spaces.Text):
        return step
    try:
        observation = restore(seat.observation_space, step.observation)
    except UsageError as error:
        raise EnvError(f"the observation of {agent} is not one of its space: {error}") from error
    return msgspec.structs.replace(step, observation=observation)
