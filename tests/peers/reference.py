"""What the peers' transcripts must equal: the same episodes, played in this process."""

from typing import Any

from arena import Session, make
from arena.types import PLAYER

GUESS, TEXTWORLD = "text/guess-v0", "text/textworld-v0"
CASES: list[dict[str, Any]] = [
    {"env": GUESS, "split": "train", "task": "range-64", "seed": 1},
    {"env": GUESS, "split": "train", "task": "range-64", "seed": 2},
    {"env": GUESS, "split": "test", "task": "range-100", "seed": 3},
    {"env": GUESS, "split": "train", "task": "range-64", "seed": 1, "options": {"max_guesses": 2}},
    {"env": TEXTWORLD, "split": "train", "task": None, "seed": 0},
    {"env": TEXTWORLD, "split": "test", "task": None, "seed": 0, "options": {"reward": "dense"}},
]


def transcripts() -> list[dict[str, Any]]:
    """Return every case with the expert's actions and what each of them led to."""
    return [_played(case) for case in CASES]


def _played(case: dict[str, Any]) -> dict[str, Any]:
    environment = make(case["env"], case.get("options"))
    tasks = environment.taskset(case["split"])
    task = tasks.task(0) if case["task"] is None else tasks.get(case["task"])
    session = Session(environment, task, case["seed"])
    session.open()
    actions = []
    while session.status == "running":
        actions.append(session.expert_action(PLAYER))
        session.step(len(actions), {PLAYER: actions[-1]})
    end = session.end()
    session.close()
    assert end.score is not None
    steps = [record.time_step.seats[PLAYER] for record in session.journal]
    return case | {
        "task": task.id,
        "actions": actions,
        "texts": [step.observation for step in steps],
        "rewards": [step.reward for step in steps[1:]],
        "ending": steps[-1].ending,
        "terminated": steps[-1].terminated,
        "score": end.score.value,
    }
