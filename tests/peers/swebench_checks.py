"""SWE-bench's own grading beside Arena's: the same tests, the same verdict, but for what is named here.

Every difference is stated exactly, so that a change on either side is seen.
"""

import json
import os
import re
import subprocess
import sys

import pytest
from swebench.harness.grading import get_eval_report, get_resolution_status
from swebench.harness.utils import get_predictions_from_file, make_test_spec

with open(os.environ["PEERS_SWEBENCH"]) as file:
    CASES = json.load(file)
V1, V2 = "parse_log_pytest", "parse_log_pytest_v2"
SCRIPT = """#!/bin/bash
set -uxo pipefail
: '>>>>> Start Test Output'
{python} -m pytest -rA -p no:cacheprovider --rootdir . --continue-on-collection-errors {options} {files}
: '>>>>> End Test Output'
"""
DIFFERING = {
    V1: {},
    V2: {"xfailed_with_reason": "arena", "tear_down_error": "swebench"},
}
"""By parser and outcome: who alone counts such a test as passed."""
ALL, PRINTS = "tests/test_all.py::", "tests/test_prints.py::"
WRITTEN = ("t.py::test_1", "t.py::test_2")
BOTH = (V1, V2)
LAXER, STRICTER, SAME = ("NO", "FULL"), ("FULL", "NO"), None
"""What SWE-bench is: the status in Arena, and in SWE-bench."""


def named(name, parsers, status, *tests):
    """Return a difference in a case: of the status, and of tests that only the laxer of the two counts as passed."""
    alone = "swebench" if status == LAXER else "arena"
    return {(name, parser): ({"status": status} if status else {}) | dict.fromkeys(tests, alone) for parser in parsers}


DIFFERENCES = {
    # No test at all has to pass that failed: Arena's reader of instances refuses such rows.
    **named("nothing had failed", BOTH, LAXER),
    # The message stays in the name, so that only the line PASSED, which comes before, is of this test.
    **named("an error after", [V2], LAXER, f"{ALL}test_tear_down"),
    # The reason stays in the name.
    **named("an expected failure with a reason", [V2], STRICTER, f"{ALL}test_xfails_with_reason"),
    # The log does not name skipped tests.
    **named("names cut at a space, and one is skipped", BOTH, LAXER, f"{ALL}test_space_skips[a"),
    # Names are cut, and what is looked for is not.
    **named("whole names with spaces", [V1], STRICTER, f"{ALL}test_space[a b]", f"{ALL}test_space[a c]"),
    # These parsers change names, and so they stand in the lists of some repositories.
    **named("a path cut to its last part", ["parse_log_pytest_options"], LAXER, f"{ALL}test_path[/words]"),
    **named("a name that was replaced", ["parse_log_matplotlib"], LAXER, f"{ALL}test_button[1]"),
    # The part that failed has a line SUBFAILED, and the whole one that says PASSED.
    **named("parts of a test", BOTH, LAXER, f"{ALL}TestOld::test_parts"),
    # Where a log names a skipped test, it counts as still passing.
    **named("named, one is skipped that passed", [V1], LAXER, f"{ALL}test_skips"),
    # What tests print is read as well as what pytest prints. Arena reads neither.
    **named("a printed success: the test that was skipped", BOTH, LAXER, f"{PRINTS}test_skips"),
    **named("a printed end: the test that was skipped", BOTH, LAXER, f"{PRINTS}test_skips"),
    **named("a printed end: the test that failed", BOTH, LAXER, f"{PRINTS}test_fails"),
    **named("a printed time-out: the test that was skipped", BOTH, SAME, f"{PRINTS}test_prints"),
    **named("a printed time-out: the test that failed", BOTH, SAME, f"{PRINTS}test_prints"),
    **named("a printed time-out: neither", BOTH, STRICTER, f"{PRINTS}test_prints"),
    # A run that does not come to its end has no results. Arena resolves nothing, and tells what was reported before.
    **named("it stops with 0 after them", BOTH, SAME, f"{ALL}test_passes"),
    **named("it stops with 0 in one of them", BOTH, SAME, f"{ALL}test_passes"),
    **named("it stops with 1 after them", BOTH, SAME, f"{ALL}test_passes"),
    **named("it stops with 1 in one of them", BOTH, SAME, f"{ALL}test_passes"),
    **named("the time was up after them", BOTH, SAME, *WRITTEN),
    **named("a log without its end", BOTH, SAME, *WRITTEN),
}
"""By case and parser, and why."""


def theirs(tests, log, parser):
    """Return what SWE-bench makes of a log."""
    row = {
        "instance_id": "i-1", "image": "", "repo": "o/r", "version": "1", "log_parser": parser,
        "eval_type": "pass_and_fail", "eval_script": "", "FAIL_TO_PASS": json.dumps(tests["fail_to_pass"]),
        "PASS_TO_PASS": json.dumps(tests["pass_to_pass"]),
    }  # fmt: skip
    prediction = {"instance_id": "i-1", "model_name_or_path": "m", "model_patch": "diff"}
    report = get_eval_report(make_test_spec(row), prediction, str(log), include_tests_status=True)["i-1"]
    by_list = report.get("tests_status")
    status = get_resolution_status(by_list).removeprefix("RESOLVED_") if by_list else "NO"
    assert report["resolved"] == (status == "FULL")
    passed = sorted({test for one in by_list.values() for test in one["success"]}) if by_list else []
    return {"status": status, "passed": passed}


def difference(arena, swebench):
    """Return what the two disagree about."""
    found = {}
    if arena["status"] != swebench["status"]:
        found["status"] = (arena["status"], swebench["status"])
    found |= {test: "arena" for test in arena["passed"] if test not in swebench["passed"]}
    return found | {test: "swebench" for test in swebench["passed"] if test not in arena["passed"]}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Run every repository's tests by a script such as SWE-bench's; return the logs by the repository's name."""
    found = {}
    for repository in CASES["repositories"]:
        folder = tmp_path_factory.mktemp("testbed")
        for path, text in repository["files"].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        row = {
            "instance_id": "i-1", "image": "", "repo": "o/r", "version": "1", "log_parser": V1, "eval_type": "",
            "FAIL_TO_PASS": [], "PASS_TO_PASS": [],
            "eval_script": SCRIPT.format(
                python=sys.executable, options=repository.get("options", ""), files=" ".join(repository["files"])
            ),
        }  # fmt: skip
        log = folder / "test_output.txt"
        with log.open("wb") as out:
            subprocess.run(
                ["bash", "-c", make_test_spec(row).eval_script],
                cwd=folder,
                stdout=out,
                stderr=out,
                timeout=60,
                check=False,
            )
        found[repository["name"]] = log
    return found


REAL = [
    pytest.param(repository["name"], tests, parser, id=f"{tests['name']}-{parser}")
    for repository in CASES["repositories"]
    for tests in repository["lists"]
    for parser in tests["parsers"]
]


@pytest.mark.parametrize(("repository", "tests", "parser"), REAL)
def test_real_tests_are_judged_alike_but_for_named_differences(logs, repository, tests, parser):
    found = difference(tests["arena"], theirs(tests, logs[repository], parser))
    assert found == DIFFERENCES.get((tests["name"], parser), {})


@pytest.mark.parametrize("parser", [V1, V2])
@pytest.mark.parametrize("case", CASES["written"], ids=lambda case: case["name"])
def test_runs_that_went_wrong_are_judged_alike_but_for_named_differences(case, parser, tmp_path):
    log = tmp_path / "test_output.txt"
    log.write_text(case["log"])
    found = difference(case["arena"], theirs(case, log, parser))
    assert found == DIFFERENCES.get((case["name"], parser), {})


def test_every_named_difference_is_of_a_case():
    """And no two cases have one name."""
    real = [(tests["name"], parser) for _, tests, parser in (case.values for case in REAL)]
    cases = real + [(case["name"], parser) for case in CASES["written"] for parser in BOTH]
    assert len(set(cases)) == len(cases)
    assert set(DIFFERENCES) <= set(cases)


@pytest.mark.parametrize("parser", [V1, V2])
def test_random_outcomes_are_judged_alike_but_for_named_kinds(parser, tmp_path):
    log, statuses = tmp_path / "test_output.txt", set()
    for case in CASES["random"]:
        log.write_text(case["log"])
        swebench = theirs(case, log, parser)
        found = difference(case["arena"], swebench)
        if len(found) == ("status" in found):
            assert not found, case
            statuses.add(swebench["status"])
        found.pop("status", None)
        kinds = DIFFERING[parser]
        assert found == {test: kinds[kind] for test, kind in case["kinds"].items() if kind in kinds}, case
    assert statuses == {"NO", "PARTIAL", "FULL"}


def test_written_logs_look_like_real_ones(logs):
    def shape(line):
        return re.sub(" - .*", " - ", line)

    log = logs["outcomes"].read_text()
    tests = {line.split(" ", 1)[1].partition(" - ")[0] for line in CASES["summary"]}
    real = [line for line in log.splitlines() if re.match("(PASSED|XFAIL|XPASS|ERROR|FAILED) ", line)]
    real = [line for line in real if line.split(" ", 1)[1].partition(" - ")[0] in tests]
    assert [shape(line) for line in real] == [shape(line) for line in CASES["summary"]]
    assert "\nSKIPPED [1] tests/test_all.py:" in log


def test_their_reader_reads_exported_predictions():
    read = get_predictions_from_file(CASES["predictions"]["file"], "", "test")
    assert read == CASES["predictions"]["lines"]
