"""TextWorld games: their options, their names, and how one is generated and cached.

A game is generated in a process of its own, because generation can take for ever, depends on the interpreter's hash
seed, and reads files from the working directory. Run as a program, this module is that process.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import Field, field_validator, model_validator

from arena import EnvError, Options, UsageError, cache_dir, import_extra, installed_version

from ._textworld_commands import playable

__all__ = ["CookingOptions", "GameSpec", "LevelOptions", "SimpleOptions", "game_file", "game_of"]

GENERATION_TIMEOUT_S = 180.0
_RECIPE = 2
"""Changed whenever the same seed would give another game than before."""
_MAKING = ".making-"
_PR_SET_PDEATHSIG = 1
_ATTEMPTS, _NEXT_SEED = 10, 1_000_000
"""How many seeds are tried for a game, and how far apart: beyond every split's range."""
_CUSTOM = re.compile(r"w([1-9]\d?)-o([1-9]\d?)-q([1-9]\d?)(?:-b([1-9]))?")
_MOST = {"rooms": 20, "objects": 60, "quest length": 30, "quest breadth": 5}
CHALLENGES = ("tw-simple", "tw-coin_collector", "tw-treasure_hunter", "tw-cooking")


class SimpleOptions(Options):
    """Settings of the challenge ``tw-simple``."""

    rewards: Literal["dense", "balanced", "sparse"] = Field("dense", description="How many subgoals give score.")
    goal: Literal["detailed", "brief", "none"] = Field("detailed", description="How the objective is described.")


class LevelOptions(Options):
    """Settings of the challenges ``tw-coin_collector`` and ``tw-treasure_hunter``."""

    level: int = Field(
        5, ge=1, le=233, description="Difficulty: 1 to 150 or 201 to 233 for coins, 1 to 30 for treasure."
    )


class CookingOptions(Options):
    """Settings of the challenge ``tw-cooking``."""

    recipe: int = Field(1, ge=1, le=5, description="Ingredients in the recipe.")
    take: int = Field(1, ge=0, le=5, description="Ingredients to find; at most `recipe`.")
    go: Literal[1, 6, 9, 12] = Field(1, description="Rooms.")
    open: bool = Field(False, description="Whether doors and containers start closed.")
    cook: bool = Field(False, description="Whether ingredients must be cooked.")
    cut: bool = Field(False, description="Whether ingredients must be cut.")
    drop: bool = Field(False, description="Whether the player can carry only a few things.")

    @model_validator(mode="after")
    def _take_at_most_recipe(self) -> CookingOptions:
        if self.take > self.recipe:
            raise ValueError(f"take is {self.take}; it must be at most recipe, which is {self.recipe}")
        return self


class GameOptions(Options):
    """Which family of games is played."""

    game: str = Field(
        "w2-o3-q4",
        description="`w<rooms>-o<objects>-q<quest length>`, with `-b<breadth>` if wanted; or one of the challenges "
        + ", ".join(CHALLENGES),
    )
    simple: SimpleOptions = Field(SimpleOptions(), description="Settings of tw-simple.")
    coin_collector: LevelOptions = Field(LevelOptions(), description="Settings of tw-coin_collector.")
    treasure_hunter: LevelOptions = Field(LevelOptions(), description="Settings of tw-treasure_hunter.")
    cooking: CookingOptions = Field(CookingOptions(), description="Settings of tw-cooking.")

    @field_validator("game")
    @classmethod
    def _known_game(cls, name: str) -> str:
        match = _CUSTOM.fullmatch(name)
        if match is None and name not in CHALLENGES:
            raise ValueError(f"a game is named like w2-o3-q4, or is one of {', '.join(CHALLENGES)}")
        if match is not None:
            for (what, most), number in zip(_MOST.items(), match.groups("1"), strict=True):
                if int(number) > most:
                    raise ValueError(f"at most {most} for the {what}, or generating takes for ever")
        return name

    @model_validator(mode="after")
    def _settings_belong_to_the_game(self) -> GameOptions:
        for field in ("simple", "coin_collector", "treasure_hunter", "cooking"):
            if getattr(self, field) != type(self).model_fields[field].default and self.game != f"tw-{field}":
                raise ValueError(f"settings of {field} are given, but the game is {self.game} and not tw-{field}")
        level = self.coin_collector.level
        if 150 < level <= 200:
            raise ValueError(f"coin_collector.level is {level}; allowed are 1 to 150 and 201 to 233")
        if self.treasure_hunter.level > 30:
            raise ValueError(f"treasure_hunter.level is {self.treasure_hunter.level}; allowed are 1 to 30")
        return self


class GameSpec(msgspec.Struct, frozen=True):
    """All that determines a game.

    Attributes:
        challenge: ``custom`` or one of `CHALLENGES`.
        settings: The generator's settings, plain values.
        seed: The generator's seed.
        family: The settings as a short name.
    """

    challenge: str
    settings: dict[str, Any]
    seed: int
    family: str

    @property
    def id(self) -> str:
        """The task's id: letters, digits, `-` and `_` only."""
        return f"{self.family}_{self.seed}"


def game_of(options: GameOptions, split: str, seed: int) -> GameSpec:
    """Return the game that the options name, for a split and a generator seed."""
    match = _CUSTOM.fullmatch(options.game)
    if match is not None:
        rooms, objects, length, breadth = (int(number) for number in match.groups("1"))
        settings: dict[str, Any] = {"rooms": rooms, "objects": objects, "length": length, "breadth": breadth}
        return GameSpec("custom", settings, seed, options.game)
    if options.game == "tw-simple":
        simple = options.simple
        settings = {**simple.model_dump(), "test": split == "test"}
        return GameSpec(options.game, settings, seed, f"tw-simple-{simple.rewards}-{simple.goal}")
    if options.game == "tw-cooking":
        cooking = options.cooking
        settings = {**cooking.model_dump(), "recipe_seed": 0, "split": split}
        flags = [name for name in ("open", "cook", "cut", "drop") if getattr(cooking, name)]
        name = "-".join(["tw-cooking", f"r{cooking.recipe}", f"t{cooking.take}", f"g{cooking.go}", *flags])
        return GameSpec(options.game, settings, seed, name)
    level = (options.coin_collector if options.game == "tw-coin_collector" else options.treasure_hunter).level
    return GameSpec(options.game, {"level": level}, seed, f"{options.game}-l{level}")


def game_file(game: GameSpec, split: str) -> Path:
    """Return the path of the game's story file, generated if it was not in the cache.

    Files are made in a folder of their own, which is renamed into place: whoever finds a game finds a whole one, and
    two processes that make the same game at once do no harm.

    Raises:
        PrerequisiteError: TextWorld is not installed.
        UsageError: TextWorld cannot make such a game.
        EnvError: Generation failed or took too long.
    """
    version = installed_version("textworld")
    if version is None:
        import_extra("textworld", extra="text")
    folder = cache_dir("textworld", f"{version}-{_RECIPE}", split) / game.id
    if not folder.is_dir():
        _sweep(folder.parent)
        with _scratch(folder.parent) as scratch:
            made = scratch / "game"
            made.mkdir()
            _generate(game, made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder / "game.z8"


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Make a folder that is removed afterwards, also when the process ends in between."""
    scratch = Path(tempfile.mkdtemp(prefix=_MAKING, dir=folder))
    remove = weakref.finalize(_generate, shutil.rmtree, scratch, True)
    try:
        yield scratch
    finally:
        remove()


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind; nothing takes as long as that to make."""
    for scratch in folder.glob(f"{_MAKING}*"):
        with suppress(OSError):
            if time.time() - scratch.stat().st_mtime > 10 * GENERATION_TIMEOUT_S:
                shutil.rmtree(scratch)


def _generate(game: GameSpec, folder: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", __name__, msgspec.json.encode(game).decode(), str(os.getpid())]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=GENERATION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvError(f"generating the TextWorld game {game.id} took over {GENERATION_TIMEOUT_S:g} s") from error
    if done.returncode == 3:
        raise UsageError(f"TextWorld cannot make the game {game.id}: {done.stderr.strip()}")
    if done.returncode != 0 or not (folder / "game.z8").is_file():
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise EnvError(f"generating the TextWorld game {game.id} failed with exit code {done.returncode}: {last}")


def _make(game: GameSpec) -> None:
    """Generate a game that can be won into the working directory; always the same one, byte for byte."""
    for attempt in range(_ATTEMPTS):
        _generate_once(game, game.seed + attempt * _NEXT_SEED)
        if _walkthrough_wins():
            break
    else:
        raise ValueError(f"none of {_ATTEMPTS} games can be won by its own walkthrough")
    for left_over in Path().iterdir():
        if left_over.name not in ("game.z8", "game.json"):
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()


def _walkthrough_wins() -> bool:
    """Return whether the game's walkthrough wins it, typed as an agent would."""
    import textworld

    env = textworld.start("game.z8", textworld.EnvInfos(won=True, extras=["walkthrough"]))
    try:
        state = env.reset()
        for command in state["extra.walkthrough"]:
            state, _, _ = env.step(playable(command) or "wait")
        return bool(state["won"])
    finally:
        env.close()


def _generate_once(game: GameSpec, seed: int) -> None:
    import_extra("textworld", extra="text")
    from textworld import GameOptions as Generator
    from textworld.challenges import CHALLENGES as MAKERS
    from textworld.generator import compile_game, make_game

    options = Generator()
    options.seeds = seed
    options.path = "./game.z8"
    options.force_recompile = True
    if game.challenge == "custom":
        options.nb_rooms, options.nb_objects = game.settings["rooms"], game.settings["objects"]
        options.quest_length, options.quest_breadth = game.settings["length"], game.settings["breadth"]
        made = make_game(options)
    else:
        made = MAKERS[game.challenge][1](settings=game.settings, options=options)
    compile_game(made, options)
    story = bytearray(Path("game.z8").read_bytes())
    story[0x12:0x18] = b"000000"  # the header's serial number is the local date
    Path("game.z8").write_bytes(story)


def _die_with(parent: int) -> None:
    """End this process, and the compiler that it runs, when the process that wanted the game is gone or gave up."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before that took hold
        sys.exit(1)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda number, frame: os.killpg(0, signal.SIGKILL))
    signal.signal(signal.SIGALRM, lambda number, frame: os.killpg(0, signal.SIGKILL))
    signal.alarm(int(GENERATION_TIMEOUT_S) + 1)


def main() -> None:
    """Generate the game of the first argument for the process of the second; exit code 3: there is no such game."""
    _die_with(int(sys.argv[2]))
    game = msgspec.json.decode(sys.argv[1], type=GameSpec)
    try:
        _make(game)
    except Exception as error:  # the boundary of this process: a refusal of the generator becomes an exit code
        if type(error).__name__ in ("QuestGenerationError", "ValueError", "AssertionError"):
            sys.stderr.write(f"{type(error).__name__}: {error}")
            sys.exit(3)
        raise


if __name__ == "__main__":
    main()
