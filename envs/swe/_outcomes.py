"""What tests came out as, and what follows: the report of the test runner, read, and the verdict on an instance.

Resolved is what SWE-bench calls so: every test that failed passes, and every test that passed still does. An expected
failure counts as passed there, and here; a test that was skipped, or did not run, has not passed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Outcome", "TestReport", "Verdict", "judge", "read_report"]

Outcome: TypeAlias = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]
_PASSED: frozenset[Outcome] = frozenset(("passed", "xfailed", "xpassed"))


@dataclass
class TestReport:
    """What the test runner said.

    Attributes:
        outcomes: By test.
        messages: Why a test failed, by test.
        uncollected: Files from which no tests could be read, and why.
        is_whole: Whether the runner came to its end.
        tampered: Why it cannot be believed; empty if it can.
    """

    __test__ = False  # pytest takes it for tests otherwise

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    uncollected: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False
    tampered: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether not a single test, or file of tests, is named."""
        return not self.outcomes and not self.uncollected


@dataclass(frozen=True)
class Verdict:
    """What came of a patch.

    Attributes:
        resolved: Whether all tests that decide pass.
        fail_to_pass: Share of those that failed which pass now, 0 to 1.
        pass_to_pass: Share of those that passed which still do; 1 if there are none.
        passed: Share of all of them.
        tampered: Why the report cannot be believed, and all is 0; empty if it can.
        by_test: Whether each of them passed.
    """

    resolved: bool
    fail_to_pass: float
    pass_to_pass: float
    passed: float
    tampered: str = ""
    by_test: Mapping[str, bool] = field(default_factory=dict)


def read_report(content: bytes, key: bytes) -> TestReport:
    """Return what the lines of a report say, up to the first one that was not signed with the key."""
    found, chain, planted = TestReport(), b"", list[str]()
    for signed in content.split(b"\n"):
        mark, _, line = signed.partition(b" ")
        chain = hmac.new(key, chain + line, hashlib.sha256).hexdigest().encode()
        if not hmac.compare_digest(mark, chain):
            break
        fields: dict[str, Any] = json.loads(line)
        match fields["kind"]:
            case "planted":
                planted.append(str(fields["nodeid"]))
            case "uncollected":
                found.uncollected[str(fields["nodeid"])] = str(fields["message"])
            case "test":
                _add(found, fields)
            case "patched":
                found.tampered = "the test runner's code was exchanged"
            case "end":
                found.is_whole = True
    for test in planted:
        outcome = found.outcomes.pop(test, None)
        found.messages.pop(test, None)
        if outcome is not None and outcome not in ("failed", "error"):
            found.tampered = f"a test that cannot pass is said to have {outcome}"
    return found


def _add(found: TestReport, fields: Mapping[str, Any]) -> None:
    """Add how one part of a test, of which there are three, ended."""
    test, when, outcome = str(fields["nodeid"]), fields["when"], fields["outcome"]
    now: Outcome
    if outcome == "failed":
        now = "failed" if when == "call" else "error"
    elif outcome == "skipped":
        now = "xfailed" if fields["xfail"] else "skipped"
    elif when != "call":
        return
    else:
        now = "xpassed" if fields["xfail"] else "passed"
    if found.outcomes.get(test) not in ("failed", "error"):  # what failed stays so, also where it is run again
        found.outcomes[test] = now
    if fields["message"]:
        found.messages.setdefault(test, str(fields["message"]))


def judge(
    report: TestReport, fail_to_pass: Iterable[str], pass_to_pass: Iterable[str], *, dotted: bool = False
) -> Verdict:
    """Return the verdict on a report.

    Args:
        report: What the test runner said.
        fail_to_pass: Tests that failed before. SWE-bench's parser of logs cuts names at their first space: a name that
            was cut stands for all tests that it may be.
        pass_to_pass: Tests that passed before.
        dotted: Whether tests are named without their file.
    """
    first, second = tuple(fail_to_pass), tuple(pass_to_pass)
    if report.tampered:
        return Verdict(False, 0.0, 0.0, 0.0, report.tampered)
    known: dict[str, list[Outcome]] = {}
    for test, outcome in report.outcomes.items():
        name = ".".join(test.split("::")[1:]) if dotted else test
        for alias in dict.fromkeys((name, name.partition(" ")[0])):
            known.setdefault(alias, []).append(outcome)
    by_test = {test: bool(known.get(test)) and all(o in _PASSED for o in known[test]) for test in (*first, *second)}
    return Verdict(
        resolved=bool(first) and all(by_test.values()),
        fail_to_pass=_share(by_test, first),
        pass_to_pass=_share(by_test, second),
        passed=_share(by_test, (*first, *second)),
        by_test=by_test,
    )


def _share(by_test: Mapping[str, bool], tests: tuple[str, ...]) -> float:
    return sum(by_test[test] for test in tests) / len(tests) if tests else 1.0
