"""Trainings: one strict YAML file that says what learns what, for how long, and with which seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from arena.env import Options
from arena.errors import ConfigError, UnknownIdError, did_you_mean
from arena.registry import explain, make, parse_options, trainers
from arena.scenario import EnvConfig, apply_override, load_yaml, named_text, plain
from arena.seeding import MAX_SEED
from arena.trainer import Trainer, TrainingJob

__all__ = [
    "LearnerConfig",
    "Training",
    "is_training",
    "load_training",
    "parse_training",
    "training_names",
    "validate_training",
]

MAX_SEEDS = 10_000
DEFAULT_CHECKPOINTS = 20
"""Checkpoints of a whole training where the file does not say how often."""

LearnerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Each learner has a folder of its name."""


class LearnerConfig(Options):
    """What learns: a trainer and its options."""

    id: str = Field(description="The trainer's id, as `arena agents` lists it.")
    options: dict[str, Any] = Field({}, description="Its options.")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _a_name_is_an_id(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value


class Training(Options):
    """A training. Every learner learns the same environment from the same seeds, so that they can be compared."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name: lower-case letters, digits and hyphens.")
    description: str = Field("", description="What it shows, in a sentence or two.")
    env: EnvConfig = Field(description="The environment.")
    learners: dict[LearnerName, LearnerConfig] = Field(min_length=1, description="What learns, by name.")
    steps: int = Field(gt=0, le=10**12, description="Environment steps of each seed.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Root seeds; a number n stands for 0 to n-1.")
    checkpoint_every: int | None = Field(
        None, gt=0, description="Updates from one checkpoint to the next; a twentieth of the training where absent."
    )

    @pydantic.field_validator("seeds", mode="before")
    @classmethod
    def _a_number_is_a_range(cls, seeds: Any) -> Any:
        if type(seeds) is not int:
            return tuple(seeds) if isinstance(seeds, list) else seeds
        if not 1 <= seeds <= MAX_SEEDS:
            raise ValueError(f"the number of seeds lies between 1 and {MAX_SEEDS}")
        return tuple(range(seeds))

    @pydantic.field_validator("seeds")
    @classmethod
    def _different_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("every seed must be given once")
        if any(not 0 <= seed <= MAX_SEED for seed in seeds):
            raise ValueError(f"seeds lie between 0 and {MAX_SEED}")
        return seeds

    @pydantic.field_validator("learners")
    @classmethod
    def _names_for_folders(cls, learners: dict[str, LearnerConfig]) -> dict[str, LearnerConfig]:
        for name in learners:
            if name == "curves" or name.endswith((".json", ".png", ".yaml")):
                raise ValueError(f"no learner can be called {name!r}: its folder would stand where results are written")
        return learners

    @property
    def job(self) -> TrainingJob:
        """What every learner is to learn."""
        return TrainingJob(self.env.id, self.env.options, self.seeds, self.steps)

    def make_trainer(self, learner: str) -> Trainer:
        """Return a fresh trainer that has not begun.

        Raises:
            UnknownIdError: No such trainer.
            ConfigError: An option is wrong, or does not fit the job.
        """
        config = self.learners[learner]
        cls = trainers.get(config.id)
        return cls(self.job, parse_options(config.id, cls.Options, config.options))

    def checkpoint_interval(self, trainer: Trainer) -> int:
        """Return the updates from one checkpoint to the next."""
        return self.checkpoint_every or -(-trainer.updates // DEFAULT_CHECKPOINTS)

    def choose(self, names: Iterable[str]) -> Training:
        """Return the training with only these learners, in this order; all of them where none is named.

        Raises:
            UnknownIdError: It has no such learner.
        """
        chosen = {}
        for name in names:
            if name not in self.learners:
                raise UnknownIdError(f"{self.name} has no learner {name!r}{did_you_mean(name, self.learners)}")
            chosen[name] = self.learners[name]
        return self.model_copy(update={"learners": chosen}) if chosen else self

    def resolve(self) -> Training:
        """Return the training with every option written out, once everything in it has been found to exist.

        Raises:
            UsageError: An id or an option is wrong; the message says what is allowed.
        """
        env = make(self.env.id, self.env.options)
        options = env.options.model_dump(mode="json")
        env.close()
        resolved = self.model_copy(update={"env": EnvConfig(id=self.env.id, options=options)})
        learners = {}
        for name, config in self.learners.items():
            trainer = resolved.make_trainer(name)
            learners[name] = LearnerConfig(id=config.id, options=trainer.options.model_dump(mode="json"))
            trainer.close()
        return resolved.model_copy(update={"learners": learners})


def training_names() -> list[str]:
    """Return the names of the trainings that ship with Arena."""
    folder = _shipped()
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name.removesuffix(".yaml") for path in found if path.name.endswith(".yaml"))


def is_training(name_or_file: str) -> bool:
    """Return whether this is the name of a shipped training, or a YAML file that has learners."""
    if name_or_file in training_names():
        return True
    try:
        data = load_yaml(Path(name_or_file).read_text(encoding="utf-8"), name_or_file)
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "learners" in data


def load_training(name_or_file: str, overrides: Iterable[str] = ()) -> Training:
    """Return a shipped training by name, or one from a YAML file.

    Args:
        name_or_file: A name, or a path that holds a `/` or ends in ``.yaml`` or ``.yml``.
        overrides: ``a.b=c`` each, where c is YAML; applied before anything is checked.

    Raises:
        UnknownIdError: No such training.
        ConfigError: The file cannot be read, or is no training; the message names the key and what is allowed.
    """
    text = named_text("training", name_or_file, training_names(), _shipped())
    return parse_training(text, overrides, source=name_or_file)


def parse_training(text: str, overrides: Iterable[str] = (), *, source: str = "training") -> Training:
    """Return the training that a YAML text holds; see `load_training`."""
    data = plain(load_yaml(text, source), source)
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: a training is a mapping with the keys {', '.join(Training.model_fields)}")
    learners = data.get("learners")
    if isinstance(learners, dict):
        data["learners"] = {name: {"id": one} if isinstance(one, str) else one for name, one in learners.items()}
    for override in overrides:
        apply_override(data, override)
    return validate_training(data, source)


def validate_training(data: Mapping[str, Any], source: str) -> Training:
    """Return the training that plain data describe.

    Raises:
        ConfigError: One line that names the key and what is allowed.
    """
    try:
        return Training.model_validate_json(json.dumps(plain(data, source)))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, Training, noun='key')}") from error


def _shipped() -> Any:
    return resources.files("arena.scenarios").joinpath("training")
