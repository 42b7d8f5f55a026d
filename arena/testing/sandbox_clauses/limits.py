"""What all processes may use together."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from arena.errors import ToolError
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import SMALL, SandboxProbe, output, same
from arena.testing.verdicts import broken, must_refuse, need

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def memory_is_limited(probe: SandboxProbe) -> None:
    """All processes together get so much memory; the sandbox survives who takes more."""
    sandbox = probe.fresh()
    need("memory" in sandbox.enforced, "memory is not limited")
    done = sandbox.exec("head -c 1G /dev/zero | tail", timeout_s=60)
    if done.ok:
        broken("four times as much memory could be used")
    same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)


@CLAUSES.add
def memory_is_of_all_together(probe: SandboxProbe) -> None:
    """All processes together get so much memory."""
    sandbox = probe.fresh()
    need("memory" in sandbox.enforced, "memory is not limited")
    need("each process" not in sandbox.enforced["memory"], "memory is limited for each process only")
    hold = "(head -c 100M /dev/zero; sleep 3) | tail > /dev/null"
    count = "n=0; for pid in $pids; do wait $pid && n=$((n + 1)); done 2> /dev/null; echo $n"
    told = output(sandbox, f'pids=; for i in 1 2 3 4; do ({hold}) & pids="$pids $!"; done; {count}', timeout_s=60)
    if int(told) > 2:
        broken(f"{told.strip()} processes held 100 MB each, of {SMALL.memory_bytes} bytes")
    same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)


@CLAUSES.add
def processor_time_is_limited(probe: SandboxProbe) -> None:
    """All processes together get so much processor time a second."""
    sandbox = probe.fresh(limits=SMALL.model_copy(update={"cpus": 0.5}))
    need("cpu" in sandbox.enforced, "processor time is not limited")
    need("processors" not in sandbox.enforced["cpu"], "whole processors are given")
    loop = "for i in 1 2 3; do (end=$((SECONDS + 3)); while [ $SECONDS -lt $end ]; do :; done) & done; wait"
    done = sandbox.exec(f"TIMEFORMAT='%R %U %S'; time {{ {loop}; }}", timeout_s=60)
    passed, user, system = map(float, done.stderr.split())
    if user + system > 0.75 * passed:
        broken(f"{user + system:.2f} s of processor time in {passed:.2f} s, with half a processor")


@CLAUSES.add
def open_files_are_limited(probe: SandboxProbe) -> None:
    """Open files of a process."""
    sandbox = probe.fresh()
    told = output(sandbox, "ulimit -Hn; ulimit -Sn; ulimit -n 4096 2> /dev/null; ulimit -n").split()
    same("limits", [str(SMALL.open_files)] * 3, told)
    opening = 'for i in $(seq 10 200); do eval "exec $i< /dev/null" || exit 3; done'
    if sandbox.exec(opening).ok:
        broken(f"191 files could be opened, of {SMALL.open_files}")


@CLAUSES.add
def files_in_memory_are_limited(probe: SandboxProbe) -> None:
    """All files together take at most so much room, wherever they are."""
    sandbox = probe.fresh()
    total = 0
    for folder in (".", "/tmp", "$HOME", "/dev/shm", "/run", "/var/tmp", "/"):
        sandbox.exec(f"for i in 1 2 3 4 5 6 7 8; do head -c 16M /dev/zero > {folder}/fill-$i; done", timeout_s=60)
        told = sandbox.exec(f"cat {folder}/fill-* 2> /dev/null | wc -c").stdout
        total += int(told or 0)
    if total > SMALL.disk_bytes + (64 << 20):
        broken(f"{total} bytes were written, of {SMALL.disk_bytes}")
    same("afterwards", "fine\n", output(sandbox, "rm -f fill-* /tmp/fill-* /dev/shm/fill-*; echo fine"))


@CLAUSES.add
def a_file_is_limited(probe: SandboxProbe) -> None:
    """No file grows beyond its limit."""
    sandbox = probe.fresh()
    need("file_size" in sandbox.enforced, "the size of a file is not limited")
    sandbox.exec("head -c 20M /dev/zero > big")
    same("size", f"{SMALL.file_bytes}\n", output(sandbox, "stat -c %s big"))
    with must_refuse(ToolError, "a file that is too large"):
        sandbox.write_file("larger", bytes(SMALL.file_bytes + 1))


@CLAUSES.add
def the_number_of_processes_is_limited(probe: SandboxProbe) -> None:
    """There are at most so many processes; the sandbox survives who starts more."""
    sandbox = probe.fresh()
    need("process_count" in sandbox.enforced, "the number of processes is not limited")
    shell = sandbox.shell()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(sandbox.exec, "for i in $(seq 200); do sleep 30 & done", timeout_s=4.0)
        time.sleep(2.0)
        count = int(shell.run("set -- /proc/[0-9]*; echo $#").stdout)
        started.result()
    if count > SMALL.processes:
        broken(f"{count} processes run, of {SMALL.processes}")
    sandbox.kill()
    sandbox.exec(":(){ :|:& };:", timeout_s=5)
    time.sleep(1)
    sandbox.kill()
    same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)
