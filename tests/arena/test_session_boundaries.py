"""What a broken environment, a hostile action or a misused session comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium import spaces

from arena import (
    Action,
    Array,
    EnvError,
    FreeText,
    GraderError,
    InvalidActionError,
    ResetNeededError,
    Score,
    SeatSpec,
    SeatStep,
    Session,
    TimeStep,
    Tool,
    ToolCall,
    UsageError,
    restart,
    transition,
)
from arena.trace import EndRecord
from arena.types import decode_json, encode_json

from .test_session import PLAYER, TASK, Echo, Pair, answering, assert_failed, breaking, opened, say

GOLDEN = Path(__file__).parents[1] / Path("golden/text__guess-v0/steps_limit.jsonl")


# -- whatever a broken environment does is an EnvError, and never a score ----------------------------

LEAKS = {
    "step returns None": lambda: breaking(step=lambda self, actions: None),
    "reward is text": lambda: answering(SeatStep("x", "1")),
    "reward is a bool, which no trace reader accepts": lambda: answering(SeatStep("x", True)),
    "info holds itself": lambda: answering(transition("x", 0.0, what=_cycle())),
    "no seat at all": lambda: breaking(step=lambda self, actions: TimeStep({})),
    "ending while it goes on": lambda: answering(msgspec.structs.replace(transition("x", 0.0), ending="stopped")),
}


def _cycle() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    return cycle


@pytest.mark.parametrize("name", LEAKS)
def test_contract_violation_is_an_error_and_never_a_score(name: str) -> None:
    session = opened(LEAKS[name]())
    with pytest.raises(EnvError):
        say(session, "hi")
    assert_failed(session)


@pytest.mark.parametrize(
    "members",
    [{"reset": lambda self, task, seed: None}, {"seat": lambda self, agent: 1 / 0}],
    ids=["reset returns None", "seat raises"],
)
def test_failure_to_open(members: dict[str, Any]) -> None:
    session = Session(breaking(**members), TASK, 1)
    with pytest.raises(EnvError):
        session.open()
    assert session.status == "failed"


class Revives(Pair):
    def step(self, actions: Mapping[str, Action]) -> TimeStep:
        answer = super().step(actions)
        return TimeStep(
            {**answer.seats, **{a: transition("on", 0.25) for a in "ab" if a not in actions}}, answer.acting
        )


class Forgets(Pair):
    def step(self, actions: Mapping[str, Action]) -> TimeStep:
        return TimeStep({"a": transition("on", 0.0)}, ("a",))


def test_seat_that_ended_is_not_given_another_step() -> None:
    session = opened(Revives())
    session.step(1, {"a": "stop", "b": "hi"})
    with pytest.raises(EnvError):
        session.step(2, {"b": "hi"})


def test_live_seat_is_not_left_out() -> None:
    session = opened(Forgets())
    with pytest.raises(EnvError):
        session.step(1, {"a": "hi", "b": "hi"})


@pytest.mark.parametrize(
    "score",
    [
        Score(True),
        Score(0.5, metrics={"a": math.nan}),
        Score(0.5, metrics={"a": "x"}),
        Score(0.5, metrics={"a": object()}),
        Score(0.5, seats={"player": math.nan}),
        Score(0.5, seats={"stranger": 0.5}),
    ],
    ids=lambda score: str(score).partition(" object at ")[0],
)
def test_score_that_no_reader_accepts_is_a_grader_error(score: Score) -> None:
    session = opened(breaking(score=lambda self: score))
    say(session, "stop")
    end = session.end()
    assert end.error is not None
    assert end.error.code == GraderError.code
    assert decode_json(encode_json(end), EndRecord) == end


# -- an action that a trace cannot hold is refused, and is not the environment's fault ---------------


class Calls(Echo):
    def seat(self, agent: str) -> SeatSpec:
        return SeatSpec(FreeText(100), None, (Tool("say", "Say it.", {"type": "object"}),))


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**70, {1: 2}, (1, 2), {1}, b"x", _deep()],
    ids=["nan", "inf", "big", "integer keys", "tuple", "set", "bytes", "deep"],
)
def test_argument_that_does_not_survive_json_is_refused(value: Any) -> None:
    session = opened(Calls())
    with pytest.raises(InvalidActionError):
        session.step(1, {PLAYER: ToolCall("say", {"x": value})})
    assert (session.status, session.refused, len(session.journal)) == ("running", 1, 1)


def test_array_that_is_none_is_refused_and_counted() -> None:
    class Box(Echo):
        def seat(self, agent: str) -> SeatSpec:
            return SeatSpec(FreeText(100), spaces.Box(0, 1, (2,)))

    for bad in (np.array([object()]), np.array(["x"]), Array("float32", (2**62, 0, 2**62), b"")):
        session = opened(Box())
        with pytest.raises(InvalidActionError):
            session.step(1, {PLAYER: bad})
        assert session.refused == 1


# -- apply and forks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["over", "closed"])
def test_apply_needs_a_running_session(end: str) -> None:
    session = opened()
    say(session, "one")
    session.truncate("steps", 1, 1) if end == "over" else session.close()
    with pytest.raises(ResetNeededError):
        session.apply(session.journal[1])


def test_apply_takes_steps_in_order() -> None:
    session = opened()
    say(session, "one", "two")
    with pytest.raises(UsageError):
        session.apply(session.journal[1])
    assert len(session.journal) == 3


@pytest.mark.parametrize("answer", [TimeStep({PLAYER: None}, (PLAYER,)), TimeStep({PLAYER: restart("x")}, None), 7])
def test_an_answer_of_the_wrong_shape_is_an_error(answer: Any) -> None:
    session = opened(breaking(step=lambda self, actions: answer))
    with pytest.raises(EnvError, match="broke its contract"):
        say(session, "hi")
    assert_failed(session)
