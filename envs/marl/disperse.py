"""Disperse: twelve agents staff four hospitals, and only those who are at one know how many it needs next.

At each step every agent goes to a hospital. At the first step none needs anybody; at each later one a hospital that is
drawn anew needs 6 to 12 agents, and the others need none. Whoever was at a hospital in the last step sees what it needs
in the next one, and who was there, too. Where nobody was, nobody knows.

Observation: 17 numbers: 4 that are 1 for the agent's last hospital and else 0, what it needs now divided by 12, and 12
    that are 1 for each agent that was there, itself included. Before the first step the last hospital is drawn. In
    `info`: ``hospital``, ``need``, and ``present``, the agents' numbers.
State: all observations, agent_0's first; so a need that nobody sees is not in it.
Actions: Discrete(4), the hospital; all are always legal.
Reward: minus the number of agents that are missing, divided by 12; the same for every seat.
Endings: ``out_of_steps`` (truncation) after 10 steps: the need goes on.
Score: 1 + return / 9; 9 is more than can be missing. `won` is whether nobody ever was.
Expert: a team that knows the needs and goes where they are: nobody is missing.
Tasks: one; `train` and `test` differ in nothing.
Seed: draws the first hospitals and the needs.
Versions: v0, the first.
Source: Wang et al. 2022 (CASEC, the MACO benchmark), arXiv:2106.02886.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena import register

from ._vectorised import Bools, Episodes, Game, GameEnvironment, Integers, Outcome

_AGENTS, _HOSPITALS = 12, 4
_STEPS = 10
_LEAST = _AGENTS // 2


class DisperseGame(Game):
    """The rules; an episode has ``last``, ``needy``, ``need`` and ``missing``.

    `last` is each agent's hospital, int8 (B, 12). The others are int64 (B,): the hospital in need, what it needs, and
    how many agents were missing so far.
    """

    agents = _AGENTS
    actions = _HOSPITALS
    horizon = _STEPS
    observation_size = _HOSPITALS + 1 + _AGENTS
    start_draws = _AGENTS
    step_draws = 2

    def start(self, draws: NDArray[np.float64]) -> Episodes:
        """Draw where the agents come from; nobody is needed."""
        none = np.zeros(len(draws), np.int64)
        return {"last": (draws * _HOSPITALS).astype(np.int8), "needy": none, "need": none, "missing": none}

    def step(self, episodes: Episodes, actions: Integers, draws: NDArray[np.float64], is_last: Bools) -> Outcome:
        """Count who is missing, and draw the next need."""
        supply = (actions == episodes["needy"][:, None]).sum(1)
        missing = np.maximum(episodes["need"] - supply, 0)
        after = {
            "last": actions.astype(np.int8),
            "needy": (draws[:, 0] * _HOSPITALS).astype(np.int64),
            "need": (_LEAST + draws[:, 1] * (_AGENTS - _LEAST + 1)).astype(np.int64),
            "missing": episodes["missing"] + missing,
        }
        return Outcome(after, 0.0 - missing / _AGENTS, np.zeros(len(missing), bool))

    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """Show every agent its hospital, what it needs, and who is there."""
        last = episodes["last"]
        shown = np.empty((len(last), _AGENTS, self.observation_size), np.float32)
        shown[:, :, :_HOSPITALS] = last[:, :, None] == np.arange(_HOSPITALS)
        shown[:, :, _HOSPITALS] = self.needs_seen(episodes) / np.float32(_AGENTS)
        shown[:, :, _HOSPITALS + 1 :] = last[:, :, None] == last[:, None]
        return shown

    def needs_seen(self, episodes: Episodes) -> NDArray[np.int64]:
        """Return what each agent's last hospital needs now, (B, 12)."""
        return np.where(episodes["last"] == episodes["needy"][:, None], episodes["need"][:, None], 0)

    def metrics(self, episodes: Episodes) -> dict[str, NDArray[Any]]:
        """Return the score, whether nobody was missing, and how many were."""
        return {
            "score": 1 + episodes["return"] / (_STEPS - 1),
            "won": episodes["missing"] == 0,
            "missing": episodes["missing"],
        }

    def expert(self, episodes: Episodes, kind: str | None) -> Integers:
        """Return the hospital in need, for all."""
        return np.repeat(episodes["needy"][:, None], _AGENTS, axis=1)


@register(
    "marl/disperse-v0",
    summary="Agents staff hospitals whose needs are known only to those who are there.",
    play="simultaneous",
    endings={"out_of_steps": "truncation"},
    reward_range=(-1.0, 0.0),
    metrics={
        "return": "Sum of the rewards.",
        "won": "1 if nobody was ever missing.",
        "missing": "Agents that were missing, over all steps.",
    },
    shared_reward=True,
    snapshots=True,
    expert=True,
)
class Disperse(GameEnvironment):
    """One episode."""

    instructions = (
        "You are {agent}, one of {team} who staff four hospitals, 0 to 3. At each step every one of you goes to a "
        "hospital. From the second step on, one hospital, drawn anew each time, needs 6 to 12 of you, and each who is "
        "missing there costs all of you 1/12. You see four numbers, of which a 1 marks where you were last, then what "
        "that hospital needs in the coming step, divided by 12, and then for agent_0 to agent_11 a 1 for each who was "
        "there, too. Answer with the number of a hospital."
    )

    def make_game(self) -> Game:
        """Return the rules."""
        return DisperseGame()

    def facts(self, episode: Episodes) -> list[dict[str, Any]]:
        """Return where the agents were, what is needed there, and who was there, too."""
        last = episode["last"][0].tolist()
        needs = DisperseGame().needs_seen(episode)[0].tolist()
        present = {place: [number for number, other in enumerate(last) if other == place] for place in set(last)}
        return [{"hospital": at, "need": need, "present": present[at]} for at, need in zip(last, needs, strict=True)]
