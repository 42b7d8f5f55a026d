"""What of the Docker back end needs no daemon; the rest is in tests/docker."""

import subprocess
import sys
from pathlib import Path

import pytest

from arena import PrerequisiteError, UsageError
from arena.sandbox import SandboxSettings, _seccomp, open_sandbox
from arena.sandbox.docker._profile import ABSENT, OF_ITSELF, REFUSED
from arena.sandbox.docker._streams import Output
from arena.sandbox.docker._words import expressions

MARK = b"0123456789abcdef"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_output_is_kept_up_to_the_mark_however_it_comes(size: int) -> None:
    output = Output(10, MARK, has_first_line=True)
    sent = b"12 34\n" + b"abcdefg" * 5 + MARK + b"7\nof the next"
    for at in range(0, len(sent), size):
        output.add(sent[at : at + size])
    assert (output.first, output.said, output.take()) == (b"12 34", "7", (b"abcdecdefg", 25))
    output.expect(100, b"another")
    output.add(b" oneanother0\n")
    assert (output.said, output.take()) == ("0", (b"of the next one", 0))


def test_output_without_a_mark_is_all_that_came() -> None:
    output = Output(6, MARK, has_first_line=False)
    for _ in range(300_000):
        output.add(b"abc")
    assert output.said is None
    assert output.take() == (b"abcabc", 899_994)


@pytest.mark.parametrize(
    "word", ["plain", "a b'\"$x\n", "\udcff\n'x\udcfe\udc80'$(id)\\\n", "\udc8a", "\u00fc\udcc3", ""]
)
def test_a_word_reaches_a_program_as_it_is(word: str) -> None:
    found, arguments = expressions(["first", word, "last"])
    script = "exec " + " ".join(
        [f"'{sys.executable}'", "-c", "'import os, sys; os.write(1, repr(sys.argv[1:]).encode())'"]
    )
    command = ["sh", "-c", f"{script} {' '.join(found)}", "sh", *arguments]
    said = subprocess.run(command, capture_output=True, check=True, env={"PYTHONUTF8": "1"})
    assert said.stdout.decode() == repr(["first", word, "last"])
    assert all(argument.isprintable() or "\n" in argument for argument in arguments)


def test_both_back_ends_refuse_the_same_calls() -> None:
    special = {"clone", "socket", "socketpair", "ioctl", "memfd_create"}
    assert set(OF_ITSELF) == set(_seccomp._OF_ITSELF)
    assert {name for name, which in OF_ITSELF.items() if which} == set(_seccomp._WHO_SECOND)
    assert {*REFUSED, *ABSENT} >= set(_seccomp._X86_64) - special - set(OF_ITSELF)


def test_without_a_daemon_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
    with pytest.raises(
        PrerequisiteError, match=r"no Docker daemon answers at unix:///.*: start it, or set DOCKER_HOST"
    ):
        open_sandbox(backend="docker")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    with pytest.raises(PrerequisiteError, match="on this machine, with a unix socket, not tcp"):
        open_sandbox(backend="docker")


def test_without_its_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'arena-rl\[docker\]'"):
        open_sandbox(backend="docker")


@pytest.mark.parametrize("options", [{"runtimes": "runsc"}, {"runtime": ""}, {"begin_with_image": 1}])
def test_options_that_are_none_are_one_line(options: dict[str, object]) -> None:
    with pytest.raises(
        UsageError, match=r"option '\w+' of the docker back end: .* \(known: runtime, begin_with_image\)"
    ):
        open_sandbox(SandboxSettings(options=options), backend="docker")
