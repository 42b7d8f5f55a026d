"""The set ``sample``: a small repository that comes with Arena, and bugs in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
import yaml

from ._instances import Instance
from ._patch_text import file_patch

__all__ = ["SAMPLE", "sample_files", "sample_instances"]

SAMPLE = "sample"
_FILE = Path(__file__).with_name("data") / "sample.yaml"
_MODULE = "durations.py"


class _Bug(msgspec.Struct, frozen=True):
    """A bug: the text that is right, the one that stands in its place, and the tests that notice."""

    id: str
    split: str
    right: str
    wrong: str
    hidden: list[str]
    fail_to_pass: list[str]
    problem_statement: str


class _Sample(msgspec.Struct, frozen=True):
    """The file."""

    files: dict[str, str]
    instances: list[_Bug]


@cache
def _sample() -> _Sample:
    return msgspec.convert(yaml.safe_load(_FILE.read_text("utf-8")), _Sample)


def sample_files() -> Mapping[str, str]:
    """Return the repository without bugs: text by path."""
    return _sample().files


@cache
def sample_instances(split: str) -> tuple[Instance, ...]:
    """Return the instances of a split."""
    return tuple(_instance(bug) for bug in _sample().instances if bug.split == split)


def _instance(bug: _Bug) -> Instance:
    files = sample_files()
    right = files[_MODULE]
    if right.count(bug.right) != 1:
        raise ValueError(f"{bug.id}: its text occurs {right.count(bug.right)} times")
    return Instance(
        id=bug.id,
        repo="durations",
        base_commit="0" * 40,
        problem_statement=bug.problem_statement,
        patch=file_patch(_MODULE, right.replace(bug.right, bug.wrong), right),
        test_patch="".join(file_patch(path, None, files[path]) for path in bug.hidden),
        fail_to_pass=tuple(bug.fail_to_pass),
        pass_to_pass=tuple(test for path in bug.hidden for test in _TESTS[path] if test not in bug.fail_to_pass),
        version="1",
        is_sample=True,
    )


_REFUSED = ("", "5", "h", "5x", "1h2h", "1m1h")
_TESTS = {
    "tests/test_parse.py": (
        *(f"tests/test_parse.py::test_spans_are_parsed[{case}]" for case in ("5s-5", "1h30m-5400", "2d-172800")),
        *(f"tests/test_parse.py::test_what_is_no_span_is_refused[{case}]" for case in _REFUSED),
    ),
    "tests/test_render.py": tuple(
        f"tests/test_render.py::test_{name}"
        for name in (
            "spans_are_rendered",
            "the_largest_parts_are_kept",
            "negative_spans_have_a_sign",
            "rendered_spans_are_parsed_again",
        )
    ),
    "tests/test_lists.py": tuple(
        f"tests/test_lists.py::test_{name}"
        for name in (
            "spans_are_summed",
            "the_first_of_the_longest_is_returned",
            "there_is_a_longest_only_of_some",
            "overlaps",
        )
    ),
}
"""The tests of each file."""
