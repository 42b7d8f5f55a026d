"""What holds of every game on arrays, whatever its rules."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import (
    InvalidActionError,
    ResetNeededError,
    Task,
    UnknownIdError,
    UnsupportedError,
    UsageError,
    VectorStep,
    make,
    make_vector,
    stream,
)
from arena.envs.marl._vectorised import GameEnvironment, _generator, _words, advance, begin
from arena.registry import environments

GAMES = sorted(cls.spec.id for cls in environments if issubclass(cls, GameEnvironment))
FIELDS = [name for name in VectorStep.__slots__ if name != "metrics"]

some = settings(max_examples=20, deadline=None)
ids = st.sampled_from(GAMES)
seeds = st.integers(0, 2**53 - 1)


def actions_for(batch, steps, seed):
    """Arbitrary joint actions: (steps, B, n)."""
    return np.random.default_rng(seed).integers(0, batch.actions, (steps, len(batch), len(batch.agents)))


def play(batch, actions):
    """The answers to a reset and to each joint action."""
    return [batch.reset(), *(batch.step(chosen) for chosen in actions)]


def assert_same(one, other, rows=slice(None)):
    """Two answers are equal to the last bit; `rows` picks from the second one."""
    for name in FIELDS:
        mine, theirs = getattr(one, name), getattr(other, name)[rows]
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    for name in one.metrics.keys() | other.metrics.keys():
        nothing = np.full(len(one.over), np.nan, np.float32)
        theirs = other.metrics[name][rows] if name in other.metrics else nothing
        np.testing.assert_array_equal(one.metrics.get(name, nothing), theirs, err_msg=name)


def test_the_family_is_here():
    expected = {f"marl/{name}-v0" for name in ("coordination", "aloha", "hallway", "gather", "disperse")}
    assert expected <= set(GAMES)


# -- groups ------------------------------------------------------------------------------------------------------------


@some
@given(ids, st.lists(seeds, min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 40), st.data())
def test_a_group_alone_is_the_group_beside_others(id, roots, per_seed, steps, data):
    index = data.draw(st.integers(0, len(roots) - 1))
    together = make_vector(id, seeds=roots, per_seed=per_seed)
    alone = make_vector(id, seeds=[roots[index]], per_seed=per_seed)
    rows = slice(index * per_seed, (index + 1) * per_seed)
    actions = actions_for(together, steps, roots[0])
    for mine, theirs in zip(play(alone, actions[:, rows]), play(together, actions), strict=True):
        assert_same(mine, theirs, rows)


@pytest.mark.parametrize("id", GAMES)
def test_groups_and_their_episodes_differ(id):
    batch = make_vector(id, seeds=[1, 2], per_seed=3)
    answers = play(batch, np.zeros((30, 6, len(batch.agents)), int))
    shown = np.stack([answer.observations for answer in answers], 1).reshape(6, -1)
    assert len(np.unique(shown, axis=0)) == 6


@some
@given(ids, seeds, st.integers(1, 4))
def test_reset_begins_from_the_start_of_the_stream(id, seed, per_seed):
    batch = make_vector(id, seeds=[seed], per_seed=per_seed)
    actions = actions_for(batch, 15, 3)
    for first, again in zip(play(batch, actions), play(batch, actions), strict=True):
        assert_same(first, again)


# -- one episode and many ----------------------------------------------------------------------------------------------


@some
@given(ids, seeds, seeds)
def test_the_environment_plays_the_first_episode_of_a_batch_with_its_seed(id, seed, choices):
    env, batch = make(id), make_vector(id, seeds=[seed], per_seed=1)
    agents = env.possible_agents
    now, answer = env.reset(Task("test", "test"), seed), batch.reset()
    rng = np.random.default_rng(choices)
    while now.acting:
        np.testing.assert_array_equal([now.seats[agent].observation for agent in agents], answer.observations[0])
        actions = rng.integers(0, batch.actions, (1, len(agents)))
        now = env.step(dict(zip(agents, actions[0].tolist(), strict=True)))
        answer = batch.step(actions)
        steps = [now.seats[agent] for agent in agents]
        assert [step.terminated for step in steps] == answer.terminated[0].tolist()
        assert [step.truncated for step in steps] == answer.truncated[0].tolist()
        np.testing.assert_allclose([step.reward for step in steps], answer.rewards[0], rtol=1e-6)
    np.testing.assert_array_equal([now.seats[agent].observation for agent in agents], answer.last_observations[0])
    score = env.score()
    expected = {"score": score.value, **score.metrics}
    assert expected.keys() == answer.metrics.keys()
    np.testing.assert_allclose([answer.metrics[name][0] for name in expected], [*expected.values()], rtol=1e-6)


@some
@given(ids, st.integers(2, 6), seeds)
def test_rules_play_many_as_one_by_one_given_the_same_numbers(id, count, seed):
    game = make(id).make_game()
    rng = np.random.default_rng(seed)
    start = rng.random((count, game.start_draws))
    many, single = begin(game, start), [begin(game, start[row : row + 1]) for row in range(count)]
    for _ in range(game.horizon):
        actions = rng.integers(0, game.actions, (count, game.agents))
        draws = rng.random((count, game.step_draws))
        (many, rewards, ended), cut = advance(game, many, actions, draws)
        for row in range(count):
            here = slice(row, row + 1)
            outcome, was_cut = advance(game, single[row], actions[here], draws[here])
            single[row] = outcome.episodes
            assert (outcome.rewards[0], outcome.ended[0], was_cut[0]) == (rewards[row], ended[row], cut[row])
            assert outcome.episodes.keys() == many.keys()
            for name, array in outcome.episodes.items():
                assert array.dtype == many[name].dtype
                np.testing.assert_array_equal(array, many[name][here])
            np.testing.assert_array_equal(game.expert(outcome.episodes, None), game.expert(many, None)[here])


@some
@given(ids, seeds, st.integers(1, 5), seeds, st.booleans())
def test_a_group_is_its_episodes_begun_and_stepped_one_by_one(id, seed, per_seed, choices, expertly):
    """The documented order of draws: a step's for all episodes, then those of new ones for those that ended."""
    game, rng = make(id).make_game(), stream(seed, "env")
    batch = make_vector(id, seeds=[seed], per_seed=per_seed)
    batch.reset()
    episodes = [begin(game, draws[None]) for draws in rng.random((per_seed, game.start_draws))]
    for chosen in actions_for(batch, 45, choices):
        actions = batch.expert() if expertly else chosen
        answer = batch.step(actions)
        draws, over = rng.random((per_seed, game.step_draws)), []
        for row in range(per_seed):
            here = slice(row, row + 1)
            outcome, cut = advance(game, episodes[row], actions[here], draws[here])
            episodes[row] = outcome.episodes
            over.append(bool(outcome.ended[0] or cut[0]))
            assert answer.rewards[row, 0] == np.float32(outcome.rewards[0])
            np.testing.assert_array_equal(answer.last_observations[here], game.observe(outcome.episodes))
        np.testing.assert_array_equal(answer.over, over)
        for row, start in zip(np.flatnonzero(over), rng.random((sum(over), game.start_draws)), strict=True):
            episodes[row] = begin(game, start[None])
        for row, episode in enumerate(episodes):
            shown = game.observe(episode)
            np.testing.assert_array_equal(answer.observations[row], shown[0])
            np.testing.assert_array_equal(answer.state[row], game.state(episode, shown)[0])


@pytest.mark.parametrize("id", GAMES)
def test_other_batches_have_the_same_form(id):
    own, foreign = (make_vector(id, seeds=[5], per_seed=2, split=split) for split in (None, "train"))
    assert type(own) is not type(foreign)
    assert (own.agents, own.actions, own.observation_size) == (
        foreign.agents,
        foreign.actions,
        foreign.observation_size,
    )
    actions = actions_for(own, 30, 1)
    mine, theirs = play(own, actions), play(foreign, actions)
    for one, other in zip(mine, theirs, strict=True):
        for name in set(FIELDS) - {"state", "last_state"}:
            assert getattr(one, name).dtype == getattr(other, name).dtype
            assert getattr(one, name).shape == getattr(other, name).shape
    ended = {name for one in mine for name in one.metrics}
    assert ended == {name for other in theirs for name in other.metrics} != set()


# -- what an answer holds ----------------------------------------------------------------------------------------------


@some
@given(ids, st.integers(1, 6), seeds, st.booleans())
def test_answers_keep_the_contract(id, per_seed, seed, expertly):
    env, batch = make(id), make_vector(id, seeds=[seed], per_seed=per_seed)
    low, high = env.spec.reward_range
    space = env.seat(env.possible_agents[0]).observation_space
    shape = len(batch), len(batch.agents)
    horizon = env.make_game().horizon
    answer, age = batch.reset(), np.zeros(len(batch), int)
    assert not answer.rewards.any()
    assert not answer.over.any()
    for chosen in actions_for(batch, 45, seed):
        answer = batch.step(batch.expert() if expertly else chosen)
        age += 1
        assert answer.observations.shape == answer.last_observations.shape == (*shape, batch.observation_size)
        assert answer.state.shape == answer.last_state.shape == (len(batch), batch.state_size)
        assert {getattr(answer, name).dtype.name for name in FIELDS} == {"float32", "bool"}
        for shown in (answer.observations, answer.last_observations):
            assert all(space.contains(row) for row in shown.reshape(-1, batch.observation_size))
        assert answer.masks.all()
        assert answer.masks.shape == (*shape, batch.actions)
        assert answer.alive.all()
        assert answer.alive.shape == shape
        assert ((answer.rewards >= low) & (answer.rewards <= high)).all()
        assert (answer.rewards == answer.rewards[:, :1]).all()
        assert not (answer.terminated & answer.truncated).any()
        for flags in (answer.terminated, answer.truncated):
            assert (flags == flags[:, :1]).all()
        np.testing.assert_array_equal(answer.over, (answer.terminated | answer.truncated)[:, 0])
        assert (age <= horizon).all()
        assert not (answer.truncated[:, 0] & (age < horizon)).any()
        assert answer.over[age == horizon].all()
        same = ~answer.over
        np.testing.assert_array_equal(answer.observations[same], answer.last_observations[same])
        np.testing.assert_array_equal(answer.state[same], answer.last_state[same])
        assert (set(answer.metrics) == {"score", *env.spec.metrics}) == bool(answer.over.any())
        for values in answer.metrics.values():
            np.testing.assert_array_equal(np.isnan(values), same)
        age[answer.over] = 0


@pytest.mark.parametrize("id", GAMES)
def test_scores_and_returns_belong_to_the_rewards(id):
    low, high = make(id).spec.score_range
    batch = make_vector(id, seeds=[3], per_seed=8)
    batch.reset()
    total, ended = np.zeros(8), 0
    for chosen in actions_for(batch, 60, 0):
        answer = batch.step(chosen)
        total += answer.rewards[:, 0]
        if answer.over.any():
            np.testing.assert_allclose(answer.metrics["return"][answer.over], total[answer.over], atol=1e-4)
            score = answer.metrics["score"][answer.over]
            assert ((score >= low) & (score <= high)).all()
            ended += answer.over.sum()
            total[answer.over] = 0.0
    assert ended >= 16


@pytest.mark.parametrize("id", GAMES)
def test_writing_into_an_answer_changes_no_later_one(id):
    spoilt, clean = (make_vector(id, seeds=[2, 9], per_seed=2) for _ in range(2))
    actions = actions_for(spoilt, 40, 4)
    answer, expected = spoilt.reset(), clean.reset()
    for chosen in actions:
        for name in FIELDS:
            array = getattr(answer, name)
            array[...] = True if array.dtype == bool else -7.0
        answer, expected = spoilt.step(chosen), clean.step(chosen)
        assert_same(answer, expected)


@pytest.mark.parametrize("id", GAMES)
def test_seats_share_no_memory(id):
    env = make(id)
    seats = env.reset(Task("train", "train"), 1).seats
    shown = [step.observation for step in seats.values()]
    assert not any(np.shares_memory(one, other) for one in shown for other in shown if one is not other)


# -- saved and refused -------------------------------------------------------------------------------------------------


@some
@given(ids, st.lists(seeds, min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 30), st.integers(1, 30))
def test_a_restored_batch_goes_on_as_the_saved_one(id, roots, per_seed, before, after):
    saved, other = (make_vector(id, seeds=roots, per_seed=per_seed) for _ in range(2))
    actions = actions_for(saved, before + after, 6)
    last = play(saved, actions[:before])[-1]
    file = io.BytesIO()
    np.savez(file, **saved.snapshot())
    expected = [saved.step(chosen) for chosen in actions[before:]]
    file.seek(0)
    with np.load(file, allow_pickle=False) as state:
        for batch in (other, saved):
            assert_same(batch.restore(state), last)
            for chosen, answer in zip(actions[before:], expected, strict=True):
                assert_same(batch.step(chosen), answer)


@pytest.mark.parametrize("id", GAMES)
def test_a_snapshot_stays_as_it_is(id):
    batch = make_vector(id, seeds=[1], per_seed=3)
    actions = actions_for(batch, 40, 2)
    play(batch, actions[:3])
    state = batch.snapshot()
    copies = {name: array.copy() for name, array in state.items()}
    answer = batch.restore(state)
    for name in FIELDS:
        getattr(answer, name)[...] = 0
    for chosen in actions:
        batch.step(chosen)
    assert state.keys() == copies.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, copies[name])


@given(seeds, st.integers(0, 3))
def test_a_saved_generator_goes_on_where_it_was(seed, drawn):
    generator = stream(seed, "env")
    generator.integers(0, 9, drawn, np.uint32)
    again = _generator(_words(generator))
    for _ in range(3):
        assert again.integers(0, 2**32, dtype=np.uint32) == generator.integers(0, 2**32, dtype=np.uint32)
        assert again.random() == generator.random()


@pytest.mark.parametrize("id", GAMES)
def test_what_is_no_snapshot_is_refused_and_changes_nothing(id):
    batch, twin = (make_vector(id, seeds=[1, 2], per_seed=3) for _ in range(2))
    actions = actions_for(batch, 20, 2)
    play(batch, actions[:5])
    play(twin, actions[:5])
    good = batch.snapshot()
    smaller = make_vector(id, seeds=[1], per_seed=3)
    smaller.reset()
    wrong = [
        {},
        smaller.snapshot(),
        {**good, "episode.steps": good["episode.steps"].astype(np.float32)},
        {**good, "generator.state": "PCG64"},
        {name: array for name, array in good.items() if name != "answer.over"},
        {**good, "answer.rewards": good["answer.rewards"].tolist()},
        {**good, "answer.more": good["answer.over"]},
        {**good, "metric.score": good["answer.over"]},
    ]
    for state in wrong:
        with pytest.raises(UsageError, match="no snapshot of this batch") as caught:
            batch.restore(state)
        assert "\n" not in str(caught.value)
    for chosen in actions[5:]:
        assert_same(batch.step(chosen), twin.step(chosen))


@pytest.mark.parametrize("id", GAMES)
def test_illegal_actions_are_refused_and_change_nothing(id):
    batch, twin = (make_vector(id, seeds=[4], per_seed=2) for _ in range(2))
    actions = actions_for(batch, 20, 2)
    play(batch, actions[:1])
    play(twin, actions[:1])
    good = actions[1]
    wrong = [good[:1], good.astype(float), good.tolist(), good[None], good - batch.actions, good + batch.actions]
    for bad in wrong:
        with pytest.raises(InvalidActionError, match="actions") as caught:
            batch.step(bad)
        assert "\n" not in str(caught.value)
    for chosen in actions[1:]:
        assert_same(batch.step(chosen), twin.step(chosen))


@pytest.mark.parametrize("id", GAMES)
def test_the_environment_refuses_illegal_actions(id):
    env, twin = make(id), make(id)
    agents = env.possible_agents
    for one in (env, twin):
        one.reset(Task("train", "train"), 7)
    for bad in (-1, int(env.seat(agents[0]).action_space.n), "0", None):
        with pytest.raises(InvalidActionError, match=r"legal: 0 to \d"):
            env.step({**dict.fromkeys(agents, 0), agents[-1]: bad})
    again, fresh = (one.step(dict.fromkeys(agents, 0)) for one in (env, twin))
    for agent in agents:
        np.testing.assert_array_equal(again.seats[agent].observation, fresh.seats[agent].observation)


@pytest.mark.parametrize("id", GAMES)
def test_a_batch_must_begin(id):
    batch = make_vector(id, seeds=[0], per_seed=1)
    for call in (batch.snapshot, batch.expert, lambda: batch.step(np.zeros((1, len(batch.agents)), int))):
        with pytest.raises(ResetNeededError, match="call reset first"):
            call()
    batch.close()
    batch.close()


@pytest.mark.parametrize(("roots", "per_seed"), [([], 1), ([0], 0), ([-1], 1), ([0.5], 1)])
def test_a_batch_needs_seeds_and_episodes(roots, per_seed):
    with pytest.raises(UsageError):
        make_vector(GAMES[0], seeds=roots, per_seed=per_seed)


@pytest.mark.parametrize("id", GAMES)
def test_tasks_of_others_are_refused(id):
    with pytest.raises(UnknownIdError, match=r"known: train, test"):
        make(id).reset(Task("no-such-task"), 0)


@pytest.mark.parametrize("id", sorted(set(GAMES) - {"marl/coordination-v0"}))
def test_larger_games_are_not_known_as_tables(id):
    with pytest.raises(UnsupportedError, match="tables"):
        make(id).tabular()
