"""Rows of public data sets, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from arena import ConfigError
from arena.envs.swe._grading import changed_files, is_protected, protected_files
from arena.envs.swe._instances import Instances

COMMIT = "a" * 40
SWE_BENCH: dict[str, Any] = {
    "repo": "astropy/astropy",
    "instance_id": "astropy__astropy-12907",
    "base_commit": "d16bfe05a744909de4b27f5875fe0d4ed41ce607",
    "patch": "diff --git a/astropy/modeling/separable.py b/astropy/modeling/separable.py\n"
    "--- a/astropy/modeling/separable.py\n+++ b/astropy/modeling/separable.py\n@@ -1 +1 @@\n-1\n+right\n",
    "test_patch": "",
    "problem_statement": "separability_matrix does not compute separability correctly",
    "hints_text": "",
    "created_at": "2022-03-03T15:14:54Z",
    "version": "4.3",
    "FAIL_TO_PASS": '["astropy/modeling/tests/test_separable.py::test_separable[compound_model6-result6]"]',
    "PASS_TO_PASS": '["astropy/modeling/tests/test_separable.py::test_coord_matrix"]',
    "environment_setup_commit": "298ccb478e6bf092953bca67a3d29dc6c35f6752",
}
SWE_GYM = {name: value for name, value in SWE_BENCH.items() if name != "environment_setup_commit"} | {
    "instance_id": "getmoto__moto-7365",
    "repo": "getmoto/moto",
    "FAIL_TO_PASS": ["tests/test_a.py::test_one"],
    "PASS_TO_PASS": ["tests/test_a.py::test_two"],
}
R2E = {
    "repo_name": "orange3",
    "docker_image": "namanjain12/orange3_final:0123456789abcdef0123456789abcdef01234567",
    "commit_hash": "0123456789abcdef0123456789abcdef01234567",
    "expected_output_json": '{"TestA.test_one": "PASSED", "TestA.test_two": "FAILED"}',
    "problem_statement": "It breaks.",
}
OURS = SWE_GYM | {"arena": {"package": "toolz", "version": "1.0.0", "sha256": "0" * 64, "requirements": ["a>=1,<2"]}}


def read(folder: Path, *rows: Any) -> Instances:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Instances.read(folder / "rows.jsonl")


def test_rows_of_swe_bench_name_their_image_and_tests(tmp_path: Path) -> None:
    (one,) = read(tmp_path, SWE_BENCH)
    assert one.image == "swebench/sweb.eval.x86_64.astropy_1776_astropy-12907"
    assert one.fail_to_pass == ("astropy/modeling/tests/test_separable.py::test_separable[compound_model6-result6]",)
    assert one.test_files == ("astropy/modeling/tests/test_separable.py",)


def test_rows_of_swe_gym_have_lists(tmp_path: Path) -> None:
    (one,) = read(tmp_path, SWE_GYM)
    assert one.image == "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-7365"
    assert (one.fail_to_pass, one.pass_to_pass) == (("tests/test_a.py::test_one",), ("tests/test_a.py::test_two",))


def test_rows_of_r2e_gym_name_tests_without_files(tmp_path: Path) -> None:
    (one,) = read(tmp_path, R2E)
    assert (one.fail_to_pass, one.dotted, one.test_files) == (("TestA.test_one",), True, ("r2e_tests",))
    assert one.id == "orange3__0123456789abcdef0123456789abcdef01234567"


def test_parquet_and_json_lines_give_the_same(tmp_path: Path) -> None:
    rows = [SWE_GYM, SWE_GYM | {"instance_id": "other-1"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert list(Instances.read(tmp_path / "rows.parquet")) == list(read(tmp_path, *rows))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"instance_id": "../../etc"}, "the id '../../etc' is not made of"),
        ({"base_commit": "HEAD; rm -rf /"}, "the commit 'HEAD; rm -rf /' is none"),
        ({"image_name": "--privileged"}, "no name of an image"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS is empty"),
        ({"FAIL_TO_PASS": "[1]"}, "FAIL_TO_PASS is no list"),
        ({"FAIL_TO_PASS": "nothing"}, "JSON|Expecting"),
        ({"PASS_TO_PASS": ["tests/test_a.py::test_one"]}, "in both lists"),
        ({"patch": None}, "patch is no text"),
        ({"arena": {"package": "-e .", "version": "1", "sha256": "0" * 64}}, "'-e .' is no package"),
        ({"arena": {"package": "a", "version": "1", "sha256": "short"}}, "no sha256"),
        (
            {"arena": {"package": "a", "version": "1", "sha256": "0" * 64, "requirements": ["--index-url=http://x"]}},
            "no requirement",
        ),
        (
            {"arena": {"package": "a", "version": "1", "sha256": "0" * 64, "requirements": ["a @ file:///x"]}},
            "no requirement",
        ),
        (
            {"arena": {"package": "a", "version": "1", "sha256": "0" * 64, "paths": ["../x"]}},
            "no folder of the repository",
        ),
        ({"arena": {"package": "a", "version": "1", "sha256": "0" * 64, "paths": ["x\nimport os"]}}, "no folder"),
        ({"FAIL_TO_PASS": "[" * 100_000}, "recursion|Expecting"),
        ({"FAIL_TO_PASS": ["-p evil.py::x"]}, "is no test"),
        ({"FAIL_TO_PASS": ["a.py::x\0"]}, "is no test"),
        ({"repo": "a/b\x1b[31m"}, "repo is no name"),
        ({"expected_output_json": "[]"}, "docker_image|no attribute"),
        ({"arena": {"command": "rm"}}, "unknown field|missing required"),
    ],
)
def test_a_row_that_is_none_is_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^rows.jsonl, line 2: .*({reason})"):
        read(tmp_path, SWE_GYM | {"instance_id": "first-1"}, SWE_GYM | changes)


def test_files_that_hold_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no instances"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="twice"):
        read(tmp_path, SWE_GYM, SWE_GYM)
    with pytest.raises(ConfigError, match="cannot be read"):
        Instances.read(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"bad.jsonl, line 1"):
        Instances.read(tmp_path / "bad.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match="is not a Parquet file"):
        Instances.read(tmp_path / "bad.parquet")


def test_tests_of_other_runners_are_refused_in_one_line(tmp_path: Path) -> None:
    django = SWE_BENCH | {"FAIL_TO_PASS": '["test_x (utils_tests.Test)"]', "repo": "django/django"}
    (one,) = read(tmp_path, django)
    with pytest.raises(ConfigError, match=r"'test_x \(utils_tests.Test\)' is none of pytest's"):
        _ = one.test_files


def test_what_decides_how_tests_run_is_protected(tmp_path: Path) -> None:
    (one,) = read(tmp_path, SWE_BENCH)
    files = protected_files(one)
    assert set(files) == {"astropy/modeling/tests", "astropy/modeling/tests/test_separable.py"}
    for name in (
        "conftest.py",
        "a/b/conftest.py",
        "astropy/modeling/tests/helper.py",
        "ASTROPY/modeling/Tests/x",
        "sitecustomize.py",
        "x.dist-info",
        "a/X.DIST-INFO/entry_points.txt",
        "setup.cfg",
    ):
        assert is_protected(name, files), name
    for name in ("astropy/modeling/separable.py", "astropy/modeling/tests2/x.py", "my_conftest.py", "setup.py"):
        assert not is_protected(name, files), name
    assert changed_files(one.patch) == ("astropy/modeling/separable.py",)
