"""An issue of an image, as SWE-bench and SWE-Gym have them: begun, solved and graded in containers."""

import json
import shutil
import subprocess

import pytest

from arena import ToolCall, make
from arena.envs.swe._sample import sample_files, sample_instances
from arena.envs.swe._sources import make_environment

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

IMAGE = "arena-tests/swe-issue"
BUG = next(one for one in sample_instances("test") if one.id == "durations-ties")
FIX = "sed -i 's/return sorted(texts, key=parse)\\[-1\\]/return max(texts, key=parse)/' durations.py"
DOCKERFILE = """FROM base
COPY packages /usr/lib/python3/dist-packages
RUN mkdir -p /opt/miniconda3/envs/testbed/bin && ln -s /usr/bin/python3 /opt/miniconda3/envs/testbed/bin/python
COPY testbed /testbed
ENV PYTHONPATH=/testbed
"""


@pytest.fixture(scope="module")
def image(daemon, base_image, tmp_path_factory):
    """An image with the repository, whose history has the fix as a later commit, and with pytest."""
    context = tmp_path_factory.mktemp("swe")
    packages = next(make_environment((), (".",)).glob("lib/python3*/site-packages"))
    shutil.copytree(packages, context / "packages", ignore=shutil.ignore_patterns("repository.pth"))
    testbed = context / "testbed"
    for name, text in sample_files().items():
        if name not in BUG.test_files:
            (testbed / name).parent.mkdir(parents=True, exist_ok=True)
            (testbed / name).write_text(text)
    right = (testbed / "durations.py").read_text()

    def git(*words):
        names = {f"GIT_{who}_{what}": "a@a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(["git", *words], cwd=testbed, env={"PATH": "/usr/bin:/bin", **names}, check=True)

    git("init", "--quiet")
    (testbed / "durations.py").write_text(right.replace("max(texts, key=parse)", "sorted(texts, key=parse)[-1]"))
    git("add", "--all")
    git("commit", "--quiet", "--message", "bug")
    (testbed / "durations.py").write_text(right)
    git("commit", "--quiet", "--all", "--message", "the secret fix")
    git("checkout", "--quiet", "HEAD~1")
    (context / "Dockerfile").write_text(DOCKERFILE)
    daemon.docker("build", "--network=none", f"--tag={IMAGE}", str(context))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{daemon.root}/socket")
        yield IMAGE


@pytest.fixture
def env(image, tmp_path, monkeypatch):
    row = {"instance_id": "owner__durations-1", "repo": "owner/durations", "base_commit": "0" * 40, "version": "1"}
    row |= {"problem_statement": "longest() is wrong", "patch": BUG.patch, "test_patch": BUG.test_patch}
    row |= {"FAIL_TO_PASS": list(BUG.fail_to_pass), "PASS_TO_PASS": list(BUG.pass_to_pass), "image_name": image}
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "test.jsonl").write_text(json.dumps(row))
    monkeypatch.setenv("ARENA_SWE_DATA", str(tmp_path))
    env = make("swe/repo-v0", {"instances": "images", "sandbox": "docker"})
    yield env
    env.close()


def do(env, action):
    return env.step({"player": action}).seats["player"]


def bash(env, command):
    return do(env, ToolCall("bash", {"command": command})).observation


def test_an_issue_of_an_image_is_solved_and_graded(env):
    first = env.reset(env.taskset("test").task(0), 0).seats["player"]
    assert first.info["sandbox"]["backend"] == "docker"
    assert bash(env, "pwd; git log --all --format=%s; git status --short") == (
        "/testbed\nThe repository, as it is given\n[exit code 0]"
    )
    assert bash(env, "grep -r 'secret fix' .git | wc -l") == "0\n[exit code 0]"
    bash(env, FIX)
    last = do(env, ToolCall("submit"))
    assert last.reward == 1.0
    assert "+    return max(texts, key=parse)" in last.info["prediction"]["model_patch"]


@pytest.mark.parametrize(("kind", "score"), [("oracle", 1.0), ("noop", 0.0)])
def test_the_oracle_resolves_what_doing_nothing_does_not(env, kind, score):
    now = env.reset(env.taskset("test").task(0), 0).seats["player"]
    while not now.is_last:
        now = do(env, env.expert_action("player", kind))
    assert env.score().value == score
