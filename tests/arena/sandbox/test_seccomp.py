"""The filter of system calls, run by an interpreter of its own language, on both processors' numbers."""

import errno
import platform
import struct

import pytest

from arena.sandbox import _seccomp
from arena.sandbox._seccomp import seccomp_filter

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {  # from the kernel's tables, beside those in the filter
    "x86_64": {"read": 0, "execve": 59, "clone": 56, "clone3": 435, "socket": 41, "mount": 165, "ioctl": 16, "bpf": 321}
    | {"sched_setaffinity": 203, "unshare": 272, "ptrace": 101, "prlimit64": 302, "setpriority": 141}
    | {"io_setup": 206, "memfd_create": 319},
    "aarch64": {"read": 63, "execve": 221, "clone": 220, "clone3": 435, "socket": 198, "mount": 40, "ioctl": 29}
    | {"bpf": 280, "sched_setaffinity": 122, "unshare": 97, "ptrace": 117, "prlimit64": 261, "setpriority": 140}
    | {"io_setup": 0, "memfd_create": 279},
}


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Interpret a filter as the kernel does (linux/filter.h)."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", program))
    place, loaded = 0, 0
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return value
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            place += if_true if holds else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_verdicts(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program, numbers, here = seccomp_filter(), NUMBERS[machine], ARCHITECTURES[machine]
    assert program is not None

    def of(name: str, *arguments: int) -> int:
        return verdict(program, here, numbers[name], *arguments)

    assert {of("read"), of("execve"), of("sched_setaffinity"), of("prlimit64"), of("setpriority")} == {ALLOW}
    assert {of("mount"), of("bpf"), of("unshare"), of("ptrace")} == {EPERM}
    assert {of("sched_setaffinity", 1), of("prlimit64", 1), of("setpriority", 0, 1)} == {EPERM}, "of others"
    assert {of("clone3"), of("io_setup")} == {ENOSYS}
    assert of("memfd_create") == ALLOW
    assert of("clone", 0x01200011) == ALLOW  # what fork asks for
    assert of("clone", 0x003D0F00) == ALLOW  # what a thread asks for
    assert {of("clone", flag | 17) for flag in (0x20000, 0x10000000, 0x20000000, 0x40000000)} == {EPERM}
    assert {of("socket", family) for family in (1, 2, 10, 16)} == {ALLOW}
    assert {of("socket", family) for family in (0, 17, 31, 38, 40, 44)} == {EPERM}
    assert {of("ioctl", 0, 0x5412), of("ioctl", 0, 0x541C)} == {EPERM}
    assert of("ioctl", 0, 0x5413) == ALLOW
    other = next(code for name, code in ARCHITECTURES.items() if name != machine)
    assert verdict(program, other, numbers["read"]) == KILL
    assert verdict(program, here, 0x40000000 + numbers["read"]) == KILL
    pinned = seccomp_filter(pinned=True)
    assert pinned is not None
    assert verdict(pinned, here, numbers["sched_setaffinity"]) == EPERM
    uncounted = seccomp_filter(counted=False)
    assert uncounted is not None
    assert verdict(uncounted, here, numbers["memfd_create"]) == ENOSYS


def test_the_tables_name_the_same_calls() -> None:
    x86_64, aarch64 = _seccomp._X86_64, _seccomp._AARCH64
    assert set(aarch64) <= set(x86_64)
    assert set(x86_64) - set(aarch64) == {"iopl", "ioperm", "modify_ldt"}
    assert len(set(x86_64.values())) == len(x86_64)
    assert len(set(aarch64.values())) == len(aarch64)


def test_an_unknown_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert seccomp_filter() is None
