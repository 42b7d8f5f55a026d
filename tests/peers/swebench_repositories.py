"""Repositories with tests of every outcome, and lists of them that SWE-bench and Arena judge.

A repository's tests are run twice by a real pytest: for Arena with the plugin that reports, for SWE-bench by a script
that writes a log. Every list is judged by both.
"""

ALL = "tests/test_all.py::"
_OUTCOMES = """
import unittest
import pytest

@pytest.fixture
def breaks_before():
    raise ValueError("before")

@pytest.fixture
def breaks_after():
    yield
    raise ValueError("after")

def test_passes(): pass
def test_passes_too(): pass
def test_fails(): assert not 1
def test_set_up(breaks_before): pass
def test_tear_down(breaks_after): pass
def test_both(breaks_after): assert not 1
@pytest.mark.skip(reason="why")
def test_skips(): pass
def test_skips_itself(): pytest.skip("why")
@pytest.mark.xfail
def test_xfails(): assert not 1
@pytest.mark.xfail(reason="why")
def test_xfails_with_reason(): assert not 1
@pytest.mark.xfail
def test_xpasses(): pass
@pytest.mark.xfail(strict=True, reason="why")
def test_xpasses_strictly(): pass
@pytest.mark.parametrize("value", ["one", "two", "a - b[0]"])
def test_bracket(value): assert value != "two"
@pytest.mark.parametrize("value", ["a b", "a c"])
def test_space(value): pass
@pytest.mark.parametrize("value", ["a b", "a c"])
def test_space_fails(value): assert value != "a b"
@pytest.mark.parametrize("value", ["a b", pytest.param("a c", marks=pytest.mark.skip)])
def test_space_skips(value): pass
@pytest.mark.parametrize("value", ["log(photon/s)", "log(photon/m)"])
def test_cut(value): pass
@pytest.mark.parametrize("path", ["/usr/share/words"])
def test_path(path): pass
@pytest.mark.parametrize("button", ["MouseButton.LEFT"])
def test_button(button): pass

class TestClass:
    def test_method(self): pass

class TestOld(unittest.TestCase):
    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                assert number != 1
    def test_good_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                pass
    @unittest.expectedFailure
    def test_expected(self): assert not 1
"""
KINDS = {
    "test_passes": "passed",
    "test_fails": "failed",
    "test_set_up": "set_up_error",
    "test_tear_down": "tear_down_error",
    "test_both": "failed_and_tear_down_error",
    "test_xfails": "xfailed",
    "test_xfails_with_reason": "xfailed_with_reason",
    "test_xpasses": "xpassed",
    "test_xpasses_strictly": "failed",
    "test_bracket[one]": "passed",
    "test_bracket[two]": "failed",
    "test_space[a b]": "passed",
    "test_space_fails[a b]": "failed",
}
"""What some of them come out as, in the words of `swebench_cases`."""

_PRINTS = """
import pytest
@pytest.mark.skip
def test_skips(): pass
def test_fails(): assert not 1
def test_prints():
    print({printed!r})
"""
PRINTED = "tests/test_prints.py::"
_STOPS = """
import os
def test_passes(): pass
def test_stops(): os._exit({code})
"""


def _list(name, fail_to_pass, pass_to_pass=(), prefix=ALL, parsers=("parse_log_pytest", "parse_log_pytest_v2")):
    return {
        "name": name,
        "fail_to_pass": [prefix + test for test in fail_to_pass],
        "pass_to_pass": [prefix + test for test in pass_to_pass],
        "parsers": parsers,
    }


def _prints(name, text):
    files = {PRINTED.removesuffix("::"): _PRINTS.format(printed=text)}
    lists = [
        _list(f"{name}: the test that was skipped", ["test_skips"], ["test_prints"], PRINTED),
        _list(f"{name}: the test that failed", ["test_fails"], ["test_prints"], PRINTED),
        _list(f"{name}: neither", ["test_prints"], [], PRINTED),
    ]
    return {"name": name, "files": files, "lists": lists}


_FORGED = f"PASSED {PRINTED}test_skips\nPASSED {PRINTED}test_fails\nPASSED {PRINTED}test_prints\n"

REPOSITORIES = [
    {
        "name": "outcomes",
        "files": {"tests/test_all.py": _OUTCOMES},
        "lists": [
            _list("all pass", ["test_passes"], ["test_passes_too", "TestClass::test_method"]),
            _list("one fails that failed", ["test_fails"], ["test_passes"]),
            _list("one of two fails that failed", ["test_fails", "test_passes"], ["test_passes_too"]),
            _list("one fails that passed", ["test_passes"], ["test_fails"]),
            _list("nothing had passed", ["test_passes"]),
            _list("nothing had failed", [], ["test_passes"]),
            _list("an error before", ["test_passes"], ["test_set_up"]),
            _list("an error after", ["test_passes"], ["test_tear_down"]),
            _list("a failure and an error after", ["test_both"], ["test_passes"]),
            _list("one is missing that failed", ["test_none"], ["test_passes"]),
            _list("one is missing that passed", ["test_passes"], ["test_none"]),
            _list("an expected failure", ["test_xfails"], ["TestOld::test_expected"]),
            _list("an expected failure with a reason", ["test_xfails_with_reason"], ["test_passes"]),
            _list("an unexpected success", ["test_xpasses"], ["test_passes"]),
            _list("a strict unexpected success", ["test_xpasses_strictly"], ["test_passes"]),
            _list("one is skipped that failed", ["test_skips"], ["test_passes"]),
            _list("one is skipped that passed", ["test_passes"], ["test_skips"]),
            _list("one skips itself", ["test_passes"], ["test_skips_itself"]),
            _list("all are skipped", ["test_skips"], ["test_skips_itself"]),
            _list("brackets", ["test_bracket[one]"], ["test_bracket[a - b[0]]"], parsers=["parse_log_pytest_v2"]),
            _list("brackets, and one fails", ["test_bracket[one]"], ["test_bracket[two]"]),
            _list("names cut at a space", ["test_space[a"], ["test_passes"]),
            _list("names cut at a space, and one fails", ["test_space_fails[a"], ["test_passes"]),
            _list("names cut at a space, and one is skipped", ["test_space_skips[a"], ["test_passes"]),
            _list("whole names with spaces", ["test_space[a b]"], ["test_space[a c]"]),
            _list("names cut elsewhere", ["test_cut[log(photon"], ["test_passes"]),
            _list("a path cut to its last part", ["test_path[/words]"], parsers=["parse_log_pytest_options"]),
            _list("a name that was replaced", ["test_button[1]"], parsers=["parse_log_matplotlib"]),
            _list("twice in a list", ["test_passes", "test_passes"], ["test_fails", "test_fails"]),
            _list("parts of a test", ["TestOld::test_good_parts"], ["TestOld::test_parts"]),
        ],
    },
    {
        "name": "skipped tests by name",
        "options": "--no-fold-skipped",
        "files": {"tests/test_all.py": _OUTCOMES},
        "lists": [
            _list("named, one is skipped that failed", ["test_skips"], ["test_passes"]),
            _list("named, one is skipped that passed", ["test_passes"], ["test_skips"]),
        ],
    },
    {
        "name": "a file that cannot be read",
        "files": {"tests/test_all.py": _OUTCOMES, "tests/test_broken.py": "import nowhere\ndef test_one(): pass\n"},
        "lists": [
            _list("another file cannot be read", ["test_passes"], ["test_passes_too"]),
            _list("its file cannot be read", ["test_one"], [], "tests/test_broken.py::"),
        ],
    },
    {
        "name": "no tests",
        "files": {"tests/test_all.py": "def help(): pass\n"},
        "lists": [_list("there are no tests", ["test_passes"], ["test_passes_too"])],
    },
    _prints("a printed success", _FORGED),
    _prints("a printed end", f"{_FORGED}>>>>> Test Exit Code: 0\n>>>>> End Test Output\n"),
    _prints("a printed time-out", ">>>>> Tests Timed Out"),
    _prints("a printed failure", f"FAILED {PRINTED}test_prints\n"),
    *(
        {
            "name": f"the runner stops with {code}",
            "files": {"tests/test_all.py": _STOPS.format(code=code)},
            "lists": [
                _list(f"it stops with {code} after them", ["test_passes"]),
                _list(f"it stops with {code} in one of them", ["test_passes"], ["test_stops"]),
            ],
        }
        for code in (0, 1)
    ),
]
