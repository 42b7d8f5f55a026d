"""``arena doctor``: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import metadata
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from arena.cache import cache_dir
from arena.cli.output import make_console
from arena.extras import DISTRIBUTION, installed_version
from arena.registry import agents, environments, trainers
from arena.sandbox import BACKENDS, GUARANTEES, SandboxSettings, open_sandbox
from arena.types import encode_json

__all__ = ["add_to", "extra_works"]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """Say what works on this machine; exit code 1 where something of the core does not."""
    checks = {name: _verdict(check) for name, check in _CHECKS.items()}
    checks |= {f"extra {extra}": _verdict(partial(_extra, extra)) for extra in _extras()}
    if as_json:
        report = {name: {"works": works, "detail": detail} for name, (works, detail) in checks.items()}
        sys.stdout.write(encode_json(report).decode() + "\n")
    else:
        table = Table("what", "works", "detail")
        for name, (works, detail) in checks.items():
            table.add_row(name, Text("yes", style="green") if works else Text("no", style="yellow"), Text(detail))
        make_console().print(table)
    return 0 if all(checks[name][0] for name in ("python", "cache", "environments", "agents", "trainers")) else 1


def _verdict(check: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    try:
        return check()
    except Exception as error:  # a check that fails is an answer
        return False, f"{type(error).__name__}: {error}"


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}; {os.cpu_count()} processors"


def _cache() -> tuple[bool, str]:
    probe = cache_dir("doctor") / "probe"
    probe.write_bytes(b"ok")
    probe.unlink()
    return True, f"{probe.parent.parent}, {shutil.disk_usage(probe.parent).free / 2**30:.0f} GiB free"


def _registered(registry: Any) -> tuple[bool, str]:
    ids = registry.ids()
    broken = "".join(f"; {module}: {why}" for module, why in registry.broken.items())
    return bool(ids) and not broken, f"{len(ids)}: {', '.join(ids)}{broken}"


def _interpreter() -> tuple[bool, str]:
    """Report whether TextWorld's compiler and interpreter are there."""
    found = [name for name in ("textworld", "jericho") if importlib.util.find_spec(name)]
    return len(found) == 2, "TextWorld's compiler and Jericho" if len(found) == 2 else "install the extra text"


def _sandbox(backend: str) -> tuple[bool, str]:
    """Start a sandbox, and report how each guarantee is given."""
    with open_sandbox(SandboxSettings(unenforced=frozenset(GUARANTEES)), backend=backend) as sandbox:
        given = "; ".join(f"{name}: {how}" for name, how in sandbox.enforced.items())
        lacking = "".join(f"; NO {name}: {why}" for name, why in sandbox.missing.items())
        return sandbox.exec("true").ok and not sandbox.missing, given + lacking


def _gpu() -> tuple[bool, str]:
    path = shutil.which("nvidia-smi")
    if path is None:
        return False, "no nvidia-smi on the path"
    done = _try([path, "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return done.returncode == 0 and bool(done.stdout.strip()), done.stdout.strip() or "no GPU answers"


def _try(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


_CHECKS: Mapping[str, Callable[[], tuple[bool, str]]] = {
    "python": _python,
    "cache": _cache,
    "environments": lambda: _registered(environments),
    "agents": lambda: _registered(agents),
    "trainers": lambda: _registered(trainers),
    "interpreter": _interpreter,
    **{f"sandbox {backend}": partial(_sandbox, backend) for backend in BACKENDS},
    "gpu": _gpu,
}


def _extras() -> list[str]:
    return sorted(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or [])


def _extra(extra: str) -> tuple[bool, str]:
    missing = [name for name in _packages(extra) if installed_version(name) is None]
    fix = f"missing {', '.join(missing)}; run: pip install '{DISTRIBUTION}[{extra}]'"
    return not missing, fix if missing else "installed"


def extra_works(extra: str) -> bool:
    """Return whether every package of an extra is installed."""
    return _extra(extra)[0]


def _packages(extra: str) -> Iterable[str]:
    """Yield the distributions of an extra, those of the extras that it includes too."""
    for requirement in metadata.requires(DISTRIBUTION) or []:
        if re.search(rf"extra == ['\"]{extra}['\"]", requirement):
            name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
            included = re.match(rf"{DISTRIBUTION}\[([^\]]+)\]", requirement)
            if included is None:
                yield name
            for other in included.group(1).split(",") if included else ():
                yield from _packages(other)
