import pickle
from functools import partial

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

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
    UsageError,
    restart,
    stream,
    termination,
    transition,
)
from arena.testing.pettingzoo import check_pettingzoo
from arena.views.local import LocalEpisodes, aec_env, parallel_env
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


class Opening:
    """Opens sessions of a class; can be pickled."""

    portable = True

    def __init__(self, cls):
        self.cls = cls

    def __call__(self, seed):
        env = self.cls()
        session = Session(env, env.taskset("test").task(0), seed)
        session.open()
        return session


def seen(cls, api=None):
    env = cls()
    return view(cls.spec, {agent: env.seat(agent) for agent in env.possible_agents}, Opening(cls), api)


@pytest.mark.parametrize("api", ["aec", "parallel"])
@pytest.mark.parametrize("cls", [Race, Rounds, Match, Nim], ids=lambda cls: cls.__name__)
def test_every_kind_of_play_passes_the_suites_and_our_clauses_in_both_forms(cls, api):
    report = check_pettingzoo(partial(seen, cls, api), steps=100)
    report.raise_if_failed()
    assert [outcome.clause for outcome in report.outcomes if outcome.verdict == "not applicable"] == (
        ["parallel_api_test_passes", "finished_agents_leave"] if api == "aec" else []
    )


@pytest.mark.parametrize("make", [aec_env, parallel_env])
def test_text_games_pass_too(make):
    check_pettingzoo(partial(make, "text/guess-v0"), steps=30).raise_if_failed()


def test_seats_that_act_at_once_get_the_parallel_view_and_the_others_take_turns():
    assert isinstance(seen(Match), ParallelView)
    assert isinstance(seen(Nim), TurnsView)
    with pytest.raises(UnsupportedError, match="tools"):
        seen(Tools)
    with pytest.raises(UsageError, match="'aec' and 'parallel'"):
        seen(Match, "both")


def test_seats_that_act_at_once_also_take_turns():
    turns, parallel = seen(Race, "aec"), seen(Race)
    turns.reset(seed=3)
    observations, _ = parallel.reset(seed=3)
    while parallel.agents:
        for agent in list(parallel.agents):
            assert turns.agent_selection == agent
            assert np.array_equal(turns.last()[0], observations[agent])
            turns.step(1)
        observations, rewards, terminations, _, _ = parallel.step(dict.fromkeys(parallel.agents, 1))
        assert turns.rewards == rewards
        assert turns.terminations == terminations
        for agent in [agent for agent, over in terminations.items() if over]:
            assert turns.agent_selection == agent
            assert turns.last()[1] == 1.0
            turns.step(None)
    assert turns.agents == []
    with pytest.raises(ResetNeededError):
        turns.step(0)


def test_where_seats_take_turns_all_act_and_only_one_counts():
    env = seen(Nim, "parallel")
    observations, infos = env.reset(seed=0)
    assert infos["second"]["active_agent"] == "first"
    assert observations["first"]["action_mask"].tolist() == [1, 1]
    assert observations["second"]["action_mask"].tolist() == [0, 0]
    observations, _, _, _, infos = env.step({"first": 2, "second": 1})
    assert observations["first"]["observation"] == "5 stones; you took 2"
    assert observations["second"]["observation"] == "5 stones; you took 0"
    assert infos["first"]["active_agent"] == "second"
    env.step({"second": 2})
    with pytest.raises(InvalidActionError, match="first"):
        env.step({"second": 2})


def test_two_hundred_parallel_steps_are_the_same_for_the_same_seed_second_resets_included():
    def told():
        env, rng, out = seen(Match), np.random.default_rng(0), []
        while len(out) < 200:
            out.append(env.reset(seed=7 if not out else None))
            while env.agents:
                out.append(env.step({agent: int(rng.integers(2)) for agent in env.agents}))
        return out

    assert told() == told()
    assert len({str(step) for step in told()}) >= 5


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
        assert observation["observation"].endswith(("you took 0", "you took 1", "you took 2"))
        env.step(None if terminated or truncated else int(np.flatnonzero(info["action_mask"])[-1]) + 1)
    assert totals == {"first": -1.0, "second": 1.0}
    assert env.agents == []


def test_a_refused_action_changes_nothing_and_says_why():
    turns, parallel = seen(Nim), seen(Match)
    turns.reset(seed=0)
    turns.step(5)
    assert (turns.agent_selection, turns.last()[0]["observation"]) == ("first", "7 stones; you took 0")
    assert "Discrete" in turns.infos["first"]["refused"]
    assert "refused" not in turns.infos["second"]
    turns.step(1)
    assert "refused" not in turns.infos["first"]
    before, _ = parallel.reset(seed=0)
    with pytest.raises(InvalidActionError, match="right"):
        parallel.step({"left": 0})
    after, rewards, terminations, truncations, infos = parallel.step({"left": 0, "right": 7})
    assert after == before
    assert rewards == {"left": 0.0, "right": 0.0}
    assert not any([*terminations.values(), *truncations.values()])
    assert ["refused" in infos[agent] for agent in ("left", "right")] == [False, True]


def test_too_many_refused_actions_truncate():
    env = seen(Match)
    env.reset(seed=0)
    env.step({"left": 0, "right": 0})
    for _ in range(10):
        assert env.agents
        _, rewards, _, truncations, infos = env.step({"left": 0, "right": 7})
        assert set(rewards.values()) == {0.0}
    assert all(truncations.values())
    assert infos["left"]["ending"] == "invalid_actions_limit"
    assert env.agents == []


def test_views_are_pickled_between_episodes_and_not_in_the_middle():
    env = parallel_env("text/guess-v0", {"max_guesses": 2}, split="test", task="range-10")
    assert pickle.loads(pickle.dumps(env)).reset(seed=4) == env.reset(seed=4)
    with pytest.raises(UsageError, match="cannot be pickled in mid-episode"):
        pickle.dumps(env)
    env.close()
    assert pickle.loads(pickle.dumps(env)).possible_agents == ["player"]


def test_a_view_of_this_process_names_what_is_there():
    with pytest.raises(UnsupportedError, match=r"no split 'tset'.*'test'"):
        aec_env("text/guess-v0", split="tset").reset()
    assert LocalEpisodes("text/guess-v0")(3).task == LocalEpisodes("text/guess-v0")(3).task


def test_the_latest_observations_can_be_rendered():
    env = seen(Nim)
    assert env.render() == ""
    env.reset(seed=0)
    env.step(2)
    assert env.render() == "first: 5 stones; you took 2\nsecond: 5 stones; you took 0"


def test_the_mask_names_what_is_legal_in_the_spaces_own_order():
    env = seen(Nim)
    env.reset(seed=0)
    for action in (2, 2, 2):
        env.step(action)
    assert env.infos[env.agent_selection]["action_mask"].tolist() == [1, 0]
    assert env.last()[0]["action_mask"].tolist() == [1, 0]
    assert env.observe("first")["action_mask"].tolist() == [0, 0]
    assert env.infos[env.agent_selection]["legal_actions"] == [1]


def test_there_is_no_step_before_a_reset():
    with pytest.raises(ResetNeededError):
        seen(Match)._take({})
    with pytest.raises(ResetNeededError):
        seen(Nim).step(1)
