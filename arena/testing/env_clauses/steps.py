"""The time steps: the first one, and what holds of every one."""

from __future__ import annotations

from arena.testing.env_probe import EnvProbe
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, must_be_same, short

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def reset_gives_no_reward(probe: EnvProbe) -> None:
    """Received for the step that led here; 0 at the start."""
    for run in probe.runs:
        for agent, step in run.steps[0].seats.items():
            if step.reward != 0:
                broken(f"task {run.task.id!r}: {agent} gets reward {step.reward} at the start")


@CLAUSES.add
def reset_ends_nobody(probe: EnvProbe) -> None:
    """Begin an episode."""
    for run in probe.runs:
        first = run.steps[0]
        if not first.acting or any(step.is_last for step in first.seats.values()):
            broken(f"task {run.task.id!r} is over at the start")


@CLAUSES.add
def reset_drops_an_unfinished_episode(probe: EnvProbe) -> None:
    """Begin an episode; an unfinished one is dropped."""
    run = probe.longest
    env = probe.fresh()
    probe.follow(run, env=env, stop=max(1, len(run.actions) // 2))
    answers = probe.follow(run, env=env)
    if probe.spec.deterministic:
        must_be_same("after a reset in mid-episode", run.encoded, answers)


@CLAUSES.add
def acting_matches_declared_play(probe: EnvProbe) -> None:
    """The seats whose action is due next: one in turn-based play, all in simultaneous play, none at the end."""
    for run in probe.seen:
        for index, now in enumerate(run.steps):
            alive = sorted(agent for agent, step in now.seats.items() if not step.is_last)
            acting = sorted(now.acting)
            expected = alive if probe.spec.play == "simultaneous" else acting[:1] if alive else []
            if acting != expected or not set(acting) <= set(alive) or (alive and not acting):
                broken(f"play is {probe.spec.play!r}; at step {index} alive are {alive} and acting are {acting}")


@CLAUSES.add
def every_live_seat_gets_every_step(probe: EnvProbe) -> None:
    """The step of every seat that was alive before it; one that ended earlier is absent."""
    for run in probe.seen:
        alive = sorted(probe.fresh().possible_agents)
        for index, now in enumerate(run.steps):
            if sorted(now.seats) != alive:
                broken(f"step {index} is for {sorted(now.seats)}; alive before it were {alive}")
            alive = sorted(agent for agent, step in now.seats.items() if not step.is_last)


@CLAUSES.add
def observation_lies_in_its_space(probe: EnvProbe) -> None:
    """An element of the seat's observation space."""
    seats = probe.seats()
    for run in probe.seen:
        for index, agent, step in run:
            if not seats[agent].observation_space.contains(step.observation):
                space = seats[agent].observation_space
                broken(f"step {index}: {agent} observes {short(step.observation)}, which is not in {space}")


@CLAUSES.add
def reward_lies_in_its_range(probe: EnvProbe) -> None:
    """Smallest and largest reward of one step."""
    low, high = probe.spec.reward_range
    for run in probe.seen:
        for index, agent, step in run:
            if not low <= step.reward <= high:
                broken(f"step {index}: {agent} gets reward {step.reward}, outside {probe.spec.reward_range}")


@CLAUSES.add
def ending_is_declared_with_its_kind(probe: EnvProbe) -> None:
    """The declared name of how it ended; None while it goes on."""
    for run in probe.seen:
        for index, agent, step in run:
            kind = "termination" if step.terminated else "truncation" if step.truncated else None
            declared = None if step.ending is None else probe.spec.endings.get(step.ending, "undeclared")
            if kind != declared or (step.terminated and step.truncated):
                broken(f"step {index}: {agent} has ending {step.ending!r} as {kind}; declared is {declared}")
