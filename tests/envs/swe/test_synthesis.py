"""Bugs, the issues that tell of them, and instances of a real package."""

from __future__ import annotations

import ast
import difflib
import json
import random
import subprocess
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import ConfigError, UsageError
from arena.envs.swe._mutations import KINDS, mutated, mutations, spread
from arena.envs.swe._patch_text import file_patch
from arena.envs.swe._sample import sample_files
from arena.envs.swe._statements import statement
from arena.envs.swe._synthesis import Synthesis

MODULE = textwrap.dedent('''
    """Not 1 < 2."""
    LIMIT = 3 + 4


    def find(items, start=0, strict=True):
        """Say if 1 < 2."""
        total: int = 0  # a comment
        for index, item in enumerate(items[start:]):
            if item is None and not strict:
                continue
            elif index >= LIMIT:
                break
            else:
                total += compare(item, index, key=len)
        try:
            self.total = total - 1
            print(total)
        except ValueError:
            return False
        assert total < 5
        return total % 2 == 0
''').lstrip()


def test_every_kind_is_found_and_changes_what_it_says() -> None:
    found = mutations(MODULE)
    assert {one.kind for one in found} == set(KINDS)
    assert len(KINDS) >= 10
    for one in found:
        changed = mutated(MODULE, one)
        ast.parse(changed)
        assert changed != MODULE
        assert one.function == "find"
        lines = [line for line in difflib.ndiff(MODULE.splitlines(), changed.splitlines()) if line[:2] in ("- ", "+ ")]
        assert len(lines) <= 8, one
        for kept in ('"""Not 1 < 2."""', "LIMIT = 3 + 4", '"""Say if 1 < 2."""', "assert total < 5", "# a comment"):
            assert kept in changed, one


def test_mutations_are_the_same_every_time_and_take_turns() -> None:
    assert mutations(MODULE) == mutations(MODULE)
    pairs = [("m.py", one) for one in mutations(MODULE)]
    mixed = spread(pairs, random.Random(0).shuffle)
    assert sorted(map(str, mixed)) == sorted(map(str, pairs))
    assert len({one.kind for _, one in mixed[: len(KINDS)]}) == len(KINDS)


def test_what_is_no_python_has_no_mutations() -> None:
    assert mutations("def f(:") == []
    assert mutations("") == []


texts = st.lists(st.sampled_from(["a", "b", "", "  c", "é", "\u2028", "\x0c"]), max_size=8).map("\n".join)


@settings(max_examples=40, deadline=None)
@given(before=st.none() | texts, after=st.none() | texts)
def test_git_reads_our_patches(before: str | None, after: str | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    if before == after:
        return
    folder = tmp_path_factory.mktemp("patch")
    patch = file_patch("x/y.py", before, after)
    file = folder / "x" / "y.py"
    file.parent.mkdir()
    for text, other, options in ((before, after, []), (after, before, ["--reverse"])):
        file.unlink(missing_ok=True)
        file.parent.mkdir(exist_ok=True)
        if text is not None:
            file.write_bytes(text.encode())
        subprocess.run(["git", "apply", *options, "-"], cwd=folder, input=patch.encode(), check=True)
        assert (file.read_bytes().decode() if file.exists() else None) == other


def test_an_issue_tells_what_was_tried_and_nothing_of_the_patch() -> None:
    files = sample_files()
    test = "tests/test_lists.py::test_the_first_of_the_longest_is_returned"
    patch = file_patch("durations.py", "return sorted(texts, key=parse)[-1]\n", "return max(texts, key=parse)\n")
    told = statement("durations", "1", [test], {test: "assert '1m' == '60s' <f at 0x7f00aa>"}, files, patch)
    assert told is not None
    assert 'longest(["1s", "60s", "1m"]) == "60s"' in told
    assert "assert '1m' == '60s' <f at 0x...>" in told
    assert "test_the_first" not in told
    leak = {test: "in durations.py: return sorted(texts, key=parse)[-1]"}
    assert statement("durations", "1", [test], leak, files, patch) is None
    assert statement("durations", "1", ["no.py::test"], {"no.py::test": "x"}, files, patch) is None


# -- a real package ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("can_play", "index")
def test_instances_of_a_package_are_made_validated_and_kept(tmp_path: Path) -> None:
    seen = list[tuple[int, int]]()
    options = Synthesis.Options(package=("inflection==0.5.1",), n=2)
    told = Synthesis(options).make(tmp_path, lambda done, total: seen.append((done, total)))
    assert told.startswith("2 instances in")
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert len({row["instance_id"] for row in rows}) == 2
    for row in rows:
        assert row["FAIL_TO_PASS"]
        assert row["problem_statement"].startswith("inflection 0.5.1 does not behave as it should")
        assert row["test_patch"].startswith("diff --git a/test_inflection.py b/test_inflection.py\nnew file")
        assert row["bug"] in KINDS
    assert seen[0] == (0, 2)
    assert seen[-1] == (2, 2)
    before = (tmp_path / "test.jsonl").read_bytes()
    (tmp_path / "test.jsonl").write_bytes(before + b'{"instance_id": "cut o')
    again = Synthesis(options).make(tmp_path, lambda done, total: None)
    assert (tmp_path / "test.jsonl").read_bytes() == before
    assert "nothing to do" in again


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"package": ("toolz",)}, "'toolz' names no package and version"),
        ({"package": ("../x==1",)}, "names no package"),
        ({"package": ("toolz==1.0.0",), "kinds": ("typo",)}, "no kind of bugs 'typo'"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        Synthesis(Synthesis.Options.model_validate(options)).make(tmp_path, lambda done, total: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("index")
def test_a_version_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"toolz has no source distribution of version 99.0 \(the last ones: "):
        Synthesis(Synthesis.Options(package=("toolz==99.0",))).make(tmp_path, lambda done, total: None)
    with pytest.raises(ConfigError, match="there is no package"):
        Synthesis(Synthesis.Options(package=("arena-surely-not-there==1",))).make(tmp_path, lambda done, total: None)
