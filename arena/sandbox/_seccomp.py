"""A filter of system calls, for the kernels and processors whose numbers are known.

What is refused (EPERM, as a program that lacks the right would see it) changes namespaces, mounts, modules, keys, the
clock or the machine, looks into the kernel or another process, or reaches what namespaces do not cover: sockets of
other families than UNIX, Internet and netlink (a virtual machine's host listens on AF_VSOCK, which no network namespace
hides).
What is answered ENOSYS, so that programs go another way: `clone3`, as its flags cannot be read by a filter; `io_setup`,
as all users of a machine share one number of such contexts; and `memfd_create` where no control group counts what is
written to such files.

Numbers are those of the kernel's own tables (``arch/x86/entry/syscalls/syscall_64.tbl`` and
``include/uapi/asm-generic/unistd.h``); the layout of a filter is that of ``linux/filter.h`` and ``linux/seccomp.h``.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from collections.abc import Sequence

__all__ = ["seccomp_filter"]

_X86_64 = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "swapon": 167, "swapoff": 168,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "mount_setattr": 442, "unshare": 272, "setns": 308,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320,
    "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "acct": 163,
    "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305,
    "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "open_by_handle_at": 304, "name_to_handle_at": 303, "quotactl": 179, "quotactl_fd": 443, "syslog": 103,
    "lookup_dcookie": 212, "vhangup": 153, "nfsservctl": 180, "personality": 135, "fanotify_init": 300,
    "sched_setaffinity": 203, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "pidfd_getfd": 438, "memfd_secret": 447, "open_tree_attr": 467, "modify_ldt": 154, "prlimit64": 302,
    "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314, "setpriority": 141, "ioprio_set": 251,
    "clone": 56, "clone3": 435, "socket": 41, "socketpair": 53, "ioctl": 16,
}  # fmt: skip
_AARCH64 = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "swapon": 224, "swapoff": 225,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "mount_setattr": 442, "unshare": 97, "setns": 268,
    "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294,
    "reboot": 142, "sethostname": 161, "setdomainname": 162, "acct": 89,
    "settimeofday": 170, "clock_settime": 112, "adjtimex": 171, "clock_adjtime": 266,
    "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
    "open_by_handle_at": 265, "name_to_handle_at": 264, "quotactl": 60, "quotactl_fd": 443, "syslog": 116,
    "lookup_dcookie": 18, "vhangup": 58, "nfsservctl": 42, "personality": 92, "fanotify_init": 262,
    "sched_setaffinity": 122, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
    "pidfd_getfd": 438, "memfd_secret": 447, "open_tree_attr": 467, "prlimit64": 261,
    "sched_setscheduler": 119, "sched_setparam": 118, "sched_setattr": 274, "setpriority": 140, "ioprio_set": 30,
    "clone": 220, "clone3": 435, "socket": 198, "socketpair": 199, "ioctl": 29,
}  # fmt: skip
_TABLES = {
    "x86_64": (0xC000003E, _X86_64 | {"io_setup": 206, "memfd_create": 319}),
    "aarch64": (0xC00000B7, _AARCH64 | {"io_setup": 0, "memfd_create": 279}),
}
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
_OF_ITSELF = frozenset(
    {
        "prlimit64",
        "sched_setscheduler",
        "sched_setparam",
        "sched_setattr",
        "sched_setaffinity",
        "setpriority",
        "ioprio_set",
    }
)
"""What a process may do to itself, and not to others, as the one that serves it has the same user."""
_WHO_SECOND = frozenset({"setpriority", "ioprio_set"})
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_X32 = 0x40000000

_LOAD, _EQUALS, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24


def seccomp_filter(*, pinned: bool = False, counted: bool = True) -> bytes | None:
    """Return the filter as an array of ``sock_filter``; None where this processor's numbers are not known.

    Args:
        pinned: Whether processes must stay on the processors that they were given.
        counted: Whether a control group counts the memory that they take.
    """
    table = _TABLES.get(platform.machine())
    if table is None:
        return None
    architecture, numbers = table
    absent = ["clone3", "io_setup", *([] if counted else ["memfd_create"])]
    special = {"clone", "clone3", "io_setup", "memfd_create", "socket", "socketpair", "ioctl", *_OF_ITSELF} - (
        {"sched_setaffinity"} if pinned else set()
    )
    refused = [number for name, number in numbers.items() if name not in special]
    refuse = _step(_RETURN, _ERROR | errno.EPERM)
    program = [
        *(_step(_LOAD, _ARCHITECTURE), _step(_EQUALS, architecture, 1, 0), _step(_RETURN, _KILL)),
        _step(_LOAD, _NUMBER),
        *(_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)),  # x86_64's other ABI has numbers of its own
    ]
    for name in absent:
        program += [_step(_EQUALS, numbers[name], 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    for number in refused:
        program += [_step(_EQUALS, number, 0, 1), refuse]
    program += _where(numbers["clone"], [_step(_LOAD, _ARGUMENT_0), _step(_HAS_BITS, _NEW_NAMESPACES, 0, 1), refuse])
    for name in ("socket", "socketpair"):
        known = [_step(_EQUALS, family, len(_FAMILIES) - index, 0) for index, family in enumerate(_FAMILIES)]
        program += _where(numbers[name], [_step(_LOAD, _ARGUMENT_0), *known, refuse])
    for name in _OF_ITSELF - ({"sched_setaffinity"} if pinned else set()):
        which = _ARGUMENT_1 if name in _WHO_SECOND else _ARGUMENT_0
        program += _where(numbers[name], [_step(_LOAD, which), _step(_EQUALS, 0, 1, 0), refuse])
    asked = [_step(_EQUALS, _TIOCSTI, 1, 0), _step(_EQUALS, _TIOCLINUX, 0, 1), refuse]
    program += _where(numbers["ioctl"], [_step(_LOAD, _ARGUMENT_1), *asked])
    program.append(_step(_RETURN, _ALLOW))
    return b"".join(program)


def _where(number: int, steps: Sequence[bytes]) -> list[bytes]:
    """Return steps for one call, after which the call's number is loaded again."""
    return [_step(_EQUALS, number, 0, len(steps)), *steps, _step(_LOAD, _NUMBER)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
