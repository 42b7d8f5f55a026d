"""Playing: tools and text, budgets, what is shown and recorded, snapshots, sets of instances."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arena import ConfigError, SeatStep, Session, ToolCall, UnknownIdError, UnsupportedError, make
from arena.envs.swe._sample import sample_files, sample_instances
from arena.envs.swe._tools import Bash, Edit, Malformed, Submit, read_text
from tests.agents.chat_server import Answer, ChatServer
from tests.agents.test_chat import make_chat
from tests.agents.test_chat import play as play_episode

ID = "swe/repo-v0"
FIX = "sed -i 's/return sorted(texts, key=parse)\\[-1\\]/return max(texts, key=parse)/' durations.py"


class Play:
    """An episode, by hand."""

    def __init__(self, task: str = "durations-ties", **options: Any) -> None:
        self.env = make(ID, options)
        self.task = next(t for split in self.env.spec.splits for t in self.env.taskset(split) if t.id == task)
        self.now: SeatStep = self.env.reset(self.task, 0).seats["player"]

    def do(self, action: Any) -> SeatStep:
        self.now = self.env.step({"player": action}).seats["player"]
        return self.now

    def bash(self, command: str) -> SeatStep:
        return self.do(ToolCall("bash", {"command": command}))

    def edit(self, do: str, path: str, **more: Any) -> str:
        return str(self.do(ToolCall("edit", {"do": do, "path": path, **more})).observation)


@pytest.fixture
def play(can_play: None) -> Iterator[Callable[..., Play]]:
    opened = list[Play]()

    def start(*arguments: Any, **options: Any) -> Play:
        opened.append(Play(*arguments, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.env.close()


# -- one episode -------------------------------------------------------------------------------------------------------


def test_a_fix_resolves_the_issue(play: Callable[..., Play]) -> None:
    one = play()
    assert one.now.observation.startswith("longest() picks the wrong one")
    assert one.now.info["sandbox"]["backend"] == "bubblewrap"
    assert set(one.now.info["sandbox"]["enforced"]) >= {"filesystem", "network"}
    one.bash(FIX)
    last = one.do(ToolCall("submit"))
    assert (last.reward, last.terminated, last.ending) == (1.0, True, "submitted")
    assert last.info["prediction"]["instance_id"] == "durations-ties"
    assert "+    return max(texts, key=parse)" in last.info["prediction"]["model_patch"]
    score = one.env.score()
    assert (score.value, score.success) == (1.0, True)
    assert score.metrics["fail_to_pass"] == score.metrics["pass_to_pass"] == score.metrics["graded"] == 1.0


def test_half_a_fix_earns_a_share_where_shares_are_paid(play: Callable[..., Play]) -> None:
    half = "sed -i 's/sorted(texts, key=parse)\\[-1\\]/sorted(texts, key=parse, reverse=True)[0]/' durations.py"
    binary, ratio = play(), play(reward="ratio")
    for one in (binary, ratio):
        one.bash(half)
        one.do(ToolCall("submit"))
        assert one.env.score().value == 0.0
        assert one.env.score().metrics["fail_to_pass"] == 0.5
    assert binary.now.reward == 0.0
    assert ratio.now.reward == 0.75


def test_text_does_what_tools_do(play: Callable[..., Play]) -> None:
    by_tool, by_text = play(), play()
    said = [
        by_tool.bash("cat durations.py | head -3").observation,
        by_tool.edit("replace", "durations.py", old="sorted(texts, key=parse)[-1]", text="max(texts, key=parse)"),
        by_tool.do(ToolCall("submit")),
    ]
    edit = {"do": "replace", "path": "durations.py", "old": "sorted(texts, key=parse)[-1]"}
    edit["text"] = "max(texts, key=parse)"
    assert by_text.do("I look first.\n\n```bash\ncat durations.py | head -3\n```\n").observation == said[0]
    assert by_text.do(f"Found it.\n```edit\n{json.dumps(edit)}\n```").observation == said[1]
    assert by_text.do("```submit\n```") == said[2]
    assert by_text.now.reward == 1.0


def test_turns_are_limited_and_what_is_there_is_graded(play: Callable[..., Play]) -> None:
    one = play(max_turns=2)
    assert not one.do("I think.").is_last
    last = one.bash(FIX)
    assert (last.ending, last.reward) == ("out_of_turns", 1.0)
    assert one.env.score().metrics["malformed"] == 1


def test_commands_are_cut_short_and_their_output_in_the_middle(play: Callable[..., Play]) -> None:
    one = play(command_timeout_s=1, max_observation=1000)
    said = one.bash("echo begin; sleep 60 & sleep 60")
    assert said.observation.startswith("begin\n[ended after 1 s")
    assert said.info["timed_out"]
    assert one.bash("pgrep sleep").observation == "[exit code 1]"
    long = one.bash("seq 1 100000").observation
    assert long.startswith("1\n2\n")
    assert long.endswith("100000\n[exit code 0]")
    assert "characters left out" in long
    assert len(long) < 1200


def test_what_a_command_writes_is_plain_text(play: Callable[..., Play]) -> None:
    one = play()
    assert (
        one.bash("printf '\\033[31mred\\033[0m \\0\\a caf\\303\\251 \\377'").observation
        == "red  café \ufffd\n[exit code 0]"
    )
    assert one.bash("echo out; echo err >&2; exit 3").observation == "out\nerr\n[exit code 3]"
    assert "syntax error" in one.bash("if then").observation


def test_the_player_has_no_hidden_tests_and_no_history(play: Callable[..., Play]) -> None:
    one = play()
    assert one.bash("ls tests").observation == "test_parse.py\ntest_render.py\n[exit code 0]"
    assert one.bash("git log --oneline --all | wc -l").observation == "1\n[exit code 0]"
    assert one.bash("git status --short").observation == "[exit code 0]"
    assert one.bash("python -c 'import durations, pytest'").observation == "[exit code 0]"


def test_files_are_edited(play: Callable[..., Play]) -> None:
    one = play()
    assert one.edit("create", "new/a.txt", text="one\nthree") == "new/a.txt: 2 lines were written."
    assert one.edit("insert", "new/a.txt", line=1, text="two") == "new/a.txt: 1 lines were inserted after line 1."
    assert one.edit("insert", "new/a.txt", line=3, text="four") == "new/a.txt: 1 lines were inserted after line 3."
    assert one.edit("view", "new/a.txt") == "     1\tone\n     2\ttwo\n     3\tthree\n     4\tfour"
    assert one.edit("view", "new/a.txt", line=2, end=2) == "     2\ttwo"
    assert one.edit("view", "new") == "new\nnew/a.txt"
    assert "occurs 0 times" in one.edit("replace", "new/a.txt", old="five", text="six")
    assert "occurs 4 times" in one.edit("replace", "new/a.txt", old="\n", text="")
    assert "has 4 lines" in one.edit("insert", "new/a.txt", line=9, text="x")
    assert "none" in one.edit("view", "new/a.txt", line=9)
    assert "/etc/passwd" in one.edit("create", "/etc/passwd", text="x")
    assert "no such" in one.edit("view", "missing.py").lower()
    one.bash("head -c 10 /dev/urandom > noise; printf '\\377' >> noise")
    assert "no UTF-8" in one.edit("view", "noise")
    assert one.env.score().metrics["edits"] == 13


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("```bash\nls\n```", Bash("ls\n")),
        (
            "thinking ```inline``` and\n```sh\nls -l\ncat <<'END'\n``\nEND\n```\nafter",
            Bash("ls -l\ncat <<'END'\n``\nEND\n"),
        ),
        ('```edit\n{"do": "view", "path": "a"}\n```', Edit("view", "a")),
        ("```submit\n```", Submit()),
        ("```submit   \nplease\n```", Submit()),
    ],
)
def test_one_block_acts(text: str, move: Any) -> None:
    assert read_text(text) == move


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no block"),
        ("```python\nprint()\n```", "no block"),
        ("```bash\nls", "no block"),
        ("```bash\nls\n```\n```submit\n```", "2 blocks"),
        ("```bash\n\n```", "empty"),
        ("```edit\nnot json\n```", "no edit"),
        ('```edit\n{"do": "burn", "path": "a"}\n```', "no edit"),
        ('```edit\n{"do": "view"}\n```', "no edit"),
        ("```edit\n" + "[" * 100_000 + "\n```", "no edit"),
    ],
)
def test_text_without_one_block_says_what_to_write(text: str, reason: str) -> None:
    move = read_text(text)
    assert isinstance(move, Malformed)
    assert reason in move.reason


# -- experts, snapshots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [one.id for split in ("train", "dev", "test") for one in sample_instances(split)])
def test_the_oracle_resolves_what_doing_nothing_does_not(task: str, play: Callable[..., Play]) -> None:
    for kind, expected in (("oracle", 1.0), ("noop", 0.0)):
        one = play(task)
        while not one.now.is_last:
            one.do(one.env.expert_action("player", kind))
        assert one.env.score().value == expected


def test_files_are_part_of_a_snapshot(play: Callable[..., Play]) -> None:
    one = play()
    one.bash("echo kept > kept.txt")
    state = one.env.snapshot()
    one.bash(f"rm kept.txt; {FIX}")
    other = play("durations-negative")
    for env_of in (one, other):
        env_of.env.restore(state)
        assert env_of.bash("cat kept.txt; git status --short").observation == "kept\n?? kept.txt\n[exit code 0]"
        env_of.bash(FIX)
        env_of.do(ToolCall("submit"))
        assert env_of.env.score().value == 1.0


def test_a_session_forks_by_snapshot(can_play: None) -> None:
    env = make(ID)
    session = Session(env, env.taskset("test").get("durations-ties"), 0)
    try:
        session.open()
        session.step(1, {"player": ToolCall("bash", {"command": FIX})})
        branch = session.fork(make(ID))
        try:
            branch.step(2, {"player": ToolCall("bash", {"command": "git checkout ."})})
            assert branch.step(3, {"player": ToolCall("submit")}).time_step.seats["player"].reward == 0.0
        finally:
            branch.close()
        assert session.step(2, {"player": ToolCall("submit")}).time_step.seats["player"].reward == 1.0
    finally:
        session.close()


def test_a_command_has_no_nul(play: Callable[..., Play]) -> None:
    one = play()
    for action in (ToolCall("bash", {"command": "a\0b"}), "```bash\na\0b\n```"):
        assert "no NUL" in one.do(action).observation
    assert one.env.score().metrics["malformed"] == 2


@pytest.mark.parametrize(
    "left",
    [
        "git init --quiet sub; echo x > sub/x",
        "git init --quiet sub; cd sub; echo x > x; git add x; git -c user.name=a -c user.email=a@a commit --quiet -m x",
        "touch secret; chmod 000 secret; mkdir closed; touch closed/x; chmod 000 closed",
        "head -c 2G /dev/zero > /tmp/full",
        "printf '* text=auto\\n*.py ident\\n' > .gitattributes; sed -i 's/$/\\r/' durations.py",
        "mkdir -p a/b/c; touch 'a/b/with space' $'a/b/new\\nline' a/b/c/é; ln -s /nowhere a/link",
    ],
)
def test_what_else_lies_about_does_not_spoil_a_fix(left: str, play: Callable[..., Play]) -> None:
    one = play(limits={"disk_bytes": 64 << 20})
    one.bash(FIX)
    one.bash(left)
    assert one.do(ToolCall("submit")).reward == 1.0


# -- a language model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "text"])
def test_a_language_model_resolves_an_issue(mode: str, can_play: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode == "auto":
        script = [Answer(calls=[("bash", json.dumps({"command": FIX}))]), Answer(calls=[("submit", "{}")])]
    else:
        script = [Answer(f"I fix it.\n\n```bash\n{FIX}\n```"), Answer("Done.\n\n```submit\n```")]
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    async def game(server: ChatServer) -> Any:
        env = make(ID)
        task = env.taskset("test").get("durations-ties")
        agent = make_chat(server, mode=mode)
        session, _ = await play_episode(agent, env, task, 0)
        await agent.close()
        score = session.end().score
        session.close()
        return score

    with ChatServer(*script) as server:
        score = asyncio.run(game(server))
        assert score.success
        assert "longest() picks the wrong one" in json.dumps(server.requests[0].messages)
        assert bool(server.requests[0].body.get("tools")) == (mode == "auto")
        assert len(json.dumps(server.requests[0].messages)) < 4_000


# -- sets --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_the_operators_is_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    row = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "0" * 40, "problem_statement": "?", "version": "1"}
    row |= {"patch": "", "test_patch": "", "FAIL_TO_PASS": ["t.py::x"], "PASS_TO_PASS": []}
    (tmp_path / "mine" / "dev.jsonl").write_text(json.dumps(row))
    monkeypatch.setenv("ARENA_SWE_DATA", str(tmp_path))
    env = make(ID, {"instances": "mine"})
    assert [task.id for task in env.taskset("dev")] == ["a__b-1"]
    assert len(env.taskset("test")) == 0
    with pytest.raises(UnknownIdError, match=r"no instance 'a__b-2' .*'a__b-1'"):
        env.taskset("dev").get("a__b-2")
    with pytest.raises(UnsupportedError, match="comes from an image, which the bubblewrap sandbox cannot show"):
        env.reset(env.taskset("dev").task(0), 0)
    with pytest.raises(ConfigError, match=r"no set of instances 'mind'.*'mine'"):
        make(ID, {"instances": "mind"}).taskset("dev")
    with pytest.raises(ConfigError):
        make(ID, {"instances": "../mine"})


def test_a_mirror_takes_the_place_of_an_image(
    can_play: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable[..., Play]
) -> None:
    """A repository with a history: the fix is a later commit, which must not be there."""
    source, data = tmp_path / "source", tmp_path / "data"
    source.mkdir()
    (data / "real").mkdir(parents=True)
    variables = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@a",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@a",
    }

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=source,
            env={"PATH": "/usr/bin:/bin", **variables},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    (bug,) = [one for one in sample_instances("test") if one.id == "durations-ties"]
    git("init", "--quiet")
    for name, text in sample_files().items():
        if name not in bug.test_files:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(text)
    right = (source / "durations.py").read_text()
    (source / "durations.py").write_text(right.replace("max(texts, key=parse)", "sorted(texts, key=parse)[-1]"))
    git("add", "--all")
    git("commit", "--quiet", "--message", "bug")
    commit = git("rev-parse", "HEAD")
    (source / "durations.py").write_text(right)
    git("commit", "--quiet", "--all", "--message", "the secret fix")
    git("clone", "--quiet", "--bare", str(source), str(data / "mirrors" / "owner__durations.git"))
    row = {"instance_id": "owner__durations-1", "repo": "owner/durations", "base_commit": commit, "version": "1"}
    row |= {"problem_statement": "?", "patch": bug.patch, "test_patch": bug.test_patch}
    row |= {"FAIL_TO_PASS": json.dumps(bug.fail_to_pass), "PASS_TO_PASS": json.dumps(bug.pass_to_pass)}
    (data / "real" / "test.jsonl").write_text(json.dumps(row))
    monkeypatch.setenv("ARENA_SWE_DATA", str(data))
    one = play("owner__durations-1", instances="real")
    assert one.bash("git log --all --format=%s; grep -r secret .git | wc -l").observation.endswith(
        "given\n0\n[exit code 0]"
    )
    one.bash(FIX)
    assert one.do(ToolCall("submit")).reward == 1.0
