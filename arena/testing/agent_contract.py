"""The agent contract as a runnable suite.

`check_agent` runs every promise of `arena.agent` on any agent, in the seats of an environment that it can play. Each
clause in `arena.testing.agent_clauses` is one function, named for the promise whose sentence is its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arena.testing.agent_clauses import CLAUSES
from arena.testing.agent_probe import AgentProbe
from arena.testing.factories import AgentFactory, EnvFactory, resolve_agent, resolve_env
from arena.testing.report import Report, run_clauses

__all__ = ["CLAUSES", "check_agent"]


def check_agent(
    agent_id_or_factory: AgentFactory,
    *,
    env: EnvFactory,
    options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 40,
) -> Report:
    """Return the report of running every clause of the agent contract.

    It runs an event loop of its own, so call it from synchronous code.

    Args:
        agent_id_or_factory: An id, a class, or a function without arguments that returns a new agent every time.
        env: What it plays, in every seat: an environment's id, a class, or a function that makes one.
        options: The agent's options, for an id or a class.
        seeds: The seeds to play, at least one.
        max_steps: Most steps of one episode.

    Raises:
        UnknownIdError: No such agent or environment.
        ConfigError: The options are wrong.
    """
    probe = AgentProbe(resolve_agent(agent_id_or_factory, options), resolve_env(env, None), seeds, max_steps)
    try:
        return run_clauses(probe.spec.id, CLAUSES, probe)
    finally:
        probe.close()
