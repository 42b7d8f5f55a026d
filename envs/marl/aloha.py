"""Slotted Aloha: ten stations share a channel, and whoever sends beside a neighbour that sends spoils both messages.

Ten islands lie on a grid of two rows and five columns; number i is in row i // 5 and column i mod 5. Neighbours
interfere: left and right, above and below, and also 4 and 5, where the rows of the original's matrix run on; so the
graph still has two colours, the even and the odd numbers. Each island has a queue of at most 5 messages, one at first.
Who sends with a message in the queue has it through, and off the queue, if no neighbour chose to send. Who sends with
an empty queue disturbs all the same. Then each queue grows by one with probability 0.6.

Observation: the length of the agent's own queue divided by 5, and nothing else: neither the time, nor who it is, nor
    the neighbours. In `info`: ``backlog``, the plain length.
State: the lengths of all queues, divided by 5.
Actions: Discrete(2): 1 sends, 0 waits; both are always legal.
Reward: 0.1 for each message that got through and -10 for each that did not, summed and the same for every seat.
Endings: ``out_of_steps`` (truncation) after 20 steps.
Score: the return divided by 10, at least 0; more than 10 there cannot be. `won` is the original's: more than 90
    messages got through.
Experts: ``joint`` sees all queues and lets as many islands send as can without disturbing each other, those with the
    longest queues where there is a choice (return 9.70); ``index_order`` decides in the order of the numbers and sends
    if no earlier neighbour does, as a Bayesian-network policy can (9.23); ``colour_class`` has the even numbers send
    whenever they can, which needs no more than the observation (6.20).
Tasks: one; `train` and `test` differ in nothing.
Seed: draws the messages that come in.
Versions: v0, the first.
Source: Wang et al. 2022 (CASEC, the MACO benchmark), arXiv:2106.02886, in the form that Chen and Zhang 2023,
    arXiv:2306.01920, use.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena import register

from ._vectorised import Bools, Episodes, Game, GameEnvironment, Integers, Outcome

_COLUMNS = 5
_ISLANDS = 2 * _COLUMNS
_LONGEST = 5
_ARRIVAL = 0.6
_THROUGH, _SPOILT = 0.1, -10.0
_WON = 0.9
"""More than this part of what half of the islands could send at every step is a win."""

_EXPERTS = ("joint", "index_order", "colour_class")


def _interference() -> NDArray[np.bool_]:
    """Return which islands are neighbours; the next number is always one, across the end of the first row, too."""
    links = np.eye(_ISLANDS, k=1, dtype=bool) | np.eye(_ISLANDS, k=_COLUMNS, dtype=bool)
    return links | links.T


INTERFERENCE = _interference()
"""Which islands are neighbours, (10, 10)."""


def independent_sets() -> NDArray[np.bool_]:
    """Return every set of islands that do not disturb each other, the smallest first, (sets, 10)."""
    found = []
    for size in range(_COLUMNS + 1):
        for members in combinations(range(_ISLANDS), size):
            if not INTERFERENCE[np.ix_(members, members)].any():
                found.append(np.isin(np.arange(_ISLANDS), members))
    return np.array(found)


class AlohaGame(Game):
    """The rules; an episode is its queues, ``backlog``, and what was sent so far, ``transmissions`` and ``collisions``.

    `backlog` is int8 (B, 10), the others are int64 (B,).
    """

    agents = _ISLANDS
    actions = 2
    horizon = 20
    observation_size = 1
    start_draws = 0
    step_draws = _ISLANDS

    def __init__(self) -> None:
        self._interference = INTERFERENCE.astype(np.float32)
        self._sets = independent_sets()

    def start(self, draws: NDArray[np.float64]) -> Episodes:
        """Put one message into every queue."""
        none = np.zeros(len(draws), np.int64)
        backlog = np.ones((len(draws), _ISLANDS), np.int8)
        return {"backlog": backlog, "transmissions": none, "collisions": none}

    def step(self, episodes: Episodes, actions: Integers, draws: NDArray[np.float64], is_last: Bools) -> Outcome:
        """Send, and let messages come in."""
        backlog = episodes["backlog"]
        disturbed = actions.astype(np.float32) @ self._interference > 0
        sends = (actions == 1) & (backlog > 0)
        through = sends & ~disturbed
        sent = through.sum(1)
        spoilt = sends.sum(1) - sent
        after = {
            "backlog": np.minimum(backlog - through + (draws < _ARRIVAL), _LONGEST).astype(np.int8),
            "transmissions": episodes["transmissions"] + sent,
            "collisions": episodes["collisions"] + spoilt,
        }
        return Outcome(after, _THROUGH * sent + _SPOILT * spoilt, np.zeros(len(sent), bool))

    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """Show every agent its own queue."""
        return (episodes["backlog"][:, :, None] / np.float32(_LONGEST)).astype(np.float32)

    def metrics(self, episodes: Episodes) -> dict[str, NDArray[Any]]:
        """Return the score, what was sent and what was spoilt."""
        most = self.horizon * _COLUMNS
        return {
            "score": np.maximum(episodes["return"], 0) / (_THROUGH * most),
            "won": episodes["transmissions"] > _WON * most,
            "transmissions": episodes["transmissions"],
            "collisions": episodes["collisions"],
        }

    def expert(self, episodes: Episodes, kind: str | None) -> Integers:
        """Return who sends, by one of the three experts."""
        waiting: Bools = episodes["backlog"] > 0
        if kind == "index_order":
            return self.in_order(waiting, np.broadcast_to(np.arange(_ISLANDS), waiting.shape))
        even = np.arange(_ISLANDS) % 2 == 0
        chosen = even if kind == "colour_class" else self.best_set(100 * waiting + episodes["backlog"])
        return np.where(waiting & chosen, 1, 0)

    def best_set(self, worth: Integers) -> Bools:
        """Return the islands that do not disturb each other and are together worth most, (B, 10); likewise `worth`."""
        sums = worth.astype(np.float32) @ self._sets.T.astype(np.float32)
        best: Bools = self._sets[sums.argmax(1)]
        return best

    def in_order(self, waiting: Bools, order: Integers) -> Integers:
        """Return who sends if each in turn does unless an earlier neighbour does.

        Args:
            waiting: Who has a message, (B, 10).
            order: The islands in the order of their turns, (B, 10).
        """
        sends = np.zeros(waiting.shape, np.int8)
        rows = np.arange(len(waiting))
        for island in order.T:
            disturbed = (sends * INTERFERENCE[island]).any(1)
            sends[rows, island] = waiting[rows, island] & ~disturbed
        return sends


@register(
    "marl/aloha-v0",
    summary="Ten stations share a channel; neighbours that send at once spoil each other's messages.",
    play="simultaneous",
    endings={"out_of_steps": "truncation"},
    reward_range=(_SPOILT * _ISLANDS, _THROUGH * _COLUMNS),
    metrics={
        "return": "Sum of the rewards.",
        "won": "1 if more than 90 messages got through.",
        "transmissions": "Messages that got through.",
        "collisions": "Messages that were spoilt.",
    },
    shared_reward=True,
    snapshots=True,
    expert=True,
    experts=_EXPERTS,
)
class Aloha(GameEnvironment):
    """One episode."""

    instructions = (
        "You are {agent}, one of {team} stations on a shared channel. You see the length of your own queue of "
        "messages, divided by 5. At each step answer 1 to send a message or 0 to wait. It gets through if none of your "
        "neighbours chose to send (+0.1 for all of you); otherwise it is spoilt (-10 for all of you). Whoever answers "
        "1 with an empty queue disturbs the neighbours, too. Answer with 0 or 1 only."
    )

    def make_game(self) -> Game:
        """Return the rules."""
        return AlohaGame()

    def facts(self, episode: Episodes) -> list[dict[str, Any]]:
        """Return the lengths of the queues."""
        return [{"backlog": length} for length in episode["backlog"][0].tolist()]
