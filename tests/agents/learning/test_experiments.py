"""The experiments of `benchmarks.learning` can be trained as they are defined, and their tables are right."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arena import PLAYER, Session, make
from arena.training import validate_training
from benchmarks.learning import relations
from benchmarks.learning.__main__ import check, job, stages
from benchmarks.learning.experiments import EXPERIMENTS, Arm, Experiment
from benchmarks.learning.recorded import Recorded, digest, numbers
from benchmarks.learning.report import report


def staged(one: Experiment) -> list[list[Arm]]:
    return [[arm for arm, _ in stage] for stage in stages([(arm, 0) for arm in one.arms])]


ARMS = {arm.name: arm for one in EXPERIMENTS.values() for stage in staged(one) for arm in stage}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_training(name: str, tmp_path: Path) -> None:
    trainer = validate_training(job(ARMS[name], 3, tmp_path).training, name).resolve().make_trainer("learner")
    assert trainer.updates > 1
    assert trainer.job.seeds == (3,)


def test_an_arm_is_the_same_in_every_experiment() -> None:
    for one in EXPERIMENTS.values():
        assert one.reference in {arm.name for arm in one.arms}
        for stage in staged(one):
            assert all(ARMS[arm.name] == arm for arm in stage)


def test_what_an_arm_begins_with_comes_before_it() -> None:
    order = [arm.name for stage in staged(EXPERIMENTS["transfer"]) for arm in stage]
    assert order.index("textworld-base") < order.index("grpo") < order.index("hard-from-grpo")


def test_another_definition_is_not_mixed_with_what_was_trained(tmp_path: Path) -> None:
    one = job(ARMS["grpo"], 0, tmp_path)
    check([one])
    one.folder.mkdir(parents=True)
    one.file.write_text("name: other\n")
    with pytest.raises(SystemExit, match="another definition of this arm"):
        check([one])


def test_what_was_recorded_is_known_again_while_its_definition_stands(tmp_path: Path) -> None:
    file = tmp_path / "new" / "runs.jsonl"
    recorded = Recorded(file)
    assert recorded.get(ARMS["grpo"], 1) is None
    for _ in range(2):
        recorded.add(ARMS["grpo"], 1, {"held_out_success": 0.25, "step": 7})
    assert len(file.read_text().splitlines()) == 1
    again = Recorded(file)
    assert again.get(ARMS["grpo"], 1) == {"held_out_success": 0.25, "step": 7}
    assert again.get(ARMS["grpo"], 2) is None
    assert again.get(ARMS["rloo"], 1) is None
    other = replace(ARMS["grpo"], base=replace(ARMS["textworld-base"], episodes=1))
    assert again.get(other, 1) is None
    assert len({digest(arm) for arm in ARMS.values()}) == len(ARMS)


def test_numbers_that_are_not_there_are_left_out() -> None:
    rows = [{"step": 1, "held_out_success": 0.5}, {"step": 2, "success": 1.0}]
    found = numbers(rows)
    assert (found["step"], found["held_out_success"], found["success"]) == (2, 0.5, 1.0)
    assert "clipped" not in found


def test_differences_are_paired_by_seed() -> None:
    arms = tuple(Arm(name, "toy", {}, {"turns": 1}, 1) for name in ("one", "two"))
    about = Experiment("e", "Title", "Remark.", "one", arms, {"success": "learning", "first:held_out_success": "first"})

    def rows(*finals: float) -> list[list[dict[str, float]]]:
        before = [{"step": 0, "held_out_success": 0.25}, *({"step": i, "success": i / 20} for i in range(1, 21))]
        return [[*before, {"step": 40, "held_out_success": final}] for final in finals]

    def found(*finals: float) -> list[dict[str, float]]:
        return [numbers(one) for one in rows(*finals)]

    text = report(about, {"one": found(0.1, 0.5, 0.9), "two": found(0.2, 0.6, 1.0)})
    (row,) = [line for line in text.splitlines() if line.startswith("| two |")]
    assert [cell.strip() for cell in row.split("|")[3:7]] == ["+0.100", "0.775", "0.25", "40"]
    assert "| 0.500 [" in text
    assert "two 0.200, 0.600, 1.000" in text


def test_chains_of_relations_can_be_followed_and_no_split_knows_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relations.write(tmp_path / "data")
    relations.write(tmp_path / "again")
    files = {path.name: path.read_bytes() for path in (tmp_path / "data" / relations.NAME).iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "again" / relations.NAME).iterdir()}
    people = {
        split: {name for line in files[f"{split}.jsonl"].splitlines() for name in _people(json.loads(line))}
        for split in ("train", "dev", "test")
    }
    assert not people["train"] & people["test"]
    assert not people["dev"] & (people["train"] | people["test"])
    monkeypatch.setenv("ARENA_SEARCH_DATA", str(tmp_path / "data"))
    options = ARMS["search-base"].env_options
    for task in (make("search/qa-v0", options).taskset("test").task(index) for index in range(30)):
        with contextlib.closing(Session(make("search/qa-v0", options), task, 0)) as session:
            session.open()
            while session.acting:
                session.step(len(session.journal), {PLAYER: session.expert_action(PLAYER)})
            end = session.end()
        assert end.score is not None
        assert end.score.success
        assert end.score.metrics["searches"] == task.data["hops"]


def _people(question: dict[str, Any]) -> list[str]:
    return [*question["support"], *question["answers"]]
