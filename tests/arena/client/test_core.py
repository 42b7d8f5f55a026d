import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from arena.client.core import Core
from arena.errors import (
    CapacityError,
    SessionGoneError,
    TooLargeError,
    TransportError,
    UsageError,
)
from arena.protocol import (
    Attach,
    Close,
    Closed,
    Create,
    Created,
    Describe,
    Environments,
    ErrorReply,
    Reply,
    Request,
    Step,
    Stepped,
)
from arena.trace import EndRecord
from arena.types import PLAYER, encode_json, encode_msgpack

from .toy import Toy


def create(key="k" * 32):
    return Create(id=0, env="test/toy-v0", key=key)


def step(session, index, action):
    return Step(id=0, session=session, index=index, actions={PLAYER: action})


def decoded(frames):
    return [msgspec.msgpack.decode(frame, type=Request) for frame in frames]


def connected(**options):
    core = Core(**options)
    core.connected(0.0)
    return core


def opened(core, toy=None, granted=None):
    """Open a session and return its id."""
    toy, granted = toy or Toy(), set() if granted is None else granted
    core.submit(create(), 0.0)
    ((_, reply),) = [pair for frame in core.outgoing(0.0) for pair in core.receive(toy.answer(frame, granted), 0.0)]
    return reply.session


class Faults(RuleBasedStateMachine):
    """A client and an exactly-once server, with a network between them that loses, repeats and reorders frames."""

    @initialize(format=st.sampled_from(["msgpack", "json"]))
    def begin(self, format):
        self.core, self.toy, self.now = Core(format, timeout_s=10.0, reconnect_s=1e9), Toy(), 0.0
        self.up = False
        self.there, self.back, self.granted = [], [], set()
        self.waiting, self.steps, self.free, self.keys = {}, {}, set(), 0
        self.seen_ids = set()

    # -- the client asks

    @rule()
    def begin_session(self):
        self.keys += 1
        self.ask(create(f"key-{self.keys}"), ("create", f"key-{self.keys}"))

    @precondition(lambda self: self.free)
    @rule(data=st.data(), action=st.text(max_size=3))
    def take_step(self, data, action):
        session = data.draw(st.sampled_from(sorted(self.free)))
        self.free.remove(session)
        index = self.steps[session] + 1
        self.ask(step(session, index, action), ("step", session, index, action))

    def ask(self, request, expected):
        number = self.core.submit(request, self.now)
        assert number not in self.seen_ids
        self.seen_ids.add(number)
        self.waiting[number] = expected
        self.send()

    def send(self):
        if self.up:
            self.there.extend(self.core.outgoing(self.now))

    # -- the network

    @precondition(lambda self: not self.up)
    @rule()
    def connect(self):
        self.up, self.granted = True, set()
        self.core.connected(self.now)
        self.send()

    @precondition(lambda self: self.up)
    @rule()
    def cut(self):
        self.up, self.there, self.back = False, [], []
        self.core.lost(self.now)

    @precondition(lambda self: self.there)
    @rule(data=st.data(), copies=st.integers(0, 2))
    def pass_there(self, data, copies):
        frame = self.there.pop(data.draw(st.integers(0, len(self.there) - 1)))
        self.back.extend(self.toy.answer(frame, self.granted) for _ in range(copies))

    @precondition(lambda self: self.back)
    @rule(data=st.data(), copies=st.integers(0, 2))
    def pass_back(self, data, copies):
        frame = self.back.pop(data.draw(st.integers(0, len(self.back) - 1)))
        for _ in range(copies):
            self.answered(self.core.receive(frame, self.now))

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def let_time_pass(self, seconds):
        self.now += seconds
        if not self.core.tick(self.now):
            self.cut()
        self.send()

    # -- what must hold

    def answered(self, outcomes):
        for number, outcome in outcomes:
            expected = self.waiting.pop(number)  # a KeyError is an answer to nothing, or a second one
            if expected[0] == "create":
                assert isinstance(outcome, Created)
                assert outcome.session == self.toy.keys[expected[1]]
                self.steps[outcome.session] = 0
                self.free.add(outcome.session)
            else:
                _, session, index, action = expected
                assert isinstance(outcome, Stepped)
                assert (outcome.session, outcome.record.index) == (session, index)
                assert outcome.record.actions == {PLAYER: action}
                self.steps[session] = index
                self.free.add(session)
        self.send()

    @invariant()
    def no_step_is_taken_twice(self):
        assert all(count == 1 for count in self.toy.applied.values())

    def teardown(self):
        if not hasattr(self, "core"):
            return
        for _ in range(100):
            if not self.waiting:
                break
            if not self.up:
                self.connect()
            while self.there or self.back:
                for frame in [self.there.pop(0)] if self.there else []:
                    self.back.append(self.toy.answer(frame, self.granted))
                for frame in [self.back.pop(0)] if self.back else []:
                    self.answered(self.core.receive(frame, self.now))
            self.let_time_pass(11.0)
        assert not self.waiting
        for session, last in self.steps.items():
            assert len(self.toy.sessions[session]) == last + 1


Faults.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestFaults = Faults.TestCase


def test_after_a_reconnect_sessions_are_attached_and_only_then_the_same_bytes_go_again():
    core, toy = connected(), Toy()
    session = opened(core, toy)
    core.submit(step(session, 1, "a"), 1.0)
    (first,) = core.outgoing(1.0)
    core.lost(2.0)
    assert core.outgoing(2.0) == []
    core.connected(3.0)
    (attach,) = core.outgoing(3.0)
    assert decoded([attach])[0].capability == f"owner-{session}"
    assert core.outgoing(3.5) == []
    granted = set()
    assert core.receive(toy.answer(attach, granted), 4.0) == []
    assert core.outgoing(4.0) == [first]
    ((_, reply),) = core.receive(toy.answer(first, granted), 5.0)
    assert reply.record.actions == {PLAYER: "a"}


def test_what_is_asked_while_there_is_no_connection_goes_out_with_the_next_one():
    core = Core()
    core.submit(Environments(id=0), 0.0)
    assert core.outgoing(0.0) == []
    core.connected(1.0)
    assert len(core.outgoing(1.0)) == 1


def test_a_session_whose_capability_is_refused_is_not_attached_again():
    core = connected()
    opened(core)
    core.lost(1.0)
    core.connected(2.0)
    (attach,) = core.outgoing(2.0)
    core.receive(Toy().answer(attach, set()), 3.0)  # another server: it knows no such session
    assert core.capabilities == {}


def test_a_closed_session_is_not_attached_again():
    core = connected()
    session = opened(core)
    number = core.submit(Close(id=0, session=session), 1.0)
    end = EndRecord(outcome="terminated", steps=0)
    core.receive(encode_msgpack(Closed(id=number, session=session, end=end)), 1.0)
    assert core.capabilities == {}
    assert not core.busy


def test_a_session_of_which_something_is_unanswered_is_attached_again_though_it_is_closed():
    core, toy = connected(), Toy()
    session = opened(core, toy)
    core.submit(Close(id=0, session=session), 1.0)
    (close,) = core.outgoing(1.0)
    for now in (2.0, 3.0, 4.0):  # the server has closed the session, but its answer is lost again and again
        core.lost(now)
        core.connected(now)
        (attach,) = core.outgoing(now)
        attached = msgspec.msgpack.decode(toy.answer(attach, set()), type=Reply)
        core.receive(encode_msgpack(msgspec.structs.replace(attached, status="closed")), now)
        assert core.outgoing(now) == [close]


def test_a_close_whose_answer_nobody_waits_for_lets_go_of_the_session():
    core = connected()
    session = opened(core)
    core.forget(core.submit(Close(id=0, session=session), 1.0))
    assert not core.busy


@pytest.mark.parametrize("frame", [b"\xff", "{", '{"type":"stepped","id":1}', '{"type":"nonsense"}', b"", '"\\ud800"'])
def test_a_frame_that_is_no_reply_is_a_transport_error(frame):
    with pytest.raises(TransportError, match="no reply"):
        connected().receive(frame, 0.0)


def test_a_reply_to_another_kind_of_request_is_a_transport_error_of_that_request():
    core = connected()
    number = core.submit(Environments(id=0), 0.0)
    reply = Closed(id=number, session="s", end=EndRecord(outcome="terminated", steps=0))
    ((answered, outcome),) = core.receive(encode_msgpack(reply), 0.0)
    assert answered == number
    assert isinstance(outcome, TransportError)


def test_an_error_comes_with_its_class_and_details():
    core = connected()
    number = core.submit(Environments(id=0), 0.0)
    error = CapacityError("full", retry_after_s=3)
    ((_, outcome),) = core.receive(encode_msgpack(ErrorReply(id=number, error=error.record())), 0.0)
    assert isinstance(outcome, CapacityError)
    assert outcome.details == {"retry_after_s": 3}


def test_an_error_without_an_id_fails_everything_that_is_unanswered():
    core = connected()
    numbers = [core.submit(Environments(id=0), 0.0) for _ in range(2)]
    outcomes = core.receive(encode_json(ErrorReply(error=UsageError("cannot read it").record())).decode(), 0.0)
    assert [number for number, _ in outcomes] == numbers
    assert outcomes[0][1] is not outcomes[1][1]


def test_a_message_that_is_too_large_fails_alone():
    core = connected()
    core.submit(Environments(id=0), 0.0)
    large = core.submit(Describe(id=0, env="x" * 1000), 0.0)
    assert [number for number, _ in core.abandon_largest(TooLargeError("too large"))] == [large]
    core.lost(0.0)
    core.connected(0.0)
    assert len(core.outgoing(0.0)) == 1


def test_a_request_that_cannot_be_encoded_is_refused_and_forgotten():
    core = connected()
    with pytest.raises(UsageError, match="object"):
        core.submit(Describe(id=0, env="e", options={"x": object()}), 0.0)
    with pytest.raises(UsageError, match="Step"):
        core.submit(step("s", 1, 2**70), 0.0)
    assert not core.busy


def test_silence_is_probed_and_then_ends_the_connection():
    core = connected(timeout_s=10.0)
    core.submit(step("s", 1, "a"), 0.0)
    core.outgoing(0.0)
    assert core.tick(4.0)
    assert core.outgoing(4.0) == []
    assert core.tick(6.0)
    (probe,) = core.outgoing(6.0)
    assert isinstance(decoded([probe])[0], Environments)
    assert not core.tick(11.0)


def test_a_slow_answer_is_waited_for_while_the_server_answers_probes():
    core, toy = connected(timeout_s=10.0), Toy()
    core.submit(step("s", 1, "a"), 0.0)
    (asked,) = core.outgoing(0.0)
    sent_again = 0
    for now in range(1, 60):
        assert core.tick(float(now))
        for frame in core.outgoing(float(now)):
            sent_again += frame == asked
            if isinstance(decoded([frame])[0], Environments):
                assert core.receive(toy.answer(frame, set()), float(now)) == []
    assert sent_again == 5


def test_an_idle_connection_may_be_silent():
    core = connected(timeout_s=10.0)
    assert core.tick(1000.0)
    core.submit(Environments(id=0), 1000.0)
    assert core.tick(1001.0)


def test_an_outage_counts_from_its_first_loss_to_the_next_reply():
    core = Core(timeout_s=10.0, reconnect_s=100.0)
    core.connected(0.0)
    number = core.submit(Environments(id=0), 0.0)
    core.lost(10.0)
    core.connected(20.0)
    core.lost(90.0)
    assert not core.expired(109.0)
    assert core.expired(110.0)
    core.connected(110.0)
    core.receive(Toy().answer(encode_msgpack(Environments(id=number)), set()), 111.0)
    assert not core.expired(1000.0)


def test_what_was_not_sent_before_a_loss_is_not_sent_twice_after_it():
    core = connected()
    opened(core)
    for now in (1.0, 2.0, 3.0):
        core.lost(now)
        core.connected(now)
    assert len(core.outgoing(3.0)) == 1


def test_abandoned_requests_are_not_sent_again():
    core = connected()
    core.submit(Environments(id=0), 0.0)
    assert [type(error) for _, error in core.abandon(SessionGoneError("gone"))] == [SessionGoneError]
    core.lost(1.0)
    core.connected(2.0)
    assert core.outgoing(2.0) == []


def test_attaching_by_hand_is_remembered():
    core, toy = connected(), Toy()
    toy.reply(create(), set())
    core.submit(Attach(id=0, capability="owner-s0"), 0.0)
    (frame,) = core.outgoing(0.0)
    core.receive(toy.answer(frame, set()), 0.0)
    assert core.capabilities == {"owner-s0": "s0"}
