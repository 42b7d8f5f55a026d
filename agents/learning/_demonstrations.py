"""Demonstrations: an environment's expert plays, or has been recorded, and each episode becomes a row to imitate."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from arena import PLAYER, ArenaError, ConfigError, Episode, Limits, Score, SeatStep, read_episodes, stream

from ._games import Games, Order
from ._models.model import LanguageModel
from ._models.scoring import Row
from ._speech import Speech

__all__ = ["Demonstration", "Lesson", "Slip", "Slips", "demonstrate", "digest_of", "lesson", "recorded"]

TRACE_FILE = "traces.jsonl"
Slip: TypeAlias = Callable[[], str | None]
"""Asked at every turn for what is said in the expert's place."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What was said in one episode of an expert.

    Attributes:
        task: Id of its task.
        instructions: What the player is told first.
        heard: What it read before each turn.
        said: What it said then; as many as `heard`.
        success: Whether it solved the task.
        slips: Numbers of the turns at which something else was said than it meant to say.
    """

    task: str
    instructions: str
    heard: tuple[str, ...]
    said: tuple[str, ...]
    success: bool
    slips: frozenset[int] = frozenset()

    def texts(self) -> list[str]:
        """Return everything that a tokenizer should know."""
        return [self.instructions, *self.heard, *self.said]


def digest_of(shown: Sequence[Demonstration]) -> str:
    """Return what tells demonstrations from others."""
    told = json.dumps([[one.task, one.instructions, one.heard, one.said, sorted(one.slips)] for one in shown])
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def demonstrate(
    games: Games,
    orders: Sequence[Order],
    *,
    expert: str | None,
    limits: Limits,
    list_legal: bool,
    slip: Callable[[Order], Slip] = lambda order: lambda: None,
    finished: Callable[[int], None] = lambda episodes: None,
) -> list[Demonstration | ArenaError]:
    """Let the expert play every order, and return what it said, or why it could not.

    Args:
        games: Where.
        orders: What.
        expert: Which of the environment's experts; None for the first.
        limits: What an episode may use.
        list_legal: Whether legal actions are shown.
        slip: Gives for each order what is asked at every turn for what is said in the expert's place; see `Slips`.
        finished: Called after each episode with the number of those that are over.
    """
    shown: list[Demonstration | ArenaError] = []
    for number, order in enumerate(orders, 1):
        try:
            shown.append(_demonstrate(games, order, expert, limits, list_legal, slip(order)))
        except ArenaError as error:
            shown.append(error)
        finished(number)
    return shown


class Slips:
    """Puts at some turns into the expert's mouth what experts said elsewhere.

    The expert goes on from whatever comes of it, so that demonstrations show what to do after a mistake, which who
    imitates a flawless expert never learns (Laskey et al. 2017, arXiv:1703.09327).

    Args:
        share: Of the turns.
        seed: Of the draws, with the order's own.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, seed
        self._said: list[str] = []

    def __call__(self, order: Order) -> Slip:
        """Return what is asked at every turn of an order; None is the expert's own turn."""
        rng = stream(self._seed, f"train:slips:{order.seed}")
        said = tuple(self._said)
        return lambda: said[int(rng.integers(len(said)))] if said and rng.random() < self._share else None

    def learn(self, shown: Demonstration) -> None:
        """Remember what an expert said."""
        self._said += [text for number, text in enumerate(shown.said) if number not in shown.slips]


def _demonstrate(
    games: Games, order: Order, expert: str | None, limits: Limits, list_legal: bool, slip: Slip
) -> Demonstration:
    game = games.begin([order], limits)[0]
    if isinstance(game, ArenaError):
        raise game
    try:
        speech = Speech(games.spec, game.seat, list_legal=list_legal)
        heard, said, slips = list[str](), list[str](), set[int]()
        while not game.over:
            step: SeatStep = game.latest
            slipped = slip()
            if slipped is not None:
                slips.add(len(said))
            action = game.expert(expert) if slipped is None else speech.action(slipped)
            heard.append(speech.heard(step))
            said.append(speech.said(action).strip())
            if (error := games.step([(game, action)])[0]) is not None:
                raise error
        solved = bool(game.score().success)
        return Demonstration(order.task.id, speech.instructions, tuple(heard), tuple(said), solved, frozenset(slips))
    finally:
        game.close()


def recorded(
    games: Games, traces: Path, *, split: str, turns: int, minimum_score: float | None, list_legal: bool
) -> list[Demonstration]:
    """Return what was said in the episodes of a run that are good enough, in the order of the file.

    Args:
        games: Where what is learned is played: the traces must be of the same environment with the same options.
        traces: A trace file, or the folder of a run.
        split: Of which split the tasks must be.
        turns: Environment steps that an episode may have.
        minimum_score: Lowest score; None where only a success is good enough.
        list_legal: Whether legal actions are shown.

    Raises:
        ConfigError: The file is no trace file, is of another environment, or has no episode that is good enough.
    """
    path = traces / TRACE_FILE if traces.is_dir() else traces
    speech: Speech | None = None
    shown: list[Demonstration] = []
    refused = {f"of another split than {split!r}": 0, "not good enough": 0, f"not of 1 to {turns} steps": 0}
    elsewhere, bad, long = refused
    for episode in read_episodes(path):
        end = episode.end
        if end is None:  # a killed run leaves a torn last episode
            continue
        _check_environment(games, path, episode)
        if episode.record.task.split != split:
            refused[elsewhere] += 1
        elif not _is_good(end.score, minimum_score):
            refused[bad] += 1
        elif not 0 < end.steps <= turns:
            refused[long] += 1
        else:
            speech = speech or _speech(games, split, list_legal)
            shown.append(_demonstration(speech, episode))
    if not shown:
        why = ", ".join(f"{count} are {what}" for what, count in refused.items() if count) or "it has none"
        raise ConfigError(f"{path} has no episode to imitate: {why}")
    return shown


def _is_good(score: Score | None, minimum: float | None) -> bool:
    if score is None:
        return False
    return bool(score.success) if minimum is None else score.value >= minimum


def _check_environment(games: Games, path: Path, episode: Episode) -> None:
    record = episode.record
    if record.env != games.spec.id:
        raise ConfigError(f"{path}:{episode.line}: an episode of {record.env}, and {games.spec.id} is to be learned")
    for name in sorted({*record.options, *games.options}):
        there, here = record.options.get(name), games.options.get(name)
        if there != here:
            raise ConfigError(
                f"{path}:{episode.line}: played with {name} {there!r:.100}, and {here!r:.100} is to be learned"
            )
    if any(PLAYER not in step.time_step.seats for step in episode.steps):
        raise ConfigError(f"{path}:{episode.line}: an episode without a seat {PLAYER!r}")


def _speech(games: Games, split: str, list_legal: bool) -> Speech:
    """Return the words of the player's seat, which is the same in every episode."""
    game = games.begin([Order(games.task(split, 0), 0)], Limits(steps=1))[0]
    if isinstance(game, ArenaError):
        raise game
    try:
        return Speech(games.spec, game.seat, list_legal=list_legal)
    finally:
        game.close()


def _demonstration(speech: Speech, episode: Episode) -> Demonstration:
    turns = [
        (speech.heard(before.time_step.seats[PLAYER]), speech.said(after.actions[PLAYER]).strip())
        for before, after in itertools.pairwise(episode.steps)
        if PLAYER in after.actions
    ]
    score = episode.end and episode.end.score
    return Demonstration(
        episode.record.task.id,
        speech.instructions,
        heard=tuple(heard for heard, _ in turns),
        said=tuple(said for _, said in turns),
        success=bool(score and score.success),
    )


@dataclass(frozen=True, slots=True)
class Lesson:
    """A demonstration as tokens.

    Attributes:
        row: The tokens; those that the expert meant to say count as sampled.
        slips: Positions of those that were said in its place.
    """

    row: Row
    slips: frozenset[int]


def lesson(model: LanguageModel, shown: Demonstration, context: int) -> Lesson | None:
    """Return a demonstration as tokens; None where it has not enough room.

    Args:
        model: Whose tokenizer and template are used.
        shown: What was said.
        context: Most tokens of a row.
    """
    template = model.template
    ids = template.opening(shown.instructions, shown.heard[0])
    sampled: list[int] = []
    slips = set[int]()
    for turn, said in enumerate(shown.said):
        if turn:
            ids += template.reply(shown.heard[turn], finished=True)
        words = template.answer(said)
        if turn in shown.slips:
            slips.update(range(len(ids), len(ids) + len(words)))
        else:
            sampled += range(len(ids), len(ids) + len(words))
        ids += words
    return Lesson(Row(ids, sampled), frozenset(slips)) if len(ids) <= context and sampled else None
