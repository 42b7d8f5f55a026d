"""Language models on the command line, against a real server that speaks the protocol."""

import json
import os
import re

import pytest

from arena.trace import read_episodes
from tests.agents.chat_server import Answer, ChatServer, Status

from .test_cli import ARENA, arena

KEY = "sk-not-to-be-seen-anywhere"
SCENARIO = """
name: chat-guess
env: {id: text/guess-v0}
agents:
  chat:
    id: chat
    options: {model: fake, base_url: URL, api_key_env: TEST_KEY, backoff_s: 0.001, price_per_million_input_usd: 2}
tasks: {split: train, select: first}
episodes: 8
concurrency: 8
metrics: [tokens, cost_usd]
"""


def binary_search(request):
    """Answer as a model that reads the whole conversation."""
    low, high = 1, 0
    for message in request["messages"]:
        if match := re.search(r"from 1 to (\d+)", str(message["content"])):
            high = high or int(match[1])
        if match := re.search(r"It is (higher|lower) than (\d+)", str(message["content"])):
            low, high = (int(match[2]) + 1, high) if match[1] == "higher" else (low, int(match[2]) - 1)
    return Answer(str((low + high) // 2), usage=(100, 1))


def run(server_url, folder, *more, key=KEY):
    (folder / "chat.yaml").write_text(SCENARIO.replace("URL", server_url))
    environment = {**os.environ, "TEST_KEY": key}
    return arena("run", "chat.yaml", "--out", "out", *more, cwd=folder, env=environment)


def test_a_model_plays_a_scenario_many_episodes_at_once_and_its_tokens_are_counted(tmp_path):
    with ChatServer(model=binary_search, key=KEY) as server:
        done = run(server.url, tmp_path)
        requests = len([request for request in server.requests if request.path.endswith("/chat/completions")])
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["completed"], summary["success_rate"]) == (8, 1.0)
    assert summary["usage"]["input_tokens"] == 100 * requests
    assert summary["usage"]["cost_usd"] == pytest.approx(100 * requests * 2e-6)
    assert summary["steps_mean"] * 8 == requests
    assert KEY not in "".join(path.read_text() for path in (tmp_path / "out").iterdir()) + done.stdout


@pytest.mark.parametrize(
    ("key", "more", "message"),
    [
        ("sk-some-other-key", [], "check the key in the environment variable TEST_KEY"),
        ("", [], "the environment variable TEST_KEY is not set"),
        (KEY, ["--set", "agents.chat.options.base_url=http://127.0.0.1:9/v1"], "check that the server runs"),
        (KEY, ["--set", "agents.chat.options.base_url=nonsense"], "must be a URL"),
        (KEY, ["--set", "agents.chat.options.modell=x"], "did you mean 'model'"),
    ],
)
def test_a_wrong_key_or_address_is_one_line_before_anything_is_played_or_written(tmp_path, key, more, message):
    with ChatServer(model=binary_search, key=KEY) as server:
        done = run(server.url, tmp_path, *more, key=key)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
    assert "sk-" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_episodes_lost_to_the_endpoint_are_errors_and_no_scores(tmp_path):
    refusals = [Status(404, "no such model")] * 3
    with ChatServer(*refusals, model=binary_search, key=KEY) as server:
        done = run(server.url, tmp_path, "--concurrency", 1)
    assert done.returncode == 1
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["completed"], summary["errors"], summary["score_mean"]) == (5, 3, 1.0)
    assert "3 x " in summary["error_codes"]["MODEL"]
    failed = [e for e in read_episodes(tmp_path / "out/traces.jsonl") if e.end.error]
    assert {episode.end.score for episode in failed} == {None}


@pytest.mark.parametrize(("module", "extra", "scenario"), [
    ("textworld", "text", "textworld-quickstart"), ("openai", "chat", "textworld-chat"),
])  # fmt: skip
def test_a_missing_extra_is_one_line_that_says_what_to_install(tmp_path, monkeypatch, module, extra, scenario):
    code = f"import sys; sys.modules['{module}'] = None; from arena.cli import main; main()"
    monkeypatch.setattr("tests.cli.test_cli.ARENA", [*ARENA[:-1], code])
    done = arena("run", scenario, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"pip install 'arena-rl[{extra}]'" in done.stderr
    assert list(tmp_path.iterdir()) == []
