import warnings

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

import arena
from arena import (
    FreeText,
    Limits,
    ResetNeededError,
    Score,
    SeatSpec,
    Session,
    SingleAgentEnvironment,
    Tool,
    UnsupportedError,
    UsageError,
    restart,
    stream,
    termination,
    transition,
)
from arena.env import EnvSpec
from arena.views.gymnasium import GymnasiumView
from tests.arena.games import Nim, OneTask


class Walk(SingleAgentEnvironment):
    """Three steps to the left or the right; the observation is one array that is changed in place."""

    spec = EnvSpec(
        id="test/walk-v0",
        summary="Walk.",
        endings={"there": "termination"},
        reward_range=(-1.0, 1.0),
        legal_actions="all",
        splits=("test",),
    )

    def seat(self, agent):
        return SeatSpec(Box(-10, 10, (2,), np.float32), Discrete(2))

    def taskset(self, split):
        return OneTask(split)

    def begin(self, task, seed):
        self.place, self.steps = stream(seed, "env").uniform(-1, 1, 2).astype(np.float32), 0
        return restart(self.place, legal_actions=(0, 1), tags=["start"])

    def act(self, action):
        self.place[0] += 2 * action - 1
        self.steps += 1
        if self.steps == 3:
            return termination(self.place, 1.0, ending="there")
        return transition(self.place, float(2 * action - 1), legal_actions=(0, 1))

    def score(self):
        return Score(1.0, True)


class Tools(Walk):
    def seat(self, agent):
        return SeatSpec(FreeText(), None, (Tool("look", "Look.", {"type": "object"}),))


def view(make, **limits):
    def begin(seed):
        env = make()
        session = Session(env, env.taskset("test").task(0), seed, limits=Limits(**limits))
        session.open()
        return session

    env = make()
    return GymnasiumView(env.spec, {agent: env.seat(agent) for agent in env.possible_agents}, begin)


def guess():
    return arena.make("text/guess-v0")


def test_gymnasiums_own_checks_pass_in_process():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(not a Box|symmetric|no `render_mode`).*")
        check_env(view(Walk), skip_render_check=True)
        check_env(view(guess), skip_render_check=True)


def test_an_episode_is_shown_as_it_is_played():
    env = view(Walk)
    observation, info = env.reset(seed=3)
    assert info["legal_actions"] == [0, 1]
    assert info["action_mask"].tolist() == [1, 1]
    rewards = []
    for action in (1, np.int64(0), 1):
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
    assert rewards == [1.0, -1.0, 1.0]
    assert (terminated, truncated) == (True, False)
    assert info == {"ending": "there", "score": 1.0, "success": True}
    assert observation.dtype == np.float32


def test_what_is_returned_belongs_to_the_reader():
    env = view(Walk)
    first, info = env.reset(seed=3)
    kept = first.copy()
    env.step(1)
    assert np.array_equal(first, kept)
    first[:] = 99
    info["tags"].append("mine")
    assert env.reset(seed=3)[1]["tags"] == ["start"]


def test_the_same_seed_gives_the_same_episode_and_none_goes_on_from_it():
    def episodes():
        env = view(Walk)
        return [env.reset(seed=5)[0], env.reset()[0], env.reset()[0]]

    first, second = episodes(), episodes()
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], first[2])


def test_a_refused_action_changes_nothing_and_says_why():
    env = view(guess, invalid_actions=2)
    before, _ = env.reset(seed=1)
    after, reward, terminated, truncated, info = env.step("fly")
    assert (after, reward, terminated, truncated) == (before, 0.0, False, False)
    assert "legal" in info["refused"]
    *_, truncated, info = env.step("fly")
    assert truncated
    assert info["ending"] == "invalid_actions_limit"
    assert info["score"] == 0.0


def test_there_is_no_step_before_a_reset_and_none_after_the_end():
    env = view(guess, steps=1)
    with pytest.raises(ResetNeededError):
        env.step("1")
    env.reset(seed=1)
    env.step("1")
    with pytest.raises(ResetNeededError):
        env.step("1")
    env.close()
    with pytest.raises(ResetNeededError):
        env.step("1")


def test_the_latest_observation_can_be_rendered():
    env = view(guess)
    assert env.render() == ""
    observation, _ = env.reset(seed=1)
    assert env.render() == observation


def test_what_gymnasium_cannot_show_is_refused():
    with pytest.raises(UsageError, match="PettingZoo"):
        view(Nim)
    with pytest.raises(UnsupportedError, match="tools"):
        view(Tools)
