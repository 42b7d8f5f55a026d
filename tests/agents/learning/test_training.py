"""What a training does: every row trains, sizes of batches do not matter, and neither does a server."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from arena.agents.learning._experience import gather
from arena.agents.learning._objective.rows import ROWS
from arena.learning import Progress, learn, read_rows
from tests.serving import running_server

from . import toys

NOISE = {"paid": "noise"}
GROUP_OF_4 = {"data": {"group_size": 4}}


# -- the methods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ROWS)
def test_every_row_trains_on_the_same_scenario(algorithm: str) -> None:
    """Two updates of four groups of four; the rewards are numbers that differ, so that there is an advantage."""
    trainer = toys.learner(
        env_options=NOISE, algorithm=algorithm, objective=GROUP_OF_4, steps=2 * 2 * 16, held_out={"episodes": 2}
    )
    with contextlib.closing(trainer):
        trainer.begin()
        assert trainer.updates == 3
        trainer.update()
        model, digests = toys.pupil_of(trainer).model, list[str]()
        for _ in range(2):
            digests.append(model.digest())
            (row,) = trainer.update()
            assert row["grad_norm"] > 0
            assert row["return"] > 0
            assert row["zero_groups"] == 0 or algorithm == "stratified_grpo"
            assert row["drift"] < 1e-4, "rewards are for tokens that this very policy sampled"
            assert all(isinstance(value, int | float) and abs(value) < 1e6 for value in row.values())
            assert ("explained_variance" in row) == ROWS[algorithm].objective.needs_critic
            assert ("kl_reference" in row) == ROWS[algorithm].objective.needs_reference
        assert len({*digests, model.digest()}) == 3
        assert row["step"] == 2 * 2 * 16 or ROWS[algorithm].objective.data.dynamic_sampling


@pytest.mark.parametrize("algorithm", [name for name in ROWS if ROWS[name].objective.data.group_size > 1])
def test_all_returns_equal_changes_nothing_but_by_penalties(algorithm: str) -> None:
    """A fresh model says no colour and is paid nothing: methods that compare have no advantage to learn from."""
    trainer = toys.learner(algorithm=algorithm, objective={**GROUP_OF_4, "regularisers": []}, held_out={"episodes": 0})
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        before = toys.pupil_of(trainer).model.digest()
        (row,) = trainer.update()
        assert row["return"] == 0
        if "advantage_std" in row and row["advantage_std"] == 0:
            assert row["grad_norm"] == 0
            assert toys.pupil_of(trainer).model.digest() == before
        else:
            assert algorithm in ("empg", "empg_dapo"), "whose published bonus for a clear next turn is there always"


def test_rewards_may_be_integers() -> None:
    for algorithm in ("grpo", "gigpo", "ppo", "dapo"):
        rows = toys.rows_of(
            toys.learner(
                env_options={"paid": "whole"}, algorithm=algorithm, objective=GROUP_OF_4, held_out={"episodes": 0}
            ),
            2,
        )
        assert rows[1]["return"] > 0


def test_entropy_bonus_makes_the_policy_less_certain() -> None:
    def after(weight: float) -> float:
        return toys.rows_of(
            toys.learner(
                env_options=NOISE,
                objective={**GROUP_OF_4, "regularisers": [{"kind": "entropy", "weight": weight}]},
                demonstrations={"episodes": 16, "epochs": 30, "batch": 4, "learning_rate": 3e-3},
                steps=2 * (16 + 16 * 8),
                learning_rate=3e-3,
                held_out={"episodes": 0},
            )
        )[-1]["entropy"]

    assert after(1.0) > after(0.0) + 0.05


@pytest.mark.parametrize("history", ["refuse", "window"])
def test_values_are_the_critics_before_each_token_and_behind_all_that_was_heard(history: str) -> None:
    trainer = toys.learner(
        env="toy/babel-v0",
        algorithm="ppo",
        objective=GROUP_OF_4,
        history=history,
        window_turns=1,
        tasks=12,
        turns=5,
        steps=12 * 4 * 5,
        model={"tiny": {**toys.SMALL, "context": 160}, "device": "cpu"},
        micro_batch_tokens=600,
    )
    with contextlib.closing(trainer):
        trainer.begin()
        pupil = toys.pupil_of(trainer)
        reinforcement = pupil._phase
        critic = reinforcement.critic
        torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(0))
        episodes, _, _ = reinforcement._collect(0, pupil._generator)
        experience = gather(episodes, version=0, stratum_key=None, anchors=False)
        before, last = reinforcement._values(critic, experience)
        expected, behind = list[float](), list[float]()
        with torch.no_grad():
            for episode in episodes:
                for row in episode.rows:
                    values = critic(torch.tensor([list(row.ids)]))[0]
                    expected += [float(values[position - 1]) for position in row.sampled]
                behind.append(float(values[-1]))
    assert before.tolist() == pytest.approx(expected, abs=1e-4)
    assert last.tolist() == pytest.approx(behind, abs=1e-4)
    assert any(one.cut for one in episodes)
    assert (max(len(one.rows) for one in episodes) > 1) == (history == "window")
    prompt = pupil.model.template.reply("", finished=True)[-2:]
    for one in episodes:
        heard = list(one.rows[-1].ids[one.rows[-1].sampled[-1] + 1 :])
        assert heard[-2:] == prompt or not heard
        assert bool(heard) <= one.cut


# -- sizes that must not matter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "gspo", "ppo_turn", "empg"])
@pytest.mark.parametrize("history", ["refuse", "window"])
def test_micro_batches_do_not_matter(algorithm: str, history: str) -> None:
    """With `window` an episode has several rows, which lie in different micro-batches than with smaller budgets."""

    def rows(budget: int) -> Any:
        trainer = toys.learner(
            env="toy/babel-v0",
            algorithm=algorithm,
            objective=GROUP_OF_4,
            history=history,
            window_turns=1,
            model={"tiny": {**toys.SMALL, "context": 160}, "device": "cpu"},
            turns=8,
            micro_batch_tokens=budget,
            minibatches=2,
            held_out={"episodes": 0},
            steps=8 * 16 * 2,
        )
        return toys.rows_of(trainer)

    whole, split = rows(1_000_000), rows(64)
    assert max(row.get("turns", 0) for row in whole) > 3
    for one, other in zip(whole, split, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"drift", "kl_old"}:
            assert other[name] == pytest.approx(one[name], rel=2e-4, abs=1e-5), name


def test_threads_and_concurrency_do_not_matter_where_play_is_greedy() -> None:
    def rows(**changes: Any) -> Any:
        return toys.rows_of(
            toys.learner(env="toy/babel-v0", turns=6, held_out={"episodes": 12}, steps=96, **changes), 1
        )

    first = rows(threads=1, concurrency=1)
    assert first[0]["held_out_turns"] > 1
    for changes in ({"threads": 1, "concurrency": 64}, {"threads": 2, "concurrency": 5}):
        (other,) = rows(**changes)
        assert other == pytest.approx(first[0], abs=1e-5)
    torch.set_num_threads(1)


def test_options_of_evaluation_do_not_change_what_is_learned() -> None:
    def rows(**held_out: Any) -> Any:
        found = toys.rows_of(toys.learner(env_options=NOISE, steps=2 * 16 * 5, held_out=held_out))
        return [{name: value for name, value in row.items() if "held_out" not in name} for row in found]

    assert rows(episodes=0) == rows(episodes=7, every=1, temperature=1.0) == rows(episodes=3, every=2)


# -- evaluation and the end -------------------------------------------------------------------------------------------


def test_held_out_tasks_are_of_their_own_split_and_the_same_each_time(monkeypatch: Any) -> None:
    asked: list[tuple[str, str, int]] = []
    begin = toys.LocalGames.begin

    def noting(self: Any, orders: Any, limits: Any) -> Any:
        asked.extend((order.task.split, order.task.id, order.seed) for order in orders)
        return begin(self, orders, limits)

    monkeypatch.setattr(toys.LocalGames, "begin", noting)
    trainer = toys.learner(
        env_options=NOISE, seeds=(0, 1), steps=2 * 16 * 4, held_out={"episodes": 5, "every": 1}, pool=9
    )
    rows = toys.rows_of(trainer)
    evaluations = sum("held_out_return" in row for row in rows)
    held_out = [one for one in asked if one[0] == "test"]
    assert evaluations == 10
    assert len(held_out) == 5 * evaluations
    assert set(held_out[:5]) == set(held_out)
    trained = {one[1] for one in asked if one[0] == "train"}
    assert trained <= {f"train-{i}" for i in range(9)}
    assert not {one[2] for one in held_out} & {one[2] for one in asked if one[0] == "train"}


def test_a_group_is_one_task_and_one_seed_and_no_two_groups_share_it(monkeypatch: Any) -> None:
    asked: list[tuple[str, int]] = []
    begin = toys.LocalGames.begin

    def noting(self: Any, orders: Any, limits: Any) -> Any:
        asked.extend((order.task.id, order.seed) for order in orders)
        return begin(self, orders, limits)

    monkeypatch.setattr(toys.LocalGames, "begin", noting)
    toys.rows_of(toys.learner(env_options=NOISE, steps=2 * 16 * 4, held_out={"episodes": 0}))
    played = asked[-4 * 16 :]  # what is asked for before is for the tokenizer
    assert sorted(played.count(one) for one in set(played)) == [4] * 16
    assert len({seed for _, seed in played}) == 16


def test_tasks_are_prepared_before_they_are_played(monkeypatch: Any) -> None:
    """While demonstrations are learned nobody plays, and what is played next is prepared."""
    expected, played = list[str](), list[str]()
    expect, begin = toys.LocalGames.expect, toys.LocalGames.begin

    def noting(self: Any, tasks: Any) -> None:
        expected.extend(task.id for task in tasks)
        expect(self, tasks)

    def playing(self: Any, orders: Any, limits: Any) -> Any:
        assert not expected or {order.task.id for order in orders} <= set(expected)
        played.extend(order.task.id for order in orders if expected)
        return begin(self, orders, limits)

    monkeypatch.setattr(toys.LocalGames, "expect", noting)
    monkeypatch.setattr(toys.LocalGames, "begin", playing)
    shown = {"episodes": 4, "epochs": 1, "batch": 4}
    toys.rows_of(toys.learner(steps=2 * (4 + 3 * 16), held_out={"episodes": 0}, demonstrations=shown))
    assert len(set(played)) > 4


def test_early_stop_ends_the_training_with_all_that_belongs_to_an_end(tmp_path: Path) -> None:
    """The first evaluation after imitation succeeds often enough, so that no reinforcement follows."""

    def make() -> Any:
        return toys.learner(
            seeds=(0, 1),
            steps=2 * (64 + 16 * 20),
            demonstrations={"episodes": 64, "epochs": 60, "batch": 16, "learning_rate": 3e-3},
            held_out={"episodes": 16, "every": 3, "stop_at": 0.2},
        )

    progress = Progress(updates=make().updates)
    assert learn(make, tmp_path, checkpoint_every=50, progress=progress)
    rows = read_rows(tmp_path, (0, 1))
    done = int(rows[-1]["update"])
    assert 1 < done < make().updates
    assert {path.name for path in tmp_path.iterdir()} - {"tensorboard"} == {"final", "metrics.jsonl"}
    checkpoint = json.loads((tmp_path / "final" / "checkpoint.json").read_bytes())
    assert (checkpoint["over"], checkpoint["update"]) == (True, done)
    for seed in (0, 1):
        evaluated = [row["held_out_success"] for row in rows if row["seed"] == seed and "held_out_success" in row]
        assert evaluated[-1] >= 0.2
        assert max(evaluated[:-1]) < 0.2, "a seed that has learned enough is not evaluated again"
        assert (tmp_path / "final" / f"seed-{seed}" / "model" / "model.safetensors").exists()
    assert progress.updates == done
    again = Progress(updates=make().updates)
    assert learn(make, tmp_path, checkpoint_every=50, progress=again), "and it is over when it is asked for again"
    assert (again.done, again.before) == (done, done)


# -- a server ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Any:
    with running_server("--import", "tests.agents.learning.toys_served", "--allow-expert", "--workers", "1") as address:
        yield address


@pytest.mark.parametrize(
    "changes",
    [
        {
            "env_options": {"paid": "noise", "tasks": 9},
            "algorithm": "ppo",
            "demonstrations": {"episodes": 6, "batch": 3},
            "steps": 2 * (6 + 16 * 2),
            "objective": GROUP_OF_4,
        },
        {"env": "toy/babel-v0", "turns": 6, "steps": 6 * 16 * 2, "algorithm": "gigpo", "objective": GROUP_OF_4},
        {
            "env": "toy/babel-v0",
            "turns": 8,
            "steps": 8 * 16 * 2,
            "history": "window",
            "model": {"tiny": {**toys.SMALL, "context": 160}, "device": "cpu"},
        },
        {
            "env": "toy/babel-v0",
            "turns": 8,
            "steps": 128,
            "model": {"tiny": {**toys.SMALL, "context": 160}, "device": "cpu"},
        },
        {
            "env": "text/guess-v0",
            "turns": 3,
            "steps": 3 * (4 + 16),
            "list_legal": True,
            "model": {"tiny": {**toys.SMALL, "context": 512}, "device": "cpu"},
            "demonstrations": {"episodes": 4, "epochs": 2},
            "env_options": {"max_guesses": 3},
        },
    ],
    ids=["ppo", "refusals", "windows", "cut off", "guess"],
)
def test_on_a_server_it_is_the_same(changes: dict[str, Any], server: str) -> None:
    local = toys.rows_of(toys.learner(**changes))
    remote = toys.rows_of(toys.learner(**changes, server=server))
    assert len(local) >= 2
    assert remote == local


def test_a_server_that_is_not_there_is_one_clear_line() -> None:
    trainer = toys.learner(server="http://127.0.0.1:9")
    with contextlib.closing(trainer), pytest.raises(Exception, match=r"127\.0\.0\.1:9") as caught:
        trainer.begin()
    assert "\n" not in str(caught.value)
