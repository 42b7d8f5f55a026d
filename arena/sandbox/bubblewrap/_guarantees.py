"""What a bubblewrap sandbox guarantees on this machine, and what is left to limits of each process."""

from __future__ import annotations

import itertools
import math
import os
import resource

from arena.sandbox._cgroups import ControlGroups
from arena.sandbox._seccomp import seccomp_filter
from arena.sandbox.contract import Guarantee, SandboxSettings

__all__ = ["guarantees"]

_SIGNALS, _QUEUES, _LOCKED = 4096, 819_200, 8 << 20
_turns = itertools.count()


def _most_files() -> int:
    """Return how many files a process may have open, so that ours may have more.

    It is also the number of descriptors that one user may have in flight between processes, above which none can be
    sent; who may have more can still send some.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else max(64, hard // 2)


def guarantees(
    settings: SandboxSettings, groups: ControlGroups
) -> tuple[dict[Guarantee, str], dict[Guarantee, str], list[str], set[int]]:
    """Return what is guaranteed, what is not, limits of each process, and the processors to be used."""
    limits = settings.limits
    each = {
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: min(limits.open_files, _most_files()),
        resource.RLIMIT_CORE: 1,  # 0 would not keep a core from a program of the machine that takes them by a pipe
        resource.RLIMIT_SIGPENDING: _SIGNALS,
        resource.RLIMIT_MSGQUEUE: _QUEUES,
        resource.RLIMIT_MEMLOCK: _LOCKED,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    enforced: dict[Guarantee, str] = {
        "filesystem": "mount namespace; system read-only",
        "network": "network namespace without a way out",
        "processes": "process namespace, ended with its first process",
        "privileges": "user namespace, no capabilities, no new privileges, no nested namespaces",
        "disk": f"file system in memory of {limits.disk_bytes} bytes",
        "file_size": "limit of each process",
        **groups.enforced,
    }
    missing: dict[Guarantee, str] = {}
    processors = set[int]()
    if seccomp_filter() is None:
        missing["syscalls"] = "no filter for this processor"
    else:
        enforced["syscalls"] = "seccomp filter"
    if "memory" not in enforced:
        each[resource.RLIMIT_AS] = limits.memory_bytes
        enforced["memory"] = "limit of each process, not of all together"
    if "process_count" not in enforced and os.geteuid() == 0:
        missing["process_count"] = "no control groups, and limits of a process do not bind root"
    elif "process_count" not in enforced:
        each[resource.RLIMIT_NPROC] = limits.processes
        enforced["process_count"] = "limit of the user in its own namespace"
    if "cpu" not in enforced:
        usable = sorted(os.sched_getaffinity(0))
        wanted = math.ceil(limits.cpus)
        first = next(_turns) % len(usable)
        processors = set((usable[first:] + usable[:first])[:wanted])
        enforced["cpu"] = f"{len(processors)} of {len(usable)} processors"
    return enforced, missing, [f"{kind}={most}" for kind, most in each.items()], processors
