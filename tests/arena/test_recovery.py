"""Rebuilding a session from its journal: the same session, or a typed error."""

import msgspec
import pytest

from arena.errors import EnvError, ReplayError
from arena.recovery import Entry, Opening, entry_of, rebuild
from arena.session import Counts, Session
from arena.types import Limits, Task, Usage, encode_msgpack
from tests.arena.games import Match
from tests.arena.server.harness_truth import environment, plain

TASK = Task("range-8", "train", {"size": 8})


def journal(session):
    """Return a session's journal as it lies in a ledger."""
    return [encode_msgpack(entry_of(record, session.counts)) for record in session.journal]


def opening_of(session):
    options = session.env.options.model_dump(mode="json")
    return Opening(session.env.spec.id, options, session.task, session.seed, session.limits)


def guess(*guesses, limits=None, seed=11):
    """Return a session after some guesses."""
    session = Session(environment("text/guess-v0"), TASK, seed, limits=limits)
    session.open()
    for number in guesses:
        session.step(
            len(session.journal), {"player": number}, usage=Usage(input_tokens=3), decisions={"player": {"n": 1}}
        )
    return session


def again(session, entries, *, env=None, counts=None):
    """Return what is rebuilt from a journal on an opening as it comes from a ledger."""
    opening = msgspec.msgpack.decode(encode_msgpack(opening_of(session)), type=Opening)
    decoded = [msgspec.msgpack.decode(entry, type=Entry) for entry in entries]
    return rebuild(env or environment("text/guess-v0"), opening, decoded, counts)


@pytest.mark.parametrize("steps", range(5))
def test_a_session_stands_where_it_stood_after_any_number_of_steps(steps):
    session = guess(*["1", "2", "1", "2"][:steps])
    rebuilt = again(session, journal(session))
    assert rebuilt.journal == session.journal
    assert (rebuilt.status, rebuilt.usage, rebuilt.acting) == (session.status, session.usage, session.acting)
    if session.status == "running":
        for each in (session, rebuilt):
            each.step(steps + 1, {"player": "7"})
        assert plain(rebuilt.journal[-1]) == plain(session.journal[-1])


def test_nothing_recorded_gives_a_session_that_has_not_begun():
    session = guess()
    rebuilt = again(session, [])
    assert rebuilt.journal == []
    assert rebuilt.open().digest == session.journal[0].digest


def test_refusals_and_what_they_cost_are_counted_on():
    session = guess("1", limits=Limits(invalid_actions=2))
    entries = journal(session)
    with pytest.raises(ValueError, match="is not legal"):
        session.step(2, {"player": "no"}, usage=Usage(input_tokens=50))
    rebuilt = again(session, entries, counts=session.counts)
    assert rebuilt.refused == 1
    assert rebuilt.usage == session.usage
    with pytest.raises(ValueError, match="the episode is over"):
        rebuilt.step(2, {"player": "no"})
    assert rebuilt.status == "over"
    assert rebuilt.journal[-1].usage == Usage(input_tokens=50)


def test_counts_from_before_the_last_step_give_way_to_what_the_step_recorded():
    session = guess()
    with pytest.raises(ValueError, match="is not legal"):
        session.step(1, {"player": "no"})
    old = session.counts
    session.step(1, {"player": "1"})
    rebuilt = again(session, journal(session), counts=old)
    assert rebuilt.counts.refused_in_a_row == 0
    assert rebuilt.refused == 1


def test_an_episode_that_was_truncated_by_its_driver_is_over_again():
    session = guess("1")
    session.truncate("tokens", 7, 5)
    rebuilt = again(session, journal(session))
    assert rebuilt.status == "over"
    assert rebuilt.journal == session.journal
    assert plain(rebuilt.end()) == plain(session.end())


def test_several_seats_are_rebuilt_with_their_times_and_decisions():
    session = Session(Match(), Task("only-test", "test"), 1)
    session.open()
    session.step(1, {"left": 1, "right": 0}, agent_s={"left": 0.5}, decisions={"right": {"why": "so"}})
    rebuilt = again(session, journal(session), env=Match())
    assert rebuilt.journal == session.journal


def test_another_digest_is_a_replay_error_that_names_the_step():
    session = guess("1", "2")
    entries = journal(session)
    torn = msgspec.structs.replace(msgspec.msgpack.decode(entries[2], type=Entry), digest="00")
    with pytest.raises(ReplayError, match="replaying step 2 gave another answer"):
        again(session, [*entries[:2], encode_msgpack(torn)])


def test_another_seed_is_a_replay_error():
    session = guess("1")
    other = guess("1", seed=12)
    with pytest.raises(ReplayError, match="replaying step 0"):
        again(other, journal(session))


def test_a_recorded_action_that_is_not_legal_any_more_is_a_replay_error():
    session = guess("1")
    entries = journal(session)
    odd = msgspec.structs.replace(msgspec.msgpack.decode(entries[1], type=Entry), actions={"player": "99"})
    with pytest.raises(ReplayError, match="replaying step 1 was refused"):
        again(session, [entries[0], encode_msgpack(odd)])


def test_a_journal_with_a_gap_is_a_replay_error():
    session = guess("1", "2")
    entries = journal(session)
    with pytest.raises(ReplayError, match="step 2"):
        again(session, [entries[0], entries[2]])


def test_an_environment_that_is_not_deterministic_is_not_replayed_beyond_its_beginning():
    env = environment("test/unsteady-v0")
    session = Session(env, env.taskset("train").task(0), 1)
    session.open()
    entries = journal(session)
    assert again(session, entries, env=environment("test/unsteady-v0")).status == "running"
    session.step(1, {"player": "a"})
    with pytest.raises(ReplayError, match="is not deterministic"):
        again(session, journal(session), env=environment("test/unsteady-v0"))


def test_an_environment_that_fails_at_the_replay_fails_the_rebuilding_and_is_closed():
    closed = []

    class Failing(type(environment("text/guess-v0"))):
        def act(self, action):
            raise RuntimeError("not this time")

        def close(self):
            closed.append(True)

    session = guess("1")
    with pytest.raises(EnvError, match="not this time"):
        again(session, journal(session), env=Failing())
    assert closed == [True]


def test_counts_of_an_entry_hold_the_time_so_far():
    session = guess("1")
    counts = Counts(elapsed_s=100.0)
    assert again(session, journal(session), counts=counts).elapsed_s >= 100.0
