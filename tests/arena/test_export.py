"""Runs as Parquet: what comes back is what was played, token by token. Runs as predictions: the patches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import ConfigError, UsageError
from arena.export import COLUMNS, PredictionCounts, episode_rows, write_parquet, write_predictions
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord, StepRecord, append_episode, read_episodes
from arena.types import Limits, Score, SeatStep, Task, TimeStep
from tests.cli.test_cli import arena

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4)


@st.composite
def turns(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(tokens)
    numbers = st.lists(st.floats(-20, 0, width=32), min_size=len(ids), max_size=len(ids))
    return {
        "new_context": draw(st.booleans()),
        "given_ids": draw(tokens),
        "completion_ids": ids,
        "completion_logprobs": draw(numbers),
        "completion_entropies": draw(numbers),
        "text": "said",
    }


def turn(**changes: Any) -> dict[str, Any]:
    plain = {
        "new_context": True,
        "given_ids": [1, 2],
        "completion_ids": [3],
        "completion_logprobs": [-1.0],
        "completion_entropies": [0.5],
    }
    return plain | changes


def episode(told: list[tuple[list[dict[str, Any]], float]], name: str = "one/0/0") -> Episode:
    """Return an episode of one seat whose steps have these records and rewards."""
    record = EpisodeRecord(
        env="text/guess-v0", task=Task("range-8", "train"), seed=2**60, episode=name, limits=Limits(),
        seats={"player": AgentRef("learning/policy")},
    )  # fmt: skip
    made = Episode(record, [StepRecord(0, TimeStep({"player": SeatStep("hello")}, ("player",)), "")])
    for index, (turns, reward) in enumerate(told, 1):
        step = TimeStep({"player": SeatStep("", reward)}, ("player",))
        decisions = {"player": {"token_turns": turns}} if turns else {}
        made.steps.append(StepRecord(index, step, "", actions={"player": "1"}, decisions=decisions))
    made.end = EndRecord(
        "terminated",
        len(told),
        endings={"player": "guessed"},
        returns={"player": sum(reward for _, reward in told)},
        score=Score(1.0, True),
    )
    return made


def patched(name: str, prediction: Any = None) -> Episode:
    """Return an episode whose last step predicts this."""
    made = episode([([], 0.0), ([], 1.0)], name)
    info = {} if prediction is None else {"prediction": prediction}
    step = TimeStep({"player": SeatStep("Handed in.", 1.0, terminated=True, ending="submitted", info=info)}, ())
    made.steps[-1] = StepRecord(2, step, "", actions={"player": "submit"})
    return made


def patch(instance: str, text: str = "diff") -> dict[str, str]:
    return {"instance_id": instance, "model_patch": text}


@given(st.lists(st.tuples(st.lists(turns(), min_size=1, max_size=3), st.floats(-1, 1)), min_size=1, max_size=5))
def test_rows_hold_every_token_and_every_reward(told: list[tuple[list[dict[str, Any]], float]]) -> None:
    told[0][0][0]["new_context"] = True
    given = [
        (one, last) for turns, _ in told for last, one in zip([False] * (len(turns) - 1) + [True], turns, strict=True)
    ]
    rows = list(episode_rows(episode(told)))
    assert len(rows) == sum(one["new_context"] for one, _ in given)
    left: Iterator[dict[str, Any]] = iter([one for one, _ in given])
    for row in rows:
        ids, prompt = row["completion_ids"], len(row["prompt_ids"])
        sizes = {len(row[name]) for name in ("completion_ids", "completion_mask", "completion_logprobs")}
        assert sizes == {len(ids)}
        for number, start in enumerate(row["turn_starts"]):
            one = next(left)
            end = start + len(one["completion_ids"])
            assert ids[start:end] == one["completion_ids"]
            assert row["completion_mask"][start:end] == [1] * (end - start)
            assert row["completion_logprobs"][start:end] == one["completion_logprobs"]
            assert row["completion_entropies"][start:end] == one["completion_entropies"]
            before = (row["prompt_ids"] + ids)[prompt + start - len(one["given_ids"]) : prompt + start]
            assert before == one["given_ids"]
            assert one["new_context"] == (number == 0)
    assert next(left, None) is None
    paid = [reward for row in rows for reward in row["rewards"]]
    expected = iter([reward for _, reward in told])
    assert paid == [next(expected) if last else 0.0 for _, last in given]


def test_a_file_gives_back_its_rows(tmp_path: Path) -> None:
    episodes = [episode([([turn()], 0.25), ([turn(new_context=False)], 1.0)], f"one/0/{i}") for i in range(700)]
    file = tmp_path / "out.parquet"
    assert write_parquet(iter(episodes), file) == 700
    written = parquet.ParquetFile(file)
    assert written.num_row_groups > 1
    assert {field.name: str(field.type).replace("element: ", "") for field in written.schema_arrow} == {
        name: kind.replace("int8", "int8") for name, kind in COLUMNS.items()
    }
    rows = written.read().to_pylist()
    expected = [row for one in episodes for row in episode_rows(one)]
    assert rows == [dict.fromkeys(COLUMNS) | row for row in expected]
    assert rows[0]["group"] == f"train/range-8/{2**60}"
    assert rows[0]["rewards"] == [0.25, 1.0]
    assert list(tmp_path.iterdir()) == [file]


def test_only_one_group_of_rows_is_held(tmp_path: Path) -> None:
    """Episodes are asked for as they are written: the file grows while most of them do not exist yet."""
    file = tmp_path / "out.parquet"
    grown: list[int] = []

    def made() -> Iterator[Episode]:
        for i in range(2000):
            grown.append((tmp_path / "out.parquet.part").stat().st_size)
            yield episode([([turn()], 0.0)], f"one/0/{i}")

    write_parquet(made(), file)
    assert grown[1000] > grown[0]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([turn(new_context=False)], "the first turn begins no context"),
        ([turn(completion_logprobs=[])], "a turn has"),
        ([turn(completion_ids=[], completion_logprobs=[], completion_entropies=[])], "a turn has"),
        ([turn(given_ids=[-1])], "ids of tokens are from 0"),
        ([turn(given_ids=["x"])], "Expected `int`"),
        ([{"new_context": True}], "missing required field"),
        ([7], "Expected `object`"),
    ],
)
def test_wrong_records_are_refused(told: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="episode one/0/0, step 1: the token_turns of player are wrong") as error:
        write_parquet([episode([(told, 0.0)])], tmp_path / "out.parquet")
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_every_run_can_be_exported(tmp_path: Path) -> None:
    """Several seats, no tokens: a row for each seat, and its rewards add up to its return."""
    run, file = tmp_path / "run", tmp_path / "out.parquet"
    scenario = tmp_path / "play.yaml"
    scenario.write_text(
        json.dumps(
            {
                "name": "play",
                "env": {"id": "marl/aloha-v0"},
                "agents": {"random": "random"},
                "episodes": 2,
                "seeds": [0],
            }
        )
    )
    assert arena("run", scenario, "--out", run, cwd=tmp_path).returncode == 0
    assert arena("export", run, "--to", file, cwd=tmp_path).returncode == 0
    rows = parquet.read_table(file).to_pylist()
    episodes = list(read_episodes(run / "traces.jsonl"))
    assert [(row["episode"], row["seat"]) for row in rows] == [
        (one.record.episode, seat) for one in episodes for seat in one.record.seats
    ]
    for row in rows:
        assert row["return"] == pytest.approx(sum(row["rewards"]))
        assert len(row["rewards"]) == row["turns"]
        assert row["completion_ids"] is None
        assert row["agent"] == "random"


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    existing = tmp_path / "there.parquet"
    existing.touch()
    append_episode(trace := tmp_path / "trace.jsonl", episode([([], 0.0)]))
    for arguments, said in [
        ((tmp_path / "none", "--to", tmp_path / "out.parquet"), "cannot read the trace"),
        ((tmp_path, "--to", tmp_path / "out.csv"), "ends with .parquet (a table) or .jsonl (predictions)"),
        ((tmp_path, "--to", existing), "exists already"),
        ((trace, "--to", tmp_path / "out.jsonl"), "no episode ends with a prediction"),
        ((trace, "--to", tmp_path / "out.jsonl", "--agents", "two"), "no episode of 'two' ends with a prediction"),
        ((trace, "--to", tmp_path / "out.parquet", "--agents", "two"), "no episode of 'two' is in"),
    ]:
        done = arena("export", *arguments, cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"there.parquet", "trace.jsonl"}


def test_predictions_are_the_first_of_each_instance_in_plain_ascii(tmp_path: Path) -> None:
    torn = patched("one/0/5", patch("i-4"))
    torn.end = None
    episodes = [
        patched("one/0/0", patch("i-1", "-\u2028\n+\u00e9\n")),
        patched("one/0/1"),
        patched("one/0/2", patch("i-2", "")),
        patched("one/1/0", patch("i-1", "later")),
        patched("one/1/1", patch("i-3")),
        torn,
    ]
    file = tmp_path / "out.jsonl"
    assert write_predictions(iter(episodes), file) == PredictionCounts(written=3, repeated=1, without=1)
    lines = file.read_text("ascii").splitlines()
    model = {"model_name_or_path": "one"}
    assert [json.loads(line) for line in lines] == [
        patch("i-1", "-\u2028\n+\u00e9\n") | model, patch("i-2", "") | model, patch("i-3") | model,
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_holds_one_models_predictions(tmp_path: Path) -> None:
    """SWE-bench would take the last line of each instance, whoever's it is."""
    episodes = [
        patched("one/0/0", patch("i-1", "1")), patched("two/0/0", patch("i-1", "2")), patched("two/0/1"),
        patched("three/0/0"),
    ]  # fmt: skip
    file = tmp_path / "out.jsonl"
    with pytest.raises(UsageError, match=r"these have predictions: one, two; .* say which by --agents"):
        write_predictions(episodes, file)
    assert not list(tmp_path.iterdir())
    assert write_predictions(episodes, file, "two") == PredictionCounts(written=1, repeated=0, without=1)
    assert json.loads(file.read_text()) == patch("i-1", "2") | {"model_name_or_path": "two"}


def test_who_played_without_a_scenario_is_called_by_its_id(tmp_path: Path) -> None:
    write_predictions([patched("", patch("i-1"))], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["model_name_or_path"] == "learning/policy"


@pytest.mark.parametrize("wrong", ["diff", {"instance_id": "i-1"}, {"instance_id": "i-1", "model_patch": None}])
def test_wrong_predictions_are_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="episode one/0/0: its prediction is wrong"):
        write_predictions([patched("one/0/0", wrong)], tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_patches_of_one_agent(tmp_path: Path) -> None:
    for one in (patched("a/0/0", patch("i-1")), patched("a/0/1", patch("i-1")), patched("b/0/0")):
        append_episode(tmp_path / "traces.jsonl", one)
    done = arena("export", tmp_path, "--to", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 predictions in out.jsonl; 1 left out, of instances that had one\n"
    done = arena("export", tmp_path, "--to", "b.parquet", "--agents", "b", cwd=tmp_path)
    assert done.stdout == "1 rows in b.parquet\n"
    assert [row["episode"] for row in parquet.read_table(tmp_path / "b.parquet").to_pylist()] == ["b/0/0"]
