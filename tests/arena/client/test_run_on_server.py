"""``arena run --server``: the results of a local run, played elsewhere."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
import yaml

from arena.client import AsyncClient
from arena.runner import Progress, plan
from arena.runner import run as run_episodes
from arena.scenario import parse_scenario
from arena.server.tokens import add_token
from arena.trace import read_episodes
from tests.arena.server.harness import ServerProcess

SCENARIO = {
    "name": "guess-here-and-there",
    "env": {"id": "text/guess-v0", "options": {"max_guesses": 5}},
    "agents": {"expert": "expert", "random": "random"},
    "episodes": 4,
    "seeds": [0, 7],
    "concurrency": 4,
    "limits": {"steps": 4},
}


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(SCENARIO))
    return path


def arena_cli(command, *arguments, **environment):
    """Run a command and return how it ended."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "from arena.cli import main; main()", command, *map(str, arguments)],
        capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def results(folder):
    summary = json.loads((folder / "summary.json").read_text())
    episodes = {episode.record.episode: episode for episode in read_episodes(folder / "traces.jsonl")}
    return summary, episodes


def without_times(row):
    if isinstance(row, dict):
        return {key: without_times(value) for key, value in row.items() if not key.endswith("_s")}
    return [without_times(item) for item in row] if isinstance(row, list) else row


def test_a_run_on_a_server_has_the_digests_and_the_scores_of_a_local_one(scenario, server, tmp_path):
    for folder, further in (("here", ()), ("there", ("--server", server))):
        done = arena_cli("run", scenario, "--out", tmp_path / folder, "--json", *further)
        assert done.returncode == 0, done.stderr
    (here, local), (there, remote) = results(tmp_path / "here"), results(tmp_path / "there")
    assert without_times(here) == without_times(there)
    assert sorted(local) == sorted(remote)
    for name, episode in local.items():
        assert episode.record == remote[name].record
        assert [record.digest for record in episode.steps] == [record.digest for record in remote[name].steps]
        assert [record.time_step for record in episode.steps] == [record.time_step for record in remote[name].steps]
        assert episode.end.score == remote[name].end.score
    done = arena_cli("replay", tmp_path / "there" / "traces.jsonl")
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_not_there_is_said_and_nothing_is_written(scenario, tmp_path):
    done = arena_cli("run", scenario, "--out", tmp_path / "out", "--server", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot reach" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_token_comes_from_a_file_or_the_environment(scenario, tmp_path):
    token = add_token(tmp_path / "tokens", "trainer", ["play", "expert"])
    (tmp_path / "token").write_text(token + "\n")
    own = ServerProcess(tmp_path / "server", workers=1, token_file=str(tmp_path / "tokens")).start()
    try:
        here = ("run", scenario, "--server", own.url, "--json", "--episodes", 1)
        refused = arena_cli(*here, "--out", tmp_path / "a")
        assert refused.returncode == 2
        assert "bearer token" in refused.stderr
        by_file = arena_cli(*here, "--out", tmp_path / "b", "--server-token-file", tmp_path / "token")
        by_variable = arena_cli(*here, "--out", tmp_path / "c", ARENA_TOKEN=token)
        assert (by_file.returncode, by_variable.returncode) == (0, 0), by_file.stderr + by_variable.stderr
        assert all(token not in path.read_text() for path in [*tmp_path.glob("[bc]/*"), own.log])
    finally:
        assert own.stop() == 0


def test_a_token_file_needs_a_server_and_must_be_there(scenario, tmp_path):
    alone = arena_cli("run", scenario, "--server-token-file", tmp_path / "token")
    assert (alone.returncode, "--server" in alone.stderr) == (2, True)
    missing = arena_cli(
        "run", scenario, "--server", "http://127.0.0.1:1", "--server-token-file", tmp_path / "none"
    )  # fmt: skip
    assert (missing.returncode, "token file" in missing.stderr) == (2, True)


def test_a_server_that_goes_away_fails_its_episodes_without_a_score(tmp_path):
    scenario = parse_scenario(yaml.safe_dump({**SCENARIO, "agents": {"random": "random"}, "retries": 0})).resolve()
    own = ServerProcess(tmp_path / "server", workers=1).start()
    progress, recorded = Progress(), []

    def record(planned, episode):
        if not recorded:
            own.kill()
        recorded.append(episode)

    async def play():
        async with AsyncClient(own.url, reconnect_s=0.2) as client:
            await run_episodes(scenario, plan(scenario), record, progress=progress, remote=client.new_session)

    asyncio.run(asyncio.wait_for(play(), 60))
    assert own.left_behind() == []
    assert len(recorded) == len(plan(scenario))
    failed = [episode.end for episode in recorded if episode.end.outcome == "failed"]
    assert len(failed) >= len(recorded) - SCENARIO["concurrency"]
    assert {(end.error.code, end.score) for end in failed} == {("TRANSPORT", None)}
