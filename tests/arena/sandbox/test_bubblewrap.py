"""What is particular to bubblewrap: how it begins and ends, and what a machine that offers less can still guarantee."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from arena import PrerequisiteError, SandboxError, UsageError
from arena.sandbox import GUARANTEES, Sandbox, SandboxLimits, SandboxSettings, open_sandbox
from arena.sandbox._cgroups import ControlGroups
from arena.sandbox._scratch import scratch
from arena.sandbox.bubblewrap import BubblewrapSandbox, _command_lines, _guarantees, _running, _sandbox
from arena.testing.sandbox_clauses import CLAUSES
from arena.testing.sandbox_probe import SandboxProbe

ROOT = Path(__file__).parents[3]


def found(pattern: str, where: Path | None = None) -> set[Path]:
    """Return what there is of this process in its scratch folder, or in another folder."""
    return set((where or scratch().folder).glob(pattern))


def groups_of(token: str) -> set[Path]:
    return set(Path("/sys/fs/cgroup").glob(f"**/arena-sandbox-{token}*"))


def test_a_sandbox_outlives_the_thread_that_started_it() -> None:
    started = list[Sandbox]()
    thread = threading.Thread(target=lambda: started.append(open_sandbox()))
    thread.start()
    thread.join()
    with started[0] as sandbox:
        time.sleep(0.3)
        assert sandbox.exec("echo alive").stdout == b"alive\n"


def test_a_shell_is_told_apart_from_what_began_in_the_same_tick() -> None:
    with open_sandbox() as sandbox:
        for _ in range(40):
            shell = sandbox.shell()
            shell.run("(sleep 1025 &); sleep 1026", timeout_s=0.05)
            assert not _runs("1025")
            shell.close()


def test_what_a_killed_process_leaves_is_removed_by_the_next_one(tmp_path: Path) -> None:
    script = """
        import os, sys
        from arena.sandbox import open_sandbox
        from arena.sandbox._scratch import scratch
        sandbox = open_sandbox()
        sandbox.exec("sleep 1019 > /dev/null 2>&1 &")
        kept = sandbox.snapshot()
        print(scratch().token, flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        token = process.stdout.readline().decode().strip()
        assert token
        process.kill()
        process.wait()
    assert found("arena-sandbox-*/snapshot-*", tmp_path)
    deadline = time.monotonic() + 10
    while _runs("1019") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs("1019")
    again = subprocess.run(
        [sys.executable, "-c", "from arena.sandbox import open_sandbox; open_sandbox().stop()"],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    assert again.stderr == b""
    assert not found("arena-sandbox-*", tmp_path)
    assert not groups_of(token)


def test_whoever_ends_without_stopping_leaves_nothing(tmp_path: Path) -> None:
    script = "from arena.sandbox import open_sandbox; from arena.sandbox._scratch import scratch; s = open_sandbox(); "
    script += "s.exec('sleep 1018 &'); kept = s.snapshot(); print(scratch().token)"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
    assert done.stderr == b""
    assert not list(tmp_path.iterdir())
    assert not _runs("1018")
    assert done.stdout.strip()
    assert not groups_of(done.stdout.decode().strip())


def test_processes_that_begin_at_once_keep_their_folders(tmp_path: Path) -> None:
    script = "import time; from arena.sandbox._scratch import scratch; "
    script += "folder = scratch().folder; time.sleep(1); assert folder.is_dir()"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(8)]
    assert [process.wait() for process in started] == [0] * 8
    assert not list(tmp_path.iterdir())


def test_a_deep_folder_is_deleted() -> None:
    before = found("snapshot-*")
    with open_sandbox() as sandbox:
        nest = "import os\nfor i in range(1500): os.mkdir('d'); os.chdir('d')"
        assert sandbox.exec(["python3", "-c", nest]).ok
        with sandbox.snapshot() as snapshot, open_sandbox(snapshot=snapshot) as branch:
            assert branch.exec("find . | wc -l").stdout == b"1501\n"
    assert found("snapshot-*") == before


def test_what_is_exchanged_while_it_is_copied_leads_nowhere(tmp_path: Path) -> None:
    """Copying never follows a link, however quickly a folder becomes one; nothing is held here."""
    (tmp_path / "secret.txt").write_text("secret")
    with open_sandbox() as sandbox:
        assert isinstance(sandbox, BubblewrapSandbox)
        assert sandbox._running is not None
        made = f"for i in $(seq 60); do mkdir $i; echo mine > $i/secret.txt; ln -s {tmp_path} $i.l; done"
        assert sandbox.exec(made).ok
        swap = "import ctypes\nc = ctypes.CDLL(None)\nwhile True:\n"
        swap += " for i in range(1, 61): c.renameat2(-100, b'%d' % i, -100, b'%d.l' % i, 2)"
        sandbox.write_file("/tmp/swap.py", swap.encode())
        sandbox.exec("python3 /tmp/swap.py > /dev/null 2>&1 &")
        for number in range(3):
            copied = tmp_path / f"copied-{number}"
            copied.mkdir()
            with contextlib.suppress(SandboxError):  # what vanished while it was read
                sandbox._running.copy_upper(copied)
            told = [path.read_text() for path in copied.glob("[0-9]*/secret.txt") if not path.parent.is_symlink()]
            assert set(told) <= {"mine\n"}


def _runs(word: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", word.encode()]:
                return True
        except OSError:
            continue
    return False


def test_no_command_runs_outside_its_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ControlGroups, "open", lambda groups: [os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)])
    with open_sandbox() as sandbox:
        with pytest.raises(SandboxError, match="no process can be put into the control groups"):
            sandbox.exec("true")
        assert not sandbox.alive


def test_without_control_groups_each_process_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.sandbox._cgroups.available", dict)
    unenforced = frozenset({"process_count"} if os.geteuid() == 0 else ())  # no limit of a process binds root
    limits = SandboxLimits(memory_bytes=256 << 20, processes=32)
    with open_sandbox(SandboxSettings(limits=limits, unenforced=unenforced)) as sandbox:
        assert sandbox.enforced["memory"] == "limit of each process, not of all together"
        assert sandbox.enforced["cpu"].startswith("1 of ")
        assert len(sandbox.exec("taskset -p $$").stdout.split()[-1].replace(b"0", b"")) == 1
        assert not sandbox.exec("taskset -p ffff $$").ok
        assert not sandbox.exec("head -c 1G /dev/zero | tail > /dev/null; exit ${PIPESTATUS[1]}").ok
        assert set(sandbox.missing) == set(unenforced)
    probe = SandboxProbe(lambda settings, snapshot: open_sandbox(settings, snapshot=snapshot), _allowing(unenforced))
    try:
        for name in ("memory_is_limited", "nothing_is_left_behind", "a_time_out_ends_the_whole_tree"):
            CLAUSES[name](probe)
            probe.sweep()
    finally:
        probe.close()


def _allowing(unenforced: frozenset[str]) -> SandboxSettings:
    return SandboxSettings(unenforced=unenforced)  # type: ignore[arg-type]


def test_it_refuses_to_start_without_a_guarantee_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_guarantees, _running):
        monkeypatch.setattr(module, "seccomp_filter", lambda **_: None)
    before = found("sandbox-*")
    with pytest.raises(SandboxError, match=r"cannot guarantee syscalls .* name them in `unenforced`"):
        open_sandbox()
    assert found("sandbox-*") == before
    with open_sandbox(SandboxSettings(unenforced=frozenset({"syscalls"}))) as sandbox:
        assert sandbox.missing == {"syscalls": "no filter for this processor"}
        assert set(sandbox.enforced) == set(GUARANTEES) - {"syscalls"}


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = found("*")
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sandbox, "find_bubblewrap", lambda: program)
        began = time.monotonic()
        with pytest.raises(SandboxError, match="does not start: bwrap: No permissions to create a new namespace"):
            open_sandbox()
        assert time.monotonic() - began < 20
    assert found("*") == before


def test_without_bubblewrap_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_bubblewrap = _command_lines.find_bubblewrap.__wrapped__
    monkeypatch.setattr(_command_lines, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PrerequisiteError, match=r"pip install 'arena-rl\[sandbox\]'"):
        find_bubblewrap()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SandboxSettings(directory="workspace"), "an absolute path of its own"),
        (SandboxSettings(directory="/usr"), "an absolute path of its own"),
        (SandboxSettings(workspace=Path("/no/such/folder")), "begins with a folder"),
        (SandboxSettings(image="debian"), "has no images"),
        (SandboxSettings(options={"x": 1}), "has no options"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: SandboxSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BubblewrapSandbox(settings)


def test_who_loses_the_sandbox_in_a_command_is_told_so() -> None:
    with open_sandbox() as sandbox:
        assert isinstance(sandbox, BubblewrapSandbox)
        running = sandbox._running
        assert running is not None
        os.kill(running._first, signal.SIGKILL)
        with pytest.raises(SandboxError, match="the sandbox has ended"):
            sandbox.exec("sleep 5")
        assert not sandbox.alive


def test_a_forked_process_has_sandboxes_of_its_own() -> None:
    with open_sandbox() as sandbox:
        pid = os.fork()
        if pid == 0:
            try:
                with open_sandbox() as own:
                    os._exit(0 if own.exec("true").ok else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert sandbox.exec("true").ok
