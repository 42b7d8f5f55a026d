"""Instances made from real packages: a bug in the code of one that carries its tests, and the tests that notice.

The same procedure as SWE-smith's (Yang et al. 2025, arXiv:2504.21798): the suite is run on the package as it is; a bug
is put in; what fails then has to pass again. The files with tests that notice are taken away from the player. Every
instance is validated by the grader that will grade it: it fails without a patch and passes with the gold one, each
three times. Nothing of a package is run outside a sandbox.
"""

from __future__ import annotations

import ast
import email.parser
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec
from pydantic import Field, field_validator

from arena import EnvError, Options, TaskMaker, UsageError
from arena.sandbox import Guarantee, SandboxLimits

from ._grading import GradingLimits, grade, plugin_mount, run_tests
from ._instances import Instance, SourceDistribution
from ._mutations import KINDS, Mutation, mutated, mutations, spread
from ._outcomes import TestReport
from ._patch_text import file_patch
from ._sources import Place, fetch_source, find_source, place_of
from ._statements import statement
from ._workspace import open_place

__all__ = ["Synthesis"]

_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!_-]+)")
_TIMES: Final = 3
_MOST_OF_A_FUNCTION: Final = 2
_MOST_FAILING: Final = 0.5
_LARGEST_MODULE = 400_000
_NOT_CODE = {"tests", "test", "testing", "docs", "doc", "examples", "benchmarks", "bench", "setup.py", "conftest.py"}
_encode = msgspec.json.Encoder(order="deterministic").encode


class SynthesisOptions(Options):
    """What is made."""

    package: tuple[str, ...] = Field(min_length=1, description="Packages that carry their tests, as `toolz==1.0.0`.")
    n: int = Field(10, ge=1, le=10_000, description="Instances of each package.")
    seed: int = Field(0, ge=0, description="Which bugs.")
    kinds: tuple[str, ...] = Field(tuple(KINDS), min_length=1, description=f"Kinds of bugs: {', '.join(KINDS)}.")
    requirements: tuple[str, ...] = Field((), description="What the tests need beside what the package does.")
    into: Literal["train", "dev", "test"] = Field("test", description="The split.")
    timeout_s: float = Field(300.0, ge=1, description="Seconds for a package's tests.")
    unenforced: tuple[Guarantee, ...] = Field((), description="Guarantees of the sandbox that may be missing.")

    @field_validator("package", "kinds", "requirements", "unenforced", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Synthesis(TaskMaker):
    """Makes instances; see the module."""

    summary = "Puts bugs into packages that carry their tests, and keeps those that tests notice."
    Options = SynthesisOptions

    def make(self, folder: Path, progress: Callable[[int, int], None]) -> str:
        """Write ``SPLIT.jsonl`` below a folder; instances that are there already are kept.

        Raises:
            UsageError: The options name no kind or no package of that form.
            ConfigError: There is no such source distribution.
            EnvError: A package has no test that passes, or too few bugs are noticed.
            SandboxError: The sandbox is broken, or lacks a guarantee.
        """
        wanted = [_PACKAGE.fullmatch(name) for name in self.options.package]
        if bad := [name for name, match in zip(self.options.package, wanted, strict=True) if match is None]:
            raise UsageError(f"{bad[0]!r} names no package and version (allowed: toolz==1.0.0)")
        if unknown := set(self.options.kinds) - KINDS.keys():
            raise UsageError(f"no kind of bugs {sorted(unknown)[0]!r} (known: {', '.join(KINDS)})")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.options.into}.jsonl"
        kept = _whole_lines(file)
        total, done, said = self.options.n * len(wanted), 0, list[str]()
        with file.open("ab") as out:
            for match in wanted:
                assert match is not None
                subject = _Subject(match[1], match[2], self.options)
                known = {row["instance_id"] for row in kept if row["repo"] == subject.package}
                done += min(len(known), self.options.n)
                progress(done, total)
                for instance, kind in subject.instances(known, self.options.n - len(known)):
                    out.write(_encode(_row(instance, kind)) + b"\n")
                    out.flush()
                    os.fsync(out.fileno())
                    done += 1
                    progress(done, total)
                said.append(f"{subject.package} {subject.version}: {subject.told}")
        return f"{done} instances in {file}. {'; '.join(said)}."


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; what a killed process left of a line is cut off."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return [msgspec.json.decode(line) for line in whole.splitlines()]


def _row(instance: Instance, kind: str) -> dict[str, Any]:
    """Return an instance as a row in SWE-Gym's format."""
    return {
        "instance_id": instance.id,
        "repo": instance.repo,
        "base_commit": instance.base_commit,
        "version": instance.version,
        "problem_statement": instance.problem_statement,
        "hints_text": "",
        "created_at": "",
        "patch": instance.patch,
        "test_patch": instance.test_patch,
        "FAIL_TO_PASS": list(instance.fail_to_pass),
        "PASS_TO_PASS": list(instance.pass_to_pass),
        "arena": instance.source,
        "bug": kind,
    }


@dataclass(frozen=True)
class _Candidate:
    """A bug that may be an instance."""

    file: str
    mutation: Mutation
    text: str


class _Subject:
    """A package, and what of it becomes of bugs."""

    def __init__(self, package: str, version: str, options: SynthesisOptions) -> None:
        self.package, self.version, self._options = package, version, options
        digest, _ = find_source(package, version)
        source = SourceDistribution(package=package, version=version, sha256=digest)
        self._root = fetch_source(source)
        paths = ("src",) if (self._root / "src").is_dir() else (".",)
        requirements = tuple(dict.fromkeys((*_required(self._root), *options.requirements)))
        self._source = msgspec.structs.replace(source, requirements=requirements, paths=paths)
        self._limits = SandboxLimits()
        self._place = place_of(self._instance_of("", "", "", (), ()), "bubblewrap", None)
        self._tried = Counter[str]()

    @property
    def told(self) -> str:
        """What came of the bugs that were tried."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self._tried.most_common()) or "nothing to do"

    def instances(self, known: set[str], count: int) -> Iterator[tuple[Instance, str]]:
        """Yield new instances with their kinds of bugs.

        Raises:
            EnvError: There are not so many.
        """
        if count <= 0:
            return
        stable, seconds = self._stable()
        workers = max(1, min(len(os.sched_getaffinity(0)), 8))
        of_function = Counter[tuple[str, str]]()
        made = 0
        with ThreadPoolExecutor(workers) as pool:
            candidates = iter(self._candidates(known))
            while made < count:
                batch = [one for one, _ in zip(candidates, range(workers), strict=False)]
                if not batch:
                    raise EnvError(
                        f"{self.package} {self.version}: only {made} of {count} bugs became instances ({self.told})"
                    )
                for one, (outcome, instance) in zip(
                    batch, pool.map(lambda one: self._tried_out(one, stable, seconds), batch), strict=True
                ):
                    where = (one.file, one.mutation.function)
                    if instance is not None and of_function[where] >= _MOST_OF_A_FUNCTION:
                        outcome, instance = "of a function with others", None
                    if made == count:
                        break
                    self._tried[outcome] += 1
                    if instance is not None:
                        of_function[where] += 1
                        made += 1
                        yield instance, one.mutation.kind

    # -- the package as it is ------------------------------------------------------------------------------------------

    def _stable(self) -> tuple[frozenset[str], float]:
        """Return the tests that pass every time, and the seconds that they take at most."""
        passing: frozenset[str] | None = None
        longest = 0.0
        for _ in range(_TIMES):
            report, seconds = self._run(None)
            now = frozenset(test for test, outcome in report.outcomes.items() if outcome == "passed")
            passing = now if passing is None else passing & now
            longest = max(longest, seconds)
        if not passing:
            raise EnvError(f"{self.package} {self.version}: no test of the source distribution passes as it is")
        return passing, longest

    def _run(self, candidate: _Candidate | None, timeout_s: float | None = None) -> tuple[TestReport, float]:
        with open_place(self._place, self._limits, self._options.unenforced, (plugin_mount(),)) as sandbox:
            if candidate is not None:
                sandbox.write_file(candidate.file, candidate.text.encode())
            return run_tests(sandbox, self._place, (), timeout_s or self._options.timeout_s)

    def _candidates(self, known: set[str]) -> Iterator[_Candidate]:
        """Yield bugs, kinds and files taking turns."""
        rng = random.Random(f"{self._options.seed} {self.package} {self.version}")
        found, texts = list[tuple[str, Mutation]](), dict[str, str]()
        for path in sorted(self._root.rglob("*.py")):
            name = str(path.relative_to(self._root))
            if _is_code(PurePosixPath(name)) and path.stat().st_size <= _LARGEST_MODULE:
                try:
                    texts[name] = path.read_bytes().decode()
                except UnicodeDecodeError:
                    continue
                found += [(name, one) for one in mutations(texts[name]) if one.kind in self._options.kinds]
        for name, one in spread(found, rng.shuffle):
            candidate = _Candidate(name, one, mutated(texts[name], one))
            if self._id(candidate) not in known and candidate.text != texts[name]:
                yield candidate

    # -- one bug -------------------------------------------------------------------------------------------------------

    def _tried_out(self, candidate: _Candidate, stable: frozenset[str], seconds: float) -> tuple[str, Instance | None]:
        """Return what came of a bug, and the instance if it is one."""
        try:
            ast.parse(candidate.text)
        except SyntaxError:
            return "no Python", None
        report, _ = self._run(candidate, 10 + 4 * seconds)
        if not report.is_whole:
            return "without an end", None
        failing = frozenset(test for test in stable if report.outcomes.get(test) in ("failed", "error"))
        if not failing:
            return "unnoticed", None
        if report.uncollected or len(failing) > _MOST_FAILING * len(stable):
            return "breaking too much", None
        instance = self._instance(candidate, report, failing, stable)
        if instance is None:
            return "without a statement", None
        return ("valid", instance) if self._is_valid(instance) else ("flaky", None)

    def _instance(
        self, candidate: _Candidate, report: TestReport, failing: frozenset[str], stable: frozenset[str]
    ) -> Instance | None:
        files = sorted({test.partition("::")[0] for test in failing})
        sources = {file: (self._root / file).read_bytes().decode("utf-8", "replace") for file in files}
        original = (self._root / candidate.file).read_bytes().decode()
        patch = file_patch(candidate.file, candidate.text, original)
        told = statement(self.package, self.version, sorted(failing), report.messages, sources, patch)
        if told is None:
            return None
        test_patch = "".join(file_patch(file, None, text) for file, text in sources.items())
        still = sorted(
            test
            for test in stable - failing
            if test.partition("::")[0] in sources and report.outcomes.get(test) == "passed"
        )
        return self._instance_of(self._id(candidate), told, patch, sorted(failing), still, test_patch)

    def _instance_of(
        self, id: str, told: str, patch: str, failing: Sequence[str], still: Sequence[str], test_patch: str = ""
    ) -> Instance:
        return Instance(
            id=id,
            repo=self.package,
            base_commit=sha256((self._source.sha256 + patch + test_patch).encode()).hexdigest()[:40],
            problem_statement=told,
            patch=patch,
            test_patch=test_patch,
            fail_to_pass=tuple(failing),
            pass_to_pass=tuple(still),
            version=self.version,
            source=self._source,
        )

    def _id(self, candidate: _Candidate) -> str:
        digest = sha256(f"{candidate.file}\n{candidate.text}".encode()).hexdigest()[:8]
        return f"{self.package}__{self.version}-{candidate.mutation.kind}-{digest}"

    def _is_valid(self, instance: Instance) -> bool:
        """Return whether it fails as it is, and passes with the gold patch, every time."""
        place: Place = place_of(instance, "bubblewrap", None)
        limits = GradingLimits(self._options.timeout_s, self._limits, frozenset(self._options.unenforced))
        for _ in range(_TIMES):
            before = grade(instance, place, b"", limits).verdict
            after = grade(instance, place, instance.patch.encode(), limits).verdict
            if before.fail_to_pass > 0 or before.pass_to_pass < 1 or not after.resolved:
                return False
        return True


def _is_code(path: PurePosixPath) -> bool:
    """Return whether a file is one that a bug can be in."""
    parts = {*path.parts, *(part.lower() for part in path.parts)}
    return not (parts & _NOT_CODE) and not path.name.startswith("test_") and not path.stem.endswith("_test")


def _required(root: Path) -> list[str]:
    """Return what a package's metadata say that it always needs."""
    file = root / "PKG-INFO"
    if not file.is_file():
        return []
    metadata = email.parser.Parser().parsestr(file.read_text("utf-8", "replace"), headersonly=True)
    lines = [line for line in metadata.get_all("Requires-Dist") or [] if "extra" not in line and ";" not in line]
    return [re.sub(r"[\s()]", "", line) for line in lines]
