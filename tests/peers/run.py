"""Runs the peers' own packages, each from its own virtual environment, against a real `arena serve`.

    python -m tests.peers.run openenv=<python of its environment> mcp=<...> trl=<...> swebench=<...>

Two servers run: one as on a laptop, one that asks for a token. The peers never import Arena, but for `trl`, which plays
in its own process too; what they are told stands in environment variables, and what they must find in a file.
`swebench` asks no server: it grades what Arena has graded.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.peers.hosting import declare_environments, python_path
from tests.peers.reference import transcripts
from tests.peers.swebench_cases import write_cases
from tests.serving import ROOT, running_server

_LONGEST_S = 900
HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Return the number of peers that failed."""
    peers = dict(argument.split("=", 1) for argument in arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(python_path(declare_environments(folder)))
        expected = folder / "expected.json"
        expected.write_text(json.dumps(transcripts()))
        token = _token(folder / "tokens")
        told = {
            "PEERS_URL": stack.enter_context(running_server("--workers", "2")),
            "PEERS_GUARDED_URL": stack.enter_context(running_server("--workers", "1", "--token-file", token[0])),
            "PEERS_TOKEN": token[1],
            "PEERS_EXPECTED": str(expected),
        }
        if "swebench" in peers:
            told["PEERS_SWEBENCH"] = str(write_cases(folder))
        failed = [peer for peer, python in peers.items() if not _passes(peer, python, told)]
    print(f"peers failed: {', '.join(failed)}" if failed else f"all peers passed: {', '.join(peers)}")  # noqa: T201
    return len(failed)


def _token(file: Path) -> tuple[str, str]:
    command = [sys.executable, "-c", "from arena.cli import main; main()", "token", str(file), "peer"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return str(file), made.stdout.strip()


def _passes(peer: str, python: str, told: dict[str, str]) -> bool:
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    options = [
        "-q",
        "-ra",
        "-p",
        "no:cacheprovider",
        "--noconftest",
        "--import-mode=importlib",
        "-c",
        str(HERE / "pytest.ini"),
    ]
    command = [python, "-m", "pytest", *options, str(HERE / f"{peer}_checks.py")]
    return subprocess.run(command, cwd=HERE, env=plain | told, timeout=_LONGEST_S, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
