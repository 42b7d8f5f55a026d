"""Other names for the things in a demonstration: the same dialogue otherwise, and never two things with one name."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from . import toys

pytest.importorskip("torch")

from arena import ConfigError
from arena.agents.learning._demonstrations import Demonstration
from arena.agents.learning._imitation import Imitation
from arena.agents.learning._renaming import Renaming
from arena.agents.learning.language import LanguageOptions

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
    given = toys.options(demonstrations={"episodes": len(ALL), "epochs": 3, "batch": 50, "renamed": 0.5})
    model = toys.tiny_model(context=1024)
    imitation = Imitation(model, LanguageOptions.model_validate(given), 0, ALL, 9)
    plain = [list(one.row.ids) for _, one in imitation._shown]
    first, second, again = ([list(imitation._lesson(i, epoch).row.ids) for i in range(len(ALL))] for epoch in (0, 1, 1))
    assert second == again
    assert first != second
    for epoch in (first, second):
        assert 0.35 < sum(row != old for row, old in zip(epoch, plain, strict=True)) / len(ALL) < 0.65
    before = model.digest()
    assert imitation.update(0)["imitation_loss"] > 0
    assert model.digest() != before
