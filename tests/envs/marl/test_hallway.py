"""Hallway: the rules step by step, the reference values, and the expert."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import Task, make, make_vector
from arena.envs.marl._vectorised import advance, begin
from arena.envs.marl.hallway import HallwayGame
from tests.envs.marl.simulation import at_random, by_expert, simulate, standard_error

ENV = "marl/hallway-v0"
GAME = HallwayGame()
MEMBERS = [(0, 1), (2, 3), (4, 5), (6, 7, 8), (9, 10, 11)]
LEFT = 1


def all_left(batch, answer, step, rng):
    return np.full((len(batch), 12), LEFT)


def starts_at(places):
    """An episode whose agents stand at these places."""
    return begin(GAME, (np.array([places]) - 0.5) / 4)


def play(episodes, joint_actions):
    """The rewards of a script, and how it ends: the episode, whether the rules ended it, and whether it was cut off."""
    rewards, ended, cut = [], False, False
    for actions in joint_actions:
        assert not ended
        (episodes, reward, over), off = advance(GAME, episodes, np.array([actions]), np.zeros((1, 0)))
        rewards.append(float(reward[0]))
        ended, cut = bool(over[0]), bool(off[0])
    return rewards, episodes, ended, cut


def moving(*groups):
    """Actions in which these groups move towards 0."""
    return [LEFT if any(agent in MEMBERS[group] for group in groups) else 0 for agent in range(12)]


# -- reference values --------------------------------------------------------------------------------------------------


def chances_of_winning(size):
    """The probability that a group at random would win at each of 14 steps."""
    places = dict.fromkeys(itertools.product(range(1, 5), repeat=size), 4.0**-size)
    chances = []
    for _ in range(14):
        after, won = {}, 0.0
        for here, chance in places.items():
            for moves in itertools.product((0, -1, 1), repeat=size):
                there = tuple(min(4, place + move) for place, move in zip(here, moves, strict=True))
                if not any(there):
                    won += chance / 3**size
                elif all(there):
                    after[there] = after.get(there, 0.0) + chance / 3**size
        chances.append(won)
        places = after
    return np.array(chances)


def expected_return(chances):
    """The expected return where groups win at these steps with these probabilities, (groups, steps), independently."""
    total = 0.0
    for step in chances.T:
        several = np.ones(1)
        for chance in step:
            several = np.convolve(several, [1 - chance, chance])
        worth = [count if count < 2 else -0.5 * count for count in range(len(several))]
        total += float(several @ worth)
    return total


def test_random_play_is_worth_what_it_is_by_computation():
    expected = expected_return(np.array([chances_of_winning(len(members)) for members in MEMBERS]))
    assert expected == pytest.approx(0.0656, abs=1e-4)
    returns = simulate(ENV, at_random)["return"]
    assert returns.mean() == pytest.approx(expected, abs=3 * standard_error(returns))


def test_all_left_is_worth_the_reference_value():
    chances = np.array([[4.0 ** -len(members)] * 4 + [0.0] * 10 for members in MEMBERS])
    expected = expected_return(chances)
    assert expected == pytest.approx(0.6727, abs=1e-4)
    returns = simulate(ENV, all_left)["return"]
    assert returns.mean() == pytest.approx(expected, abs=3 * standard_error(returns))


def test_the_expert_team_always_wins():
    found = simulate(ENV, by_expert())
    assert (found["return"] == 5).all()
    assert found["won"].all()
    assert (found["clashes"] == 0).all()


# -- rules -------------------------------------------------------------------------------------------------------------


def by_hand(places, script):
    """Rewards and ending of a script by the words of the rules."""
    places, state, rewards = list(places), ["active"] * 5, []
    for step, actions in enumerate(script, 1):
        for group, members in enumerate(MEMBERS):
            if state[group] == "active":
                for agent in members:
                    places[agent] = min(4, max(0, places[agent] + (0, -1, 1)[actions[agent]]))
        reached = []
        for group, members in enumerate(MEMBERS):
            at_end = [places[agent] == 0 for agent in members]
            if state[group] == "active" and all(at_end):
                reached.append(group)
            elif state[group] == "active" and any(at_end):
                state[group] = "failed"
        for group in reached:
            state[group] = "won" if len(reached) == 1 else "failed"
        rewards.append(1.0 if len(reached) == 1 else -0.5 * len(reached))
        if len(set(state)) == 1 and state[0] != "active":
            return rewards, state[0], places
        if step == 14:
            return rewards, "out_of_steps", places
    raise AssertionError("the script is too short")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.34, 0.6, 0.9]))
def test_an_episode_is_that_of_the_words(seed, pull):
    rng = np.random.default_rng(seed)
    together = rng.integers(1, 5, 5)
    places = np.where(rng.random(12) < pull, np.repeat(together, [2, 2, 2, 3, 3]), rng.integers(1, 5, 12))
    chosen = np.repeat((rng.random((14, 5)) < pull).astype(int), [2, 2, 2, 3, 3], axis=1)
    script = np.where(rng.random((14, 12)) < 0.9, chosen, rng.integers(0, 3, (14, 12)))
    expected, ending, after = by_hand(places, script.tolist())
    rewards, episodes, ended, cut = play(starts_at(places), script[: len(expected)])
    assert rewards == expected
    assert (ended, cut) == (ending != "out_of_steps", ending == "out_of_steps")
    assert episodes["place"][0].tolist() == after
    assert bool(episodes["won"].all()) == (ending == "won")


def test_groups_that_arrive_one_after_the_other_win():
    rewards, _, ended, cut = play(starts_at([1] * 12), [moving(group) for group in range(5)])
    assert rewards == [1, 1, 1, 1, 1]
    assert ended
    assert not cut


def test_groups_that_arrive_at_once_clash_and_are_out():
    rewards, episodes, ended, _ = play(starts_at([1] * 12), [moving(0, 3), moving(0, 3), moving(1)])
    assert rewards == [-1, 0, 1]
    assert not ended
    assert episodes["won"][0].tolist() == [False, True, False, False, False]
    assert episodes["failed"][0].tolist() == [True, False, False, True, False]
    assert GAME.metrics(episodes)["clashes"][0] == 2


def test_a_group_that_arrives_in_parts_has_failed():
    places = [1, 2, *[1] * 10]
    _, episodes, _, _ = play(starts_at(places), [moving(0), [2] * 12])
    assert episodes["failed"][0].tolist() == [True, False, False, False, False]
    assert episodes["place"][0].tolist() == [0, 1, *[2] * 10]
    shown = GAME.observe(episodes)[0]
    assert shown[0].tolist() == [0, 0]
    assert shown[1].tolist() == [0.25, 0]
    assert shown[2].tolist() == [0.5, 1]


def test_all_groups_can_fail():
    rewards, _, ended, cut = play(starts_at([1] * 12), [moving(0, 1, 2, 3, 4)])
    assert rewards == [-2.5]
    assert ended
    assert not cut


def test_endings_of_the_environment():
    env = make(ENV)
    assert env.spec.reward_range == (-2.5, 1.0)
    seen = set()
    for seed in range(20):
        for chooser in ("expert", "stay", "left"):
            now = env.reset(Task("train", "train"), seed)
            while now.acting:
                now = env.step(
                    {agent: {"expert": env.expert_action(agent), "stay": 0, "left": 1}[chooser] for agent in now.acting}
                )
            (step, *_) = now.seats.values()
            seen.add((chooser, step.ending))
            assert env.score().success == (step.ending == "won")
            assert step.truncated == (step.ending == "out_of_steps")
    assert {("expert", "won"), ("stay", "out_of_steps"), ("left", "lost")} <= seen


def test_an_agent_sees_its_place_and_the_state_sees_all():
    batch = make_vector(ENV, seeds=[3], per_seed=50)
    answer = batch.reset()
    places = batch.snapshot()["episode.place"]
    assert set(np.unique(places)) == {1, 2, 3, 4}
    np.testing.assert_array_equal(answer.observations[:, :, 0], (places / 4).astype(np.float32))
    assert (answer.observations[:, :, 1] == 1).all()
    np.testing.assert_array_equal(answer.state, answer.observations.reshape(50, 24))
