"""Software engineering: a repository with an issue, in a sandbox; tests that the player does not see decide.

Instances are rows of SWE-bench, SWE-Gym or R2E-Gym, or of ``arena tasks swe/repo-v0 synth``. `instances` is a name:
``sample`` comes with Arena: six bugs in a small repository; ``quickstart`` is made at its first use from source
distributions of the package index; ``swe-gym``, ``swe-gym-lite``, ``swe-bench-lite``, ``swe-bench-verified`` and
``r2e-gym-lite`` are read by the package `datasets`; any other is a folder, with ``SPLIT.jsonl`` or ``SPLIT.parquet``,
below the one that the environment variable ``ARENA_SWE_DATA`` names.

Observation: text. At first the issue; then what a command wrote and how it ended, or what was wrong with the action.
Actions: the tools `bash`, `edit` and `submit`, or text with one fenced block of that name (see `instructions`). Text
    without one is answered with a reminder and costs a turn. Each command runs in a new shell.
Budgets: `max_turns` actions, `command_timeout_s` for each command, `grading_timeout_s` for the tests, and the sandbox's
    limits. When the turns are used up, the repository is graded as it is.
Reward: at the end, 1 if the issue is resolved (``binary``), or the share of the tests that pass (``ratio``).
Endings: ``submitted`` and ``out_of_turns``, both terminations.
Score: 1 if the issue is resolved: every test that failed passes, and every one that passed still does.
Grading: in a sandbox of its own, which has nothing of the player's but a patch; see `_grading`.
Information: in the first step ``sandbox``, how each guarantee is given; in the last ``prediction``, the patch as
    SWE-bench's predictions have it, and what was left out of it.
Experts: ``oracle`` applies the gold patch and submits; ``noop`` submits.
Tasks: the instances of a split.
Seed: has no effect. Commands say how long they took and which process they were, so episodes are not deterministic.
Snapshots: of files in the repository; what runs, and temporary files, are no part of them.
Versions: v0, the first.
Source: Jimenez et al. 2024 (SWE-bench), arXiv:2310.06770; Pan et al. 2024 (SWE-Gym), arXiv:2412.21139; Jain et al. 2025
    (R2E-Gym), arXiv:2504.07164.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from arena import (
    Action,
    AgentID,
    FreeText,
    Options,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Task,
    Taskset,
    ToolCall,
    ToolError,
    UnknownIdError,
    UnsupportedError,
    did_you_mean,
    register,
    restart,
    termination,
    transition,
)
from arena.sandbox import Guarantee, SandboxLimits, Snapshot

from ._grading import Grade, GradingLimits, grade
from ._instances import Instance
from ._sets import NAME, instances_of, mirrors
from ._sources import Place, place_of
from ._synthesis import Synthesis
from ._tools import TOOLS, Bash, Edit, Malformed, Submit, edit, instructions, read_call, read_text, told
from ._workspace import Workspace

_LONGEST_TEXT = 200_000
_MOST_ISSUE = 40_000
_LONGEST_GOLD = 90_000


class RepoOptions(Options):
    """Options of `swe/repo-v0`."""

    instances: str = Field("sample", pattern=f"^{NAME}$", description="Name of the set of instances; see the page.")
    sandbox: Literal["bubblewrap", "docker"] = Field("bubblewrap", description="What sandboxes are made of.")
    reward: Literal["binary", "ratio"] = Field("binary", description="Whether resolved, or the share of tests passed.")
    max_turns: int = Field(50, ge=1, le=1_000, description="Actions of any kind.")
    command_timeout_s: float = Field(60.0, ge=1, le=3_600, description="Seconds for a command.")
    grading_timeout_s: float = Field(300.0, ge=1, le=7_200, description="Seconds for the tests.")
    max_observation: int = Field(
        16_000, ge=1_000, le=_LONGEST_TEXT // 2, description="Characters of what a command wrote; the middle is cut."
    )
    limits: SandboxLimits = Field(SandboxLimits(), description="What a sandbox may use.")
    unenforced: tuple[Guarantee, ...] = Field(
        (), description="Guarantees of the sandbox that may be missing; without them here the task does not begin."
    )


class RepoTasks(Taskset):
    """The instances of a split, in the order of their file."""

    def __init__(self, instances: Sequence[Instance], split: str) -> None:
        self.split, self._instances = split, instances
        self._by_id = {instance.id: instance for instance in instances}

    def __len__(self) -> int:
        return len(self._instances)

    def task(self, index: int) -> Task:
        """Return the split's instance number `index`, without its patches."""
        return _task_of(self._instances[index], self.split)

    def get(self, task_id: str) -> Task:
        """Return the instance with this id."""
        return _task_of(self.instance(task_id), self.split)

    def instance(self, id: str) -> Instance:
        """Return the instance with this id."""
        if (found := self._by_id.get(id)) is None:
            raise UnknownIdError(f"no instance {id[:80]!r} in split {self.split!r}{did_you_mean(id[:80], self._by_id)}")
        return found


def _task_of(instance: Instance, split: str) -> Task:
    return Task(instance.id, split, {"repo": instance.repo, "version": instance.version})


@dataclass
class _Episode:
    """All that has happened, but for the files."""

    instance: Instance
    turns: int = 0
    commands: int = 0
    edits: int = 0
    malformed: int = 0
    timeouts: int = 0
    is_gold: bool = False
    """Whether the gold patch was applied."""
    grade: Grade | None = None
    patch: bytes = b""


@dataclass
class _State:
    """A snapshot."""

    episode: _Episode
    place: Place
    history: bytes
    files: Snapshot
    closing: Any = field(default=None, repr=False)


@register(
    "swe/repo-v0",
    summary="A repository with an issue to resolve, in a sandbox; hidden tests decide.",
    endings={"submitted": "termination", "out_of_turns": "termination"},
    reward_range=(0.0, 1.0),
    metrics={
        "fail_to_pass": "Share of the tests that failed before which pass.",
        "pass_to_pass": "Share of the tests that passed before which still do.",
        "tests_passed": "Share of all tests that decide which pass.",
        "graded": "1 if a patch was graded.",
        "patch_applied": "0 if the patch could not be applied.",
        "patch_bytes": "Size of the patch.",
        "tampered": "1 if the test runner's report could not be believed.",
        "tests_timed_out": "1 if the tests' time was up.",
        "no_report": "1 if no test was reported.",
        "commands": "Commands that were run.",
        "command_timeouts": "Commands whose time was up.",
        "edits": "Edits that were asked for.",
        "malformed": "Messages without an action.",
        "turns": "Actions.",
    },
    groups={"repo": "The repository.", "version": "Its version."},
    splits=("train", "dev", "test"),
    deterministic=False,
    blocking=True,
    seeded=False,
    snapshots=True,
    expert=True,
    experts=("oracle", "noop"),
    extra="swe",
)
class Repo(SingleAgentEnvironment):
    """One issue at a time."""

    Options = RepoOptions
    makers = {"synth": Synthesis}  # noqa: RUF012 - the base declares it as a class variable

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._episode: _Episode | None = None
        self._workspace: Workspace | None = None
        text = instructions(turns=self.options.max_turns, timeout_s=self.options.command_timeout_s)
        self._seat = SeatSpec(FreeText(_LONGEST_TEXT), FreeText(_LONGEST_TEXT), TOOLS, text)

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the player's tools and text."""
        return self._seat

    def taskset(self, split: str) -> RepoTasks:
        """Return the instances of a split."""
        return RepoTasks(instances_of(self.options.instances, split, self.options.unenforced), split)

    def prepare(self, task: Task) -> None:
        """Fetch the repository, and build the environment of its tests."""
        self._place(self._instance(task))

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Show the issue."""
        instance = self._instance(task)
        place = self._place(instance)
        self.close()
        self._workspace = Workspace(place, self.options.limits, self.options.unenforced)
        self._episode = _Episode(instance)
        return restart(_cut(instance.problem_statement.strip(), _MOST_ISSUE), sandbox=self._workspace.facts())

    def act(self, action: Action) -> SeatStep:
        """Run a command, edit a file, or hand in."""
        episode, options = self._now(), self.options
        move = read_call(action) if isinstance(action, ToolCall) else read_text(str(action))
        workspace = self._running()
        info: dict[str, Any] = {}
        match move:
            case Bash():
                said, info = self._run(workspace, move.command)
                episode.commands += 1
                episode.is_gold |= move.command == _gold(episode.instance)
                episode.timeouts += bool(info.get("timed_out"))
            case Edit():
                try:
                    said = _cut(edit(workspace.sandbox, move), options.max_observation)
                except ToolError as error:
                    said, info = error.message, {"failed": True}
                episode.edits += 1
            case Malformed():
                said, info = move.reason, {"malformed": True}
                episode.malformed += 1
            case Submit():
                self._hand_in()
        episode.turns += 1
        if isinstance(move, Submit):
            return self._ended("Handed in.", "submitted")
        if episode.turns >= options.max_turns:
            self._hand_in()
            return self._ended(said, "out_of_turns", **info)
        return transition(said, 0.0, **info)

    def score(self) -> Score:
        """Return whether the issue is resolved; what was not graded is not."""
        episode = self._now()
        found = episode.grade
        verdict = found.verdict if found is not None else None
        metrics = {
            "fail_to_pass": verdict.fail_to_pass if verdict else 0.0,
            "pass_to_pass": verdict.pass_to_pass if verdict else 0.0,
            "tests_passed": verdict.passed if verdict else 0.0,
            "graded": float(found is not None),
            "patch_applied": float(found is None or found.applied),
            "patch_bytes": float(len(episode.patch)),
            "tampered": float(bool(verdict and verdict.tampered)),
            "tests_timed_out": float(found is not None and found.timed_out),
            "no_report": float(found is not None and not found.reported),
            "commands": float(episode.commands),
            "command_timeouts": float(episode.timeouts),
            "edits": float(episode.edits),
            "malformed": float(episode.malformed),
            "turns": float(episode.turns),
        }
        resolved = bool(verdict and verdict.resolved)
        return Score(float(resolved), resolved, metrics)

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return what the oracle, or who does nothing, would do."""
        episode = self._now()
        if kind == "noop" or episode.is_gold:
            return ToolCall("submit")
        if not episode.instance.patch.strip() or len(episode.instance.patch) > _LONGEST_GOLD:
            raise UnsupportedError(f"the gold patch of {episode.instance.id} is not known, or too long for a command")
        return ToolCall("bash", {"command": _gold(episode.instance)})

    def snapshot(self) -> object:
        """Return the files and the episode so far."""
        workspace = self._running()
        files = workspace.snapshot()
        state = _State(copy.copy(self._now()), workspace.place, workspace.history, files)
        state.closing = weakref.finalize(state, files.close)
        return state

    def restore(self, state: object) -> None:
        """Continue from a snapshot."""
        assert isinstance(state, _State)
        if self._workspace is not None and self._workspace.sandbox.alive and self._workspace.place == state.place:
            self._workspace.restore(state.files, state.history)
        else:
            self.close()
            options = self.options
            self._workspace = Workspace(state.place, options.limits, options.unenforced, (state.files, state.history))
        self._episode = copy.copy(state.episode)

    def close(self) -> None:
        """Stop the sandbox."""
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _now(self) -> _Episode:
        assert self._episode is not None
        return self._episode

    def _running(self) -> Workspace:
        assert self._workspace is not None
        return self._workspace

    def _instance(self, task: Task) -> Instance:
        if task.split not in self.spec.splits:
            raise UnknownIdError(f"task {task.id[:80]!r} is not one of swe/repo-v0 with these options")
        return self.taskset(task.split).instance(task.id)

    def _place(self, instance: Instance) -> Place:
        instance.test_files  # noqa: B018 - refuses tests that cannot be run
        return place_of(instance, self.options.sandbox, mirrors())

    def _run(self, workspace: Workspace, command: str) -> tuple[str, dict[str, Any]]:
        options = self.options
        try:
            done = workspace.sandbox.exec(
                f"exec 2>&1; {command}",
                timeout_s=options.command_timeout_s,
                output_bytes=4 * options.max_observation,
            )
        except ToolError as error:
            return error.message, {"failed": True}
        info = {"exit_code": done.exit_code, "duration_s": round(done.duration_s, 6)}
        return told(done, options.max_observation), {**info, "timed_out": True} if done.timed_out else info

    def _hand_in(self) -> None:
        """Take the patch, and grade it."""
        episode, options, workspace = self._now(), self.options, self._running()
        limits = GradingLimits(options.grading_timeout_s, options.limits, frozenset(options.unenforced))
        try:
            episode.patch = workspace.patch()
        except ToolError:  # no patch can be made of what the player has left
            episode.grade = Grade.of_no_patch(episode.instance)
            return
        episode.grade = grade(episode.instance, workspace.place, episode.patch, limits)

    def _ended(self, said: str, ending: str, **info: Any) -> SeatStep:
        episode = self._now()
        assert episode.grade is not None
        verdict = episode.grade.verdict
        reward = verdict.passed if self.options.reward == "ratio" else float(verdict.resolved)
        patch = episode.patch.decode("utf-8", "backslashreplace")
        more = {"prediction": {"instance_id": episode.instance.id, "model_patch": patch}}
        if episode.grade.left_out:
            more["left_out"] = {"files": ", ".join(episode.grade.left_out)[:1_000]}
        if verdict.tampered:
            more["tampered"] = {"reason": verdict.tampered}
        return termination(said, reward, ending=ending, **info, **more)


def _gold(instance: Instance) -> str:
    return f"git apply - <<'END_OF_THE_GOLD_PATCH'\n{instance.patch}\nEND_OF_THE_GOLD_PATCH"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[{len(text) - most} characters left out]\n{text[len(text) - most // 2 :]}"
