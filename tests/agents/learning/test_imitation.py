"""Imitation learns what the expert said, token by token, and nothing else unless it is asked to."""

import contextlib
from typing import Any

import pytest
import torch

from arena import ConfigError
from arena.agents.learning._imitation import _all_but_slips
from arena.agents.learning._models.scoring import micro_batches, score
from arena.agents.learning._reinforcement import Reinforcement

from . import toys

SHOWN = {"episodes": 10, "epochs": 2, "batch": 4, "learning_rate": 1e-3}


def imitating(shown: Any = None, **changes: Any) -> Any:
    return toys.learner(
        **{"demonstrations": {**SHOWN, **(shown or {})}, "steps": 20, "held_out": {"episodes": 0}, **changes}
    )


def test_rows_are_the_dialogue_and_what_the_expert_said_is_marked() -> None:
    trainer = imitating()
    with contextlib.closing(trainer):
        trainer.begin()
        pupil = toys.pupil_of(trainer)
        template = pupil.model.template
        assert len(pupil._phase._shown) == len(pupil._shown) == 10
        for shown, learned in pupil._phase._shown:
            row = learned.row
            assert shown.success
            assert [f"say {said}" for said in shown.said] == list(shown.heard)
            ids = template.opening(shown.instructions, shown.heard[0])
            first = [*ids, *template.answer(shown.said[0])]
            second = first + template.reply(shown.heard[1], finished=True)
            assert list(row.ids) == second + template.answer(shown.said[1])
            assert list(row.sampled) == [*range(len(ids), len(first)), *range(len(second), len(row.ids))]
            assert {row.ids[len(first) - 1], row.ids[-1]} <= template.ends, "the end of a turn is learned too"


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_mean_over_what_was_said(weight: float) -> None:
    """And its gradient, found here by hand, is that of the weighted mean over all tokens that count."""
    trainer = imitating({"observation_weight": weight, "batch": 10})
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        pupil = toys.pupil_of(trainer)
        model, rows = pupil.model, [one.row for _, one in pupil._phase._shown]
        total, count, said = torch.zeros(()), 0.0, list[float]()
        for row in rows:
            for position in range(1, len(row.ids)):
                counts = 1.0 if position in row.sampled else weight
                if counts:
                    (batch,) = micro_batches([type(row)(row.ids, [position])], 10_000)
                    log_prob = score(model, batch, 1.0)[0][0]
                    total, count = total - counts * log_prob, count + counts
                    if counts == 1.0:
                        said.append(-float(log_prob.detach()))
        gradient = torch.autograd.grad(total / count, model.parameters_to_train())
        norm = float(torch.stack([one.norm() for one in gradient]).norm())
        (row,) = trainer.update()
    assert row["imitation_loss"] == pytest.approx(sum(said) / len(said), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_micro_batches_do_not_matter(weight: float) -> None:
    whole, split = (
        toys.rows_of(imitating({"observation_weight": weight}, micro_batch_tokens=budget)) for budget in (100_000, 64)
    )
    for one, other in zip(whole, split, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_slips_are_gone_on_from_and_not_learned(weight: float) -> None:
    trainer = toys.learner(
        env="text/guess-v0", env_options={"max_guesses": 12}, steps=60 * 12, turns=12, held_out={"episodes": 0},
        demonstrations={"episodes": 60, "slips": 0.4, "observation_weight": weight},
    )  # fmt: skip
    with contextlib.closing(trainer):
        trainer.begin()
        pupil = toys.pupil_of(trainer)
        found, said = pupil._phase._shown, {text for one in pupil._shown for text in one.said}
        template = pupil.model.template
        assert all(one.success for one in pupil._shown)
        turns = sum(len(one.said) for one in pupil._shown)
        assert 0.15 < sum(len(one.slips) for one in pupil._shown) / turns < 0.5
        for shown, learned in found:
            assert {shown.said[number] for number in shown.slips} <= said
            own = [words for number, words in enumerate(shown.said) if number not in shown.slips]
            slipped = [words for number, words in enumerate(shown.said) if number in shown.slips]
            ids = learned.row.ids
            assert [ids[i] for i in learned.row.sampled] == [i for words in own for i in template.answer(words)]
            assert [ids[i] for i in sorted(learned.slips)] == [i for words in slipped for i in template.answer(words)]
            assert not learned.slips & set(_all_but_slips(learned).sampled)
            assert len(_all_but_slips(learned).sampled) == len(ids) - 1 - len(learned.slips)
        again = pupil._shown
    with contextlib.closing(trainer):
        trainer.begin()
        assert toys.pupil_of(trainer)._shown == again
        assert toys.rows_of(trainer)[-1]["imitation_loss"] > 0


def test_every_demonstration_is_seen_once_an_epoch() -> None:
    trainer = imitating()
    seen: list[tuple[int, ...]] = []
    with contextlib.closing(trainer):
        trainer.begin()
        phase = toys.pupil_of(trainer)._phase
        step = phase._step
        phase._step = lambda rows: (seen.append(tuple(id(row) for row in rows)), step(rows))[1]
        while trainer.done < trainer.updates:
            trainer.update()
        everything = sorted(id(one) for _, one in phase._shown)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    assert sorted(sum(seen[:3], ())) == sorted(sum(seen[3:], ())) == everything
    assert seen[0] != seen[3], "in another order"


def test_the_step_size_rises_and_falls() -> None:
    trainer = imitating({"epochs": 20, "warmup": 0.2})
    with contextlib.closing(trainer):
        trainer.begin()
        phase = toys.pupil_of(trainer)._phase
        rates = [phase._rate(number) for number in range(60)]
    top = rates.index(max(rates))
    assert 8 <= top <= 13
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.01 * max(rates) <= 0.01 * SHOWN["learning_rate"]


def test_steps_of_the_expert_are_counted() -> None:
    rows = toys.rows_of(imitating(steps=20 + 2 * 16, held_out={"episodes": 2}))
    steps = [row["step"] for row in rows]
    assert (steps[0], steps[6:]) == (0, [20, 20 + 2 * 16])
    assert steps == sorted(steps), "those of the demonstrations are spread over the imitation"


@pytest.mark.parametrize("repeat", [True, False])
def test_reinforcement_can_leave_out_what_was_demonstrated(repeat: bool) -> None:
    trainer = toys.learner(
        env="toy/names-v0",
        env_options={"tasks": 24},
        demonstrations={"episodes": 16, "batch": 16},
        repeat_demonstrated=repeat,
        tasks=6,
        held_out={"episodes": 0},
    )
    with contextlib.closing(trainer):
        trainer.begin()
        pupil = toys.pupil_of(trainer)
        shown = {one.task for one in pupil._shown}
        while not isinstance(pupil._phase, Reinforcement):
            trainer.update()
        played = {task.id for task in pupil._phase._pool.draw(0, rounds=8)}
    assert len(shown) == 16
    assert len(played) == (24 if repeat else 8)
    assert repeat or not shown & played


def test_leaving_out_everything_is_refused() -> None:
    trainer = toys.learner(
        env_options={"tasks": 16}, demonstrations={"episodes": 16}, repeat_demonstrated=False, held_out={"episodes": 0}
    )
    with contextlib.closing(trainer), pytest.raises(ConfigError, match="every one of the 16 training tasks"):
        trainer.begin()
