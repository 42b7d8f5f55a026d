"""Grading: the repository anew in a sandbox of its own, the patch, the tests, and what the test runner reports.

Nothing of the sandbox that was worked in is there, but the patch. What a patch does to the tests, to what configures
the test runner, or to what Python loads by itself, is left out. The report is written by a plugin that was there before
the repository's code, and signed; what tests print is not read. Code under test does run in the process of the test
runner, as it does in every such benchmark: against code that sets out to forge reports there stand a test that must
fail, and a comparison of the runner's own code; that raises the price, and is no proof.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from arena import GraderError, ToolError
from arena.sandbox import Guarantee, Mount, Sandbox, SandboxLimits

from ._instances import Instance
from ._outcomes import TestReport, Verdict, judge, read_report
from ._sources import Place
from ._workspace import apply_patch, open_place

__all__ = ["Grade", "GradingLimits", "grade", "run_tests"]

_PLUGIN = "_pytest_report"
_SHOWN_AT = "/opt/arena"
_LARGEST_REPORT = 64 << 20
_MOST_LEFT_OUT = 1_000
PROTECTED: Final = (
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "setup.cfg",
    "pyproject.toml",
    "sitecustomize.py",
    "usercustomize.py",
    "*.pth",
    "*.pyc",
    "*.dist-info",
    "*.egg-info",
    "*.egg-link",
)
"""Files and folders that a patch cannot change for grading, wherever they are: they decide how tests are run."""


@dataclass(frozen=True)
class GradingLimits:
    """What grading may use.

    Attributes:
        timeout_s: Seconds for all tests.
        sandbox: The sandbox's limits.
        unenforced: Guarantees that may be missing.
    """

    timeout_s: float
    sandbox: SandboxLimits
    unenforced: frozenset[Guarantee] = frozenset()


@dataclass(frozen=True)
class Grade:
    """What came of a patch.

    Attributes:
        verdict: Of the tests.
        applied: Whether the patch could be applied.
        timed_out: Whether the tests' time was up.
        reported: Whether there is a report of any test.
        left_out: Files of the patch that were not changed for grading.
    """

    verdict: Verdict
    applied: bool = True
    timed_out: bool = False
    reported: bool = True
    left_out: tuple[str, ...] = ()

    @classmethod
    def of_no_patch(cls, instance: Instance) -> Grade:
        """Return the grade where no patch could be made, or none of the size that is graded, or it does not fit."""
        nothing = judge(TestReport(), instance.fail_to_pass, instance.pass_to_pass)
        return cls(nothing, applied=False, reported=False)


_known_good = set[tuple[str, str]]()
"""Instances whose tests this process has seen reported with their own patch, or none."""


def grade(instance: Instance, place: Place, patch: bytes, limits: GradingLimits) -> Grade:
    """Return what a patch makes of an instance's tests.

    Raises:
        GraderError: Not even without the patch is any test reported, so that it cannot be its fault.
        SandboxError: A sandbox does not start, or is broken.
    """
    protected, left_out = protected_files(instance), list[str]()
    with _open(instance, place, limits) as sandbox:
        if patch.strip():
            changed = files_of_patch(sandbox, patch)
            left_out = [name for name in changed or () if is_protected(name, protected)]
            if changed is None or len(left_out) > _MOST_LEFT_OUT:
                return Grade.of_no_patch(instance)
            applied = apply_patch(sandbox, patch, *(f"--exclude={_quoted(name)}" for name in left_out))
            if not applied.ok:
                return replace(Grade.of_no_patch(instance), left_out=tuple(left_out))
        report, seconds = run_tests(sandbox, place, instance.test_files, limits.timeout_s)
    timed_out = seconds >= limits.timeout_s
    if report.is_empty and not timed_out and (instance.id, instance.base_commit) not in _known_good:
        with _open(instance, place, limits) as sandbox:
            control, _ = run_tests(sandbox, place, instance.test_files, limits.timeout_s)
        if control.is_empty:
            raise GraderError(f"instance {instance.id}: no test is reported, not even without a patch")
    if not report.is_empty:
        _known_good.add((instance.id, instance.base_commit))
    verdict = judge(report, instance.fail_to_pass, instance.pass_to_pass, dotted=instance.dotted)
    return Grade(verdict, timed_out=timed_out, reported=not report.is_empty, left_out=tuple(left_out))


def run_tests(sandbox: Sandbox, place: Place, files: Collection[str], timeout_s: float) -> tuple[TestReport, float]:
    """Run test files, or all tests if none are named; return the report, and the seconds that they took.

    The sandbox shows the plugin (`plugin_mount`). What runs in it is ended afterwards.
    """
    key, file = secrets.token_bytes(32), f"/tmp/report-{secrets.token_hex(16)}"
    command = [*place.python, "-m", "pytest", "-p", _PLUGIN, "-p", "no:cacheprovider", "--rootdir", place.directory]
    command += ["--continue-on-collection-errors", "-q", *files]
    given = json.dumps({"key": key.hex(), "file": file}).encode()
    done = sandbox.exec(
        command,
        timeout_s=timeout_s,
        stdin=given,
        environment={"PYTHONPATH": _SHOWN_AT, "CI": "1"},
        output_bytes=1 << 14,
    )
    sandbox.kill()
    try:
        content = sandbox.read_file(file, max_bytes=_LARGEST_REPORT)
    except ToolError:  # it was never made, or somebody removed it
        content = b""
    return read_report(content, key), done.duration_s


def plugin_mount() -> Mount:
    """Return what shows the plugin."""
    return Mount(Path(__file__).with_name(f"{_PLUGIN}.py"), f"{_SHOWN_AT}/{_PLUGIN}.py")


def protected_files(instance: Instance) -> tuple[str, ...]:
    """Return the tests that decide, and the folders beside them that the gold patch leaves alone."""
    found = dict[str, None]()
    ours = changed_files(instance.patch)
    for file in (*instance.test_files, *changed_files(instance.test_patch)):
        folder = PurePosixPath(file).parent
        if folder.parts and not any(PurePosixPath(name).is_relative_to(folder) for name in ours):
            found[str(folder)] = None
        found[file] = None
    return tuple(found)


def is_protected(name: str, files: Collection[str]) -> bool:
    """Return whether a file is one of these, lies in one, or is called like what decides how tests are run."""
    path = PurePosixPath(name.casefold())
    if any(path.is_relative_to(file.casefold()) for file in files):
        return True
    return any(fnmatchcase(part, pattern) for part in path.parts for pattern in PROTECTED)


def changed_files(patch: str) -> tuple[str, ...]:
    """Return the files that one of an instance's own patches names."""
    found = dict[str, None]()
    for line in patch.split("\n"):
        if line.startswith(("--- ", "+++ ")):
            name = line[4:].split("\t")[0].strip('"')
            if name.startswith(("a/", "b/")):
                found[name[2:]] = None
    return tuple(found)


def files_of_patch(sandbox: Sandbox, patch: bytes) -> list[str] | None:
    """Return the files that a patch changes, binary ones and modes too; None where it is no patch."""
    counted = apply_patch(sandbox, patch, "--numstat", "-z")
    if not counted.ok or counted.omitted_stdout:
        return None
    rows = [row.split(b"\t", 2) for row in counted.stdout.split(b"\0") if row]
    return [os.fsdecode(row[2]) for row in rows if len(row) == 3]


def _quoted(name: str) -> str:
    """Return a pattern of just this name."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in name)


def _open(instance: Instance, place: Place, limits: GradingLimits) -> Sandbox:
    """Start a sandbox with the repository and the tests that decide; what is applied later cannot be in their way."""
    sandbox = open_place(place, limits.sandbox, limits.unenforced, (plugin_mount(),))
    if instance.test_patch.strip():
        brought = apply_patch(sandbox, instance.test_patch.encode())
        if not brought.ok:
            sandbox.stop()
            raise GraderError(f"instance {instance.id}: the patch of its tests does not fit its repository")
    return sandbox
