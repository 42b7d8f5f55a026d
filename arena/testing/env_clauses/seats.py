"""The seats: their names, their spaces and their tools."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import msgspec

from arena.env import Environment
from arena.sampling import ACTION_SPACES
from arena.spaces import describe, rebuild
from arena.testing.env_probe import EnvProbe
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, need, short
from arena.types import PLAYER, AgentID, Tool, decode_json, encode_json

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def seats_are_named_and_fixed(probe: EnvProbe) -> None:
    """Every seat, in a fixed order."""
    env = probe.fresh()
    agents = env.possible_agents
    if not agents or len(set(agents)) != len(agents) or not all(isinstance(a, str) and a for a in agents):
        broken(f"possible_agents is {agents!r}; it must be distinct names")
    if (probe.spec.play == "single") != (tuple(agents) == (PLAYER,)):
        broken(f"play is {probe.spec.play!r} and the seats are {agents}; a single seat is called {PLAYER!r}")
    probe.play(probe.tasks[0], probe.seeds[0], env=env)
    if env.possible_agents != agents or probe.fresh().possible_agents != agents:
        broken(f"possible_agents was {agents} and is {env.possible_agents} after an episode")


@CLAUSES.add
def seat_is_constant(probe: EnvProbe) -> None:
    """Return what the seat sees and can do; constant over the environment's life."""
    env = probe.fresh()
    before = [_seat_as_data(env, agent) for agent in env.possible_agents]
    for task in probe.tasks[:2]:
        probe.play(task, probe.seeds[0], env=env, limit=5)
        if [_seat_as_data(env, agent) for agent in env.possible_agents] != before:
            broken(f"seat() was {short(before)} and changed with the episode")


def _seat_as_data(env: Environment, agent: AgentID) -> Any:
    seat = env.seat(agent)
    act = None if seat.action_space is None else describe(seat.action_space)
    return describe(seat.observation_space), act, [msgspec.to_builtins(tool) for tool in seat.tools], seat.instructions


@CLAUSES.add
def spaces_survive_the_wire(probe: EnvProbe) -> None:
    """Return a space as JSON-serialisable data, and back."""
    for agent, seat in probe.seats().items():
        for space in (seat.observation_space, seat.action_space):
            if space is None:
                continue
            data = describe(space)
            again = rebuild(decode_json(encode_json(data)))
            if describe(again) != data:
                broken(f"{agent}: {space} came back from JSON as {again}")


@CLAUSES.add
def seat_can_act(probe: EnvProbe) -> None:
    """The space of its text, discrete or array actions; None where it acts through tools only."""
    for agent, seat in probe.seats().items():
        if seat.action_space is None and not seat.tools:
            broken(f"{agent} has neither an action space nor tools")
        if seat.action_space is not None and not isinstance(seat.action_space, ACTION_SPACES):
            broken(f"{agent} has action space {seat.action_space}; actions are text, integers, arrays or tool calls")


@CLAUSES.add
def tools_are_valid(probe: EnvProbe) -> None:
    """Letters, digits, `_` and `-`; what it does, for the model; JSON schema of the arguments, an object schema."""
    need(any(seat.tools for seat in probe.seats().values()), "there are no tools")
    for agent, seat in probe.seats().items():
        names = [tool.name for tool in seat.tools]
        if len(set(names)) != len(names):
            broken(f"{agent} has two tools of one name: {names}")
        for tool in seat.tools:
            _check_tool(tool)


def _check_tool(tool: Tool) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name) or not tool.description.strip():
        broken(f"tool {tool.name!r} needs a name of letters, digits, _ and -, and a description")
    if tool.parameters.get("type") != "object":
        broken(f"the parameters of tool {tool.name!r} are not an object schema: {tool.parameters}")
    try:
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
    except jsonschema.SchemaError as error:
        broken(f"the parameters of tool {tool.name!r} are no JSON schema: {error.message}")
