"""Who is to blame where several sessions were at work in a worker that died."""

from arena.server.trials import Suspect, Trials


def blamed(suspect, *deaths):
    for at_work in deaths:
        suspect.blame(at_work)
    return suspect


def test_a_session_that_was_alone_at_work_is_given_up_after_four_deaths():
    suspect = blamed(Suspect(), 1, 1, 1)
    assert (suspect.is_guilty, suspect.is_on_trial) == (False, False)
    assert blamed(suspect, 1).is_guilty


def test_deaths_that_others_may_have_caused_lead_to_a_trial_and_are_counted_only_there():
    suspect = blamed(Suspect(), 3, 0, 0)
    assert not suspect.is_on_trial
    assert blamed(suspect, 5).is_on_trial
    assert (suspect.deaths, blamed(suspect, 0).deaths) == (0, 0)
    assert not blamed(suspect, 2, 2, 1).is_guilty
    assert blamed(suspect, 2).is_guilty


def test_those_on_trial_go_on_one_after_the_other_and_others_at_once():
    trials, went = Trials(), []
    accused = {name: blamed(Suspect(), 2, 2) for name in "abc"}
    for name, suspect in accused.items():
        trials.enter(suspect, lambda name=name: went.append(name))
    trials.enter(Suspect(), lambda: went.append("nobody"))
    assert went == ["a", "nobody"]
    trials.enter(accused["a"], lambda: went.append("a again"))  # its worker died: it is still its turn
    trials.leave(accused["c"])  # not its turn yet: it goes on when the others have had theirs
    assert went == ["a", "nobody", "a again"]
    trials.leave(accused["a"])
    assert went[3:] == ["b"]
    assert not accused["a"].is_on_trial
    trials.leave(accused["b"])
    assert went[3:] == ["b", "c"]


def test_who_left_frees_the_place():
    trials, went = Trials(), []
    one, other = blamed(Suspect(), 2, 2), blamed(Suspect(), 2, 2)
    trials.enter(one, lambda: went.append("one"))
    trials.leave(one)
    trials.leave(one)
    trials.enter(other, lambda: went.append("other"))
    assert went == ["one", "other"]
