"""Ids find classes, near misses are named, and nothing outside the declared packages is ever imported."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pydantic
import pytest

from arena import ConfigError, Options, UnknownIdError, make, make_agent, register, register_agent
from arena.registry import agents, environments, parse_options

ROOT = Path(__file__).parents[2]


def test_id_finds_its_class() -> None:
    assert make("text/guess-v0").spec.id == "text/guess-v0"
    assert make("text/guess-v0", {"max_guesses": 3}).options.max_guesses == 3


@pytest.mark.parametrize(
    ("given", "near"),
    [("text/gues-v0", "text/guess-v0"), ("text/guess-v9", "text/guess-v0"), ("txt/guess-v0", "text/guess-v0")],
)
def test_near_miss_is_named(given: str, near: str) -> None:
    with pytest.raises(UnknownIdError, match=f"did you mean.*{near}") as caught:
        make(given)
    assert "\n" not in str(caught.value)


def test_agents_near_miss_is_named() -> None:
    with pytest.raises(UnknownIdError, match="did you mean 'random'"):
        make_agent("randm")


def test_far_miss_lists_what_is_known() -> None:
    with pytest.raises(UnknownIdError, match=r"known: .*text/guess-v0"):
        make("qqqqqqqq")


def test_unknown_id_is_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        make("no/such-v0")


MALICIOUS = [
    *(
        "",
        " ",
        ".",
        "..",
        "/",
        "../x",
        "../../etc/passwd",
        "os/path-v0",
        "os",
        "os.path",
        "subprocess-v0",
        "json/tool-v0",
    ),
    *(
        "__init__",
        "__init__-v0",
        "text/__init__",
        "text/__init__-v0",
        "text",
        "text/",
        "/text/guess-v0",
        "text//guess-v0",
    ),
    *("text.guess-v0", "text/guess", "arena.envs.text.guess", "text/guess-v0\n", "text/guess-v0\0", "antigravity-v0"),
    *("text/guess-v0; import antigravity", "this", "x" * 10_000, "\ud800", "__main__", "text/guess-v-1"),
]


@pytest.mark.parametrize("given", MALICIOUS, ids=lambda given: repr(given)[:30])
@pytest.mark.parametrize("find", [make, make_agent], ids=["environment", "agent"])
def test_malicious_id_imports_nothing(given: str, find: Any) -> None:
    environments.ids(), agents.ids()
    before = set(sys.modules)
    with pytest.raises(UnknownIdError) as caught:
        find(given)
    assert "\n" not in str(caught.value)
    assert set(sys.modules) == before


class Inner(Options):
    depth: int = pydantic.Field(1, description="Depth.")


class Outer(Options):
    size: int = pydantic.Field(3, ge=1, le=9, description="Size.")
    inner: Inner = pydantic.Field(Inner(), description="Inner.")
    maybe: Inner | None = pydantic.Field(None, description="Maybe.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"siz": 3}, r"toy: unknown option 'siz' \(did you mean 'size'\?\)"),
        ({"inner": {"dept": 3}}, r"unknown option 'inner.dept' \(did you mean 'depth'\?\)"),
        ({"maybe": {"dept": 3}}, r"unknown option 'maybe.dept' \(did you mean 'depth'\?\)"),
        ({"zzzzz": 3}, r"unknown option 'zzzzz' \(known: inner, maybe, size\)"),
        ({"size": 0}, r"size: .*greater than or equal to 1, got 0"),
        ({"size": "3"}, r"size: .*integer, got '3'"),
        ({"size": 3.5}, r"size: .*integer.*got 3.5"),
        ({"size": None}, r"size: .*integer, got None"),
        ({"size": object()}, "options must be plain values"),
        ([1], "toy: "),
    ],
)
def test_wrong_option_is_explained_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_options("toy", Outer, given)
    assert "\n" not in str(caught.value)


def test_options_keep_their_defaults() -> None:
    assert parse_options("toy", Outer, {"inner": {"depth": 2}}) == Outer(inner=Inner(depth=2))


@pytest.mark.parametrize(
    "bad", ["Guess", "text/guess", "text/Guess-v0", "a/b/c-v0", "text/guess-v", "-v0", "text/-v0x"]
)
def test_ids_are_checked_when_registered(bad: str) -> None:
    with pytest.raises(ConfigError, match="must look like"):
        register(bad)


def test_agent_ids_are_checked_when_registered() -> None:
    for bad in ("Random", "a/b/c", "", "x y", "../x"):
        with pytest.raises(ConfigError, match="must look like"):
            register_agent(bad)


def test_two_classes_with_one_id_are_refused() -> None:
    cls = type("Other", (environments.get("text/guess-v0"),), {})
    with pytest.raises(ConfigError, match="two classes"):
        environments.add("text/guess-v0", cls)
    assert environments.get("text/guess-v0") is not cls


def test_every_module_can_be_imported() -> None:
    environments.ids(), agents.ids()
    assert environments.broken == {}
    assert agents.broken == {}


def test_ids_are_the_modules_paths() -> None:
    for registry, package in ((environments, "arena.envs"), (agents, "arena.agents")):
        for cls in registry:
            path = cls.spec.id.rsplit("-v", 1)[0].replace("-", "_").replace("/", ".")
            assert cls.__module__ == f"{package}.{path}"


def test_package_list_equals_the_tree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    places = {"arena": "arena", **setuptools["package-dir"]}
    assert set(setuptools["packages"]) == {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in places.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
