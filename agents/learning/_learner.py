"""What `learning/language` does: one pupil for each seed, which imitates, then plays, and can be put away."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from arena import ConfigError, EnvError, Limits, Tell, TrainingJob, derive_seed

from ._demonstrations import Demonstration, digest_of
from ._games import Game, Games, Order, open_games
from ._imitation import Imitation, collect, first_sights
from ._models.model import LanguageModel
from ._models.settings import LoraOptions
from ._objective.settings import Objective
from ._reinforcement import Reinforcement, TaskPool, rollout_settings
from ._rollout import Episode, Failed, about, play
from ._speech import Speech

if TYPE_CHECKING:
    from .language import LanguageOptions, Plan

__all__ = ["Learner"]

STATE, TENSORS, MODEL, REFERENCE, CRITIC = "state.json", "state.safetensors", "model", "reference", "critic.safetensors"


class Learner:
    """All seeds of a training.

    Args:
        job: What is learned.
        options: How.
        plan: In how many updates.
        tell: Is told what takes long.
    """

    def __init__(self, job: TrainingJob, options: LanguageOptions, plan: Plan, tell: Tell) -> None:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._games = open_games(job.env, job.env_options, options.server, os.environ.get("ARENA_TOKEN"), tell)
        try:
            _check(self._games, options)
            self._pupils = [Pupil(self._games, options, seed, plan, job.steps) for seed in job.seeds]
        except BaseException:
            self._games.close()
            raise

    @property
    def over(self) -> bool:
        """Whether every seed has learned enough, or has no steps left: dynamic sampling plays more than was planned."""
        return all(pupil.is_done for pupil in self._pupils)

    def update(self, done: int) -> list[dict[str, float]]:
        """Do one update of every seed that has not learned enough, and return a row for each."""
        return [{"seed": pupil.seed, **pupil.update(done)} for pupil in self._pupils]

    def save(self, folder: Path, done: int) -> None:
        """Write every seed below a folder."""
        for pupil in self._pupils:
            pupil.save(folder / f"seed-{pupil.seed}")
        (folder / STATE).write_text(json.dumps({"done": done}), "utf-8")

    def load(self, folder: Path) -> int:
        """Take over what `save` wrote, and return the updates that had been done.

        Raises:
            ConfigError: The folder does not hold that.
        """
        try:
            done = int(json.loads((folder / STATE).read_text("utf-8"))["done"])
            for pupil in self._pupils:
                pupil.load(folder / f"seed-{pupil.seed}")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ConfigError(f"{folder} holds no state of this training: {error}") from error
        return done

    def close(self) -> None:
        """Let environments and connections go."""
        self._games.close()


class State(msgspec.Struct):
    """What a pupil is to remember, beside tensors.

    Attributes:
        phase: What it does.
        steps: Environment steps, the expert's included; those of evaluations are not.
        version: How often its policy has changed in reinforcement.
        coefficients: Those of the objective.
        enough: Whether it has learned enough.
        demonstrations: Digest of what it imitates.
    """

    phase: str = "imitation"
    steps: int = 0
    version: int = 0
    coefficients: dict[str, float] = {}
    enough: bool = False
    demonstrations: str = ""


class Pupil:
    """One seed.

    Args:
        games: Where it plays.
        options: How it learns.
        seed: Its root seed.
        plan: In how many updates.
        steps: Environment steps after which it is done in any case.
    """

    def __init__(self, games: Games, options: LanguageOptions, seed: int, plan: Plan, steps: int) -> None:
        self.seed, self._games, self._options, self._plan = seed, games, options, plan
        self._most_steps = steps
        self._split = options.split or games.spec.splits[0]
        size = games.size(self._split)
        self._pool = size if options.pool is None else min(options.pool, size)
        self._shown: list[Demonstration] = []
        if plan.imitations:
            self._shown = collect(games, options, seed, self._split, self._pool)
        played = self._tasks_to_play() if plan.reinforcements else ()
        self._tasks = TaskPool(games, self._split, played, seed, options.tasks, plan.reinforcements)
        self.model = self._first_model()
        self._generator = torch.Generator(self.model.device).manual_seed(derive_seed(seed, "train:sampling"))
        self.state = State(demonstrations=digest_of(self._shown))
        self._phase: Imitation | Reinforcement
        self._enter("imitation" if plan.imitations else "reinforcement")

    @property
    def is_done(self) -> bool:
        """Whether it learns no more."""
        return self.state.enough or self.state.steps >= self._most_steps

    def update(self, done: int) -> dict[str, float]:
        """Do the update after `done` ones, and return what is to be known of it."""
        numbers: dict[str, float] = {}
        if not self.is_done:
            if done:
                numbers = self._learn(done - 1)
            if self._options.held_out.episodes and (self._is_evaluated(done) or self.is_done):
                numbers |= self._evaluate()
        return {"step": self.state.steps, **numbers}

    def _learn(self, number: int) -> dict[str, float]:
        """Do update `number` of learning, from 0."""
        if number == self._plan.imitations:
            self._enter("reinforcement")
        if isinstance(self._phase, Imitation):
            self._tasks.look_ahead(0)
            self.state.steps = self._phase.steps * (number + 1) // self._plan.imitations
            return self._phase.update(number)
        steps, numbers = self._phase.update(number - self._plan.imitations, self._generator)
        self.state.steps += steps
        return numbers

    def _enter(self, phase: str) -> None:
        """Begin a phase with the model as it is now."""
        self.state.phase = phase
        if phase == "imitation":
            self._phase = Imitation(self.model, self._options, self.seed, self._shown, self._plan.imitations)
        else:
            self._phase = Reinforcement(
                self.model, self._games, self._options, self.seed, self._tasks, self._plan.reinforcements
            )

    def _tasks_to_play(self) -> Sequence[int]:
        """Return the numbers of the tasks that reinforcement plays.

        Raises:
            ConfigError: All were demonstrated.
        """
        if self._options.repeat_demonstrated:
            return range(self._pool)
        shown = {one.task for one in self._shown}
        left = [i for i in range(self._pool) if self._games.task(self._split, i).id not in shown]
        if not left:
            raise ConfigError(
                f"repeat_demonstrated is off, and every one of the {self._pool} training tasks was demonstrated: "
                "raise pool, lower demonstrations.episodes, or leave it on"
            )
        return left

    def _first_model(self) -> LanguageModel:
        """Return the model to begin with: a new one, or that of this seed in another training."""
        start, wanted = self._options.start, self._options.model
        if start is None:
            seed, lora = derive_seed(self.seed, "init:policy"), _lora(self._options.objective)
            return LanguageModel.build(wanted, self._texts(), seed, lora)
        model = LanguageModel.load(Path(start) / f"seed-{self.seed}" / MODEL)
        if model.options != wanted:
            raise ConfigError(f"the model in {start} was made with other options than `model` has; they must agree")
        return model

    def _texts(self) -> Iterable[str]:
        """Return what a tokenizer is trained on."""
        if self._shown:
            return [text for one in self._shown for text in one.texts()]
        return first_sights(self._games, self._split, self._pool)

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _is_evaluated(self, done: int) -> bool:
        """Return whether the update after `done` ones ends with an evaluation: at phases' ends, and now and then."""
        held_out, reinforced = self._options.held_out, done - self._plan.imitations
        due = done in (0, self._plan.imitations, self._plan.updates - 1)
        return due or (reinforced > 0 and reinforced % held_out.every == 0)

    def _evaluate(self) -> dict[str, float]:
        """Play held-out tasks, the same ones at every evaluation of every seed."""
        held_out = self._options.held_out
        count = min(held_out.episodes, self._games.size(held_out.split))
        telling = f"held-out tasks for seed {self.seed}"
        tasks = [self._games.task(held_out.split, i) for i in range(count)]
        self._games.prepare(tasks)
        played_so_far = itertools.count(1)
        results = play(
            self.model,
            self._games,
            [Order(task, derive_seed(0, f"held-out:{i}"), i) for i, task in enumerate(tasks)],
            rollout_settings(self._options, self.model, held_out.temperature or self._options.temperature),
            generator=torch.Generator(self.model.device).manual_seed(derive_seed(self.seed, "held-out")),
            greedy=held_out.temperature == 0,
            finished=lambda: self._games.tell(telling, next(played_so_far), count),
        )
        played = [one for one in results if isinstance(one, Episode)]
        if not played:
            error = next(one.error for one in results if isinstance(one, Failed))
            raise EnvError(f"every held-out episode failed; the first failure: {error}")
        numbers = {f"held_out_{name}": value for name, value in about(played).items()}
        numbers["held_out_failed"] = len(results) - len(played)
        enough = held_out.stop_at
        self.state.enough = enough is not None and numbers.get("held_out_success", 0.0) >= enough
        return numbers

    # -- state ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the model, and all else that learning on needs."""
        folder.mkdir()
        self.model.save(folder / MODEL)
        phase, state = self._phase, self.state
        tensors = {"generator": self._generator.get_state(), **phase.optimiser.state("policy")}
        if isinstance(phase, Reinforcement):
            state.version, state.coefficients = phase.version, phase.coefficients
            if phase.reference is not None and self.model.lora is None:
                phase.reference.save(folder / REFERENCE)
            if phase.critic is not None:
                phase.critic.save(folder / CRITIC)
                tensors |= phase.critic_optimiser.state("critic")
        save_file(tensors, folder / TENSORS)
        (folder / STATE).write_bytes(msgspec.json.encode(state))

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote."""
        state = msgspec.json.decode((folder / STATE).read_bytes(), type=State)
        if state.demonstrations != self.state.demonstrations:
            raise ValueError("the demonstrations are others than those that it began with")
        tensors: dict[str, Any] = load_file(folder / TENSORS)
        self.model = LanguageModel.load(folder / MODEL)
        self._generator.set_state(tensors["generator"])
        self._enter(state.phase)
        phase, self.state = self._phase, state
        phase.optimiser.restore("policy", tensors)
        if isinstance(phase, Reinforcement):
            phase.version, phase.coefficients = state.version, state.coefficients
            if phase.reference is not None and self.model.lora is None:
                phase.reference = LanguageModel.load(folder / REFERENCE).reference()
            if phase.critic is not None:
                phase.critic.load(folder / CRITIC)
                phase.critic_optimiser.restore("critic", tensors)


def _check(games: Games, options: LanguageOptions) -> None:
    """Find out, before anything costs time, whether the environment can be played by a language model at all.

    Raises:
        UsageError: Its seat acts by arrays, it has no such split, or would be evaluated where it learned.
    """
    split = options.split or games.spec.splits[0]
    if options.held_out.episodes:
        games.size(options.held_out.split)
        if options.held_out.split == split and len(games.spec.splits) > 1:
            raise ConfigError(
                f"held_out.split is {split!r}, the split of the training tasks, which were learned; use "
                f"another one ({', '.join(one for one in games.spec.splits if one != split)}), or no held_out.episodes"
            )
    game = games.begin([Order(games.task(split, 0), 0)], Limits(steps=1))[0]
    if isinstance(game, Game):
        try:
            Speech(games.spec, game.seat)
        finally:
            game.close()


def _lora(objective: Objective) -> LoraOptions | None:
    """Return the adapters that an objective wants to train; None where everything learns."""
    chosen = objective.parameters
    if chosen.kind == "full":
        return None
    return LoraOptions(rank=chosen.rank, alpha=chosen.alpha, targets=list(chosen.targets))
