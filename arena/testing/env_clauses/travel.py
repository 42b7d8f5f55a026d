"""What travels comes back as it was, and nobody changes what was handed over."""

from __future__ import annotations

import msgspec

from arena.spaces import restore
from arena.testing.env_probe import EnvProbe, Seats
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, short
from arena.types import Action, AgentID, SeatStep, TimeStep, decode_json, decode_msgpack, encode_json, encode_msgpack

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def answers_survive_the_wire(probe: EnvProbe) -> None:
    """Defined once as a frozen struct and used in process, on the wire (JSON and MessagePack) and on disk."""
    seats = probe.seats()
    for run in probe.seen:
        for now in run.steps:
            for decoded in (decode_json(encode_json(now), TimeStep), decode_msgpack(encode_msgpack(now), TimeStep)):
                again = _restored(decoded, seats)
                if encode_msgpack(again) != encode_msgpack(_with_float_rewards(now)):
                    broken(f"{short(now)} came back as {short(again)}")


def _restored(step: TimeStep, seats: Seats) -> TimeStep:
    def one(agent: AgentID, seat_step: SeatStep) -> SeatStep:
        observation = restore(seats[agent].observation_space, seat_step.observation)
        return msgspec.structs.replace(seat_step, observation=observation)

    return TimeStep({agent: one(agent, seat_step) for agent, seat_step in step.seats.items()}, step.acting)


def _with_float_rewards(now: TimeStep) -> TimeStep:
    """Return a time step whose rewards are floats: authors may write integers, and a decoder returns floats."""
    seats = {agent: msgspec.structs.replace(step, reward=float(step.reward)) for agent, step in now.seats.items()}
    return TimeStep(seats, now.acting)


@CLAUSES.add
def actions_survive_the_wire(probe: EnvProbe) -> None:
    """What a seat can do: text, a discrete choice, a tool call, or an array; an expert's action is one, too."""
    for run in probe.seen:
        for actions in run.actions:
            for action in actions.values():
                if decode_json(encode_json(action), Action) != action:
                    broken(f"the action {short(action)} does not come back from JSON as it was")


@CLAUSES.add
def answers_stay_as_they_were(probe: EnvProbe) -> None:
    """What every seat is given at one time step: later steps do not change it."""
    for run in probe.seen:
        for index, (now, encoded) in enumerate(zip(run.steps, run.encoded, strict=True)):
            if encode_msgpack(now) != encoded:
                broken(f"time step {index} was changed after it was returned; return a copy of what you go on using")


@CLAUSES.add
def task_and_actions_are_not_changed(probe: EnvProbe) -> None:
    """Frozen: the environment changes neither the task nor the actions that it is given."""
    for run in probe.seen:
        if [encode_msgpack(actions) for actions in run.actions] != run.given:
            broken("the episode changed the actions that it was given")
    if [encode_msgpack(task) for task in probe.tasks] != probe.pristine:
        broken("an episode changed the task that it was given")
