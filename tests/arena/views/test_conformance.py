"""The clauses of `check_pettingzoo`: a sound game passes all, and each seeded defect is caught by a clause."""

from functools import partial

import pytest

from arena.testing import ContractError
from arena.testing.pettingzoo import CLAUSES, check_pettingzoo
from tests.arena.views.faulty import Bits

CAUGHT_BY = {
    "unseeded from the second step": "same_seed_gives_the_same_episodes",
    "draws from the global generator": "same_seed_gives_the_same_episodes",
    "seed ignored": "same_seed_gives_the_same_episodes",
    "second reset draws anew": "same_seed_gives_the_same_episodes",
    "reset remembers": "reset_with_a_seed_forgets",
    "differs between processes": "another_process_gives_the_same_episodes",
    "dtype": "observations_lie_in_their_spaces",
    "out of bounds": "observations_lie_in_their_spaces",
    "NaN reward": "rewards_are_finite",
    "infinite reward": "rewards_are_finite",
    "infos empty": "keys_are_those_of_live_agents",
    "ghost keys": "keys_are_those_of_live_agents",
    "finished agents stay": "finished_agents_leave",
    "fresh spaces": "spaces_stay_the_same_objects",
    "aliases the state": "what_is_told_is_its_readers_own",
    "aliases a buffer": "what_is_told_is_its_readers_own",
    "agents share an array": "agents_share_no_memory",
    "numpy flags": "flags_are_booleans",
    "never ends": "episodes_end",
    "cannot be pickled": "it_is_pickled_or_refuses",
}
MISSED_BY_THE_SUITES = {
    "second reset draws anew",
    "reset remembers",
    "infinite reward",
    "aliases the state",
    "aliases a buffer",
    "agents share an array",
    "never ends",
    "cannot be pickled",
    "differs between processes",
}
SUITES = {"api_test_passes", "parallel_api_test_passes", "seed_test_passes"}


def checked(fault, **further):
    return check_pettingzoo(partial(Bits, fault), **further)


def test_a_sound_game_passes_every_clause():
    report = checked(None)
    assert report.failed == {}
    assert {outcome.verdict for outcome in report.outcomes} == {"passed"}


@pytest.mark.parametrize("fault", CAUGHT_BY)
def test_a_seeded_defect_is_caught_by_its_clause(fault, monkeypatch):
    if fault != "differs between processes":  # the others need no process of their own
        monkeypatch.delitem(CLAUSES, "another_process_gives_the_same_episodes")
    report = checked(fault, steps=60, max_cycles=200)
    assert CAUGHT_BY[fault] in report.failed, str(report)
    assert bool(SUITES & report.failed.keys()) == (fault not in MISSED_BY_THE_SUITES), str(report)
    with pytest.raises(ContractError, match=CAUGHT_BY[fault]):
        report.raise_if_failed()


def test_every_clause_of_our_own_catches_something():
    own = set(CLAUSES) - SUITES
    assert set(CAUGHT_BY.values()) == own
