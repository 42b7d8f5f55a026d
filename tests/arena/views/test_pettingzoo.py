import warnings

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo.test import api_test, parallel_api_test, seed_test
from pettingzoo.utils import parallel_to_aec

from arena import (
    Environment,
    EnvSpec,
    InvalidActionError,
    ResetNeededError,
    Score,
    SeatSpec,
    Session,
    TimeStep,
    UnsupportedError,
    restart,
    stream,
    termination,
    transition,
)
from arena.views.pettingzoo import ParallelView, TurnsView, view
from tests.arena.games import Match, Nim, OneTask


class Race(Environment):
    """Three runners draw their speed; whoever is there leaves, the others go on. Observations are arrays."""

    spec = EnvSpec(
        id="test/race-v0",
        summary="Run.",
        endings={"there": "termination"},
        reward_range=(0.0, 1.0),
        play="simultaneous",
        splits=("test",),
    )
    possible_agents = ("runner_0", "runner_1", "runner_2")

    def seat(self, agent):
        return SeatSpec(Box(0, 100, (2,), np.float32), Discrete(2))

    def taskset(self, split):
        return OneTask(split)

    def reset(self, task, seed):
        self.rng = stream(seed, "env")
        self.places = {agent: np.array([1, 1 + self.rng.random()], np.float32) for agent in self.possible_agents}
        return TimeStep({agent: restart(place) for agent, place in self.places.items()}, self.possible_agents)

    def step(self, actions):
        seats = {}
        for agent, action in actions.items():
            place = self.places[agent]
            place[0] += action + 1
            there = place[0] > 4 + self.possible_agents.index(agent)
            seats[agent] = termination(place, 1.0, ending="there") if there else transition(place, 0.0)
        return TimeStep(seats, tuple(agent for agent, step in seats.items() if not step.is_last))

    def score(self):
        return Score(1.0)


class Rounds(Race):
    """The same in turns: the seat that acts is named, the others wait."""

    spec = EnvSpec(
        id="test/rounds-v0",
        summary="Run in turns.",
        endings={"there": "termination"},
        reward_range=(0.0, 1.0),
        play="turns",
        legal_actions="all",
        splits=("test",),
    )

    def reset(self, task, seed):
        first = super().reset(task, seed)
        self.alive = list(self.possible_agents)
        seats = {agent: restart(step.observation, legal_actions=(0,)) for agent, step in first.seats.items()}
        return TimeStep(seats, (self.alive[0],))

    def step(self, actions):
        ((mover, _),) = actions.items()
        self.places[mover][0] += 2
        there = self.places[mover][0] > 4 + self.possible_agents.index(mover)
        turn = self.alive[(self.alive.index(mover) + 1) % len(self.alive)]
        seats = {agent: transition(self.places[agent], 0.0, legal_actions=(0,)) for agent in self.alive}
        if there:
            seats[mover] = termination(self.places[mover], 1.0, ending="there")
            self.alive.remove(mover)
        return TimeStep(seats, (turn,) if self.alive else ())


class Tools(Match):
    def seat(self, agent):
        return SeatSpec(Discrete(2), None)


def seen(cls):
    def begin(seed):
        env = cls()
        session = Session(env, env.taskset("test").task(0), seed)
        session.open()
        return session

    env = cls()
    return view(cls.spec, {agent: env.seat(agent) for agent in env.possible_agents}, begin)


@pytest.fixture
def only_remarks():
    """PettingZoo's tests warn of names and kinds of spaces that are a matter of taste."""
    with warnings.catch_warnings():
        for remark in (
            "We recommend agents to be named",
            "Observation is not a NumPy",
            "Observation space for each agent",
        ):
            warnings.filterwarnings("ignore", message=remark)
        yield


@pytest.mark.usefixtures("only_remarks")
def test_pettingzoos_own_checks_pass_in_turns():
    api_test(seen(Rounds), num_cycles=60)
    seed_test(lambda: seen(Rounds), num_cycles=60)
    seed_test(lambda: seen(Nim), num_cycles=60)


@pytest.mark.usefixtures("only_remarks")
def test_pettingzoos_own_checks_pass_in_parallel():
    parallel_api_test(seen(Race), num_cycles=60)
    parallel_api_test(seen(Match), num_cycles=60)
    api_test(parallel_to_aec(seen(Race)), num_cycles=60)
    seed_test(lambda: parallel_to_aec(seen(Race)), num_cycles=60)


def test_seats_that_act_at_once_get_the_parallel_view_and_the_others_take_turns():
    assert isinstance(seen(Match), ParallelView)
    assert isinstance(seen(Nim), TurnsView)
    with pytest.raises(UnsupportedError, match="tools"):
        seen(Tools)


def test_two_hundred_parallel_steps_are_the_same_for_the_same_seed_second_resets_included():
    def told():
        env, rng, out = seen(Match), np.random.default_rng(0), []
        while len(out) < 200:
            out.append(env.reset(seed=7 if not out else None))
            while env.agents:
                out.append(env.step({agent: int(rng.integers(2)) for agent in env.agents}))
        return out

    assert told() == told()


def test_what_is_returned_belongs_to_the_reader():
    env = seen(Race)
    observations, _ = env.reset(seed=1)
    kept = {agent: place.copy() for agent, place in observations.items()}
    assert not np.shares_memory(*list(observations.values())[:2])
    env.step(dict.fromkeys(env.agents, 1))
    assert all(np.array_equal(observations[agent], kept[agent]) for agent in kept)


def test_dead_seats_leave_and_the_living_go_on():
    env = seen(Race)
    env.reset(seed=1)
    alive = []
    while env.agents:
        before = list(env.agents)
        observations, rewards, terminations, truncations, infos = env.step(dict.fromkeys(env.agents, 1))
        for told in (observations, rewards, terminations, truncations, infos):
            assert list(told) == before
        assert all(type(flag) is bool for flag in [*terminations.values(), *truncations.values()])
        alive.append(len(env.agents))
    assert alive == [3, 2, 0]
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_the_players_of_a_game_in_turns_are_rewarded_for_each_others_moves():
    env = seen(Nim)
    env.reset(seed=0)
    totals = dict.fromkeys(env.possible_agents, 0.0)
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, info = env.last()
        totals[agent] += reward
        assert observation.endswith(("you took 0", "you took 1", "you took 2"))
        env.step(None if terminated or truncated else int(np.flatnonzero(info["action_mask"])[-1]) + 1)
    assert totals == {"first": -1.0, "second": 1.0}
    assert env.agents == []


def test_a_refused_action_raises_and_changes_nothing():
    turns, parallel = seen(Nim), seen(Match)
    turns.reset(seed=0)
    with pytest.raises(InvalidActionError):
        turns.step(5)
    assert (turns.agent_selection, turns.last()[0]) == ("first", "7 stones; you took 0")
    parallel.reset(seed=0)
    with pytest.raises(InvalidActionError):
        parallel.step({"left": 0})
    assert parallel.agents == ["left", "right"]


def test_the_mask_names_what_is_legal_in_the_spaces_own_order():
    env = seen(Nim)
    env.reset(seed=0)
    for action in (2, 2, 2):
        env.step(action)
    assert env.infos[env.agent_selection]["action_mask"].tolist() == [1, 0]
    assert env.infos[env.agent_selection]["legal_actions"] == [1]


def test_there_is_no_step_before_a_reset():
    with pytest.raises(ResetNeededError):
        seen(Match)._take({})
