"""Optional dependencies: imported where they are used, and named when they are missing."""

from __future__ import annotations

import importlib
from functools import cache
from importlib import metadata
from types import ModuleType

from arena.errors import PrerequisiteError

__all__ = ["DISTRIBUTION", "import_extra", "installed_version"]

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
