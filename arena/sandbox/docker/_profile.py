"""The filter of system calls, as Docker takes it: the calls that the bubblewrap back end refuses, too.

Docker's own filter differs from version to version, and older ones let a virtual machine's host be reached (AF_VSOCK).
The format is that of Docker's documentation, "Seccomp security profiles".
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterable
from typing import Any

__all__ = ["ABSENT", "OF_ITSELF", "REFUSED", "profile"]

REFUSED = (
    *("mount", "umount2", "pivot_root", "chroot", "swapon", "swapoff", "open_tree", "open_tree_attr", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "unshare", "setns"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "acct"),
    *("sethostname", "setdomainname", "iopl", "ioperm", "modify_ldt", "personality", "vhangup"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
    *("add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "memfd_secret"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("open_by_handle_at", "name_to_handle_at", "quotactl", "quotactl_fd", "syslog", "lookup_dcookie", "nfsservctl"),
    *("fanotify_init", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
)
"""Calls that no program of a task needs."""
ABSENT = ("clone3", "io_setup")
"""Calls for which programs have another way: flags that no filter can read, and contexts that all users share."""
OF_ITSELF = {
    **dict.fromkeys(("prlimit64", "sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity"), 0),
    **dict.fromkeys(("setpriority", "ioprio_set"), 1),
}
"""What a process may do to itself only, and which argument says to whom."""
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)  # CLONE_NEW*
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX


def profile() -> str:
    """Return the filter, as the value of the security option ``seccomp``."""
    rules = [_rule(REFUSED), _rule(ABSENT, number=errno.ENOSYS)]
    rules += [_rule(["clone"], _argument(0, "MASKED_EQ", bit, bit)) for bit in _NAMESPACES]
    rules += [_rule([name], _argument(which, "NE", 0)) for name, which in OF_ITSELF.items()]
    rules += [_rule(["ioctl"], _argument(1, "EQ", request)) for request in _TERMINAL]
    sockets = ["socket", "socketpair"]
    others = sorted(set(range(max(_FAMILIES))) - set(_FAMILIES))
    rules += [_rule(sockets, _argument(0, "EQ", family)) for family in others]
    rules.append(_rule(sockets, _argument(0, "GT", max(_FAMILIES))))
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})


def _rule(names: Iterable[str], *arguments: dict[str, Any], number: int = errno.EPERM) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}


def _argument(index: int, operation: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{operation}", "value": value, "valueTwo": second}
