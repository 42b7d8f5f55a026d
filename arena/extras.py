"""Optional dependencies: imported where they are used, and named when they are missing."""

from __future__ import annotations

import importlib
import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from arena.errors import PrerequisiteError

__all__ = ["DISTRIBUTION", "import_extra", "installed_version", "versions"]

DISTRIBUTION = "arena-rl"


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Return the imported `module` of the extra `extra`.

    Raises:
        PrerequisiteError: It is not installed; the message is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise PrerequisiteError(
            f"the package {error.name!r} is not installed; run: pip install '{DISTRIBUTION}[{extra}]'"
            " (in a checkout: pip install -c constraints.txt -e '.[" + extra + "]')",
            package=error.name,
            extra=extra,
        ) from error


@cache
def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(extra: str | None = None) -> dict[str, str]:
    """Return the versions of Python, Arena, its dependencies (those of one extra too), and a checkout's commit."""
    found = {"python": platform.python_version(), DISTRIBUTION: installed_version(DISTRIBUTION) or "not installed"}
    for requirement in metadata.requires(DISTRIBUTION) or []:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        marker = re.search(r"extra == ['\"]([a-z]+)['\"]", requirement)
        if (marker is None or marker.group(1) == extra) and name != DISTRIBUTION:
            version = installed_version(name)
            if version is not None:
                found[name] = version
    commit = _commit()
    return {**found, "commit": commit} if commit else found


def _commit() -> str | None:
    """Return the commit of the checkout that Arena runs from, if it runs from one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
