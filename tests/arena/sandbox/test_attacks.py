"""What a program does to the sandbox that it runs in is its own failure, and never one of the sandbox's."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from arena import SandboxError
from arena.sandbox import ExecResult, Sandbox, SandboxLimits, SandboxSettings, open_sandbox
from arena.sandbox._cgroups import available
from arena.sandbox.bubblewrap import BubblewrapSandbox

ROOT = Path(__file__).parents[3]
LIMITS = SandboxLimits(memory_bytes=128 << 20, processes=64, disk_bytes=32 << 20, file_bytes=16 << 20, open_files=128)
ALLOWED = frozenset({"process_count"} if os.geteuid() == 0 else ())  # no limit of a process binds root
SELF_WAKING = """
import ctypes, os
libc, timer = ctypes.CDLL(None), ctypes.c_void_p()
event, every = (ctypes.c_int * 16)(), (ctypes.c_long * 4)(0, 500000, 0, 500000)
event[2] = 18  # SIGCONT
assert libc.timer_create(1, event, ctypes.byref(timer)) == 0 and libc.timer_settime(timer, 0, every, None) == 0
count = 0
while True:
    count += 1
    for name in "ab":
        fd = os.open(name, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"%20d" % count, 0)
        os.close(fd)
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    unenforced = ALLOWED if "pids" not in available() else frozenset[str]()
    with open_sandbox(SandboxSettings(limits=LIMITS, unenforced=unenforced)) as opened:  # type: ignore[arg-type]
        yield opened


def python(sandbox: Sandbox, code: str, timeout_s: float = 60.0) -> ExecResult:
    return sandbox.exec(["python3", "-c", code], timeout_s=timeout_s)


def is_fine(sandbox: Sandbox) -> bool:
    return sandbox.alive and sandbox.exec("echo fine", timeout_s=20).stdout == b"fine\n"


def test_who_kills_what_watches_it_leaves_nothing(sandbox: Sandbox) -> None:
    assert sandbox.exec("(setsid sleep 1030 &); kill -9 $PPID; sleep 1031", timeout_s=20).exit_code == 137
    assert b"sleep" not in sandbox.exec("cat /proc/[0-9]*/comm").stdout
    assert is_fine(sandbox)


@pytest.mark.parametrize("command", ["kill -STOP -1; kill -STOP $$", "kill -STOP $PPID", "kill -STOP $$"])
def test_who_stops_itself_or_all_loses_its_time_only(sandbox: Sandbox, command: str) -> None:
    assert sandbox.exec(command, timeout_s=1).timed_out
    assert is_fine(sandbox)


def test_many_small_processes_that_fill_the_memory_end_themselves(sandbox: Sandbox) -> None:
    if "memory" not in available():
        pytest.skip("no control groups can be made here: memory is limited for each process only")
    hog = "import os\nfor _ in range(30):\n if os.fork() == 0: break\n"
    hog += "kept = []\nwhile True:\n kept.append(os.memfd_create('x'))\n os.write(kept[-1], bytes(1 << 20))"
    for _ in range(2):
        assert not python(sandbox, hog, 30).ok
        sandbox.kill()
        assert is_fine(sandbox)


def test_the_number_of_files_is_limited(sandbox: Sandbox) -> None:
    for folder in ("/tmp", ".", "/dev/shm"):
        code = f"for i in range(100_000): open('{folder}/%d' % i, 'w').close()"
        assert b"No space left on device" in python(sandbox, code).stderr
    assert is_fine(sandbox)
    with sandbox.snapshot() as snapshot:
        sandbox.restore(snapshot)
    assert is_fine(sandbox)


def test_what_is_deep_or_has_many_names_can_be_copied(sandbox: Sandbox) -> None:
    made = "import os\nopen('file', 'w').write('x')\nfor i in range(500): os.link('file', 'link%d' % i)\n"
    made += "for i in range(2500): os.mkdir('deep'); os.chdir('deep')\nopen('end', 'w')\nos.chmod('/workspace', 0)"
    assert python(sandbox, made).ok
    told = "import os\nprint(os.stat('file').st_nlink)\nfor i in range(2500): os.chdir('deep')\nprint(os.listdir())"
    with sandbox.snapshot() as snapshot:
        sandbox.restore(snapshot)
    assert python(sandbox, told).stdout == b"501\n['end']\n"


@pytest.mark.parametrize("with_groups", [True, False])
def test_a_snapshot_is_of_one_moment_whoever_wakes_itself(with_groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_groups:
        monkeypatch.setattr("arena.sandbox._cgroups.available", dict)
    elif "freezer" not in available():
        pytest.skip("no control groups can be made here")
    settings = SandboxSettings(limits=LIMITS, unenforced=ALLOWED)  # type: ignore[arg-type]
    with open_sandbox(settings) as sandbox:
        sandbox.exec("for i in $(seq 300); do head -c 50000 /dev/zero > f$i; done; rm -f z; touch z")
        sandbox.write_file("/tmp/waking.py", SELF_WAKING.encode())
        for _ in range(3):
            sandbox.kill()
            sandbox.exec("rm -f a b")
            sandbox.exec("python3 /tmp/waking.py > /dev/null 2>&1 & until [ -s b ]; do sleep 0.02; done", timeout_s=20)
            with sandbox.snapshot() as snapshot, open_sandbox(settings, snapshot=snapshot) as copy:
                first, second = int(copy.read_file("a")), int(copy.read_file("b"))
                assert first - second in (0, 1)


def test_a_process_that_is_killed_during_a_snapshot_leaves_nothing(tmp_path: Path) -> None:
    script = """
        import os, sys, threading, time
        from arena.sandbox import open_sandbox
        from arena.sandbox.bubblewrap._running import Running
        def held(self, folder):
            print("held", flush=True)
            time.sleep(60)
        Running.copy_upper = held
        sandbox = open_sandbox()
        sandbox.exec("sleep 1041 > /dev/null 2>&1 &")
        sandbox.snapshot()
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    assert _are_gone(b"sleep\x001041\x00")


def _are_gone(cmdline: bytes) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = False
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found = found or path.read_bytes() == cmdline
        if not found:
            return True
        time.sleep(0.05)
    return False


def test_quotas_of_the_kernel_are_the_sandboxes_own(sandbox: Sandbox) -> None:
    code = "import ctypes\nc, n = ctypes.CDLL(None), 0\nwhile n < 100 and c.inotify_init() >= 0: n += 1\nprint(n)"
    if int(python(sandbox, code).stdout) == 100:
        assert not os.access("/proc/sys/user/max_inotify_instances", os.W_OK)
        pytest.skip("this machine shows the kernel's settings read-only")
    ptys = "import os\nn = 0\ntry:\n while True: os.open('/dev/ptmx', 2); n += 1\nexcept OSError: print(n)"
    assert python(sandbox, ptys).stdout == b"64\n"
    shared = "import ctypes\nc, n = ctypes.CDLL(None), 0\nwhile n < 100 and c.shmget(0, 16 << 20, 0o1600) >= 0: n += 1"
    assert python(sandbox, f"{shared}\nprint(n)").stdout == b"8\n"


def test_commands_wait_for_a_restore() -> None:
    with open_sandbox(SandboxSettings(limits=LIMITS, unenforced=ALLOWED)) as sandbox:  # type: ignore[arg-type]
        sandbox.write_file("file", b"kept")
        found, is_over = list[object](), threading.Event()

        def run() -> None:
            while not is_over.is_set():
                try:
                    found.append(sandbox.exec("cat file").exit_code)
                except Exception as error:  # it is looked at below
                    found.append(error)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        with sandbox.snapshot() as snapshot:
            for _ in range(6):
                sandbox.restore(snapshot)
        deadline = time.monotonic() + 20
        while 0 not in found and time.monotonic() < deadline:
            time.sleep(0.02)
        is_over.set()
        for thread in threads:
            thread.join()
        assert set(found) <= {0, 137}, "who runs at a restore is killed, and nobody else"
        assert 0 in found


def test_whoever_is_stopped_meanwhile_is_told_so() -> None:
    sandbox = open_sandbox()
    assert isinstance(sandbox, BubblewrapSandbox)
    thread = threading.Thread(target=sandbox.stop)
    with sandbox._turn:
        thread.start()
        time.sleep(0.05)
    thread.join()
    with pytest.raises(SandboxError, match="was stopped"):
        sandbox.exec("true")


def test_a_stopped_process_keeps_its_sandbox_and_can_still_be_killed(tmp_path: Path) -> None:
    script = """
        import sys
        from arena.sandbox import open_sandbox
        sandbox = open_sandbox()
        sandbox.exec("sleep 1043 > /dev/null 2>&1 &")
        print("begun", flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGSTOP)
        process.kill()
    assert _are_gone(b"sleep\x001043\x00")
