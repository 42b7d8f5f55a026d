"""The Docker back end keeps every clause of the sandbox contract on a daemon of the tests' own, and leaves nothing."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from arena import PrerequisiteError, SandboxError, ToolError, UsageError
from arena.sandbox import GUARANTEES, SandboxLimits, SandboxSettings, open_sandbox
from arena.testing.report import NotApplicable
from arena.testing.sandbox_clauses import CLAUSES
from arena.testing.sandbox_probe import SandboxProbe
from tests.docker.compose import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

LITTLE = "FROM base\nRUN rm -f /bin/bash /usr/bin/bash\n"
WITH_FOLDER = "FROM base\nRUN mkdir -p /testbed/src && echo image > /testbed/src/a && chmod 700 /testbed/src\n"


@pytest.fixture(scope="module")
def image(daemon, base_image):
    """The default image, whose daemon the back end finds."""
    words = ["build", "--network=none", f"--build-arg=BASE_IMAGE={base_image}", "--build-arg=PACKAGES="]
    daemon.docker(*words, "--tag=arena-sandbox", "-", input=(ROOT / "docker" / "sandbox.Dockerfile").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{daemon.root}/socket")
        yield "arena-sandbox"


@pytest.fixture
def nothing_left(daemon, image):
    before = left(daemon)
    yield
    deadline = time.monotonic() + 20
    while (more := left(daemon) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not more


def left(daemon):
    """Return the containers and volumes that there are."""
    return {
        *daemon.docker("ps", "--all", "--quiet", "--no-trunc").split(),
        *daemon.docker("volume", "ls", "-q").split(),
    }


def start(settings=None, snapshot=None):
    return open_sandbox(settings, backend="docker", snapshot=snapshot)


@pytest.fixture(scope="module")
def probe(image):
    probe = SandboxProbe(start, SandboxSettings())
    yield probe
    probe.close()


@pytest.mark.parametrize("name", CLAUSES)
def test_clause(name, probe, nothing_left):
    try:
        CLAUSES[name](probe)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    finally:
        probe.sweep()


def test_every_guarantee_is_given_here(image):
    with start() as sandbox:
        assert set(sandbox.enforced) == set(GUARANTEES)
        assert sandbox.missing == {}


def test_every_command_is_unprivileged_and_the_container_is_as_asked(daemon, image):
    limits = SandboxLimits(memory_bytes=300 << 20, cpus=0.5, processes=40)
    with start(SandboxSettings(limits=limits)) as sandbox:
        told = sandbox.exec("id -u; grep Cap /proc/self/status").stdout.decode().split()
        assert told[0] == "1000"
        (container,) = json.loads(daemon.docker("inspect", daemon.docker("ps", "--quiet")))
        host = container["HostConfig"]
        assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (300 << 20, 300 << 20, 500_000_000)
        assert (host["PidsLimit"], host["NetworkMode"], host["ReadonlyRootfs"]) == (40, "none", True)
        assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], ["KILL"], False)


def test_without_bash_commands_and_shells_are_sh(daemon, image, nothing_left):
    daemon.docker("build", "--network=none", "--tag=without-bash", "-", input=LITTLE)
    with start(SandboxSettings(image="without-bash")) as sandbox:
        done = sandbox.exec("echo $0; echo err >&2; exit 3")
        assert (done.exit_code, done.stdout.strip(), done.stderr) == (3, b"sh", b"err\n")
        shell = sandbox.shell()
        shell.run("A=1; f() { echo f$A; }\ncd /tmp")
        assert shell.run("f; pwd").stdout == b"f1\n/tmp\n"
        assert shell.run("sleep 60", timeout_s=0.5).timed_out
        assert shell.run("echo $A").stdout == b"1\n"
        long = f": {'x' * 200_000}\necho long"
        assert sandbox.exec(long).stdout == b"long\n"
        sandbox.write_file("a/b", b"\0")
        assert sandbox.read_file("a/b") == b"\0"


def test_a_workspace_can_begin_with_what_the_image_has(daemon, image, nothing_left):
    daemon.docker("build", "--network=none", "--tag=with-folder", "-", input=WITH_FOLDER)
    settings = SandboxSettings(image="with-folder", directory="/testbed", options={"begin_with_image": True})
    with start(settings) as sandbox:
        assert sandbox.exec("cat src/a; echo mine > src/a; stat -c '%a %u' src; cat src/a").stdout == (
            b"image\n700 1000\nmine\n"
        )
        with sandbox.snapshot() as snapshot, start(settings, snapshot) as branch:
            assert branch.read_file("src/a") == b"mine\n"
    with start(settings) as again:
        assert again.read_file("src/a") == b"image\n"


def test_who_is_killed_leaves_nothing(daemon, image, nothing_left, tmp_path):
    script = """
        import sys
        from arena.sandbox import open_sandbox
        sandbox = open_sandbox(backend="docker")
        sandbox.exec("sleep 1025 > /dev/null 2>&1 &")
        print("begun", flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"begun\n"
        assert daemon.docker("ps", "--quiet")
        process.kill()


def test_what_a_dead_process_left_is_removed_by_the_next_one(daemon, image, nothing_left, tmp_path):
    """A container that was made and never started, and one whose process lives."""
    place = os.readlink("/proc/self/ns/mnt")
    volume = ["--mount", "type=volume,target=/workspace,volume-opt=type=tmpfs,volume-opt=device=tmpfs"]
    made = []
    for lock, where in ((tmp_path / "gone", place), (tmp_path / "gone", "elsewhere")):
        words = ["create", "--label", f"arena.sandbox.lock={lock}", "--label", f"arena.sandbox.place={where}"]
        made.append(daemon.docker(*words, *volume, image, "true"))
    script = "from arena.sandbox import open_sandbox; open_sandbox(backend='docker').stop()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, capture_output=True)
    assert done.stderr == b""
    assert [container for container in made if container in left(daemon)] == made[1:]
    daemon.docker("rm", "--volumes", made[1])


def test_whoever_ends_without_stopping_leaves_nothing(image, nothing_left, tmp_path):
    script = "from arena.sandbox import open_sandbox; s = open_sandbox(backend='docker'); k = s.snapshot()"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_who_loses_the_container_in_a_command_is_told_so(daemon, image, nothing_left):
    sandbox = start()
    container = daemon.docker("ps", "--quiet")
    threading.Timer(0.5, lambda: daemon.docker("kill", container)).start()
    with pytest.raises(SandboxError):
        sandbox.exec("sleep 30")
    assert not sandbox.alive
    sandbox.stop()


def test_a_fork_bomb_leaves_room_to_end_it(image, nothing_left):
    with start(SandboxSettings(limits=SandboxLimits(processes=48))) as sandbox:
        sandbox.exec("sleep 1026 > /dev/null 2>&1 &")
        sandbox.exec("f() { while :; do (setsid sleep 5 &); f & done; }; f", timeout_s=2)
        assert b"1026" in sandbox.exec("cat /proc/*/cmdline").stdout


def test_holes_do_not_fill_this_machine(image, nothing_left):
    limits = SandboxLimits(disk_bytes=16 << 20, file_bytes=1 << 30)
    with start(SandboxSettings(limits=limits)) as sandbox:
        assert sandbox.exec("for i in $(seq 10); do truncate -s 1G $i; done").ok
        with pytest.raises(SandboxError, match="as an archive"):
            sandbox.snapshot()
        assert sandbox.exec("echo fine").stdout == b"fine\n"


def test_a_workspace_that_is_too_large_is_refused(image, nothing_left, tmp_path):
    (tmp_path / "large").write_bytes(bytes(8 << 20))
    with pytest.raises(SandboxError, match="no space left"):
        start(SandboxSettings(workspace=tmp_path, limits=SandboxLimits(disk_bytes=1 << 20)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SandboxSettings(directory="workspace"), "an absolute path of its own"),
        (SandboxSettings(directory="/tmp/"), "an absolute path of its own"),
        (SandboxSettings(options={"runtimes": "runsc"}), r"option 'runtimes' .* \(known: runtime, begin_with_image\)"),
        (SandboxSettings(options={"runtime": 1}), "option 'runtime'"),
        (SandboxSettings(options={"runtime": "no-such"}), r"no runtime 'no-such' \(known: .*runc"),
        (SandboxSettings(environment={"A": "\udcff"}), "is UTF-8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message, image, nothing_left):
    with pytest.raises(UsageError, match=message):
        start(settings)


def test_a_missing_image_is_one_line(image, nothing_left):
    with pytest.raises(PrerequisiteError, match="no Docker image 'no-such:1'; run: docker pull no-such:1"):
        start(SandboxSettings(image="no-such:1"))


def test_no_more_processes_are_a_tool_error(image, nothing_left):
    """What takes every process that becomes free is no shell: that one waits 15 seconds before it says so."""

    def again_and_again(sandbox):
        for _ in range(200):
            sandbox.exec("sleep 0.1")

    script = """
import os, time
while True:
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError:
        time.sleep(0.01)
"""
    with start(SandboxSettings(limits=SandboxLimits(processes=24))) as sandbox:
        sandbox.write_file("/workspace/fill.py", script.encode())
        sandbox.exec("python3 /workspace/fill.py > /dev/null 2>&1 &")
        with pytest.raises(ToolError, match="the command does not start"):
            again_and_again(sandbox)
        sandbox.kill()
        assert sandbox.exec("echo fine").stdout == b"fine\n"
