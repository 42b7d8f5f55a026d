"""The session: order, exactly-once, limits, refusals, what a broken environment comes to, and forks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from gymnasium import spaces

from arena import (
    PLAYER,
    Action,
    AgentID,
    EnvError,
    Environment,
    EnvSpec,
    FreeText,
    GraderError,
    InvalidActionError,
    Limits,
    ModelError,
    OutOfOrderError,
    ReplayError,
    ResetNeededError,
    Score,
    SeatSpec,
    SeatStep,
    Session,
    SingleAgentEnvironment,
    Task,
    Taskset,
    TimeStep,
    ToolError,
    UnsupportedError,
    Usage,
    UsageError,
    make,
    restart,
    termination,
    transition,
    truncation,
)
from arena.types import LimitKind


class Clock:
    """A clock that goes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Echo(SingleAgentEnvironment):
    """Says the action again; ends at "stop", is cut off at "cut", and refuses "no"; subclasses break it."""

    spec = EnvSpec(
        id="toys/echo-v0",
        summary="Says it again.",
        endings={"stopped": "termination", "cut": "truncation"},
        reward_range=(0.0, 1.0),
        seeded=False,
    )
    calls: int = 0
    closed: int = 0

    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(FreeText(100), FreeText(20))

    def taskset(self, split: str) -> Taskset:
        raise NotImplementedError

    def begin(self, task: Task, seed: int) -> SeatStep:
        if task.id != "echo":
            raise UsageError("there is one task, 'echo'")
        self.said: list[Action] = []
        return restart("begin")

    def act(self, action: Action) -> SeatStep:
        self.calls += 1
        if action == "no":
            raise InvalidActionError("anything but 'no'")
        self.said.append(action)
        if action == "stop":
            return termination("end", 1.0, ending="stopped")
        if action == "cut":
            return truncation("cut", 0.0, ending="cut")
        return transition(str(action), 0.5)

    def score(self) -> Score:
        return Score(len(self.said) / 100)

    def close(self) -> None:
        self.closed += 1


class Copying(Echo):
    spec = msgspec.structs.replace(Echo.spec, snapshots=True)

    def snapshot(self) -> object:
        return list(self.said)

    def restore(self, state: object) -> None:
        assert isinstance(state, list)
        self.said = list(state)


class Pair(Environment):
    """Two seats act at once; a seat that says "stop" leaves."""

    spec = msgspec.structs.replace(Echo.spec, play="simultaneous")

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        return ("a", "b")

    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(FreeText(100), FreeText(20))

    def taskset(self, split: str) -> Taskset:
        raise NotImplementedError

    def reset(self, task: Task, seed: int) -> TimeStep:
        return TimeStep({"a": restart("begin"), "b": restart("begin")}, ("a", "b"))

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        seats = {
            agent: termination("end", 1.0, ending="stopped") if action == "stop" else transition("on", 0.25)
            for agent, action in actions.items()
        }
        return TimeStep(seats, tuple(agent for agent, step in seats.items() if not step.is_last))

    def score(self) -> Score:
        return Score(0.5)


TASK = Task("echo")


def opened(env: Environment | None = None, clock: Callable[[], float] | None = None, **limits: Any) -> Session:
    session = Session(env or Echo(), TASK, 1, limits=Limits(**limits), clock=clock or Clock())
    session.open()
    return session


def say(session: Session, *words: str) -> None:
    for word in words:
        session.step(len(session.journal), {PLAYER: word})


# -- order ------------------------------------------------------------------------------------------------------------


def test_episode_from_beginning_to_end() -> None:
    session = Session(Echo(), TASK, 1)
    assert not session.acting
    assert session.open().time_step.seats[PLAYER].observation == "begin"
    assert session.acting == (PLAYER,)
    say(session, "hi", "stop")
    assert session.status == "over"
    assert not session.acting
    end = session.end()
    assert (end.outcome, end.steps, end.endings) == ("terminated", 2, {PLAYER: "stopped"})
    assert end.returns == {PLAYER: 1.5}
    assert end.score == Score(0.02)
    assert end.error is None
    assert end.digest == session.journal[-1].digest
    assert session.end() is end


def test_open_twice_gives_the_same_record() -> None:
    session = Session(Echo(), TASK, 1)
    assert session.open() is session.open()


def test_step_before_open_is_refused() -> None:
    with pytest.raises(ResetNeededError, match="open it first"):
        Session(Echo(), TASK, 1).step(1, {PLAYER: "hi"})
    with pytest.raises(ResetNeededError):
        Session(Echo(), TASK, 1).truncate("steps", 1, 1)
    with pytest.raises(ResetNeededError):
        Session(Echo(), TASK, 1).expert_action(PLAYER)


def test_step_after_the_end_is_refused() -> None:
    session = opened()
    say(session, "stop")
    with pytest.raises(ResetNeededError, match="is over"):
        say(session, "hi")
    with pytest.raises(ResetNeededError):
        session.truncate("steps", 1, 1)


def test_end_before_the_end_is_refused() -> None:
    with pytest.raises(ResetNeededError, match="still running"):
        opened().end()


@pytest.mark.parametrize("index", [3, 4, 1000])
def test_future_index_is_refused(index: int) -> None:
    session = opened()
    say(session, "one")
    with pytest.raises(OutOfOrderError) as caught:
        session.step(index, {PLAYER: "three"})
    assert caught.value.details["next"] == 2
    assert len(session.journal) == 2


@pytest.mark.parametrize("index", [0, -1, -5])
def test_index_below_one_is_refused(index: int) -> None:
    session = opened()
    with pytest.raises(OutOfOrderError):
        session.step(index, {PLAYER: "one"})


def test_repeated_step_is_answered_from_the_journal() -> None:
    env = Echo()
    session = opened(env)
    first = session.step(1, {PLAYER: "one"})
    say(session, "two")
    assert session.step(1, {PLAYER: "one"}) is first
    assert env.calls == 2
    say(session, "stop")
    assert session.step(1, {PLAYER: "one"}) is first
    assert session.step(3, {PLAYER: "stop"}) is session.journal[3]


def test_repeated_step_with_other_actions_is_refused() -> None:
    session = opened()
    say(session, "one", "two")
    for actions in ({PLAYER: "other"}, {}, {"b": "one"}):
        with pytest.raises(OutOfOrderError, match="other actions"):
            session.step(1, actions)
    assert [record.actions for record in session.journal] == [{}, {PLAYER: "one"}, {PLAYER: "two"}]


def test_refused_task_leaves_the_session_new() -> None:
    session = Session(Echo(), Task("other"), 1)
    with pytest.raises(UsageError, match="one task"):
        session.open()
    assert session.status == "new"


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [None, 1.5, True, 3, "x" * 21, [], "no", "\ud800"])
def test_illegal_action_is_refused_and_counted(action: Any) -> None:
    session = opened()
    with pytest.raises(InvalidActionError) as caught:
        session.step(1, {PLAYER: action})
    assert "\n" not in str(caught.value)
    assert (session.refused, len(session.journal), session.status) == (1, 1, "running")
    assert session.step(1, {PLAYER: "one"}).index == 1


@pytest.mark.parametrize("actions", [{}, {"a": "hi"}, {"b": "hi"}, {"a": "hi", "c": "hi"}, dict.fromkeys("abc", "hi")])
def test_actions_come_from_exactly_the_acting_seats(actions: dict[str, str]) -> None:
    session = opened(Pair())
    with pytest.raises(InvalidActionError, match="due are those of a, b"):
        session.step(1, actions)


def test_seat_that_left_does_not_act() -> None:
    session = opened(Pair())
    session.step(1, {"a": "stop", "b": "hi"})
    assert session.acting == ("b",)
    with pytest.raises(InvalidActionError, match="due are those of b"):
        session.step(2, {"a": "hi", "b": "hi"})
    session.step(2, {"b": "stop"})
    end = session.end()
    assert end.endings == {"a": "stopped", "b": "stopped"}
    assert end.returns == {"a": 1.0, "b": 1.25}


def test_refusals_in_a_row_truncate() -> None:
    session = opened(invalid_actions=3)
    for _ in range(2):
        with pytest.raises(InvalidActionError):
            session.step(1, {PLAYER: "no"})
    say(session, "yes")
    for _ in range(3):
        assert session.status == "running"
        with pytest.raises(InvalidActionError):
            session.step(2, {PLAYER: "no"}, agent_s={PLAYER: 0.5}, decisions={PLAYER: {"tried": "no"}})
    assert session.status == "over"
    last = session.journal[-1]
    assert (last.actions, last.agent_s, last.decisions) == ({}, {PLAYER: 0.5}, {PLAYER: {"tried": "no"}})
    end = session.end()
    assert (end.outcome, end.refused, end.steps) == ("truncated", 5, 1)
    assert end.limit is not None
    assert (end.limit.kind, end.limit.value, end.limit.limit) == ("invalid_actions", 3, 3)
    assert end.endings == {PLAYER: "invalid_actions_limit"}
    assert end.returns == {PLAYER: 0.5}
    assert end.score is not None


def test_refusals_without_a_limit() -> None:
    session = opened(invalid_actions=None)
    for _ in range(100):
        with pytest.raises(InvalidActionError):
            session.step(1, {PLAYER: "no"})
    assert session.status == "running"
    assert session.refused == 100


# -- limits -----------------------------------------------------------------------------------------------------------


def limit_of(session: Session) -> tuple[str, float, float] | None:
    limit = session.journal[-1].limit
    return None if limit is None else (limit.kind, limit.value, limit.limit)


def assert_truncated(session: Session, kind: LimitKind) -> None:
    step = session.journal[-1].time_step.seats[PLAYER]
    assert session.status == "over"
    assert (step.truncated, step.terminated, step.ending) == (True, False, f"{kind}_limit")
    end = session.end()
    assert end.outcome == "truncated"
    assert end.score is not None
    assert end.limit == session.journal[-1].limit


def test_steps_limit() -> None:
    session = opened(steps=2)
    say(session, "one", "two")
    assert limit_of(session) == ("steps", 2, 2)
    assert_truncated(session, "steps")
    assert session.end().returns == {PLAYER: 1.0}


def test_max_steps_of_the_environment_holds_unless_limits_say_otherwise() -> None:
    env = type("Short", (Echo,), {"spec": msgspec.structs.replace(Echo.spec, max_steps=1)})
    session = opened(env())
    say(session, "one")
    assert limit_of(session) == ("steps", 1, 1)
    assert opened(env(), steps=3).limits.steps == 3


def test_ending_at_the_limit_is_the_tasks_own() -> None:
    session = opened(steps=1)
    say(session, "stop")
    assert limit_of(session) is None
    assert session.end().outcome == "terminated"


def test_wall_time_limit() -> None:
    clock = Clock()
    session = opened(clock=clock, wall_time_s=10.0)
    assert session.remaining_s() == 10.0
    clock.now += 9.5
    say(session, "one")
    assert limit_of(session) is None
    assert session.remaining_s() == 0.5
    clock.now += 1
    say(session, "two")
    assert limit_of(session) == ("wall_time", 10.5, 10.0)
    assert session.remaining_s() == 0.0
    assert_truncated(session, "wall_time")


def test_no_wall_time_limit_leaves_no_remaining_time() -> None:
    assert opened().remaining_s() is None


def test_step_time_limit() -> None:
    clock = Clock()

    class Slow(Echo):
        def act(self, action: Action) -> SeatStep:
            clock.now += 2.0 if action == "slow" else 1.0
            return super().act(action)

    session = opened(Slow(), clock, step_time_s=1.0)
    say(session, "quick")
    clock.now += 50
    say(session, "quick")
    assert limit_of(session) is None
    say(session, "slow")
    assert limit_of(session) == ("step_time", 2.0, 1.0)
    assert_truncated(session, "step_time")
    assert session.end().env_s == 4.0


def test_tokens_limit() -> None:
    session = opened(tokens=100)
    session.step(1, {PLAYER: "one"}, usage=Usage(input_tokens=50, output_tokens=49))
    assert limit_of(session) is None
    session.step(2, {PLAYER: "two"}, usage=Usage(output_tokens=1))
    assert limit_of(session) == ("tokens", 100, 100)
    assert_truncated(session, "tokens")


def test_cost_limit() -> None:
    session = opened(cost_usd=0.5)
    session.step(1, {PLAYER: "one"}, usage=Usage(cost_usd=0.25))
    assert limit_of(session) is None
    session.step(2, {PLAYER: "two"}, usage=Usage(cost_usd=0.5))
    assert limit_of(session) == ("cost", 0.75, 0.5)
    assert_truncated(session, "cost")


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": -1}, {"cost_usd": 0.0}, {"wall_time_s": float("nan")}])
def test_limits_are_positive(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        Limits(**bad)


def test_truncate_between_steps() -> None:
    session = opened()
    say(session, "one")
    record = session.truncate("wall_time", 12.0, 10.0)
    assert record.actions == {}
    assert record.time_step.seats[PLAYER].reward == 0.0
    assert record.time_step.seats[PLAYER].observation == "one"
    assert_truncated(session, "wall_time")
    end = session.end()
    assert (end.steps, end.returns) == (1, {PLAYER: 0.5})


def test_truncate_leaves_out_seats_that_ended() -> None:
    session = opened(Pair())
    session.step(1, {"a": "stop", "b": "hi"})
    record = session.truncate("cost", 2.0, 1.0)
    assert set(record.time_step.seats) == {"b"}
    assert session.end().endings == {"a": "stopped", "b": "cost_limit"}
    assert session.end().outcome == "truncated"


def test_limit_truncates_only_seats_that_are_alive() -> None:
    session = opened(Pair(), steps=1)
    session.step(1, {"a": "stop", "b": "hi"})
    assert session.end().endings == {"a": "stopped", "b": "steps_limit"}
    assert session.end().returns == {"a": 1.0, "b": 0.25}


def test_truncation_by_the_environment_is_no_limit() -> None:
    session = opened()
    say(session, "cut")
    assert session.end().outcome == "truncated"
    assert session.end().limit is None
    assert session.end().endings == {PLAYER: "cut"}


# -- usage and records ------------------------------------------------------------------------------------------------


def test_usage_and_durations_are_recorded() -> None:
    clock = Clock()
    session = opened(clock=clock)
    session.step(1, {PLAYER: "one"}, usage=Usage(3, 4, 0.5, 1, 2), agent_s={PLAYER: 2.5}, decisions={PLAYER: {"a": 1}})
    session.step(2, {PLAYER: "stop"}, usage=Usage(1, 1), agent_s={PLAYER: 0.5})
    clock.now += 7
    end = session.end()
    assert end.usage == Usage(4, 5, 0.5, 1, 2) == session.usage
    assert (end.agent_s, end.wall_s, end.env_s) == (3.0, 7.0, 0.0)
    assert session.journal[1].decisions == {PLAYER: {"a": 1}}
    assert session.journal[1].usage == Usage(3, 4, 0.5, 1, 2)


def test_repeated_step_is_paid_once() -> None:
    session = opened()
    for _ in range(3):
        session.step(1, {PLAYER: "one"}, usage=Usage(output_tokens=7))
    assert session.usage == Usage(output_tokens=7)


def test_digest_depends_on_everything_that_was_played() -> None:
    def digest(seed: int, *words: str) -> str:
        session = Session(Echo(), TASK, seed, clock=Clock())
        session.open()
        say(session, *words)
        return session.journal[-1].digest

    assert digest(1, "a", "b") == digest(1, "a", "b")
    assert len({digest(1, "a", "b"), digest(2, "a", "b"), digest(1, "b", "b"), digest(1, "a")}) == 4


# -- failures ---------------------------------------------------------------------------------------------------------


def breaking(**members: Any) -> Environment:
    env: Environment = type("Broken", (Echo,), members)()
    return env


def assert_failed(session: Session, cls: type[Exception] = EnvError) -> None:
    assert session.status == "failed"
    with pytest.raises(cls):
        session.step(len(session.journal), {PLAYER: "again"})
    end = session.end()
    assert (end.outcome, end.score) == ("failed", None)
    assert end.error is not None
    assert end.error.code == cls.code  # type: ignore[attr-defined]


def answering(step: Any) -> Environment:
    return breaking(act=lambda self, action: step)


CONTRACT_VIOLATIONS: dict[str, Callable[[], Environment]] = {
    "reward too large": lambda: answering(transition("x", 2.0)),
    "reward no number": lambda: answering(transition("x", float("nan"))),
    "reward infinite": lambda: answering(transition("x", float("inf"))),
    "undeclared ending": lambda: answering(termination("x", 0.0, ending="lost")),
    "ending of another kind": lambda: answering(termination("x", 0.0, ending="cut")),
    "truncation of another kind": lambda: answering(truncation("x", 0.0, ending="stopped")),
    "terminated and truncated": lambda: answering(SeatStep("x", 0.0, True, True, "stopped")),
    "no name for the ending": lambda: answering(SeatStep("x", 0.0, True)),
    "observation that cannot be sent": lambda: answering(transition(object(), 0.0)),
    "info that cannot be sent": lambda: answering(transition("x", 0.0, what=object())),
    "info with integer keys": lambda: answering(transition("x", 0.0, what={1: 2})),
    "text that is no UTF-8": lambda: answering(transition("\ud800", 0.0)),
    "number too large": lambda: answering(transition(2**70, 0.0)),
    "strange seat": lambda: breaking(step=lambda self, actions: TimeStep({"x": restart("x")}, ("x",))),
    "nobody acts": lambda: breaking(step=lambda self, actions: TimeStep({PLAYER: restart("x")})),
    "strange seat acts": lambda: breaking(step=lambda self, actions: TimeStep({PLAYER: restart("x")}, ("x",))),
    "dead seat acts": lambda: breaking(
        step=lambda self, actions: TimeStep({PLAYER: termination("x", 0.0, ending="stopped")}, (PLAYER,))
    ),
}


@pytest.mark.parametrize("name", CONTRACT_VIOLATIONS)
def test_contract_violation_is_an_error_and_never_a_score(name: str) -> None:
    session = opened(CONTRACT_VIOLATIONS[name]())
    with pytest.raises(EnvError, match="broke its contract"):
        say(session, "hi")
    assert len(session.journal) == 1
    assert_failed(session)


def raising(error: Exception) -> Environment:
    def act(self: Any, action: Action) -> SeatStep:
        raise error

    return breaking(act=act)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom"),
        ToolError("not caught"),
        UsageError("not expected"),
        ResetNeededError("what"),
        KeyError("x"),
        RecursionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_an_environment_raises_is_an_environment_error(error: Exception) -> None:
    session = opened(raising(error))
    with pytest.raises(EnvError, match=type(error).__name__):
        say(session, "hi")
    assert_failed(session)


def test_boundary_error_of_an_environment_keeps_its_kind() -> None:
    session = opened(raising(ModelError("judge unreachable", retryable=True)))
    with pytest.raises(ModelError):
        say(session, "hi")
    assert_failed(session, ModelError)
    error = session.end().error
    assert error is not None
    assert error.retryable


def test_failure_of_reset() -> None:
    session = Session(breaking(begin=lambda self, task, seed: 1 / 0), TASK, 1)
    with pytest.raises(EnvError, match="ZeroDivisionError"):
        session.open()
    assert session.status == "failed"
    with pytest.raises(EnvError):
        session.open()
    assert session.end().outcome == "failed"


@pytest.mark.parametrize("bad", [Score(2.0), Score(float("nan")), Score(-0.1), None], ids=str)
def test_wrong_score_is_a_grader_error(bad: Any) -> None:
    session = opened(breaking(score=lambda self: bad))
    say(session, "stop")
    end = session.end()
    assert (end.outcome, end.score) == ("failed", None)
    assert end.error is not None
    assert end.error.code == GraderError.code
    assert end.returns == {PLAYER: 1.0}


def test_failing_grader_is_a_grader_error() -> None:
    session = opened(breaking(score=lambda self: 1 / 0))
    say(session, "stop")
    end = session.end()
    assert end.error is not None
    assert (end.error.code, end.outcome) == (GraderError.code, "failed")
    assert "ZeroDivisionError" in end.error.message


def test_failure_of_an_agent_is_recorded() -> None:
    session = opened()
    session.fail(ModelError("gone"))
    session.fail(ModelError("later"))
    assert_failed(session, ModelError)
    assert session.error is not None
    assert str(session.error) == "gone"


def test_closed_session_has_no_score() -> None:
    env = Echo()
    session = opened(env)
    session.close()
    session.close()
    assert env.closed == 1
    assert session.status == "closed"
    with pytest.raises(ResetNeededError, match="closed"):
        say(session, "hi")
    assert session.end().outcome == "failed"


def test_score_taken_before_close_stays() -> None:
    session = opened()
    say(session, "stop")
    end = session.end()
    session.close()
    assert session.end() is end


# -- experts ----------------------------------------------------------------------------------------------------------


def test_expert_of_the_environment() -> None:
    env = make("text/guess-v0")
    session = Session(env, env.taskset("train").task(0), 1)
    session.open()
    assert session.expert_action(PLAYER) == "4"
    with pytest.raises(UnsupportedError):
        opened().expert_action(PLAYER)
    with pytest.raises(EnvError, match="ZeroDivisionError"):
        opened(breaking(expert_action=lambda self, agent: 1 / 0)).expert_action(PLAYER)


# -- forks ------------------------------------------------------------------------------------------------------------


def digests(session: Session) -> list[str]:
    return [record.digest for record in session.journal]


@pytest.mark.parametrize("cls", [Echo, Copying], ids=["by replay", "from a snapshot"])
def test_fork_goes_on_by_itself(cls: type[Environment]) -> None:
    parent = opened(cls())
    say(parent, "one", "two")
    twin = parent.fork(cls())
    assert digests(twin) == digests(parent)
    say(twin, "three")
    say(parent, "other")
    assert digests(twin)[:3] == digests(parent)[:3]
    assert digests(twin)[3] != digests(parent)[3]
    say(twin, "stop")
    assert parent.status == "running"
    assert twin.end().score == Score(0.04)
    assert [record.actions.get(PLAYER) for record in parent.journal] == [None, "one", "two", "other"]


@pytest.mark.parametrize("cls", [Echo, Copying])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_fork_at_an_earlier_step(cls: type[Environment], at: int) -> None:
    parent = opened(cls())
    say(parent, "one", "two", "stop")
    twin = parent.fork(cls(), at=at)
    assert digests(twin) == digests(parent)[: at + 1]
    assert twin.status == "running"
    say(twin, *["one", "two", "stop"][at:])
    assert digests(twin) == digests(parent)
    assert twin.end().score == parent.end().score


def test_fork_of_an_episode_that_is_over() -> None:
    parent = opened(steps=1)
    say(parent, "one")
    twin = parent.fork(Echo())
    assert (twin.status, digests(twin)) == ("over", digests(parent))
    assert twin.end().limit == parent.end().limit


def test_fork_keeps_what_was_spent() -> None:
    for cls in (Echo, Copying):
        parent = opened(cls(), tokens=10)
        parent.step(1, {PLAYER: "one"}, usage=Usage(output_tokens=6))
        twin = parent.fork(cls())
        assert twin.usage == Usage(output_tokens=6)
        twin.step(2, {PLAYER: "two"}, usage=Usage(output_tokens=4))
        assert limit_of(twin) == ("tokens", 10, 10)


@pytest.mark.parametrize("at", [-1, 2, 100])
def test_fork_at_no_step_is_refused(at: int) -> None:
    session = opened()
    say(session, "one")
    with pytest.raises(UsageError, match="recorded are steps 0 to 1"):
        session.fork(Echo(), at=at)


def test_fork_that_cannot_be_replayed_is_refused() -> None:
    chance = type("Chance", (Copying,), {"spec": msgspec.structs.replace(Copying.spec, deterministic=False)})
    session = opened(chance())
    say(session, "one")
    assert session.fork(chance()).status == "running"
    with pytest.raises(ReplayError, match="not deterministic"):
        session.fork(chance(), at=0)


def test_fork_that_differs_is_found() -> None:
    class Changed(Echo):
        def act(self, action: Action) -> SeatStep:
            return msgspec.structs.replace(super().act(action), reward=0.25)

    session = opened()
    say(session, "one")
    with pytest.raises(ReplayError, match="step 1 gave another answer"):
        session.fork(Changed())


def test_apply_rebuilds_a_session() -> None:
    recorded = opened(invalid_actions=1)
    say(recorded, "one", "two")
    with pytest.raises(InvalidActionError):
        say(recorded, "no")
    rebuilt = Session(Echo(), TASK, 1, limits=recorded.limits, clock=Clock())
    for record in recorded.journal:
        assert rebuilt.apply(record).digest == record.digest
    assert rebuilt.status == "over"
    assert rebuilt.end().endings == recorded.end().endings


def test_arrays_and_numpy_integers_are_converted() -> None:
    import numpy as np

    class Pick(Echo):
        def seat(self, agent: AgentID) -> SeatSpec:
            return SeatSpec(FreeText(100), spaces.Discrete(5))

    session = opened(Pick())
    assert session.step(1, {PLAYER: np.int64(3)}).actions == {PLAYER: 3}
    with pytest.raises(InvalidActionError):
        session.step(2, {PLAYER: np.int64(5)})


def test_fork_needs_an_environment_with_the_same_options() -> None:
    env = make("text/guess-v0")
    session = Session(env, env.taskset("test").task(0), 1)
    session.open()
    with pytest.raises(UsageError, match="same options"):
        session.fork(make("text/guess-v0", {"max_guesses": 2}))
