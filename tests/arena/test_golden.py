"""The roll-call: golden traces exist for every deterministic environment, show every ending, and are reproduced."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena import ConfigError, InvalidActionError, Limits, UsageError, make
from arena.registry import environments
from arena.testing import golden
from arena.trace import read_episodes

ROOT = Path(__file__).parents[1] / "golden"
FILES = sorted(ROOT.glob("*/*.jsonl"))
DETERMINISTIC = [cls.spec.id for cls in environments if cls.spec.deterministic]
ENV = "text/guess-v0"


def test_golden_files_are_there() -> None:
    assert len(FILES) >= 2 * len(DETERMINISTIC) > 0


def test_golden_directories_belong_to_environments() -> None:
    known = {golden.directory(ROOT, env_id).name for env_id in DETERMINISTIC}
    assert {path.name for path in ROOT.iterdir() if path.is_dir()} <= known


@pytest.mark.parametrize("env_id", DETERMINISTIC)
def test_golden_traces_show_every_ending(env_id: str) -> None:
    spec = environments.get(env_id).spec
    expected = set(spec.endings) | ({"steps_limit"} if spec.max_steps is not None else set())
    shown = golden.endings_shown(golden.directory(ROOT, env_id).glob("*.jsonl"))
    assert expected - shown == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_trace_is_reproduced(path: Path) -> None:
    difference = golden.check_golden(path)
    assert difference is None, difference
    episodes = list(read_episodes(path))
    assert all(golden.directory(ROOT, episode.record.env) == path.parent for episode in episodes)
    assert b"".join(golden.rerecord(episode).lines() for episode in episodes) == path.read_bytes()


# -- the functions ----------------------------------------------------------------------------------------------------


def test_recording_again_gives_the_same_bytes(tmp_path: Path) -> None:
    task = make(ENV).taskset("train").task(1)
    one, other = (golden.record(ENV, None, task, 5, golden.at_random(1)) for _ in range(2))
    assert one.lines() == other.lines()
    assert one.lines() != golden.record(ENV, None, task, 6, golden.at_random(1)).lines()
    golden.write(tmp_path / "new" / "case.jsonl", one)
    assert golden.check_golden(tmp_path / "new" / "case.jsonl") is None
    assert golden.update([tmp_path / "new" / "case.jsonl"]) == []


def test_record_says_when_the_actions_run_out() -> None:
    task = make(ENV).taskset("train").task(3)
    with pytest.raises(UsageError, match="ran out at step 2"):
        golden.record(ENV, {"max_guesses": 3}, task, 1, ["1"])
    with pytest.raises(InvalidActionError):
        golden.record(ENV, None, task, 1, ["zero"])


def test_changed_environment_is_found_and_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.jsonl"
    golden.write(path, golden.record(ENV, {"max_guesses": 2}, make(ENV).taskset("train").task(3), 1, ["1", "1"]))
    cls = environments.get(ENV)
    monkeypatch.setattr(cls, "_left", lambda self: "few guesses left")
    difference = golden.check_golden(path)
    assert difference is not None
    assert (difference.line, difference.step) == (2, 0)
    assert "few guesses" in str(difference)
    assert golden.update([path]) == [path]
    assert golden.check_golden(path) is None


def test_rerecord_keeps_limits_between_steps(tmp_path: Path) -> None:
    task = make(ENV).taskset("train").task(3)
    limited = golden.record(ENV, None, task, 1, golden.at_random(2), limits=Limits(steps=2))
    assert limited.end is not None
    assert limited.end.outcome == "truncated"
    assert golden.rerecord(limited).lines() == limited.lines()


def test_golden_with_durations_or_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "case.jsonl"
    lines = FILES[0].read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ConfigError, match="no end"):
        golden.check_golden(path)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b'"wall_s":0.0', b'"wall_s":1.5'))
    with pytest.raises(ConfigError, match="no durations"):
        golden.check_golden(path)


def test_missing_golden_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        golden.check_golden(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ConfigError, match="empty"):
        golden.check_golden(tmp_path / "empty.jsonl")
