"""Instances: rows of SWE-bench, SWE-Gym, R2E-Gym and of what `_synthesis` makes, read from the files they come in.

SWE-bench (Jimenez et al. 2024, arXiv:2310.06770) and SWE-Gym (Pan et al. 2024, arXiv:2412.21139) have the same fields;
the lists of tests are JSON texts in the one and lists in the other. R2E-Gym (Jain et al. 2025, arXiv:2504.07164) names
an image and the outcome of every test. A row of ours has a field ``arena`` beside SWE-Gym's, which says from which
source distribution its repository comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from arena import ConfigError, import_extra

__all__ = ["Instance", "Instances", "SourceDistribution"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,299}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?([<>=!~]=?[A-Za-z0-9.,*<>=!~+]+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+!_-]{0,60}")
_LONGEST_TEST = 10_000
_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


class SourceDistribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a repository without a git history comes from: a package's source distribution on the package index.

    The instance's repository is what the distribution holds, with the gold patch and the patch of the tests undone.

    Attributes:
        package: Its name.
        version: Its version.
        sha256: Digest of the file.
        requirements: What its tests need: names of packages with versions; only wheels of them are installed.
        paths: Folders from which the package is imported, relative to the repository.
    """

    package: str
    version: str
    sha256: str
    requirements: tuple[str, ...] = ()
    paths: tuple[str, ...] = (".",)


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A repository with an issue.

    Attributes:
        id: Unique in its file.
        repo: ``owner/name``, or a package's name.
        base_commit: The commit at which the issue stands.
        problem_statement: The issue.
        patch: The gold patch, a unified diff; empty where none is known.
        test_patch: What is added to the tests for grading.
        fail_to_pass: Tests that fail before, and have to pass after.
        pass_to_pass: Tests that pass before, and still have to.
        version: Of the repository.
        image: The image with the repository and its environment, if there is one.
        source: The source distribution, if it comes from one.
        folder: Where in an image the repository is.
        is_sample: Whether its repository is the one that comes with Arena.
        dotted: Whether tests are named ``Class.test``, without their file, as R2E-Gym does.
    """

    id: str
    repo: str
    base_commit: str
    problem_statement: str
    patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    version: str = ""
    image: str | None = None
    source: SourceDistribution | None = None
    folder: str = "/testbed"
    is_sample: bool = False
    dotted: bool = False

    @property
    def tests(self) -> tuple[str, ...]:
        """All that decide."""
        return (*self.fail_to_pass, *self.pass_to_pass)

    @property
    def test_files(self) -> tuple[str, ...]:
        """The files of the tests that decide, in order, each once.

        Raises:
            ConfigError: A test is not one of pytest's.
        """
        if self.dotted:
            return ("r2e_tests",)
        files = dict[str, None]()
        for test in self.tests:
            file = PurePosixPath(test.partition("::")[0])
            if file.suffix != ".py" or file.is_absolute() or ".." in file.parts:
                raise ConfigError(
                    f"instance {self.id}: the test {test[:80]!r} is none of pytest's, and no others are run (allowed: "
                    "'folder/file.py::name')"
                )
            files[str(file)] = None
        return tuple(files)


class Instances(Sequence[Instance]):
    """The instances of a file, or of a data set on the Hugging Face hub that is kept on this machine.

    Args:
        rows: The rows.
        name: What to call the file.

    Raises:
        ConfigError: A row is no instance, or an id occurs twice; the message names the row.
    """

    def __init__(self, rows: Iterator[tuple[str, Mapping[str, Any]]], name: str) -> None:
        self.name = name
        found: dict[str, Instance] = {}
        for place, row in rows:
            try:
                instance = _instance(row)
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError, msgspec.MsgspecError) as error:
                what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                raise ConfigError(f"{name}, {place}: no instance of SWE-bench, SWE-Gym or R2E-Gym: {what}") from None
            if instance.id in found:
                raise ConfigError(f"{name}, {place}: the id {instance.id!r} occurs twice (ids must be unique)")
            found[instance.id] = instance
        if not found:
            raise ConfigError(f"{name} holds no instances")
        self._list = list(found.values())

    @classmethod
    def read(cls, path: Path) -> Instances:
        """Read JSON lines or Parquet; its first bytes say which.

        Raises:
            ConfigError: The file cannot be read, or a row is no instance.
            PrerequisiteError: Parquet needs pyarrow.
        """
        try:
            with path.open("rb") as file:
                is_parquet = file.read(4) == b"PAR1"
        except OSError as error:
            raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
        return cls(_parquet_rows(path) if is_parquet else _json_rows(path), path.name)

    @classmethod
    def load(cls, name: str, split: str) -> Instances:
        """Read a split of a data set by the package `datasets`, from its cache or, where there is a network, the hub.

        Raises:
            ConfigError: It cannot be loaded, or a row is no instance.
            PrerequisiteError: `datasets` is missing.
        """
        datasets = import_extra("datasets", extra="datasets")
        try:
            loaded = datasets.load_dataset(name, split=split)
        except Exception as error:  # whatever the package, the network or the hub makes of the name
            raise ConfigError(f"the data set {name} ({split}) cannot be loaded: {error}") from None
        return cls(((f"row {number}", row) for number, row in enumerate(loaded, 1)), f"{name} ({split})")

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, index: Any) -> Any:
        return self._list[index]


# -- rows --------------------------------------------------------------------------------------------------------------


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = msgspec.json.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise ConfigError(f"{path.name}, line {number}: not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise ConfigError(f"{path.name}, line {number}: no JSON object")
                yield f"line {number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    parquet = import_extra("pyarrow.parquet", extra="parquet")
    arrow = import_extra("pyarrow", extra="parquet")
    try:
        for number, row in enumerate(parquet.read_table(path).to_pylist(), 1):
            yield f"row {number}", row
    except (arrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path.name} is not a Parquet file: {error}") from None


def _instance(row: Mapping[str, Any]) -> Instance:
    found = _r2e(row) if "expected_output_json" in row else _swe(row)
    if not _ID.fullmatch(found.id):
        raise ValueError(f"the id {found.id[:80]!r} is not made of letters, digits and ._+- (at most 200)")
    if found.source is None and not _COMMIT.fullmatch(found.base_commit):
        raise ValueError(f"the commit {found.base_commit[:80]!r} is none")
    if found.image is not None and not _IMAGE.fullmatch(found.image):
        raise ValueError(f"the image {found.image[:80]!r} is no name of an image")
    if found.source is not None:
        _check_source(found.source)
    if not found.fail_to_pass:
        raise ValueError("no test has to pass that failed (FAIL_TO_PASS is empty)")
    for value, what in ((found.repo, "repo"), (found.version, "version")):
        if len(value) > 200 or not value.isprintable():
            raise ValueError(f"{what} is no name: {value[:80]!r}")
    if bad := [test for test in found.tests if not _is_test(test)]:
        raise ValueError(f"{bad[0][:80]!r} is no test")
    if both := set(found.fail_to_pass) & set(found.pass_to_pass):
        raise ValueError(f"the test {sorted(both)[0][:80]!r} is in both lists")
    return found


def _is_test(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_TEST and "\0" not in name and name[0] not in "-@"


def _check_source(source: SourceDistribution) -> None:
    for value, pattern, what in (
        (source.package, _PACKAGE, "package"),
        (source.version, _VERSION, "version"),
        (source.sha256, _SHA256, "sha256"),
        *((requirement, _REQUIREMENT, "requirement") for requirement in source.requirements),
    ):
        if not pattern.fullmatch(value):
            raise ValueError(f"arena: {value[:80]!r} is no {what}")
    for path in source.paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path.isprintable():
            raise ValueError(f"arena: {path[:80]!r} is no folder of the repository")


def _swe(row: Mapping[str, Any]) -> Instance:
    source = row.get("arena")
    id = _text(row, "instance_id")
    image = None
    if source is None:  # SWE-bench's rows say at which commit the environment was set up
        owner, mark = ("swebench", "_1776_") if "environment_setup_commit" in row else ("xingyaoww", "_s_")
        image = row.get("image_name") or f"{owner}/sweb.eval.x86_64.{id.replace('__', mark).lower()}"
    return Instance(
        id=id,
        repo=_text(row, "repo"),
        base_commit=_text(row, "base_commit"),
        problem_statement=_text(row, "problem_statement"),
        patch=_text(row, "patch"),
        test_patch=_text(row, "test_patch"),
        fail_to_pass=_tests(row, "FAIL_TO_PASS"),
        pass_to_pass=_tests(row, "PASS_TO_PASS"),
        version=str(row.get("version") or ""),
        image=image,
        source=None if source is None else msgspec.convert(source, SourceDistribution),
    )


def _r2e(row: Mapping[str, Any]) -> Instance:
    image, repo = _text(row, "docker_image"), _text(row, "repo_name")
    commit = str(row.get("commit_hash") or image.rpartition(":")[2])
    expected = row["expected_output_json"]
    outcomes = json.loads(expected) if isinstance(expected, str) else expected
    return Instance(
        id=f"{repo}__{commit}",
        repo=repo,
        base_commit=commit,
        problem_statement=_text(row, "problem_statement"),
        patch="",
        test_patch="",
        fail_to_pass=tuple(test for test, outcome in outcomes.items() if outcome == "PASSED"),
        pass_to_pass=(),
        image=image,
        dotted=True,
    )


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row[field]
    if not isinstance(value, str):
        raise TypeError(f"{field} is no text")
    return value


def _tests(row: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = row[field]
    listed = json.loads(value) if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(test, str) for test in listed):
        raise TypeError(f"{field} is no list of texts")
    return tuple(dict.fromkeys(listed))
