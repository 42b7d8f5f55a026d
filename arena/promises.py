"""What a session checks of everything that an environment returns, before anybody relies on it.

The whole contract is checked by `arena.testing.check_env`; these are the parts that cost little and whose breach would
corrupt a trace or turn a defect into a score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from arena.env import EnvSpec
from arena.errors import EnvError, GraderError
from arena.types import AgentID, Score, SeatStep, TimeStep, decode_json, encode_json

__all__ = ["check_score", "check_time_step", "names"]


def check_time_step(spec: EnvSpec, answer: TimeStep, alive: Collection[AgentID], *, first: bool) -> None:
    """Check who is alive, who acts, rewards and endings of a time step.

    Args:
        spec: What the environment declares.
        answer: What it returned.
        alive: The seats that were alive before; at first every possible seat, not all of which need take part.
        first: Whether it is the first of the episode.

    Raises:
        EnvError: It broke its contract; the message says how.
    """
    if not isinstance(answer, TimeStep) or not isinstance(answer.seats, dict):
        raise broken(spec, f"a {type(answer).__name__}, which is no TimeStep")
    seats, expected = answer.seats, set(alive)
    if not (seats and seats.keys() <= expected if first else seats.keys() == expected):
        raise broken(spec, f"steps for {names(seats)}; alive are {names(alive)}")
    goes_on = [agent for agent, step in seats.items() if _goes_on(spec, agent, step)]
    if not set(answer.acting) <= set(goes_on):
        raise broken(spec, f"{names(answer.acting)} as acting; alive are {names(goes_on)}")
    if goes_on and not answer.acting:
        raise broken(spec, f"nobody to act although {names(goes_on)} are alive")


def _goes_on(spec: EnvSpec, agent: AgentID, step: SeatStep) -> bool:
    """Check one seat's step and return whether the seat goes on."""
    if not isinstance(step, SeatStep):
        raise broken(spec, f"a {type(step).__name__} for {agent}, which is no SeatStep")
    low, high = spec.reward_range
    if type(step.reward) is not float or not low <= step.reward <= high:  # the second is also false for NaN
        raise broken(spec, f"reward {step.reward!r} for {agent}; rewards are floats in {spec.reward_range}")
    if not step.terminated and not step.truncated:
        if step.ending is not None:
            raise broken(spec, f"ending {step.ending!r} for {agent}, which goes on")
        return True
    kind = "termination" if step.terminated else "truncation"
    if (step.terminated and step.truncated) or spec.endings.get(step.ending or "") != kind:
        raise broken(spec, f"{kind} {step.ending!r} for {agent}; declared endings: {spec.endings}")
    return False


def check_score(spec: EnvSpec, score: Score, seats: Collection[AgentID]) -> Score:
    """Return a score as every reader of a trace will see it.

    Raises:
        GraderError: It lies outside the declared range, or is for a seat that does not exist.
        UsageError, TypeError, ValueError: It cannot be written.
    """
    plain: Score = decode_json(encode_json(score), type=Score)
    low, high = spec.score_range
    for name, value in {"value": plain.value, **plain.seats}.items():
        if not low <= value <= high:
            raise GraderError(f"the score ({name}) is {value}, outside the declared {spec.score_range}")
    if not plain.seats.keys() <= set(seats):
        raise GraderError(f"scores came for {names(plain.seats)}; the seats are {names(seats)}")
    return plain


def broken(spec: EnvSpec, what: str) -> EnvError:
    """Return the error of an environment that returned something that it must not return."""
    return EnvError(f"{spec.id} broke its contract: it returned {what}")


def names(agents: Iterable[AgentID]) -> str:
    """Return seats as a list for a message."""
    return ", ".join(map(str, agents)) or "nobody"
