"""What tests came out as, and what follows: the report of the test runner, read, and the verdict on an instance.

Resolved is what SWE-bench calls so: every test that failed passes, and every test that passed still does. An expected
failure counts as passed there, and here; a test that was skipped, did not run, or passed where it was expected to fail,
has not passed. A runner that does not come to its end resolves nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

__all__ = ["Outcome", "TestReport", "Verdict", "judge", "read_report"]

Outcome: TypeAlias = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]
_PASSED: frozenset[Outcome] = frozenset(("passed", "xfailed"))


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


class _Line(msgspec.Struct):
    """A line of the report, of any kind."""

    kind: Literal["planted", "uncollected", "test", "patched", "end"]
    nodeid: str = ""
    when: Literal["setup", "call", "teardown"] = "call"
    outcome: Literal["passed", "failed", "skipped"] = "failed"
    xfail: bool = False
    message: str = ""


_decode = msgspec.json.Decoder(_Line).decode


def read_report(content: bytes, key: bytes) -> TestReport:
    """Return what the lines of a report say, up to the first one that was not signed with the key."""
    found, chain, planted = TestReport(), b"", list[str]()
    for signed in content.split(b"\n"):
        mark, _, line = signed.partition(b" ")
        chain = hmac.new(key, chain + line, hashlib.sha256).hexdigest().encode()
        if not hmac.compare_digest(mark, chain):
            break
        try:
            read = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # signed, but not by our plugin's own doing
            found.tampered = "somebody else has written to the report"
            continue
        match read.kind:
            case "planted":
                planted.append(read.nodeid)
            case "uncollected":
                found.uncollected[read.nodeid] = read.message
            case "test":
                _add(found, read)
            case "patched":
                found.tampered = "the tests, or what runs them, were exchanged"
            case "end":
                found.is_whole = True
    for test in planted:
        outcome = found.outcomes.pop(test, None)
        found.messages.pop(test, None)
        if outcome in ("passed", "xpassed"):
            found.tampered = f"a test that cannot pass is said to have {outcome}"
        elif outcome is None and found.is_whole:
            found.tampered = "a test was left out"
    return found


def _add(found: TestReport, read: _Line) -> None:
    """Add how one part of a test, of which there are three, ended."""
    now: Outcome
    if read.outcome == "failed":
        now = "failed" if read.when == "call" else "error"
    elif read.outcome == "skipped":
        now = "xfailed" if read.xfail else "skipped"
    elif read.when != "call":
        return
    else:
        now = "xpassed" if read.xfail else "passed"
    if found.outcomes.get(read.nodeid) not in ("failed", "error"):  # what failed stays so, also where it is run again
        found.outcomes[read.nodeid] = now
    if read.message:
        found.messages.setdefault(read.nodeid, read.message)


def judge(
    report: TestReport, fail_to_pass: Iterable[str], pass_to_pass: Iterable[str], *, dotted: bool = False
) -> Verdict:
    """Return the verdict on a report.

    Args:
        report: What the test runner said.
        fail_to_pass: Tests that failed before. SWE-bench's parsers of logs cut names at a space: a name that was
            cut stands for all tests that it may be.
        pass_to_pass: Tests that passed before.
        dotted: Whether tests are named without their file.
    """
    first, second = tuple(fail_to_pass), tuple(pass_to_pass)
    if report.tampered:
        return Verdict(False, 0.0, 0.0, 0.0, report.tampered)
    known = {".".join(test.split("::")[1:]) if dotted else test: found for test, found in report.outcomes.items()}
    by_test = {test: _passes(test, known) for test in (*first, *second)}
    return Verdict(
        resolved=bool(first) and report.is_whole and all(by_test.values()),
        fail_to_pass=_share(by_test, first),
        pass_to_pass=_share(by_test, second),
        passed=_share(by_test, (*first, *second)),
        by_test=by_test,
    )


def _passes(test: str, known: Mapping[str, Outcome]) -> bool:
    """Return whether a test passed, or all that a name which was cut may stand for."""
    if test in known:
        return known[test] in _PASSED
    is_cut = test.count("[") > test.count("]")
    found = [known[name] for name in known if name.partition(" ")[0] == test or (is_cut and name.startswith(test))]
    return bool(found) and all(outcome in _PASSED for outcome in found)


def _share(by_test: Mapping[str, bool], tests: tuple[str, ...]) -> float:
    return sum(by_test[test] for test in tests) / len(tests) if tests else 1.0
