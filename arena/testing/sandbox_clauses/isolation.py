"""What cannot be done, reached or seen from inside."""

from __future__ import annotations

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from arena.testing.report import Clauses
from arena.testing.sandbox_probe import PROCESSES, SandboxProbe, output, same
from arena.testing.verdicts import broken, need

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def the_system_cannot_be_changed(probe: SandboxProbe) -> None:
    """Nothing outside the workspace and temporary folders can be changed."""
    sandbox = probe.fresh()
    for path in ("/usr", "/usr/bin", "/etc", "/", "/proc/sys/kernel", "/sys", "/dev", "/run", "/root", "/var"):
        if sandbox.exec(["touch", f"{path}/new"]).ok:
            broken(f"a file can be made in {path}")
    for command in (
        "echo x > /etc/passwd",
        "chmod 777 /usr",
        "rm -f /usr/bin/env",
        "echo 1 > /proc/sys/vm/drop_caches",
    ):
        if sandbox.exec(command).ok:
            broken(f"{command!r} succeeded")


@CLAUSES.add
def this_machines_files_cannot_be_read(probe: SandboxProbe) -> None:
    """Only named folders can be read."""
    sandbox = probe.fresh()
    with TemporaryDirectory(dir=Path.home()) as home:
        ours = [Path(home) / "secret.txt", probe.folder / "secret.txt"]
        for path in ours:
            path.write_text("secret")
            path.chmod(0o644)
            path.parent.chmod(0o755)
        for path in (*ours, Path("/etc/shadow"), Path("/etc/hostname"), Path("/etc/machine-id")):
            told = sandbox.exec(["cat", str(path)])
            if told.ok and told.stdout and told.stdout == (path.read_bytes() if path.exists() else b""):
                broken(f"{path} can be read")
    if "secret" in output(sandbox, "cat /proc/*/cmdline /proc/mounts /proc/*/mountinfo 2> /dev/null || true"):
        broken("a name of this machine is shown")


@CLAUSES.add
def nothing_can_be_reached(probe: SandboxProbe) -> None:
    """No address can be reached, that of the machine itself included."""
    need("network" not in probe.settings.unenforced, "the network was not to be closed")
    sandbox = probe.fresh()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for target in (f"/dev/tcp/127.0.0.1/{port}", "/dev/tcp/1.1.1.1/53", "/dev/udp/8.8.8.8/53"):
            if sandbox.exec(f"echo x > {target}", timeout_s=10).ok:
                broken(f"{target} can be reached")
    told = output(sandbox, "cat /proc/net/dev").splitlines()[2:]
    if others := [line for line in told if not line.strip().startswith("lo:")]:
        broken(f"there is another network device: {others}")


@CLAUSES.add
def other_kinds_of_sockets_are_refused(probe: SandboxProbe) -> None:
    """Calls to the kernel that no program of a task needs are refused: a virtual machine's host is a socket away."""
    sandbox = probe.fresh()
    need("syscalls" in sandbox.enforced, "system calls are not filtered")
    need(sandbox.exec("python3 -c pass").ok, "there is no Python")
    for family in (40, 17, 38, 31):
        code = f"import socket; socket.socket({family}, 1 if {family} == 40 else 5 if {family} == 38 else 3)"
        if sandbox.exec(["python3", "-c", code]).ok:
            broken(f"a socket of family {family} can be made")
    if not sandbox.exec(["python3", "-c", "import socket; socket.socketpair(); socket.socket()"]).ok:
        broken("ordinary sockets cannot be made")


@CLAUSES.add
def namespaces_and_mounts_are_refused(probe: SandboxProbe) -> None:
    """No process has, or can gain, a capability outside its own namespaces."""
    sandbox = probe.fresh()
    for command in (
        "unshare -U true",
        "unshare -r true",
        "mount -t tmpfs x /tmp",
        "mount --bind / /tmp",
        "chroot / true",
    ):
        if sandbox.exec(f"PATH=$PATH:/sbin:/usr/sbin; {command}").ok:
            broken(f"{command!r} succeeded")
    status = output(sandbox, "cat /proc/self/status")
    caps = re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\s*(\w+)", status)
    if len(caps) != 4 or any(int(one, 16) for one in caps):
        broken(f"a command has capabilities: {caps}")
    # Then what a program could be given (CapBnd) is given to none.
    same("no new privileges", ["1"], re.findall(r"NoNewPrivs:\s*(\d)", status))


@CLAUSES.add
def no_process_outside_is_seen(probe: SandboxProbe) -> None:
    """No process outside can be seen, signalled or traced."""
    told = output(probe.fresh(), PROCESSES).splitlines()
    if len(told) > 12:
        broken(f"{len(told)} processes are seen")


@CLAUSES.add
def the_first_process_is_out_of_reach(probe: SandboxProbe) -> None:
    """What serves commands can neither be ended nor looked into by them."""
    sandbox = probe.fresh()
    sandbox.exec("for n in $(seq 1 31); do kill -$n 1; done; kill -9 -1", timeout_s=20)
    same("after all signals", 0, sandbox.exec("true").exit_code)
    for command in (
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "readlink /proc/1/fd/*",
        "cat /proc/1/fd/*",
        "ls /proc/1/root/",
    ):
        if sandbox.exec(command, timeout_s=5).stdout:
            broken(f"{command!r} tells something")


@CLAUSES.add
def the_first_process_keeps_its_limits(probe: SandboxProbe) -> None:
    """What serves commands is not slowed down or starved by them, nor is another command looked into."""
    sandbox = probe.fresh()
    for command in ("prlimit --pid 1 --nofile=4:4", "prlimit --pid 1 --as=1:1", "chrt -i -p 0 1", "renice -n 19 -p 1"):
        if sandbox.exec(command).ok:
            broken(f"{command!r} succeeded")
    same("of itself", 0, sandbox.exec("prlimit --pid 0 --nofile=32:32 true; ulimit -n 32").exit_code)
    same("afterwards", b"fine\n", sandbox.exec("echo fine").stdout)


@CLAUSES.add
def this_machines_devices_stay_as_they_are(probe: SandboxProbe) -> None:
    """Nothing outside can be changed, not by the mode of a device either."""
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")]
    before = [os.stat(device).st_mode for device in devices]
    sandbox = probe.fresh()
    sandbox.exec(f"chmod 667 {' '.join(devices)} /proc/self/fd/0 /proc/self/fd/1")
    same("modes", before, [os.stat(device).st_mode for device in devices])
    same("devices", "0\n3\n", output(sandbox, "echo x > /dev/null; wc -c < /dev/null; head -c 3 /dev/zero | wc -c"))


@CLAUSES.add
def commands_cannot_gain_by_writing_on_others_pipes(probe: SandboxProbe) -> None:
    """A command's code is its own, whatever others write wherever they can."""
    sandbox = probe.fresh()
    forge = "for p in /proc/[0-9]*/fd/*; do timeout 1 bash -c 'echo exit 0 > $0; printf \"0\\0\" > $0' $p; done"
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(sandbox.exec, "touch begun; until [ -e over ]; do sleep 0.1; done; exit 7", timeout_s=50)
        output(sandbox, "until [ -e begun ]; do sleep 0.1; done", timeout_s=20)
        own = sandbox.exec(f"({forge}) 2> /dev/null; touch over; exit 5", timeout_s=40)
        same("codes", (5, 7), (own.exit_code, other.result().exit_code))
