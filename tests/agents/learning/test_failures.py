"""What goes wrong ends in one clear line, and keeps what was learned."""

import contextlib
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch

from arena import ArenaError, ConfigError, EnvError, TrainingJob, UnsupportedError, UsageError
from arena.agents.learning._optimising import Optimiser
from arena.agents.learning.language import LanguageLearner, LanguageOptions
from arena.learning import Progress, TrainingError, latest_checkpoint, learn, read_failure, read_rows

from . import toys

NOISE = {"paid": "noise", "tasks": 4}


@pytest.fixture(autouse=True)
def _nothing_is_broken() -> Any:
    toys.FAULTS.left.clear()
    toys.FAULTS.met.clear()
    yield
    toys.FAULTS.left.clear()


def second_row(**changes: Any) -> dict[str, float]:
    """Return the row of the first update of reinforcement, in which each of four tasks is played."""
    return toys.rows_of(toys.learner(**{"env_options": NOISE, "held_out": {"episodes": 0}, **changes}), 2)[1]


# -- environments that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["reset", "step"])
def test_a_failed_episode_is_played_once_more(moment: str) -> None:
    trainer = toys.learner(env_options=NOISE, held_out={"episodes": 0})
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        toys.FAULTS.met.clear()
        toys.FAULTS.left["train-1", moment] = 3
        (row,) = trainer.update()
    assert row["failed"] == 3
    assert toys.FAULTS.met == {"train-0": 4, "train-1": 7, "train-2": 4, "train-3": 4}
    assert row["step"] == 4 * 4 * 2, "steps of episodes that failed are not counted"


@pytest.mark.parametrize("moment", ["reset", "step"])
def test_a_group_with_an_episode_that_failed_twice_is_left_out(moment: str) -> None:
    trainer = toys.learner(env_options=NOISE, held_out={"episodes": 0})
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        toys.FAULTS.left["train-2", moment] = 5
        (row,) = trainer.update()
    assert row["failed"] == 4
    assert row["step"] == 3 * 4 * 2
    assert row["zero_groups"] == 0


def test_more_minibatches_than_episodes_that_are_left_do_no_harm() -> None:
    trainer = toys.learner(env_options=NOISE, held_out={"episodes": 0}, minibatches=16)
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        toys.FAULTS.left["train-2", "step"] = 5
        (row,) = trainer.update()
    assert row["step"] == 3 * 4 * 2
    assert row["ratio"] == pytest.approx(1, abs=0.2), "the mean over the steps that were taken"


def test_all_episodes_failing_is_one_clear_error(tmp_path: Path) -> None:
    def make() -> LanguageLearner:
        return toys.learner(env_options=NOISE, held_out={"episodes": 0}, steps=500)

    def third() -> None:
        if progress.done == 2:
            for index in range(4):
                toys.FAULTS.left[f"train-{index}", "step"] = 1000

    progress = Progress(updates=make().updates)
    with pytest.raises(TrainingError) as caught:
        learn(make, tmp_path, checkpoint_every=1, progress=progress, advanced=third)
    message = str(caught.value)
    assert message.count("\n") == 0
    assert "update 3" in message
    assert "failed twice" in message
    assert "broken at step of train-" in message
    assert "the checkpoint of update 2 is kept" in message
    assert read_failure(tmp_path) == message
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.update == 2
    toys.FAULTS.left.clear()
    progress = Progress(updates=make().updates)
    assert learn(make, tmp_path, checkpoint_every=100, progress=progress)
    assert [row["update"] for row in read_rows(tmp_path, (0,))] == list(range(1, make().updates + 1))


def test_a_failure_in_a_later_round_does_not_lose_the_earlier_ones() -> None:
    """Dynamic sampling looks for more groups; that none can be played now leaves those that were."""
    trainer = toys.learner(
        env_options={"paid": "whole", "tasks": 400},
        objective={"data": {"group_size": 2, "dynamic_sampling": True, "max_rounds": 4}},
        held_out={"episodes": 0},
        tasks=6,
        new_tokens=2,
        pool=12,
    )
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        reinforcement = toys.pupil_of(trainer)._phase
        drawn = [task.id for task in reinforcement._pool.draw(0, rounds=4)]
        for task in set(drawn) - set(drawn[:6]):
            toys.FAULTS.left[task, "reset"] = 1000
        (row,) = trainer.update()
    assert row["failed"] > 0
    assert row["rounds"] >= 2


def test_held_out_episodes_that_fail_are_counted_and_all_of_them_are_an_error() -> None:
    toys.FAULTS.left["test-0", "step"] = 1
    assert toys.rows_of(toys.learner(env_options=NOISE), 1)[0]["held_out_failed"] == 1
    for index in range(4):
        toys.FAULTS.left[f"test-{index}", "step"] = 100
    with pytest.raises(EnvError, match=r"every held-out episode failed; the first failure: .*broken at step of test-0"):
        toys.rows_of(toys.learner(env_options=NOISE), 1)


def test_an_expert_that_cannot_be_asked_is_one_clear_error() -> None:
    for index in range(4):
        toys.FAULTS.left[f"train-{index}", "reset"] = 10_000
    with pytest.raises(ConfigError, match=r"^the expert solved none of \d+ episodes .*broken at reset") as caught:
        toys.rows_of(toys.learner(env_options=NOISE, demonstrations={"episodes": 4}), 1)
    assert "\n" not in str(caught.value)


# -- numbers and memory -----------------------------------------------------------------------------------------------


def _spoiled(trainer: LanguageLearner, how: str) -> None:
    pupil = toys.pupil_of(trainer)
    with torch.no_grad():
        if how == "weights":
            next(iter(pupil.model.parameters_to_train())).fill_(float("nan"))
        else:
            pupil._phase.critic.head.bias.fill_(float("nan"))


@pytest.mark.parametrize(("algorithm", "how"), [("grpo", "weights"), ("ppo", "weights"), ("ppo", "critic")])
def test_nan_is_one_clear_error_and_the_last_checkpoint_is_kept(algorithm: str, how: str, tmp_path: Path) -> None:
    made: list[LanguageLearner] = []

    def make() -> LanguageLearner:
        made.append(toys.learner(env_options=NOISE, algorithm=algorithm, steps=500, held_out={"episodes": 0}))
        return made[-1]

    def advanced() -> None:
        if progress.done == 3:
            _spoiled(made[-1], how)

    progress = Progress(updates=10)
    with pytest.raises(TrainingError) as caught:
        learn(make, tmp_path, checkpoint_every=1, progress=progress, advanced=advanced)
    message = str(caught.value)
    assert message.startswith("update 4 of ")
    assert "the gradient is not finite" in message or "nan" in message
    assert message.endswith("the checkpoint of update 3 is kept")
    assert "\n" not in message
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.update == 3


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = Optimiser([weight], 0.1, 0.0)
    weight.grad = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(ArenaError, match="not finite"):
        optimiser.step(1.0)
    assert weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")])
def test_out_of_memory_is_one_clear_error(error: BaseException, tmp_path: Path, monkeypatch: Any) -> None:
    def too_much(*_: Any, **__: Any) -> None:
        raise error

    def make() -> LanguageLearner:
        return toys.learner(env_options=NOISE, steps=500, held_out={"episodes": 0})

    def advanced() -> None:
        if progress.done == 2:
            monkeypatch.setattr("arena.agents.learning._reinforcement.score", too_much)

    progress = Progress(updates=10)
    with pytest.raises(TrainingError, match=r"^update 3 of \d+ failed: out of memory.*update 2 is kept$"):
        learn(make, tmp_path, checkpoint_every=1, progress=progress, advanced=advanced)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "gpro"}, "no algorithm 'gpro' (did you mean 'gspo' or 'grpo'"),
        ({"algorithm": "grpo", "objective": {"data": {"group_size": 1}}}, "group_size"),
        ({"objective": {"baseline": {"kind": "gae"}}}, "baseline gae needs a critic"),
        ({"objective": {"ratio": {"kind": "none"}}}, "set gate to one, or ratio to token"),
        ({"objective": {"gate": {"kind": "clop"}}}, "gate"),
        ({"objective": {"regularisers": [{"kind": "kl", "against": "old"}]}}, "two or more minibatches or epochs"),
        ({"minibatches": 17}, "17 minibatches of 16 episodes"),
        ({"temperature": 0}, "temperature"),
        ({"turnz": 3}, "turnz"),
        ({"history": "forget"}, "history"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        LanguageOptions.model_validate(toys.options(**changes))
    errors = caught.value.errors()
    assert len(errors) == 1, "one reason is enough"
    said = ".".join(map(str, errors[0]["loc"])) + ": " + errors[0]["msg"]
    assert message in said
    assert "\n" not in errors[0]["msg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 19, "demonstrations": {"episodes": 10}}, r"10 demonstrations of at most 2 turns .* raise steps"),
        ({"seeds": ()}, "at least one seed"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toys.learner(**changes)


def test_a_job_too_short_for_a_single_update_is_refused() -> None:
    """It would only evaluate the model that it began with, and call that a training."""
    with pytest.raises(ConfigError, match="steps"):
        toys.learner(steps=31)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"env": "toy/pair-v0"}, UnsupportedError, "several seats"),
        ({"env": "toy/arrays-v0"}, UnsupportedError, "a language model acts by text"),
        (
            {"env": "toy/arrays-v0", "demonstrations": {"episodes": 2}},
            UnsupportedError,
            "a language model acts by text",
        ),
        ({"env": "toy/nemes-v0"}, UsageError, "toy/names-v0"),
        ({"split": "trian"}, ConfigError, "no split 'trian' .*known: train, test"),
        ({"held_out": {"split": "tset"}}, ConfigError, "no split 'tset' .*known: train, test"),
        ({"algorithm": "stratified_grpo", "env": "toy/babel-v0"}, ConfigError, "searches"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_the_first_update(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    trainer = toys.learner(**changes)
    with contextlib.closing(trainer), pytest.raises(error, match=message) as caught:
        trainer.begin()
    assert "\n" not in str(caught.value)


def test_a_context_that_is_too_small_says_so() -> None:
    trainer = toys.learner(
        env="toy/babel-v0", model={"tiny": {**toys.SMALL, "context": 64}, "device": "cpu"}, new_tokens=60
    )
    with pytest.raises(ConfigError, match="use a larger context, or shorter observations"):
        toys.rows_of(trainer, 2)


@pytest.mark.parametrize("said", ['{"x": NaN}', '{"x": 1e999}', f'{{"x": {10**40}}}', "[" * 3000, '{"x": "\\ud800"}'])
def test_odd_arguments_of_tools_are_refused_and_break_nothing(said: str) -> None:
    """A model says such things, and an episode must not fail by them: it is the model's turn that is wrong."""
    from arena import Limits, make
    from arena.agents.learning._games import LocalGames, Order
    from arena.agents.learning._speech import MistakeError, Speech
    from arena.errors import InvalidActionError

    games = LocalGames("toy/tools-v0", {})
    (game,) = games.begin([Order(games.task("train", 0), 1)], Limits(steps=5))
    assert make("toy/tools-v0").spec == games.spec
    assert not isinstance(game, ArenaError)
    speech = Speech(games.spec, game.seat)
    try:
        action = speech.action(f"<set>{said}</set>")
    except MistakeError:
        return
    finally:
        games.close()
    (error,) = games.step([(game, action)])
    assert error is None or isinstance(error, InvalidActionError)
    game.close()


def test_job_without_options_is_the_default() -> None:
    assert LanguageLearner(TrainingJob("toy/names-v0", {}, (0,), 100_000)).plan.imitations == 0
