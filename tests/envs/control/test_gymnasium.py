import sys
import warnings
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium

import arena
from arena import Array, ConfigError, Limits, PrerequisiteError, Session, make
from arena.seeding import stream
from arena.testing import check_env
from arena.types import encode_msgpack
from arena.views.local import gymnasium_env
from tests.serving import running_server

ID = "control/gymnasium-v0"
ALL = [
    "Acrobot-v1",
    "BipedalWalker-v3",
    "Blackjack-v1",
    "CartPole-v1",
    "CliffWalking-v1",
    "FrozenLake-v1",
    "LunarLander-v3",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Taxi-v4",
]


def named(environment, **options):
    return make(ID, {"environment": environment, **options})


def first(env, index=0, seed=0):
    return env.reset(env.taskset("train").task(index), seed).seats["player"]


@pytest.mark.parametrize("environment", ALL)
def test_the_environment_contract_holds(environment):
    check_env(ID, options={"environment": environment}, max_steps=30).raise_if_failed()


@pytest.mark.slow
def test_the_environment_contract_holds_for_images():
    check_env(ID, options={"environment": "CarRacing-v3"}, max_steps=30).raise_if_failed()


@pytest.fixture
def only_remarks():
    with warnings.catch_warnings():
        for remark in (
            ".*(not a Box|symmetric|different from the unwrapped|not having a spec).*",
            ".*Box observation space.*",
        ):
            warnings.filterwarnings("ignore", message=remark)
        yield


@pytest.mark.usefixtures("only_remarks")
@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1", "Taxi-v4", "Blackjack-v1"])
def test_gymnasiums_own_checks_pass_on_the_view(environment):
    check_gymnasium(gymnasium_env(ID, {"environment": environment}))


@pytest.mark.usefixtures("only_remarks")
def test_gymnasiums_own_checks_pass_through_a_server():
    with running_server("--workers", "1") as address, arena.connect(address) as client:
        for environment in ("CartPole-v1", "Pendulum-v1", "Taxi-v4"):
            check_gymnasium(client.gymnasium(ID, options={"environment": environment}))


def test_an_episode_is_the_one_that_gymnasium_plays():
    env, bare = named("CartPole-v1"), gymnasium.make("CartPole-v1")
    shown = first(env)
    twin = named("CartPole-v1")
    state = first(twin).observation
    assert np.array_equal(shown.observation, state)
    bare.reset(seed=0)
    bare.unwrapped.state = tuple(twin.made.unwrapped.state)
    rng = stream(0, "policy")
    while not shown.is_last:
        action = int(rng.integers(2))
        observation, reward, terminated, truncated, _ = bare.step(action)
        shown = env.step({"player": action}).seats["player"]
        assert np.allclose(shown.observation, observation)
        assert (shown.reward, shown.terminated, shown.truncated) == (reward, terminated, truncated)
    assert shown.ending == "terminated"
    assert env.score().value > 5


def test_time_limits_truncate():
    env = named("CartPole-v1", max_episode_steps=2)
    first(env)
    env.step({"player": 0})
    assert env.step({"player": 1}).seats["player"].ending == "truncated"
    assert env.spec.score_range == (-1e12, 1e12)


def test_what_an_environment_recommends_is_listed_and_the_rest_accepted():
    env = named("Taxi-v4")
    assert env.spec.legal_actions == "some"
    shown = first(env)
    assert shown.legal_actions
    assert "action_mask" not in shown.info
    unlisted = next(action for action in range(6) if action not in shown.legal_actions)
    assert env.step({"player": unlisted}).seats["player"].reward <= -1.0


def test_arrays_are_actions():
    env = named("Pendulum-v1")
    first(env)
    shown = env.step({"player": Array.of(np.array([0.5], np.float32))}).seats["player"]
    assert -17.0 < shown.reward <= 0.0


def test_the_seed_and_the_task_begin_an_episode():
    env = named("CartPole-v1")
    assert encode_msgpack(first(env)) == encode_msgpack(first(named("CartPole-v1")))
    assert len({encode_msgpack(first(env, *pair)) for pair in ((0, 0), (1, 0), (0, 1))}) == 3


@pytest.mark.parametrize(
    ("environment", "error", "says"),
    [
        ("os:CartPole-v1", ConfigError, "never 'module:id'"),
        ("gymnasium.envs.classic_control:CartPole-v1", ConfigError, "never 'module:id'"),
        ("../CartPole-v1", ConfigError, "is no id"),
        ("CartPole-v1\n", ConfigError, "is no id"),
        ("CartPol-v1", ConfigError, "did you mean 'CartPole-v1'"),
        ("GymV26Environment-v0", ConfigError, "packages allowed: gymnasium.envs"),
        ("Foraging-8x8-2p-3f-v3", ConfigError, "packages allowed: gymnasium.envs"),
        ("Ant-v5", PrerequisiteError, "MuJoCo"),
    ],
)
def test_what_may_not_be_made_is_refused(environment, error, says):
    import lbforaging  # noqa: F401 - registers its environments, which are not allowed all the same

    with pytest.raises(error, match=says) as refusal:
        assert named(environment).spec
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"render_mode": "human"}, "cannot be set"),
        ({"xml_file": "x"}, "cannot be set"),
        ({"gravity": 3.0}, "no argument 'gravity'"),
        ({"sutton_barto_reward": {"a": 1}}, "must be a number"),
    ],
)
def test_arguments_are_plain_and_the_constructors(arguments, says):
    with pytest.raises(ConfigError, match=says):
        assert named("CartPole-v1", arguments=arguments).spec


def test_arguments_reach_the_constructor():
    env = named("CartPole-v1", arguments={"sutton_barto_reward": True})
    first(env)
    assert env.step({"player": 0}).seats["player"].reward == 0.0
    with pytest.raises(ConfigError, match="cannot be made with the arguments"):
        assert named("FrozenLake-v1", arguments={"map_name": "none"}).spec


def test_the_operator_allows_more_packages(monkeypatch):
    monkeypatch.setenv("ARENA_GYMNASIUM", "tests.envs.control.hill")
    env = named("hill/Hill-v0")
    session = Session(env, env.taskset("test").task(0), 0, limits=Limits(steps=5))
    session.open()
    while session.status == "running":
        session.step(len(session.journal), {"player": 1})
    assert session.end().score.value == 3.0
    monkeypatch.setenv("ARENA_GYMNASIUM", "tests.envs.control.no_such")
    with pytest.raises(ConfigError, match="cannot be imported"):
        assert named("CartPole-v1").spec
    monkeypatch.delenv("ARENA_GYMNASIUM")
    with pytest.raises(ConfigError, match="packages allowed"):
        assert named("hill/Hill-v0").spec
    assert "tests.envs.control.hill" in sys.modules


@pytest.mark.usefixtures("only_remarks")
def test_a_view_can_be_pickled_between_episodes():
    import pickle

    view = partial(gymnasium_env, ID, {"environment": "CartPole-v1"})()
    twin = pickle.loads(pickle.dumps(view))
    assert np.array_equal(view.reset(seed=3)[0], twin.reset(seed=3)[0])
