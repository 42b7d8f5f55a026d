"""Language models that learn to act: by imitating an expert, then by reinforcement with any row of the objective.

A training's `steps` are counted in whole episodes of at most `turns` turns: ``steps / turns`` episodes a seed, of which
the expert's demonstrations are the first. Update 1 only evaluates the model as it is; then come the passes over the
demonstrations, a batch an update; then reinforcement, `tasks` groups of episodes an update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from arena import (
    AlgorithmSpec,
    ConfigError,
    Options,
    Row,
    Trainer,
    TrainingJob,
    UsageError,
    import_extra,
    register_trainer,
)

from ._models.settings import ModelOptions
from ._objective.rows import ROWS, changed, row
from ._objective.settings import Objective

if TYPE_CHECKING:
    from ._learner import Learner

__all__ = ["DemonstrationOptions", "HeldOutOptions", "LanguageLearner", "LanguageOptions", "Plan"]


class DemonstrationOptions(Options):
    """What is imitated first."""

    episodes: int = Field(0, ge=0, description="Episodes that are imitated; 0 for none.")
    expert: str | None = Field(None, description="Which of the environment's experts; its first where absent.")
    traces: str | None = Field(
        None,
        min_length=1,
        description="A folder that `arena run` wrote, or its traces.jsonl: whoever played there is imitated, on "
        "whatever tasks of the training split these were.",
    )
    minimum_score: float | None = Field(
        None, description="Lowest score of an episode from the traces; where absent, it must be a success."
    )
    slips: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of the turns at which something is said in the expert's place that experts said elsewhere, "
        "which nobody learns to say: the expert goes on from there, and shows what to do after a mistake.",
    )
    epochs: int = Field(1, ge=1, description="Passes over the demonstrations.")
    batch: int = Field(16, ge=1, description="Demonstrations of an update.")
    optimiser: Literal["adamw", "muon"] = Field(
        "adamw", description="What moves matrices; Muon learns more from few demonstrations. The rest is AdamW's."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Largest step size: it rises, then falls to zero.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the imitation in which it rises.")
    weight_decay: float = Field(0.01, ge=0, description="Of the weights, times the step size.")
    observation_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Weight of the environment's own words beside the expert's: 0 imitates the expert and nothing "
        "else; a model that starts from nothing learns from them what words go together.",
    )

    renamed: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the demonstrations, drawn anew in each epoch, in which names (words that few of them "
        "have, said only where they were read) are exchanged for others: a model that starts from nothing learns to "
        "read names instead of knowing them. For environments where a thing is what it is called.",
    )

    @pydantic.model_validator(mode="after")
    def _fits(self) -> DemonstrationOptions:
        if self.traces is None and self.minimum_score is not None:
            raise ValueError("minimum_score is for traces; an expert that plays now is imitated where it succeeds")
        if self.traces is not None and self.expert is not None:
            raise ValueError("there is an expert and there are traces; leave one of them out")
        if self.traces is not None and self.slips:
            raise ValueError("slips are for an expert that plays now; there are traces")
        if self.traces is not None and not self.episodes:
            raise ValueError("with traces, episodes says how many of them are imitated; it is 0")
        return self


class HeldOutOptions(Options):
    """On what the model is evaluated."""

    split: str = Field("test", description="Split of the tasks.")
    episodes: int = Field(100, ge=0, description="Its first tasks, an episode each; 0 for no evaluation.")
    every: int = Field(10, ge=1, description="Updates of reinforcement between two evaluations.")
    temperature: float = Field(0.0, ge=0, description="Of sampling; 0 for the likeliest tokens.")
    stop_at: float | None = Field(None, ge=0, le=1, description="Success rate at which a seed has learned enough.")


class LanguageOptions(Options):
    """Options of `learning/language`."""

    model: ModelOptions = Field(ModelOptions(), description="Which language model.")
    start: str | None = Field(
        None,
        min_length=1,
        description="Begin with what another training of this kind learned, seed by seed: its learner's folder "
        "`final`. Then `model` must be the same as there.",
    )
    algorithm: str = Field("grpo", description="The method, as `arena algorithms` lists them.")
    objective: Objective = Field(
        Objective(), description="Settings that differ from the method's row; the whole objective once resolved."
    )
    split: str | None = Field(None, description="Split of the training tasks; the environment's first where absent.")
    pool: int | None = Field(None, ge=1, description="Train on the split's first tasks only, so many of them.")
    demonstrations: DemonstrationOptions = Field(DemonstrationOptions(), description="What is imitated first.")
    repeat_demonstrated: bool = Field(
        True, description="Whether reinforcement also plays the tasks that were demonstrated."
    )
    tasks: int = Field(8, ge=1, description="Tasks of an update; each is played by a group of episodes.")
    turns: int = Field(12, ge=1, description="Environment steps after which an episode is cut off.")
    new_tokens: int = Field(32, ge=1, description="Most tokens of a turn.")
    temperature: float = Field(1.0, gt=0, description="Of sampling; the same one is trained.")
    history: Literal["refuse", "window"] = Field(
        "refuse",
        description="When an episode outgrows the context: cut it off, or go on in a new context with the opening and "
        "the latest turns. Nothing is ever left out of what a token was sampled from.",
    )
    window_turns: int = Field(4, ge=1, description="Past turns that a new context begins with, where they fit.")
    list_legal: bool = Field(False, description="Append the legal actions, where they are listed, to observations.")
    concurrency: int = Field(64, ge=1, description="Episodes that are played at once.")
    server: str | None = Field(None, description="Play on this Arena server; in this process where absent.")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's step size in reinforcement.")
    critic_learning_rate: float = Field(3e-4, gt=0, description="That of the critic, where there is one.")
    epochs: int = Field(1, ge=1, description="Passes over the episodes of an update.")
    minibatches: int = Field(1, ge=1, description="Parts into which each pass divides the episodes.")
    max_grad_norm: float = Field(1.0, gt=0, description="Largest gradient norm.")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW in reinforcement.")
    micro_batch_tokens: int | None = Field(
        None,
        ge=64,
        description="Most tokens in one pass through the network, what rows begin with in common counted once; smaller "
        "ones need less memory. 2,048 on a CPU and 16,384 elsewhere if null.",
    )
    held_out: HeldOutOptions = Field(HeldOutOptions(), description="Evaluation.")
    threads: int | None = Field(None, ge=1, description="Threads of PyTorch; its own choice where absent.")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _take_the_row(cls, given: Any) -> Any:
        """Fill in what the algorithm's row says where the objective leaves it open."""
        if not isinstance(given, dict):
            return given
        algorithm = given.get("algorithm", cls.model_fields["algorithm"].default)
        objective = given.get("objective", {})
        if not isinstance(algorithm, str) or not isinstance(objective, dict):
            return given
        try:
            return {**given, "objective": changed(row(algorithm).objective, objective)}
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(["objective", *map(str, first["loc"])])
            raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        except UsageError as error:
            raise ValueError(str(error)) from None

    @pydantic.model_validator(mode="after")
    def _fits(self) -> LanguageOptions:
        try:
            self.objective.check_steps(self.epochs * self.minibatches)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if not self.repeat_demonstrated and not self.demonstrations.episodes:
            raise ValueError("repeat_demonstrated is off, and nothing is demonstrated: leave it on")
        adapted = self.objective.parameters.kind == "lora"
        if adapted and self.objective.needs_reference and self.demonstrations.episodes:
            raise ValueError(
                "with adapters the reference is the model without them, as it was before any imitation: leave "
                "demonstrations out, or the divergence from the reference"
            )
        episodes = self.tasks * self.objective.data.group_size
        if self.minibatches > episodes:
            raise ValueError(f"{self.minibatches} minibatches of {episodes} episodes; at most one an episode")
        return self

    def budget_tokens(self, device: str) -> int:
        """Return the most tokens in one pass on that type of device: on a CPU what its caches hold."""
        return self.micro_batch_tokens or (2_048 if device == "cpu" else 16_384)


@dataclass(frozen=True)
class Plan:
    """How many updates each phase has. The first update of all only evaluates.

    Attributes:
        imitations: Updates of imitation.
        reinforcements: Updates of reinforcement.
    """

    imitations: int
    reinforcements: int

    @property
    def updates(self) -> int:
        """Updates in all."""
        return 1 + self.imitations + self.reinforcements


@register_trainer("learning/language", summary="Imitation and reinforcement of language models.", extra="language")
class LanguageLearner(Trainer):
    """Trains a language model on any environment with one seat that acts by text, numbers or tools."""

    Options = LanguageOptions
    options: LanguageOptions
    algorithms: ClassVar[Mapping[str, AlgorithmSpec]] = {one.name: one.spec() for one in ROWS.values()}
    headline = ("held_out_success", "held_out_score", "success", "return")
    curves: Mapping[str, str] = {
        "held_out_success": "success on held-out tasks",
        "success": "success of training episodes",
        "return": "return of a training episode",
        "imitation_loss": "loss of imitation (nats a token)",
        "entropy": "entropy (nats a token)",
        "turns": "turns of an episode",
    }

    def __init__(self, job: TrainingJob, options: Any = None) -> None:
        super().__init__(job, options)
        chosen, shown = self.options, self.options.demonstrations
        if not job.seeds:
            raise ConfigError("a training needs at least one seed")
        episodes = job.steps // chosen.turns
        if shown.episodes > episodes:
            raise ConfigError(
                f"{shown.episodes} demonstrations of at most {chosen.turns} turns are up to "
                f"{shown.episodes * chosen.turns} steps, and the training has {job.steps}: raise steps"
            )
        per_update = chosen.tasks * chosen.objective.data.group_size
        self.plan = Plan(
            imitations=shown.epochs * -(-shown.episodes // shown.batch),
            reinforcements=(episodes - shown.episodes) // per_update,
        )
        self.updates = self.plan.updates
        if self.updates == 1:
            raise ConfigError(
                f"{job.steps} steps are {episodes} episodes of at most {chosen.turns} turns, and an update of "
                f"reinforcement plays {per_update}: raise steps, or lower tasks, objective.data.group_size or turns"
            )
        self._learner: Learner | None = None

    def begin(self) -> None:
        """Let the expert play, and build tokenizer and networks."""
        import_extra("torch", extra="train")
        import_extra("transformers", extra="language")
        from ._learner import Learner

        self._learner = Learner(self.job, self.options, self.plan, self.tell)

    def update(self) -> Sequence[Row]:
        """Evaluate, imitate, or play and learn from it."""
        assert self._learner is not None, "begin comes first"
        rows = self._learner.update(self.done)
        self.done += 1
        self.over = self._learner.over
        return rows

    def save(self, folder: Path) -> None:
        """Write each seed's model, optimiser and random stream."""
        assert self._learner is not None, "begin comes first"
        self._learner.save(folder, self.done)

    def load(self, folder: Path) -> None:
        """Take them over."""
        assert self._learner is not None, "begin comes first"
        self.done = self._learner.load(folder)
        self.over = self._learner.over

    def close(self) -> None:
        """Let environments and connections go."""
        if self._learner is not None:
            self._learner.close()
            self._learner = None
