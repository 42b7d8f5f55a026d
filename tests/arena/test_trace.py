"""Traces survive a killed writer at any byte, and what is wrong with a file is said in one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arena import ConfigError, Limits, make
from arena.testing import golden
from arena.trace import Episode, append_episode, cut_torn_episode, read_episodes

ENV = "text/guess-v0"


def episode(seed: int, options: dict[str, int] | None = None) -> Episode:
    task = make(ENV).taskset("train").task(0)
    return golden.record(ENV, options, task, seed, golden.at_random(seed), limits=Limits(steps=3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def parts(one: Episode) -> tuple[Any, ...]:
    return one.record, one.steps, one.end


def ends(path: Path) -> list[bool]:
    return [found.end is not None for found in read_episodes(path)]


def test_what_is_appended_is_read(path: Path) -> None:
    written = [episode(seed) for seed in range(3)]
    for one in written:
        append_episode(path, one)
    read = list(read_episodes(path))
    assert [parts(one) for one in read] == [parts(one) for one in written]
    lines = path.read_bytes().splitlines()
    for one in read:
        assert b'"type":"episode"' in lines[one.line - 1]
        for step in one.steps:
            assert f'"index":{step.index}'.encode() in lines[one.line + step.index]


def test_torn_tail_at_any_byte_loses_only_the_last_episode(path: Path) -> None:
    whole, last = episode(1).lines() + episode(2).lines(), episode(3).lines()
    for cut in range(len(last) + 1):
        path.write_bytes(whole + last[:cut])
        found = ends(path)
        assert found[:2] == [True, True], cut
        assert found[2:] in ([True],) if cut == len(last) else found[2:] in ([], [False]), cut


def test_append_after_a_torn_tail_at_any_byte(path: Path) -> None:
    first, last, new = episode(1), episode(3).lines(), episode(4)
    for cut in range(0, len(last), 7):
        path.write_bytes(first.lines() + last[:cut])
        cut_torn_episode(path)
        append_episode(path, new)
        found = list(read_episodes(path))
        assert [parts(one) for one in found] == [parts(first), parts(new)], cut


def test_append_after_a_long_torn_line(path: Path) -> None:
    path.write_bytes(episode(1).lines() + b'{"type":"episode","env":"' + b"x" * 200_000)
    cut_torn_episode(path)
    append_episode(path, episode(2))
    assert ends(path) == [True, True]


def test_file_that_holds_only_a_torn_line_is_started_anew(path: Path) -> None:
    path.write_bytes(episode(1).lines()[:10])
    cut_torn_episode(path)
    append_episode(path, episode(2))
    assert ends(path) == [True]


@pytest.mark.parametrize("text", [b"precious", b"one\ntwo", b"{}", b'{"type":"step"', b"\n"])
def test_a_file_that_is_no_trace_is_never_cut(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(ConfigError):
        cut_torn_episode(path)
    assert path.read_bytes() == text


def _lines() -> list[bytes]:
    return episode(1).lines().splitlines(keepends=True)


MALFORMED: dict[str, tuple[int, Callable[[list[bytes]], list[bytes]]]] = {
    "no JSON": (2, lambda lines: [lines[0], b"nonsense\n", *lines[2:]]),
    "blank": (2, lambda lines: [lines[0], b"\n", *lines[1:]]),
    "no object": (1, lambda lines: [b"[]\n", *lines]),
    "unknown type": (1, lambda lines: [b'{"type":"epsiode"}\n', *lines]),
    "unknown field": (2, lambda lines: [lines[0], lines[1].replace(b'"index"', b'"idx":1,"index"'), *lines[2:]]),
    "missing field": (1, lambda lines: [lines[0].replace(b'"env"', b'"episode"'), *lines[1:]]),
    "wrong value": (2, lambda lines: [lines[0], lines[1].replace(b'"index":0', b'"index":"0"'), *lines[2:]]),
    "step left out": (3, lambda lines: [*lines[:2], *lines[3:]]),
    "step twice": (3, lambda lines: [*lines[:2], *lines[1:]]),
    "step first": (1, lambda lines: lines[1:]),
    "end first": (1, lambda lines: lines[-1:]),
    "two ends": (-1, lambda lines: [*lines, lines[-1]]),
    "not UTF-8": (2, lambda lines: [lines[0], lines[1].replace(b"player", b"pl\xffyer"), *lines[2:]]),
    "lone surrogate": (2, lambda lines: [lines[0], lines[1].replace(b"player", rb"\ud800"), *lines[2:]]),
    "NUL": (2, lambda lines: [lines[0], b"\0" * 40 + b"\n", *lines[2:]]),
    "deep": (2, lambda lines: [lines[0], b"[" * 100_000 + b"\n", *lines[2:]]),
    "limit of zero": (1, lambda lines: [lines[0].replace(b'"steps":3', b'"steps":0'), *lines[1:]]),
    "version": (1, lambda lines: [lines[0].replace(b'"seed"', b'"trace_version":99,"seed"'), *lines[1:]]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_line_is_named(path: Path, name: str) -> None:
    number, spoil = MALFORMED[name]
    lines = spoil(_lines())
    path.write_bytes(b"".join(lines))
    with pytest.raises(ConfigError) as caught:
        list(read_episodes(path))
    number = len(lines) if number == -1 else number
    assert str(caught.value).startswith(f"{path}:{number}: ")
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match=str(path)):
        list(read_episodes(path))
    with pytest.raises(ConfigError, match=str(path.parent)):
        list(read_episodes(path.parent))


def test_empty_file_is_refused(path: Path) -> None:
    path.touch()
    with pytest.raises(ConfigError, match="is empty"):
        list(read_episodes(path))


def test_episodes_before_a_malformed_line_are_read(path: Path) -> None:
    path.write_bytes(episode(1).lines() + b"nonsense\n")
    reader = read_episodes(path)
    assert parts(next(reader)) == parts(episode(1))
    with pytest.raises(ConfigError):
        next(reader)
