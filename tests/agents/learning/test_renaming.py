"""Other names for the things in a demonstration: the same dialogue otherwise, and never two things with one name."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from . import toys

pytest.importorskip("torch")

from arena import ConfigError
from arena.agents.learning._demonstrations import Demonstration
from arena.agents.learning._renaming import Renaming

THINGS = ["red key", "Type 4 box", "Oak chest", "limited edition desk", "lamp", "lampshade", "café table", "type L box"]
THINGS += ["Henderson's latchkey", "non-euclidean safe", "onion", "pair of headphones"]


def _shown(thing: str, other: str) -> Demonstration:
    heard = (f"Take the {thing} to the {other}.\n\n-= {other.title()} =-\nYou see a {thing}.", f"You have the {thing}.")
    last = f"{'drop' if thing == 'lamp' else 'eat'} {thing}" if other == "onion" else f"put {thing} on {other}"
    return Demonstration("train-0", "Play well.", heard, (f"take {thing}", last), True)


ALL = [_shown(one, other) for one in THINGS for other in THINGS if one != other]


@given(some.sampled_from(ALL), some.integers(0, 2**32))
def test_one_name_for_one_thing_and_everything_else_as_it_was(shown: Demonstration, seed: int) -> None:
    renaming = Renaming(ALL)
    assert {"key", "4", "café", "lampshade"} <= set(renaming.names)
    assert not {"take", "the", "play", "you", "drop", "eat"} & set(renaming.names)
    other = renaming.renamed(shown, np.random.default_rng(seed))
    assert (other.task, other.instructions, other.success) == (shown.task, shown.instructions, shown.success)
    exchanged: dict[str, str] = {}
    for before, after in zip([*shown.heard, *shown.said], [*other.heard, *other.said], strict=True):
        assert re.sub(r"\w+", "_", before) == re.sub(r"\w+", "_", after)
        for word, name in zip(re.findall(r"\w+", before), re.findall(r"\w+", after), strict=True):
            assert exchanged.setdefault(word.lower(), name.lower()) == name.lower()
            assert word[0].isupper() <= (name[0].isupper() or not name[0].isalpha())
            assert word[0].isupper() or not name[0].isupper()
            if word.lower() not in renaming.names:
                assert name == word
    assert len(set(exchanged.values())) == len(exchanged)
    assert set(exchanged.values()) <= {*renaming.names, *exchanged}


def test_demonstrations_without_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="no names that could be exchanged"):
        Renaming(ALL[:4])


def test_each_epoch_draws_anew_and_as_many_as_were_asked_for() -> None:
    trainer = toys.learner(
        env="toy/names-v0",
        env_options={"tasks": 400},
        demonstrations={"episodes": 200, "epochs": 3, "batch": 200, "renamed": 0.5},
        held_out={"episodes": 0},
        steps=400,
    )
    with contextlib.closing(trainer):
        trainer.begin()
        phase = toys.pupil_of(trainer)._phase
        rows = [[phase._row(i, epoch) for i in range(200)] for epoch in (0, 1, 1)]
        plain = [row for _, row in phase._shown]
        assert [len(one.ids) for one in rows[1]] == [len(one.ids) for one in rows[2]]
        assert all(list(one.ids) == list(two.ids) for one, two in zip(rows[1], rows[2], strict=True))
        changed = [[row is not old for row, old in zip(of_epoch, plain, strict=True)] for of_epoch in rows[:2]]
        assert changed[0] != changed[1]
        for of_epoch in changed:
            assert 70 < sum(of_epoch) < 130
        trainer.update()
        assert trainer.update()[0]["imitation_loss"] > 0
