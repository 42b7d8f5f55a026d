"""Guess a number: the smallest environment that has everything, and the one that CONTRIBUTING walks through.

A whole number from 1 to N is drawn; the player names numbers and is told whether the secret is higher or lower.

Observation: one sentence.
Actions: text, a whole number from 1 to N without leading zeros; all are listed, anything else is refused.
Reward: 1 for the right number, else 0.
Endings: ``guessed`` (termination); ``out_of_guesses`` (termination: the rules allow only so many).
Information: the secret is never shown, not even at the end.
Expert: halves the interval that the hints leave; it does not look at the secret.
Versions: v0, the first.
Source: folklore; the expert is binary search, which needs at most floor(log2 N) + 1 guesses.
"""

from __future__ import annotations

from pydantic import Field

from arena import (
    Action,
    AgentID,
    FreeText,
    InvalidActionError,
    Options,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Task,
    Taskset,
    UnknownIdError,
    python_stream,
    register,
    restart,
    termination,
    transition,
)

_SIZES = {"train": (8, 16, 32, 64), "test": (10, 50, 100)}


class GuessOptions(Options):
    """Options of `text/guess-v0`."""

    max_guesses: int = Field(8, ge=1, le=1000, description="Guesses allowed before the game is lost.")


class GuessTasks(Taskset):
    """One task for each N of the split."""

    def __init__(self, split: str) -> None:
        self.split, self.sizes = split, _SIZES[split]

    def __len__(self) -> int:
        return len(self.sizes)

    def task(self, index: int) -> Task:
        """Return the task of guessing from 1 to the split's N number `index`."""
        size = self.sizes[index]
        return Task(f"range-{size}", self.split, {"size": size})


@register(
    "text/guess-v0",
    summary="Guess a secret number from higher/lower hints.",
    endings={"guessed": "termination", "out_of_guesses": "termination"},
    reward_range=(0.0, 1.0),
    metrics={"guesses": "Guesses used."},
    splits=tuple(_SIZES),
    legal_actions="all",
    snapshots=True,
    expert=True,
)
class Guess(SingleAgentEnvironment):
    """The game; its whole state is the secret, the number of guesses, and the interval that the hints leave."""

    Options = GuessOptions

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the player's spaces."""
        return SeatSpec(
            observation_space=FreeText(200),
            action_space=FreeText(8, min_length=1),
            instructions="Guess the secret number. Answer with the number only.",
        )

    def taskset(self, split: str) -> Taskset:
        """Return one task for each N of the split."""
        return GuessTasks(split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Draw the secret from the stream ``env`` of the seed."""
        size = task.data.get("size")
        if not isinstance(size, int) or not 1 <= size <= 10_000:
            raise UnknownIdError(f"task {task.id!r} is not one of text/guess-v0: it needs a size from 1 to 10000")
        self._secret = python_stream(seed, "env").randint(1, size)
        self._guesses, self._low, self._high, self._won = 0, 1, size, False
        self._legal = tuple(map(str, range(1, size + 1)))
        return restart(f"I think of a number from 1 to {size}. You have {self._left()}.", legal_actions=self._legal)

    def act(self, action: Action) -> SeatStep:
        """Compare the guess with the secret."""
        if action not in self._legal:
            raise InvalidActionError(f"{action!r} is no guess (legal: the numbers 1 to {self._legal[-1]})")
        guess = int(str(action))
        self._guesses += 1
        if guess == self._secret:
            self._won = True
            return termination(f"{guess} is right!", 1.0, ending="guessed")
        if guess < self._secret:
            hint, self._low = "higher", max(self._low, guess + 1)
        else:
            hint, self._high = "lower", min(self._high, guess - 1)
        if self._guesses == self.options.max_guesses:
            return termination(
                f"It is {hint} than {guess}, and you have no guesses left.", 0.0, ending="out_of_guesses"
            )
        return transition(f"It is {hint} than {guess}. You have {self._left()}.", 0.0, legal_actions=self._legal)

    def score(self) -> Score:
        """Return 1 for the right number."""
        return Score(float(self._won), self._won, {"guesses": float(self._guesses)})

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return the middle of what the hints leave."""
        return str((self._low + self._high) // 2)

    def snapshot(self) -> object:
        """Return the whole state."""
        return dict(vars(self))

    def restore(self, state: object) -> None:
        """Continue from a snapshot."""
        assert isinstance(state, dict)
        vars(self).update(state)

    def _left(self) -> str:
        left = self.options.max_guesses - self._guesses
        return f"{left} guess{'' if left == 1 else 'es'} left"
