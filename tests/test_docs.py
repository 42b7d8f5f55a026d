"""What the documents show is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arena.registry import environments
from arena.scenario import parse_scenario
from tests.serving import running_server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

USUAL = "http://127.0.0.1:8700"


def blocks(page, language):
    """The fenced blocks of a language, indented ones too."""
    text = page.read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, flags=re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in body.splitlines()) for indent, body in found]


def run(command, folder):
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the README's commands have been run, as a reader would have."""
    folder = tmp_path_factory.mktemp("reader")
    for script in blocks(ROOT / "README.md", "bash"):
        done = run(["bash", "-euc", script], folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server():
    """The address of a running server."""
    with running_server("--workers", "1") as address:
        yield address


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, folder, request):
    for code in blocks(page, "python"):
        done = run([sys.executable, "-W", "error", "-c", reach(code, request)], folder)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_transcripts_run(page, folder, request):
    for script in blocks(page, "sh"):
        done = run(["bash", "-euc", reach(script, request)], folder)
        assert done.returncode == 0, done.stderr
        if "/v1" in script:
            assert '"success":true' in done.stdout
            assert done.stdout.count('"index":2,') == 2
            assert "1 of 1 episodes replayed equal" in done.stdout


def reach(text, request):
    """The text with the address of the test's server, where it names the usual one."""
    if USUAL not in text:
        return text
    return text.replace(USUAL, request.getfixturevalue("server"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_blocks_are_scenarios(page):
    for text in blocks(page, "yaml"):
        parse_scenario(text).resolve()


def makers_options(words):
    """Return the options of a maker that `arena tasks ENV MAKER` names; its help cannot show them."""
    maker = environments.get(words[2]).makers.get(words[3]) if words[1] == "tasks" and len(words) > 3 else None
    return {f"--{name.replace('_', '-')}" for name in maker.Options.model_fields} if maker is not None else set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_only_shown_exist_with_their_options(page, folder):
    makefile = (ROOT / "Makefile").read_text()
    for text in blocks(page, "console"):
        for line in text.replace("\\\n", " ").splitlines():
            words = line.partition("#")[0].removeprefix("$ ").split()
            if words[0] == "make":
                assert f"\n{words[1]}:" in makefile
            elif words[0] == "arena":
                usage = run([sys.executable, "-c", "from arena.cli import main; main()", words[1], "--help"], folder)
                assert usage.returncode == 0, usage.stderr
                known = set(re.findall(r"--[a-z-]+", usage.stdout)) | makers_options(words)
                for option in (word for word in words[2:] if word.startswith("--")):
                    assert option in known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link
