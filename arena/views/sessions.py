"""What the views need of a session, in process or remote, and how they show one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from gymnasium import spaces

from arena.trace import EndRecord, StepRecord
from arena.types import AgentID, SeatStep

__all__ = ["OpenSession", "ViewedSession", "observation_of", "seat_info"]


class ViewedSession(Protocol):
    """An episode that blocks while it steps: `arena.session.Session`, or `arena.client.RemoteSession`."""

    journal: list[StepRecord]

    @property
    def acting(self) -> tuple[AgentID, ...]:
        """The seats whose action is due."""

    def step(self, index: int, actions: Mapping[AgentID, Any], /) -> StepRecord:
        """Take step `index`."""

    def end(self) -> EndRecord:
        """Return the verdict on an episode that is over."""

    def close(self) -> None:
        """Let everything go."""


OpenSession: TypeAlias = Callable[[int], ViewedSession]
"""Begins an episode with a seed and returns it, opened."""


def observation_of(step: SeatStep) -> Any:
    """Return the step's observation as its reader's own: changing it changes no record."""
    observation = step.observation
    return observation if isinstance(observation, str) else copy.deepcopy(observation)


def seat_info(step: SeatStep, action_space: spaces.Space[Any] | None, **further: Any) -> dict[str, Any]:
    """Return a step's info dictionary: its own facts, what is legal, and how it ended.

    The legal choices of a discrete space also come as `action_mask`, which its `sample` takes.
    """
    info = {**copy.deepcopy(step.info), **further}
    if step.legal_actions is not None:
        info["legal_actions"] = list(step.legal_actions)
        if isinstance(action_space, spaces.Discrete):
            info["action_mask"] = _mask(step.legal_actions, action_space)
    if step.ending is not None:
        info["ending"] = step.ending
    return info


def _mask(legal: tuple[str | int, ...], space: spaces.Discrete) -> np.ndarray[Any, Any]:
    mask = np.zeros(int(space.n), np.int8)
    mask[[int(action) - int(space.start) for action in legal]] = 1
    return mask
