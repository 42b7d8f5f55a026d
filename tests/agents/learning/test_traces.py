"""Demonstrations from traces: what a recorded expert said is what a live one says, and what does not fit is refused."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from arena import ConfigError, Limits, Options, UsageError, read_episodes
from arena.agents.learning._demonstrations import Demonstration, demonstrate, lesson, recorded
from arena.agents.learning._games import LocalGames, Order
from arena.agents.learning.language import DemonstrationOptions

from .toys import learner, rows_of, tiny_model

SCENARIO = """
name: shown
env: {id: text/guess-v0, options: {max_guesses: 6}}
agents: {expert: expert, random: random}
tasks: {split: train}
episodes: 12
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run, of an expert and of somebody else."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "shown.yaml").write_text(SCENARIO)
    code = "from arena.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "shown.yaml", "--out", "out"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "out"


def games(**options: Any) -> LocalGames:
    return LocalGames("text/guess-v0", {"max_guesses": 6, **options})


def read(path: Path, *, played: LocalGames | None = None, **changes: Any) -> list[Demonstration]:
    wanted: dict[str, Any] = {"split": "train", "turns": 8, "minimum_score": None, "list_legal": False, **changes}
    return recorded(played or games(), path, **wanted)


@pytest.mark.parametrize("list_legal", [False, True])
def test_traces_of_the_expert_and_the_live_expert_give_the_same_tokens(run: Path, list_legal: bool) -> None:
    mine = games()
    found = read(run, list_legal=list_legal)
    orders = [
        Order(episode.record.task, episode.record.seed)
        for episode in read_episodes(run / "traces.jsonl")
        if episode.record.seats["player"].id == "expert"
    ]
    live = demonstrate(mine, orders, expert=None, limits=Limits(steps=8), list_legal=list_legal)
    model = tiny_model(context=4096)
    rows = [lesson(model, one, 4096) for one in live if isinstance(one, Demonstration) and one.success]
    assert len(rows) > 5
    assert all(one is not None and one.row.sampled for one in rows)
    assert all(row in [lesson(model, one, 4096) for one in found] for row in rows)


def test_only_what_succeeded_is_imitated_unless_a_score_is_enough(run: Path) -> None:
    ends = [episode.end for episode in read_episodes(run / "traces.jsonl")]
    scores = [end.score for end in ends if end is not None and end.score is not None]
    solved = sum(bool(score.success) for score in scores)
    assert 0 < solved < len(scores) == 24
    assert [one.success for one in read(run)] == [True] * solved
    assert len(read(run / "traces.jsonl", minimum_score=-1.0)) == 24
    assert len(read(run, minimum_score=1e-9)) == sum(score.value > 0 for score in scores)
    assert all(len(one.said) == len(one.heard) <= 2 for one in read(run, turns=2))


def test_a_torn_last_episode_is_left_out(run: Path, tmp_path: Path) -> None:
    lines = (run / "traces.jsonl").read_bytes()
    for cut in (5, len(lines.splitlines()[-1]) + 20):
        (tmp_path / "traces.jsonl").write_bytes(lines[:-cut])
        assert len(read(tmp_path, minimum_score=-1.0)) == 23


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        first, _, rest = data.partition(b"\n")
        record = json.loads(first)
        change(record)
        return json.dumps(record, separators=(",", ":")).encode() + b"\n" + rest

    return spoil


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (lambda data: data, {"played": ("max_guesses", 7)}, r":1: played with max_guesses 6, and 7 is to be learned"),
        (
            changed(lambda record: record.update(env="text/other-v0")),
            {},
            r":1: an episode of text/other-v0, and text/gu",
        ),
        (changed(lambda record: record["options"].update(x="__import__('os')")), {}, r"played with x \"__import__"),
        (lambda data: data, {"split": "test"}, r"no episode to imitate: 24 are of another split than 'test'"),
        (lambda data: data, {"minimum_score": 2.0}, r"no episode to imitate: 24 are not good enough"),
        (lambda data: data, {"turns": 0}, r"\d+ are not good enough, \d+ are not of 1 to 0 steps"),
        (lambda data: b"", {}, "is empty"),
        (lambda data: b"not a trace\n", {}, ":1: "),
        (
            lambda data: data.replace(b'"seats":{"player":{"obs', b'"seats":{"thief":{"obs'),
            {},
            "without a seat 'player'",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(
    run: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "traces.jsonl").write_bytes(spoil((run / "traces.jsonl").read_bytes()))
    if "played" in changes:
        changes = {"played": games(**dict([changes["played"]]))}
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(ConfigError, match=r"cannot read the trace .*No such file"):
            read(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_score": 0.5, "episodes": 3}, "minimum_score is for traces"),
        ({"traces": "x", "episodes": 3, "expert": "oracle"}, "leave one of them out"),
        ({"traces": "x"}, "episodes says how many"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    assert issubclass(DemonstrationOptions, Options)
    with pytest.raises(pydantic.ValidationError, match=message):
        DemonstrationOptions.model_validate(options)


def test_a_training_imitates_traces_and_tells_how_far_it_is(run: Path) -> None:
    told: list[tuple[str, int, int]] = []
    trainer = learner(
        env="text/guess-v0",
        env_options={"max_guesses": 6},
        seeds=(0, 1),
        steps=40 * 8,
        turns=8,
        demonstrations={"episodes": 40, "traces": str(run), "batch": 8, "epochs": 3},
        held_out={"episodes": 5},
    )
    trainer.tell = lambda what, done, total: told.append((what, done, total))
    rows = [row for row in rows_of(trainer) if row["seed"] == 0]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})  # steps rise at every update
    losses = [row["imitation_loss"] for row in rows if "imitation_loss" in row]
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    assert ("held-out tasks for seed 1", 3, 3) in told
    assert not any("demonstrations" in what for what, _, _ in told)


def test_a_live_expert_tells_how_far_it_is() -> None:
    told: list[tuple[str, int, int]] = []
    trainer = learner(
        env="text/guess-v0", steps=30 * 8, turns=8, demonstrations={"episodes": 30}, held_out={"episodes": 0}
    )
    trainer.tell = lambda what, done, total: told.append((what, done, total))
    rows_of(trainer, updates=1)
    assert [done for what, done, total in told if what == "demonstrations for seed 0"] == list(range(1, 31))
    assert any(what == "tasks prepared" and done == total for what, done, total in told)


def test_traces_that_do_not_fit_end_a_training_before_it_begins(run: Path) -> None:
    trainer = learner(
        env="text/guess-v0", steps=400, turns=8, demonstrations={"episodes": 4, "traces": str(run)},
        held_out={"episodes": 0},
    )  # fmt: skip
    with pytest.raises(UsageError, match="played with max_guesses 6, and 8 is to be learned"):
        trainer.begin()


def test_a_training_does_not_go_on_with_other_traces(run: Path, tmp_path: Path) -> None:
    recorded_run = tmp_path / "traces.jsonl"
    recorded_run.write_bytes((run / "traces.jsonl").read_bytes())

    def begun() -> Any:
        trainer = learner(
            env="text/guess-v0", env_options={"max_guesses": 6}, steps=8 * 8, turns=8,
            demonstrations={"episodes": 8, "traces": str(recorded_run)}, held_out={"episodes": 0},
        )  # fmt: skip
        trainer.begin()
        return trainer

    (tmp_path / "saved").mkdir()
    with contextlib.closing(begun()) as trainer:
        trainer.update()
        trainer.save(tmp_path / "saved")
    with contextlib.closing(begun()) as trainer:
        trainer.load(tmp_path / "saved")
    lines = recorded_run.read_bytes().replace(b"higher", b"above")
    assert lines != recorded_run.read_bytes()
    recorded_run.write_bytes(lines)
    with contextlib.closing(begun()) as trainer, pytest.raises(ConfigError, match="others than those that it began"):
        trainer.load(tmp_path / "saved")
