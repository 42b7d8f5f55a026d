"""Episodes as text that a person reads."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from arena.rendering import action_text, observation_text
from arena.trace import EndRecord, Episode, StepRecord
from arena.types import AgentID, SeatStep

__all__ = ["transcript"]


def transcript(episode: Episode) -> Group:
    """Return an episode as a transcript: who did what, what came back, and how it ended."""
    record = episode.record
    head = f"{record.env} · task {record.task.id} ({record.task.split}) · seed {record.seed}"
    seats = ", ".join(f"{seat}: {ref.id}" for seat, ref in record.seats.items())
    parts: list[RenderableType] = [Text(f"{record.episode or 'episode'}\n{head}", style="bold"), Text(f"{seats}\n")]
    for step in episode.steps:
        parts.extend(_step(step))
    parts.append(Text("the file is torn here", style="red") if episode.end is None else _end(episode.end))
    return Group(*parts)


def _step(step: StepRecord) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for seat, action in step.actions.items():
        took = f"   {step.agent_s[seat]:.2g} s" if step.agent_s.get(seat, 0) >= 0.01 else ""
        parts.append(Text.assemble((f"{step.index:>3} {seat} > {action_text(action)}", "bold cyan"), (took, "dim")))
    parts.extend(
        _seat(seat, seat_step, len(step.time_step.seats) > 1) for seat, seat_step in step.time_step.seats.items()
    )
    if step.limit is not None:
        parts.append(Text(f"limit {step.limit.kind}: {step.limit.value:g} of {step.limit.limit:g}", style="yellow"))
    return parts


def _seat(seat: AgentID, step: SeatStep, several: bool) -> RenderableType:
    notes = [f"reward {step.reward:+.3g}"] if step.reward else []
    if step.ending is not None:
        notes.append(f"{'terminated' if step.terminated else 'truncated'}: {step.ending}")
    text = Text(f"{seat}: " if several else "")
    text.append(observation_text(step.observation))
    if notes:
        text.append(f"\n[{', '.join(notes)}]", style="green")
    return Padding(text, (0, 0, 1, 4))


def _end(end: EndRecord) -> Text:
    if end.score is None:
        return Text(f"failed: {end.error.code}: {end.error.message}" if end.error else "failed", style="bold red")
    solved = {True: ", solved", False: ", not solved", None: ""}[end.score.success]
    metrics = "".join(f", {name} {value:g}" for name, value in end.score.metrics.items())
    return Text(
        f"{end.outcome} after {end.steps} steps: score {end.score.value:g}{solved}{metrics}", style="bold green"
    )
