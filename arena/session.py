"""The session: a synchronous state machine without I/O around one environment.

It is the only thing that calls the environment. It checks order, legality and limits, numbers the steps and keeps the
journal. Drivers around it do the I/O: the runner in process, and whatever serves sessions to other processes.

Steps are exactly-once: a step carries its index, a repeated index with the same actions returns the recorded answer,
any other index is refused. A journal is enough to rebuild the session elsewhere (`apply`), and the digest chain proves
it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NoReturn

import msgspec

from arena.env import Environment, SeatSpec, check_expert
from arena.errors import (
    BoundaryError,
    EnvError,
    GraderError,
    InvalidActionError,
    LimitReached,
    OutOfOrderError,
    PrerequisiteError,
    ReplayError,
    ResetNeededError,
    UnsupportedError,
    UsageError,
)
from arena.legality import check_action
from arena.promises import broken, check_score, check_time_step, names
from arena.trace import EndRecord, StepRecord, end_record, first_digest, next_digest
from arena.types import (
    Action,
    AgentID,
    Limit,
    LimitKind,
    Limits,
    SeatStep,
    Task,
    TimeStep,
    Usage,
    as_action,
    encode_msgpack,
)

__all__ = ["Counts", "Session"]

Status = Literal["new", "running", "over", "failed", "closed"]
_NO_USAGE = Usage()
_log = logging.getLogger(__name__)


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What a session counts besides its journal.

    Attributes:
        refused: Actions refused so far.
        refused_in_a_row: Those since the last step.
        unrecorded: What has been spent since the last step.
        elapsed_s: Seconds since the episode began.
    """

    refused: int = 0
    refused_in_a_row: int = 0
    unrecorded: Usage = _NO_USAGE
    elapsed_s: float = 0.0


class Session:
    """One episode of one environment.

    Args:
        env: A fresh environment; the session owns it from now on.
        task: One of its tasks.
        seed: The episode's root seed.
        limits: What the episode may use; where `limits.steps` is None the environment's own `max_steps` holds.
        clock: Monotonic seconds.

    Attributes:
        journal: Every step so far, index 0 first.
        status: ``new``, ``running``, ``over``, ``failed`` or ``closed``.
        seats: What each seat sees and can do; empty before the episode has begun.
        usage: Tokens, cost and requests so far.
        refused: Actions refused so far.
    """

    def __init__(
        self,
        env: Environment,
        task: Task,
        seed: int,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.env, self.task, self.seed = env, task, seed
        limits = limits or Limits()
        self.limits = limits if limits.steps else msgspec.structs.replace(limits, steps=env.spec.max_steps)
        self.journal: list[StepRecord] = []
        self.status: Status = "new"
        self.usage = _NO_USAGE
        self.refused = 0
        self.error: BoundaryError | None = None
        self._clock = clock
        self.seats: dict[AgentID, SeatSpec] = {}
        self._digest = b""
        self._refused_in_a_row = 0
        self._unrecorded = _NO_USAGE
        self._began = 0.0
        self._end: EndRecord | None = None

    # -- the episode ------------------------------------------------------------------------------------------------

    def open(self) -> StepRecord:
        """Begin the episode and return its first record; a second call returns the same one.

        Raises:
            UsageError: The environment does not know the task.
            PrerequisiteError: The environment needs something that is not there.
            EnvError: The environment failed.
        """
        if self.journal:
            return self.journal[0]
        if self.status != "new":
            self._raise_not_running()
        self._began = began = self._clock()
        env = self.env
        try:
            answer = self._call(lambda: env.reset(self.task, self.seed), expected=UsageError)
        except LimitReached as reached:
            self.fail(EnvError(f"{env.spec.id}: {reached} before the episode began"))
            self._raise_not_running()
        env_s = self._clock() - began
        self.seats = self._call(lambda: {a: env.seat(a) for a in env.possible_agents}, expected=UnsupportedError)
        options = env.options.model_dump(mode="json")
        try:
            self._digest = first_digest(env.spec.id, options, self.task, self.seed, self.limits)
        except Exception as error:  # the boundary, as in `_append`
            self._raise_broken("a task that cannot be sent", error)
        self.status = "running"
        return self._append({}, answer, env_s, None)

    def step(
        self,
        index: int,
        actions: Mapping[AgentID, Any],
        *,
        usage: Usage | None = None,
        agent_s: Mapping[AgentID, float] | None = None,
        decisions: Mapping[AgentID, dict[str, Any]] | None = None,
    ) -> StepRecord:
        """Apply the actions of the acting seats and return the record of the step.

        Args:
            index: The number of this step: 1 for the first. A recorded index with the same actions is answered from the
                journal, without a second step.
            actions: An action for every acting seat and no other; arrays and NumPy integers are converted.
            usage: What deciding cost, if it has not been given to `spend`; it counts even if the action is refused.
            agent_s: Seconds that each seat took to decide.
            decisions: What agents want recorded beside their actions, JSON-serialisable.

        Raises:
            OutOfOrderError: Another index, or a recorded index with other actions.
            InvalidActionError: An action is not legal; the environment's state is unchanged. After
                `limits.invalid_actions` in a row the episode is truncated.
            ResetNeededError: The episode has not begun, or is over.
            EnvError: The environment failed, now or before.
        """
        journal = self.journal
        if index < len(journal):
            return self._recorded(index, actions)
        if self.status != "running":
            self._raise_not_running()
        if index != len(journal):
            raise OutOfOrderError(f"step {index} was sent; the next step is {len(journal)}", next=len(journal))
        self.spend(usage)
        try:
            given = self._checked(actions, journal[-1].time_step)
            began = self._clock()
            answer, limit = self._advance(given)
        except InvalidActionError as error:
            self._count_refusal(error, agent_s, decisions)
            raise
        now = self._clock()
        self._refused_in_a_row = 0
        limit = limit or self._limit_reached(index, now, now - began)
        return self._append(given, answer, now - began, limit, agent_s=agent_s, decisions=decisions)

    def check(self, agent: AgentID, action: Any) -> Action:
        """Return one acting seat's action, checked as `step` checks it; the step itself is still to be taken.

        Raises:
            InvalidActionError: It is not legal, or the seat is not to act; counted as `step` counts it.
            ResetNeededError: The episode is not running.
        """
        if self.status != "running":
            self._raise_not_running()
        last = self.journal[-1].time_step
        try:
            if agent not in last.acting:
                raise InvalidActionError(f"seat {agent!r} is not to act; due are {names(last.acting)}")
            return self._checked_one(agent, action, last)
        except InvalidActionError as error:
            self._count_refusal(error)
            raise

    def truncate(self, kind: LimitKind, value: float, allowed: float) -> StepRecord:
        """End a running episode between two steps because a limit was reached; every live seat is truncated.

        Raises:
            ResetNeededError: The episode is not running.
        """
        if self.status != "running":
            self._raise_not_running()
        return self._append({}, self._standstill(), 0.0, Limit(kind, float(value), float(allowed)))

    def apply(self, record: StepRecord) -> StepRecord:
        """Do again what a recorded step did, limits included, and return the new record.

        Whoever rebuilds a session compares `digest`; `arena.replay` says what differs.

        Raises:
            OutOfOrderError: It is not the record of the next step.
            InvalidActionError, ResetNeededError, EnvError: As `step`; refusals are not counted.
        """
        if self.status not in ("new", "running"):
            self._raise_not_running()
        if record.index != len(self.journal):
            raise OutOfOrderError(f"the record of step {record.index} was given; the next step is {len(self.journal)}")
        if record.index == 0:
            return self.open()
        if record.limit is not None and not record.actions:
            return self.truncate(record.limit.kind, record.limit.value, record.limit.limit)
        given = self._checked(record.actions, self.journal[-1].time_step)
        began = self._clock()
        answer, limit = self._advance(given)
        self.spend(record.usage)
        return self._append(given, answer, self._clock() - began, limit or record.limit)

    def fork(self, env: Environment, at: int | None = None) -> Session:
        """Return a new session that stands where this one stood after step `at`; this one is untouched.

        Time and refusals are counted anew from there; tokens and cost go on.

        Args:
            env: A fresh environment with the same options; the new session owns it.
            at: Index of a recorded step; the latest where None.

        Raises:
            UsageError: No such step.
            ReplayError: The replay differs from the journal, as it must when the environment is not deterministic.
        """
        last = len(self.journal) - 1
        at = last if at is None else at
        if not 0 <= at <= last:
            raise UsageError(f"cannot fork at step {at}; recorded are steps 0 to {last}")
        if (env.spec.id, env.options) != (self.env.spec.id, self.env.options):
            raise UsageError(f"a fork of {self.env.spec.id} needs a fresh environment with the same options")
        twin = Session(env, self.task, self.seed, limits=self.limits, clock=self._clock)
        if at == last and self.status == "running" and env.spec.snapshots:
            state = self._call(self.env.snapshot, expected=UnsupportedError)
            env.restore(state)
            twin.journal, twin.status, twin.usage = list(self.journal), self.status, self.usage
            twin._digest, twin.seats, twin._began = self._digest, self.seats, self._clock()
            return twin
        if not env.spec.deterministic:
            raise ReplayError(
                f"{env.spec.id} is not deterministic and has no snapshot of step {at}, so it cannot be forked there"
            )
        for record in self.journal[: at + 1]:
            if twin.apply(record).digest != record.digest:
                twin.close()
                raise ReplayError(f"replaying step {record.index} gave another answer than was recorded")
        twin._began = self._clock()
        return twin

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return the environment's expert's action for a seat that is to act; nothing changes.

        Raises:
            UnsupportedError: There is no such expert, or it does not know how to go on from here.
        """
        if self.status != "running":
            self._raise_not_running()
        check_expert(self.env.spec, kind)
        try:
            return self.env.expert_action(agent) if kind is None else self.env.expert_action(agent, kind)
        except UnsupportedError:
            raise
        except Exception as error:
            raise EnvError(f"expert of {self.env.spec.id}: {type(error).__name__}: {error}") from error

    def spend(self, usage: Usage | None) -> None:
        """Count what deciding cost; the next step records what has been spent since the last one."""
        if usage is not None:
            self.usage = self.usage + usage
            self._unrecorded = self._unrecorded + usage

    @property
    def elapsed_s(self) -> float:
        """Seconds since the episode began."""
        return self._clock() - self._began if self.journal else 0.0

    @property
    def counts(self) -> Counts:
        """What is counted besides the journal; `restore_counts` continues from it."""
        return Counts(self.refused, self._refused_in_a_row, self._unrecorded, self.elapsed_s)

    def restore_counts(self, counts: Counts) -> None:
        """Continue from what another session of the same episode had counted; its journal has been applied."""
        self.refused, self._refused_in_a_row = counts.refused, counts.refused_in_a_row
        self.spend(counts.unrecorded if counts.unrecorded != _NO_USAGE else None)
        self._began = self._clock() - counts.elapsed_s

    def remaining_s(self) -> float | None:
        """Return the seconds left of the wall-time limit, or None where there is none."""
        allowed = self.limits.wall_time_s
        return None if allowed is None else max(0.0, allowed - self.elapsed_s)

    def fail(self, error: BoundaryError) -> None:
        """Record that something at a boundary failed; the episode has no score."""
        self.error = self.error or error
        if self.status != "closed":
            self.status = "failed"

    def end(self) -> EndRecord:
        """Score the episode and return its last record; a second call returns the same one.

        A failure, this session's or the grader's, is recorded in `EndRecord.error`; it is never a score.

        Raises:
            ResetNeededError: The episode is still running.
        """
        if self._end is None:
            if self.status == "running":
                raise ResetNeededError("the episode is still running; it is scored once it is over")
            self._end = self._summarise()
        return self._end

    def close(self) -> None:
        """Close the environment; safe to call twice. What goes wrong is logged: the episode is over."""
        if self.status != "closed":
            self.status = "closed"
            try:
                self.env.close()
            except Exception as error:  # the boundary: closing must not cost a recorded episode
                _log.warning("%s failed to close: %s: %s", self.env.spec.id, type(error).__name__, error)

    @property
    def acting(self) -> tuple[AgentID, ...]:
        """The seats whose action is due."""
        return self.journal[-1].time_step.acting if self.status == "running" else ()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _advance(self, actions: dict[AgentID, Action]) -> tuple[TimeStep, Limit | None]:
        """Step the environment; a limit that it keeps itself leaves everything as it was and truncates."""
        try:
            return self._call(lambda: self.env.step(actions), expected=InvalidActionError), None
        except LimitReached as reached:
            return self._standstill(), Limit(reached.kind, reached.value, reached.limit)

    def _call(self, call: Callable[[], Any], *, expected: type[UsageError]) -> Any:
        """Call the environment; an expected error passes, any other becomes an `EnvError` and fails the session."""
        try:
            return call()
        except (expected, PrerequisiteError, LimitReached):
            raise
        except BoundaryError as error:
            self.fail(error)
            raise
        except Exception as error:  # the boundary: whatever the environment raises becomes data
            failure = EnvError(f"{self.env.spec.id}: {type(error).__name__}: {error}")
            self.fail(failure)
            raise failure from error

    def _checked(self, actions: Mapping[AgentID, Any], last: TimeStep) -> dict[AgentID, Action]:
        acting = last.acting
        if len(actions) != len(acting) or any(agent not in actions for agent in acting):
            raise InvalidActionError(f"actions came from {names(actions)}; due are those of {names(acting)}")
        return {agent: self._checked_one(agent, actions[agent], last) for agent in acting}

    def _checked_one(self, agent: AgentID, value: Any, last: TimeStep) -> Action:
        try:
            action = as_action(value)
            check_action(agent, self.seats[agent], last.seats[agent], action, listed=self.env.spec.legal_actions)
        except InvalidActionError as error:
            error.details["agent"] = agent
            raise
        return action

    def _count_refusal(
        self,
        error: InvalidActionError,
        agent_s: Mapping[AgentID, float] | None = None,
        decisions: Mapping[AgentID, dict[str, Any]] | None = None,
    ) -> None:
        """Count a refused action; where it is one too many, truncate, and record what was decided beside it."""
        self.refused += 1
        self._refused_in_a_row += 1
        allowed = self.limits.invalid_actions
        limit = self._limit_reached(len(self.journal) - 1, self._clock(), 0.0)
        if allowed is not None and self._refused_in_a_row >= allowed:
            limit = Limit("invalid_actions", float(self._refused_in_a_row), float(allowed))
        if limit is not None:
            self._append({}, self._standstill(), 0.0, limit, agent_s=agent_s, decisions=decisions)
            error.details["truncated"] = True
            error.message += f"; the episode is over, because a limit was reached: {limit.kind}"

    def _limit_reached(self, steps: int, now: float, env_s: float) -> Limit | None:
        limits = self.limits
        if limits.steps is not None and steps >= limits.steps:
            return Limit("steps", float(steps), float(limits.steps))
        if limits.wall_time_s is not None and now - self._began >= limits.wall_time_s:
            return Limit("wall_time", now - self._began, limits.wall_time_s)
        if limits.step_time_s is not None and env_s > limits.step_time_s:
            return Limit("step_time", env_s, limits.step_time_s)
        tokens = self.usage.input_tokens + self.usage.output_tokens
        if limits.tokens is not None and tokens >= limits.tokens:
            return Limit("tokens", float(tokens), float(limits.tokens))
        if limits.cost_usd is not None and self.usage.cost_usd >= limits.cost_usd:
            return Limit("cost", self.usage.cost_usd, limits.cost_usd)
        return None

    def _append(
        self,
        actions: dict[AgentID, Action],
        answer: TimeStep,
        env_s: float,
        limit: Limit | None,
        *,
        agent_s: Mapping[AgentID, float] | None = None,
        decisions: Mapping[AgentID, dict[str, Any]] | None = None,
    ) -> StepRecord:
        index = len(self.journal)
        what = "an answer that is none"
        try:
            check_time_step(self.env.spec, answer, self._alive(), first=index == 0)
            limit = None if answer.is_last else limit
            if limit is not None:
                answer = _truncated(answer, f"{limit.kind}_limit")
            what = "an answer that cannot be sent"
            self._digest = next_digest(self._digest, index, actions, answer)
            encode_msgpack(answer)  # refuses what JSON alone can hold, such as integers beyond 64 bits
        except Exception as error:  # the boundary: something too odd even to be checked or written
            self._raise_broken(what, error)
        record = StepRecord(
            index=index,
            time_step=answer,
            digest=self._digest.hex(),
            actions=actions,
            limit=limit,
            env_s=env_s,
            agent_s=dict(agent_s) if agent_s else {},
            usage=None if self._unrecorded is _NO_USAGE else self._unrecorded,
            decisions=dict(decisions) if decisions else {},
        )
        self._unrecorded = _NO_USAGE
        self.journal.append(record)
        if not answer.acting:
            self.status = "over"
        return record

    def _raise_broken(self, what: str, error: Exception) -> NoReturn:
        """Fail the session, because what the environment gave breaks its contract."""
        if isinstance(error, EnvError):
            self.fail(error)
            raise error
        failure = broken(self.env.spec, f"{what}: {error}")
        self.fail(failure)
        raise failure from error

    def _alive(self) -> Collection[AgentID]:
        """Return the seats that were alive before the next step: every possible one before the first."""
        if not self.journal:
            return self.seats
        return [agent for agent, step in self.journal[-1].time_step.seats.items() if not step.is_last]

    def _standstill(self) -> TimeStep:
        """Return the latest time step again, for the live seats only and without rewards."""
        seats = self.journal[-1].time_step.seats
        alive = {a: msgspec.structs.replace(s, reward=0.0) for a, s in seats.items() if not s.is_last}
        return TimeStep(alive, self.acting)

    def _recorded(self, index: int, actions: Mapping[AgentID, Any]) -> StepRecord:
        if index < 1:
            raise OutOfOrderError(
                f"step {index} was sent; steps are numbered from 1, and the next is {len(self.journal)}"
            )
        record = self.journal[index]
        if record.limit is not None and not record.actions:
            self._raise_not_running()
        if {agent: as_action(action) for agent, action in actions.items()} != record.actions:
            raise OutOfOrderError(f"step {index} is recorded with other actions; the next step is {len(self.journal)}")
        return record

    def _raise_not_running(self) -> NoReturn:
        if self.status == "failed" and self.error is not None:
            raise self.error
        state = {"new": "has not begun; open it first", "closed": "is closed"}.get(
            self.status, "is over; begin a new one"
        )
        raise ResetNeededError(f"the episode {state}")

    def _summarise(self) -> EndRecord:
        score, error = None, self.error
        if self.status == "over":
            try:
                score = check_score(self.env.spec, self.env.score(), self.seats)
            except BoundaryError as failure:
                error = failure
            except Exception as failure:  # the boundary: a grader's failure is never a score
                error = GraderError(f"{self.env.spec.id}: {type(failure).__name__}: {failure}")
        elif error is None:
            error = EnvError("the session was closed before the episode was scored")
        return end_record(
            self.journal,
            score=score,
            error=None if error is None else error.record(),
            refused=self.refused,
            wall_s=self._clock() - self._began if self.journal else 0.0,
            usage=self.usage,
        )


def _truncated(answer: TimeStep, ending: str) -> TimeStep:
    """Return a time step with every live seat truncated and nobody to act."""
    seats = {
        agent: step
        if step.is_last
        else SeatStep(step.observation, step.reward, truncated=True, ending=ending, info=step.info)
        for agent, step in answer.seats.items()
    }
    return TimeStep(seats)
