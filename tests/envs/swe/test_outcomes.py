"""What the test runner reports, what nobody else can write there, and the verdict."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.envs.swe._outcomes import TestReport, judge, read_report

KEY = bytes(range(32))
OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def signed(*lines: Any, key: bytes = KEY) -> bytes:
    chain, content = b"", b""
    for fields in lines:
        line = json.dumps(fields).encode()
        chain = hmac.new(key, chain + line, hashlib.sha256).hexdigest().encode()
        content += chain + b" " + line + b"\n"
    return content


def part(
    test: str, outcome: str = "passed", when: str = "call", xfail: bool = False, message: str = ""
) -> dict[str, Any]:
    fields = {"nodeid": test, "outcome": outcome, "when": when, "xfail": xfail, "message": message}
    return {"kind": "test", **fields}


END = {"kind": "end", "exit": 0}


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [
        ([part("t", when="setup"), part("t"), part("t", when="teardown")], "passed"),
        ([part("t", when="setup"), part("t", "failed"), part("t", when="teardown")], "failed"),
        ([part("t", "failed", "setup"), part("t", when="teardown")], "error"),
        ([part("t", when="setup"), part("t"), part("t", "failed", "teardown")], "error"),
        ([part("t", "skipped", "setup"), part("t", when="teardown")], "skipped"),
        ([part("t", when="setup"), part("t", "skipped"), part("t", when="teardown")], "skipped"),
        ([part("t", when="setup"), part("t", "skipped", xfail=True)], "xfailed"),
        ([part("t", when="setup"), part("t", xfail=True)], "xpassed"),
        ([part("t", "failed"), part("t")], "failed"),
    ],
)
def test_parts_of_a_test_make_one_outcome(parts: list[dict[str, Any]], outcome: str) -> None:
    report = read_report(signed(*parts, END), KEY)
    assert report.outcomes == {"t": outcome}
    assert report.is_whole


@given(
    lines=st.lists(st.sampled_from([part("a"), part("b", "failed"), END]), max_size=6),
    at=st.integers(0, 6),
    forged=st.binary(max_size=200),
)
def test_nothing_counts_from_the_first_line_that_was_not_signed(
    lines: list[dict[str, Any]], at: int, forged: bytes
) -> None:
    at = min(at, len(lines))
    head, tail = signed(*lines[:at]), signed(*lines)[len(signed(*lines[:at])) :]
    found = read_report(head + forged + b"\n" + tail, KEY)
    assert found.outcomes == read_report(head, KEY).outcomes


@pytest.mark.parametrize("line", [{"kind": "test", "nodeid": 3}, {"kind": "other"}, {}, []])
def test_a_signed_line_that_is_not_the_plugins_makes_all_worthless(line: Any) -> None:
    report = read_report(signed(part("t"), line, END), KEY)
    assert judge(report, ["t"], []).tampered


def test_a_report_signed_with_another_key_says_nothing() -> None:
    assert read_report(signed(part("a"), END, key=b"x" * 32), KEY).is_empty
    assert read_report(b"", KEY).is_empty
    assert read_report(b"\n\n \n", KEY).is_empty


def test_lines_cannot_be_left_out_or_exchanged() -> None:
    one, two, three = signed(part("a", "failed"), part("a"), part("b")).splitlines(keepends=True)
    assert read_report(two + three, KEY).is_empty
    assert read_report(one + three, KEY).outcomes == {"a": "failed"}


@pytest.mark.parametrize("outcome", ["passed", None])
def test_a_planted_test_that_does_not_fail_makes_all_worthless(outcome: str | None) -> None:
    planted = {"kind": "planted", "nodeid": "t::planted"}
    report = read_report(signed(planted, part("t::a"), *([part("t::planted", outcome)] if outcome else []), END), KEY)
    verdict = judge(report, ["t::a"], [])
    assert not verdict.resolved
    assert verdict.passed == 0
    assert ("cannot pass" if outcome else "left out") in verdict.tampered
    honest = read_report(signed(planted, part("t::a"), part("t::planted", "failed"), END), KEY)
    assert judge(honest, ["t::a"], []).resolved
    assert list(honest.outcomes) == ["t::a"]


@given(
    first=st.dictionaries(st.integers(0, 9), st.sampled_from((*OUTCOMES, None)), min_size=1),
    second=st.dictionaries(st.integers(10, 19), st.sampled_from((*OUTCOMES, None))),
)
def test_resolved_is_that_every_test_passes(first: dict[int, Any], second: dict[int, Any]) -> None:
    both = {f"t.py::{number}": outcome for number, outcome in (first | second).items()}
    outcomes = {test: outcome for test, outcome in both.items() if outcome is not None}
    report = TestReport(outcomes=outcomes, is_whole=True)
    assert not judge(replace(report, is_whole=False), list(both), []).resolved
    verdict = judge(report, [f"t.py::{number}" for number in first], [f"t.py::{number}" for number in second])
    passed = {test for test, outcome in both.items() if outcome in ("passed", "xfailed")}
    assert verdict.resolved == (passed == both.keys())
    assert verdict.passed == len(passed) / len(both)
    assert verdict.fail_to_pass == sum(f"t.py::{number}" in passed for number in first) / len(first)
    assert verdict.by_test == {test: test in passed for test in both}


def test_a_name_that_was_cut_stands_for_all_that_it_may_be() -> None:
    report = TestReport(
        outcomes={"t.py::a[x y]": "passed", "t.py::a[x z]": "failed", "t.py::b[x y]": "passed"}, is_whole=True
    )
    verdict = judge(report, ["t.py::a[x"], ["t.py::b[x"])
    assert verdict.by_test == {"t.py::a[x": False, "t.py::b[x": True}
    assert judge(report, ["t.py::a[x y]"], []).resolved


def test_tests_are_named_without_their_file_where_the_data_set_does() -> None:
    report = TestReport(outcomes={"r2e_tests/test_1.py::TestA::test_one": "passed"}, is_whole=True)
    assert judge(report, ["TestA.test_one"], [], dotted=True).resolved
    assert not judge(report, ["TestA.test_one"], []).resolved


def test_no_tests_resolve_nothing() -> None:
    assert not judge(TestReport(), [], []).resolved
    assert not judge(TestReport(), ["t"], []).resolved
