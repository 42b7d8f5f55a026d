"""What Arena makes of tests' outcomes, for `swebench_checks` to compare with what SWE-bench makes of them.

Some outcomes come from a real pytest (`swebench_repositories`), others are drawn by a seeded generator: for these, both
the signed report and the log of ``pytest -rA`` are written here, and one check holds such a log against a real one.
"""

import hashlib
import hmac
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from arena.envs.swe._grading import plugin_mount
from arena.envs.swe._outcomes import TestReport, judge, read_report
from arena.export import write_predictions
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord, StepRecord
from arena.types import Limits, SeatStep, Task, TimeStep
from tests.peers.swebench_repositories import ALL, KINDS, REPOSITORIES

_KEY = bytes(32)
_RANDOM_CASES = 400
_PHASES = {
    "passed": [("setup", "passed", False), ("call", "passed", False), ("teardown", "passed", False)],
    "failed": [("setup", "passed", False), ("call", "failed", False), ("teardown", "passed", False)],
    "set_up_error": [("setup", "failed", False), ("teardown", "passed", False)],
    "tear_down_error": [("setup", "passed", False), ("call", "passed", False), ("teardown", "failed", False)],
    "failed_and_tear_down_error": [
        ("setup", "passed", False),
        ("call", "failed", False),
        ("teardown", "failed", False),
    ],
    "skipped": [("setup", "skipped", False), ("teardown", "passed", False)],
    "xfailed": [("setup", "passed", False), ("call", "skipped", True), ("teardown", "passed", False)],
    "xfailed_with_reason": [("setup", "passed", False), ("call", "skipped", True), ("teardown", "passed", False)],
    "xpassed": [("setup", "passed", False), ("call", "passed", True), ("teardown", "passed", False)],
    "missing": [],
}
_LINES = {
    "passed": ["PASSED {}"],
    "failed": ["FAILED {} - assert not 1"],
    "set_up_error": ["ERROR {} - ValueError: before"],
    "tear_down_error": ["PASSED {}", "ERROR {} - ValueError: after"],
    "failed_and_tear_down_error": ["ERROR {} - ValueError: after", "FAILED {} - assert not 1"],
    "skipped": ["SKIPPED [1] tests/test_random.py:3: why"],
    "xfailed": ["XFAIL {}"],
    "xfailed_with_reason": ["XFAIL {} - why"],
    "xpassed": ["XPASS {}"],
    "missing": [],
}
_SECTIONS = ("PASSED", "SKIPPED", "XFAIL", "XPASS", "ERROR", "FAILED")
PREDICTED = [("i-1", "diff --git a/x b/x\n-\u2028\n+\u00e9\n"), ("i-2", ""), ("i-1", "of a later episode")]


def write_cases(folder):
    """Write what is compared; return the file."""
    found = {
        "repositories": [_judged(repository) for repository in REPOSITORIES],
        "written": _written(),
        "random": _drawn(),
        "summary": _summary({ALL + test: kind for test, kind in KINDS.items()}),
        "predictions": _predictions(folder / "predictions.jsonl"),
    }
    file = folder / "swebench.json"
    file.write_text(json.dumps(found))
    return file


# -- real tests -------------------------------------------------------------------------------------------------------


def _judged(repository):
    """Return a repository with what Arena makes of each of its lists."""
    with tempfile.TemporaryDirectory() as name:
        report = _run(Path(name), repository["files"])
    lists = [one | {"arena": _verdict(report, one)} for one in repository["lists"]]
    return repository | {"lists": lists}


def _run(folder, files):
    """Run tests with the plugin that reports, as grading does in its sandbox."""
    plugin, report = folder / "plugin", folder / "report"
    plugin.mkdir()
    shutil.copy(plugin_mount().source, plugin)
    for path, text in files.items():
        file = folder / "testbed" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "_pytest_report", "-p", "no:cacheprovider", "-q"]
    command += ["--rootdir", ".", "--continue-on-collection-errors", *files]
    subprocess.run(
        command,
        cwd=folder / "testbed",
        env=os.environ | {"PYTHONPATH": str(plugin)},
        input=json.dumps({"key": _KEY.hex(), "file": str(report)}).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    return read_report(report.read_bytes(), _KEY)


def _verdict(report, tests):
    verdict = judge(report, tests["fail_to_pass"], tests["pass_to_pass"])
    status = "NO"
    if verdict.resolved:
        status = "FULL"
    elif 0 < verdict.fail_to_pass < 1 and verdict.pass_to_pass == 1:
        status = "PARTIAL"
    return {"status": status, "passed": sorted(test for test, passed in verdict.by_test.items() if passed)}


# -- written logs -----------------------------------------------------------------------------------------------------


def _report(kinds, is_whole=True):
    """Return what Arena reads from the plugin's report of tests that ended like this."""
    told = [
        {"kind": "test", "nodeid": test, "when": when, "outcome": outcome, "xfail": xfail, "message": ""}
        for test, kind in kinds.items()
        for when, outcome, xfail in _PHASES[kind]
    ]
    lines, chain = [], b""
    for fields in [*told, {"kind": "end"}] if is_whole else told:
        line = json.dumps(fields).encode()
        chain = hmac.new(_KEY, chain + line, hashlib.sha256).hexdigest().encode()
        lines.append(chain + b" " + line + b"\n")
    return read_report(b"".join(lines), _KEY)


def _summary(kinds):
    """Return the last lines of ``pytest -rA``."""
    lines = [line.format(test) for test, kind in kinds.items() for line in _LINES[kind]]
    return sorted(lines, key=lambda line: _SECTIONS.index(line.split()[0]))


def _log(kinds):
    """Return a whole log."""
    lines = _summary(kinds)
    code = int(any(line.startswith(("ERROR", "FAILED")) for line in lines))
    return "\n".join([">>>>> Start Test Output", *lines, ">>>>> End Test Output", f">>>>> Test Exit Code: {code}", ""])


def _written():
    """Return cases of runs that went wrong as a whole."""
    tests = {"fail_to_pass": ["t.py::test_1"], "pass_to_pass": ["t.py::test_2"]}
    kinds = dict.fromkeys(("t.py::test_1", "t.py::test_2"), "passed")
    log, begun = _log(kinds), ">>>>> Start Test Output\n"
    told = [
        ("the patch does not apply", ">>>>> Patch Apply Failed:\nerror: t.py: patch does not apply\n", TestReport()),
        ("the time was up before any test", begun + "\nTimeout error: 60 seconds exceeded.", TestReport()),
        ("the time was up after them", begun + "\nTimeout error: 60 seconds exceeded.", _report(kinds, False)),
        ("an empty log", "", TestReport()),
        ("a log without its end", log.partition(">>>>> End")[0], _report(kinds, False)),
        ("no log of tests that passed", f"{begun}>>>>> End Test Output\n>>>>> Test Exit Code: 0\n", TestReport()),
        ("a log that is whole", log, _report(kinds)),
    ]
    return [tests | {"name": name, "log": log, "arena": _verdict(report, tests)} for name, log, report in told]


def _drawn():
    """Return random cases."""
    draw = random.Random(0)
    return [_draw_case(draw, number) for number in range(_RANDOM_CASES)]


def _draw_case(draw, number):
    """Return a case; a name that is cut at a space stands for several tests that end in the plainer ways."""
    is_bad = draw.random() < 0.7
    plain = ["passed", "xfailed", *(["failed", "set_up_error"] if is_bad else [])]
    every = list(_PHASES) if is_bad else [*plain, "xfailed_with_reason"]
    kinds, listed = {}, {}
    for index in range(draw.randint(1, 8)):
        name = f"tests/test_random.py::test_{index}"
        if draw.random() < 0.25:
            listed[f"{name}[a"] = "cut"
            kinds |= {f"{name}[a {letter}]": draw.choice(plain) for letter in "bcd"[: draw.randint(1, 3)]}
        else:
            name += draw.choice(("", "[one]", "[one-two]", "[{'x':(1,)}]", "[\\xe9]"))
            listed[name] = kinds[name] = draw.choice(["passed"] * len(every) + every)
    first = draw.randint(1, len(listed))
    tests = {"fail_to_pass": list(listed)[:first], "pass_to_pass": list(listed)[first:]}
    arena = _verdict(_report(kinds), tests)
    return tests | {"name": f"random {number}", "kinds": listed, "log": _log(kinds), "arena": arena}


# -- predictions ------------------------------------------------------------------------------------------------------


def _predictions(file):
    """Write predictions as ``arena export`` does; return the file, and what is in it."""
    counts = write_predictions(map(_episode, range(len(PREDICTED)), *zip(*PREDICTED, strict=True)), file)
    assert (counts.written, counts.repeated) == (2, 1)
    lines = [
        {"instance_id": instance, "model_name_or_path": "react", "model_patch": patch}
        for instance, patch in PREDICTED[:2]
    ]
    return {"file": str(file), "lines": lines}


def _episode(number, instance, patch):
    record = EpisodeRecord(
        env="swe/repo-v0", task=Task(instance, "test"), seed=number, episode=f"react/0/{number}", limits=Limits(),
        seats={"player": AgentRef("llm/chat")},
    )  # fmt: skip
    info = {"prediction": {"instance_id": instance, "model_patch": patch}}
    seat = SeatStep("Handed in.", 0.0, terminated=True, ending="submitted", info=info)
    return Episode(record, [StepRecord(0, TimeStep({"player": seat}, ()), "")], EndRecord("terminated", 1))
