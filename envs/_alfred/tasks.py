"""The household tasks that environments offer: options that choose games, their tasksets, and how games are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field

from arena import Options, Task, TaskMaker, Taskset, UnknownIdError, UsageError

from .generator import game_file, write_games
from .houses import SPLITS, game_of
from .layout import GameEntry, find_game, find_games

__all__ = ["SPLITS", "GameMaker", "GameOptions", "GeneratedTasks", "OfficialTasks", "TaskType", "game_path", "tasks_of"]

TaskType: TypeAlias = Literal[
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
]
Split: TypeAlias = Literal["train", "valid_seen", "valid_unseen"]


def _each_once_in_order(names: tuple[TaskType, ...]) -> tuple[TaskType, ...]:
    if len(set(names)) != len(names):
        raise ValueError("every type must be given once")
    return tuple(sorted(names, key=get_args(TaskType).index))


TaskTypes: TypeAlias = Annotated[tuple[TaskType, ...], AfterValidator(_each_once_in_order)]
_ALL: tuple[TaskType, ...] = get_args(TaskType)


class GameOptions(Options):
    """Which games are played."""

    games: Literal["generated", "official"] = Field(
        "generated",
        description="`generated`: made on this machine when they are first played. `official`: ALFWorld's own, which "
        "the literature reports; `alfworld-download` fetches them, and ALFWORLD_DATA names their folder.",
    )
    task_types: TaskTypes = Field(_ALL, min_length=1, description="Types of tasks that are played.")


class GeneratedTasks(Taskset):
    """One task for each generator seed of the split; the types take turns."""

    def __init__(self, split: str, task_types: Sequence[str]) -> None:
        self.split, self.task_types, self.seeds = split, tuple(task_types), SPLITS[split]

    def __len__(self) -> int:
        return len(self.seeds)

    def task(self, index: int) -> Task:
        """Return the game of the split's seed number `index`."""
        game = game_of(self.split, self.seeds[index], self.task_types)
        return Task(game.id, self.split, {"seed": game.seed, "task_type": game.task_type})

    def get(self, task_id: str) -> Task:
        """Return the game with this id."""
        number = task_id.rpartition("_")[2]
        seed = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1
        task = self.task(self.seeds.index(seed)) if seed in self.seeds else None
        if task is None or task.id != task_id:
            known = f"; with that seed it is {task.id!r}" if task is not None else ""
            raise UnknownIdError(
                f"no task {task_id!r} in split {self.split!r}{known}; ids of generated games end in _<seed>, "
                f"with seeds {self.seeds[0]} to {self.seeds[-1]}"
            )
        return task


class OfficialTasks(Taskset):
    """One task for each game of the official data that is of the wanted types, in the order of their paths."""

    def __init__(self, split: str, task_types: Sequence[str]) -> None:
        self.split, self.task_types = split, tuple(task_types)

    @cached_property
    def games(self) -> Sequence[GameEntry]:
        """The games.

        Raises:
            PrerequisiteError: There are none; the message says how to get some.
        """
        return find_games(self.split, self.task_types)

    def __len__(self) -> int:
        return len(self.games)

    def task(self, index: int) -> Task:
        """Return game number `index`."""
        game = self.games[index]
        return Task(game.id, self.split, {"game": game.game, "task_type": game.task_type})

    def get(self, task_id: str) -> Task:
        """Return the game with this id."""
        game = find_game(self.split, task_id)
        if game.task_type not in self.task_types:
            raise UnknownIdError(f"task {task_id!r} is a {game.task_type}, which the option task_types leaves out")
        return Task(game.id, self.split, {"game": game.game, "task_type": game.task_type})


def tasks_of(options: GameOptions, split: str) -> Taskset:
    """Return the tasks of a split; whether their games can be had is found out when the first task is asked for."""
    return (GeneratedTasks if options.games == "generated" else OfficialTasks)(split, options.task_types)


def game_path(options: GameOptions, task: Task) -> Path:
    """Return the game file of a task, made where it is a generated one; nothing in the task is used as a path.

    Raises:
        UnknownIdError: The task is not one that the options offer.
        PrerequisiteError: The official games, or the package that makes games, are not here.
        EnvError: The game could not be made.
    """
    if task.split not in SPLITS:
        raise UnknownIdError(f"no split {task.split!r} (known: {', '.join(SPLITS)})")
    known = tasks_of(options, task.split).get(task.id)
    if known.data != task.data:
        raise UnknownIdError(f"task {task.id!r} says {task.data}; it is {known.data}")
    if options.games == "official":
        return find_game(task.split, task.id).path
    return game_file(game_of(task.split, known.data["seed"], options.task_types))


class MakerOptions(Options):
    """Which games are made."""

    splits: tuple[Split, ...] = Field(
        get_args(Split), min_length=1, description="Their splits; the houses of valid_unseen are in no other one."
    )
    games: int = Field(60, ge=1, le=100_000, description="How many of each split; the types take turns.")
    first: int = Field(0, ge=0, lt=100_000, description="How many of each split are passed over first.")
    task_types: TaskTypes = Field(_ALL, min_length=1, description="Types of their tasks.")


class GameMaker(TaskMaker):
    """Writes generated games in the official layout."""

    summary = "Write generated games as files that ALFWorld itself and the option games=official can play."
    Options = MakerOptions

    def make(self, folder: Path, progress: Callable[[int, int], None]) -> str:
        """Make the games that are not there yet."""
        options: MakerOptions = self.options
        wanted = {split: SPLITS[split][options.first : options.first + options.games] for split in options.splits}
        for split, seeds in wanted.items():
            if len(seeds) < options.games:
                raise UsageError(
                    f"split {split!r} has {len(SPLITS[split])} games; passing over {options.first} leaves {len(seeds)}"
                )
        total = options.games * len(wanted)
        for number, (split, seeds) in enumerate(wanted.items()):
            before = number * options.games
            write_games(folder, split, seeds, task_types=options.task_types, progress=_shifted(progress, before, total))
        return f"{total} games are in {folder}\nplay them: ALFWORLD_DATA={folder} arena run alfworld-official"


def _shifted(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    """Return what reports one split's progress as that of all."""
    return lambda done, _: progress(before + done, total)
