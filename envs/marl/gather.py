"""Gather: five agents must meet at one of three goals, and only those that begin near it know which.

The grid has 3 rows and 5 columns; the goals are in the middle row, in columns 0, 2 and 4. The agents are put on cells
at random. Each votes for the goal nearest to it (from column 1 the middle one, from column 3 the right one), and the
goal with most votes is the target; of several, the leftmost. Who voted for it is told so, from the first step to the
last; the others are told nothing, and nobody sees anybody.

Observation: four numbers: the agent's row divided by 2 and column divided by 4, and the target's, or -1 and -1 for
    whoever is not told. In `info`: ``row``, ``column`` and ``target``, the target's column or null.
State: all observations, agent_0's first.
Actions: Discrete(5): 0 down (the row grows), 1 right, 2 up, 3 left, 4 stay; all are always legal, and the edge holds.
Reward: 10 when all stand on the target; when the time is over, 5 if all stand on goals and none on the target, -5 if
    all stand on goals and some on the target; else 0; the same for every seat.
Endings: ``gathered`` (termination), all stand on the target; ``settled`` (termination) after 8 steps: the rules pay
    then what was reached, and only then, so this is an end of the game.
Score: the return divided by 10. `won` is whether all gathered.
Expert: a team that knows the target: it always gathers.
Tasks: one; `train` and `test` differ in nothing.
Seed: draws the cells.
Versions: v0, the first.
Source: Wang et al. 2022 (CASEC, the MACO benchmark), arXiv:2106.02886.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena import register

from ._vectorised import Bools, Episodes, Game, GameEnvironment, Integers, Outcome

_ROWS, _COLUMNS = 3, 5
_GOAL_ROW = 1
_GOALS = np.array([0, 2, 4])
_VOTES = np.array([0, 1, 1, 2, 2])
"""Number of the nearest goal, by column."""

_MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]], np.int8)
_LAST_CELL = np.array([_ROWS - 1, _COLUMNS - 1], np.int8)
_GATHERED, _ELSEWHERE, _MIXED = 10.0, 5.0, -5.0
_DOWN, _RIGHT, _UP, _LEFT, _STAY = range(5)


class GatherGame(Game):
    """The rules; an episode has ``cell``, int8 (B, 5, 2), ``target``, a goal's number, (B,), ``told`` and ``gathered``.

    `told` says who knows the target, (B, 5), and `gathered` whether all stand on it, (B,).
    """

    agents = 5
    actions = len(_MOVES)
    horizon = 8
    observation_size = 4
    observation_low = -1.0
    start_draws = agents
    step_draws = 0

    def start(self, draws: NDArray[np.float64]) -> Episodes:
        """Draw the cells; the votes choose the target."""
        number = (draws * (_ROWS * _COLUMNS)).astype(np.int8)
        cell = np.stack(np.divmod(number, np.int8(_COLUMNS)), axis=2)
        votes = _VOTES[cell[:, :, 1]]
        target = (votes[:, :, None] == np.arange(len(_GOALS))).sum(1).argmax(1)
        episodes = {"cell": cell, "target": target, "told": votes == target[:, None]}
        return {**episodes, "gathered": np.zeros(len(draws), bool)}

    def step(self, episodes: Episodes, actions: Integers, draws: NDArray[np.float64], is_last: Bools) -> Outcome:
        """Move, and see who stands where."""
        cell = (episodes["cell"] + _MOVES[actions]).clip(0, _LAST_CELL)
        on_goal = (cell[:, :, 0] == _GOAL_ROW) & (cell[:, :, 1] % 2 == 0)
        on_target = on_goal & (cell[:, :, 1] == _GOALS[episodes["target"]][:, None])
        gathered = on_target.all(1)
        settled = np.where(on_goal.all(1), np.where(on_target.any(1), _MIXED, _ELSEWHERE), 0.0)
        rewards = np.where(gathered, _GATHERED, np.where(is_last, settled, 0.0))
        return Outcome({**episodes, "cell": cell, "gathered": gathered}, rewards, gathered | is_last)

    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """Show every agent its cell, and the target to whoever is told."""
        count = len(episodes["target"])
        goal = np.stack([np.full(count, _GOAL_ROW), _GOALS[episodes["target"]]], axis=1) / _LAST_CELL
        shown = np.where(episodes["told"][:, :, None], goal[:, None], -1.0)
        return np.concatenate([episodes["cell"] / _LAST_CELL, shown], axis=2, dtype=np.float32)

    def metrics(self, episodes: Episodes) -> dict[str, NDArray[Any]]:
        """Return the score, whether all gathered, and how many were told."""
        return {
            "score": episodes["return"] / _GATHERED,
            "won": episodes["gathered"],
            "told": episodes["told"].sum(1),
        }

    def expert(self, episodes: Episodes, kind: str | None) -> Integers:
        """Return the way to the target, along the row first."""
        row, column = episodes["cell"][:, :, 0], episodes["cell"][:, :, 1]
        goal = _GOALS[episodes["target"]][:, None]
        conditions = [column < goal, column > goal, row < _GOAL_ROW, row > _GOAL_ROW]
        return np.select(conditions, [_RIGHT, _LEFT, _DOWN, _UP], _STAY)


@register(
    "marl/gather-v0",
    summary="Agents must meet at a goal that only some of them know.",
    play="simultaneous",
    endings={"gathered": "termination", "settled": "termination"},
    reward_range=(_MIXED, _GATHERED),
    score_range=(_MIXED / _GATHERED, 1.0),
    metrics={
        "return": "Sum of the rewards.",
        "won": "1 if all gathered at the target.",
        "told": "Agents that were told the target.",
    },
    shared_reward=True,
    snapshots=True,
    expert=True,
)
class Gather(GameEnvironment):
    """One episode."""

    instructions = (
        "You are {agent}, one of {team} on a grid of 3 rows and 5 columns. There are goals in row 1, columns 0, 2 and "
        "4; one is the target, the one to which most of you are nearest at first. You see your row divided by 2, your "
        "column divided by 4, and the same of the target if you were nearest to it, else -1 and -1. If all of you "
        "stand on the target, each gets 10. After 8 steps each gets 5 if all stand on goals and none on the target, "
        "or -5 if all stand on goals and some on the target. Answer with 0 for down (row 0 is the uppermost), 1 for "
        "right, 2 for up, 3 for left, or 4 to stay."
    )

    def make_game(self) -> Game:
        """Return the rules."""
        return GatherGame()

    def ending(self, episode: Episodes) -> str:
        """Return whether all gathered or the time was over."""
        return "gathered" if episode["gathered"][0] else "settled"

    def facts(self, episode: Episodes) -> list[dict[str, Any]]:
        """Return the cells, and the target's column to whoever is told."""
        target = int(_GOALS[episode["target"][0]])
        pairs = zip(episode["cell"][0].tolist(), episode["told"][0].tolist(), strict=True)
        return [{"row": row, "column": column, "target": target if told else None} for (row, column), told in pairs]
