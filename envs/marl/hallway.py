"""Hallway: teams must reach the end of their corridors at the same moment, and no two teams at once.

Twelve agents are in five groups: 0 and 1, 2 and 3, 4 and 5, 6 to 8, 9 to 11. Each is alone in a corridor, at a place
from 1 to 4 at first, and sees nothing but it. A group all of whose members stand at 0 after a step has won; a group of
which some do and some do not has failed. Both are over: their agents stay where they are. Groups that win in the same
step clash: together they get -0.5 each instead of 1, and count as failed.

Observation: two numbers, the agent's place divided by 4, and 1 while its group is in the game, else 0. In `info`:
    ``place`` and ``active``.
State: all observations, agent_0's first.
Actions: Discrete(3): 0 stays, 1 moves towards 0, 2 moves away, up to place 4; all are always legal.
Reward: 1 for a group that wins alone; k groups that win at once get 1 - 1.5 each; the same for every seat.
Endings: ``won`` (termination), all groups won; ``lost`` (termination), all failed; ``out_of_steps`` (truncation) after
    14 steps, also where some groups won and others failed.
Score: the part of the groups that won. `won` is whether all did.
Expert: a team that knows all places and the time and lets one group after the other arrive: it always wins.
Tasks: one; `train` and `test` differ in nothing.
Seed: draws the places.
Versions: v0, the first.
Source: Wang et al. 2022 (CASEC, the MACO benchmark), arXiv:2106.02886. After a clash the original means to put the
    groups back, and does not: they can move again and never win. Here they are out, which gives the same returns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena import register

from ._vectorised import Bools, Episodes, Game, GameEnvironment, Integers, Outcome

_SIZES = (2, 2, 2, 3, 3)
_LENGTH = 4
_CLASH = 1.5
_GROUP = np.repeat(np.arange(len(_SIZES)), _SIZES)
_FIRST = np.cumsum((0, *_SIZES[:-1]))
_MOVES = np.array([0, -1, 1], np.int8)


class HallwayGame(Game):
    """The rules; an episode has ``place``, int8 (B, 12), ``won`` and ``failed``, bool (B, 5), and ``clashes``, (B,)."""

    agents = sum(_SIZES)
    actions = len(_MOVES)
    horizon = _LENGTH + 10
    observation_size = 2
    start_draws = agents
    step_draws = 0

    def start(self, draws: NDArray[np.float64]) -> Episodes:
        """Draw the places."""
        none = np.zeros((len(draws), len(_SIZES)), bool)
        place = (1 + draws * _LENGTH).astype(np.int8)
        return {"place": place, "won": none, "failed": none, "clashes": np.zeros(len(draws), np.int64)}

    def step(self, episodes: Episodes, actions: Integers, draws: NDArray[np.float64], is_last: Bools) -> Outcome:
        """Move, and see which groups win or fail."""
        active = _active(episodes)
        moves = np.where(active[:, _GROUP], _MOVES[actions], np.int8(0))
        place = (episodes["place"] + moves).clip(0, _LENGTH)
        arrived = np.add.reduceat(place == 0, _FIRST, axis=1, dtype=np.int8)
        wins = active & (arrived == _SIZES)
        count = wins.sum(1)
        clash = count > 1
        won = episodes["won"] | (wins & ~clash[:, None])
        failed = episodes["failed"] | (active & (arrived > 0) & ~won)
        after = {"place": place, "won": won, "failed": failed, "clashes": episodes["clashes"] + clash * count}
        return Outcome(after, count * (1 - _CLASH * clash), won.all(1) | failed.all(1))

    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """Show every agent its place and whether it is in the game."""
        place = episodes["place"] / np.float32(_LENGTH)
        return np.stack([place, _active(episodes)[:, _GROUP]], axis=2, dtype=np.float32)

    def metrics(self, episodes: Episodes) -> dict[str, NDArray[Any]]:
        """Return the part of the groups that won, and how many won, failed and clashed."""
        return {
            "score": episodes["won"].mean(1),
            "won": episodes["won"].all(1),
            "groups_won": episodes["won"].sum(1),
            "groups_failed": episodes["failed"].sum(1),
            "clashes": episodes["clashes"],
        }

    def expert(self, episodes: Episodes, kind: str | None) -> Integers:
        """Return who moves: groups arrive one after the other, those that are nearest first."""
        farthest = np.maximum.reduceat(episodes["place"], _FIRST, axis=1).astype(np.int64)
        active = _active(episodes)
        order = np.argsort(np.where(active, farthest, _LENGTH + 1), axis=1, kind="stable")
        rows, arrival = np.arange(len(order)), np.zeros(len(order), np.int64)
        due = np.zeros(order.shape, np.int64)
        for group in order.T:
            arrival = np.maximum(arrival + 1, farthest[rows, group])
            due[rows, group] = arrival
        return (active[:, _GROUP] & (episodes["place"] >= due[:, _GROUP])).astype(np.int8)


def _active(episodes: Episodes) -> Bools:
    """Return which groups are in the game, (B, 5)."""
    return ~(episodes["won"] | episodes["failed"])


@register(
    "marl/hallway-v0",
    summary="Groups must reach the end of their corridors together, and one group at a time.",
    play="simultaneous",
    endings={"won": "termination", "lost": "termination", "out_of_steps": "truncation"},
    reward_range=(len(_SIZES) * (1 - _CLASH), 1.0),
    metrics={
        "return": "Sum of the rewards.",
        "won": "1 if all groups won.",
        "groups_won": "Groups that won alone.",
        "groups_failed": "Groups that failed or clashed.",
        "clashes": "Groups that reached the end in the same step as another.",
    },
    shared_reward=True,
    snapshots=True,
    expert=True,
)
class Hallway(GameEnvironment):
    """One episode."""

    instructions = (
        "You are {agent}, one of {team} in five groups: agent_0 and 1, 2 and 3, 4 and 5, 6 to 8, 9 to 11. Each of you "
        "stands in a corridor of its own, at place 1 to 4. All members of your group must reach place 0 in the same "
        "step; a group of which only some do has failed. A group that gets there gains 1 for all of you, but groups "
        "that get there in the same step as another lose 0.5 each and are out. You see your place divided by 4, and 1 "
        "while your group is in the game. Answer with 0 to stay, 1 to move towards 0, or 2 to move away."
    )

    def make_game(self) -> Game:
        """Return the rules."""
        return HallwayGame()

    def ending(self, episode: Episodes) -> str:
        """Return whether all groups won or all failed."""
        return "won" if episode["won"].all() else "lost"

    def facts(self, episode: Episodes) -> list[dict[str, Any]]:
        """Return the places, and who is in the game."""
        pairs = zip(episode["place"][0].tolist(), _active(episode)[0, _GROUP].tolist(), strict=True)
        return [{"place": place, "active": active} for place, active in pairs]
