"""A base image for machines that reach no image registry: Debian with Python, from the mirror that apt uses."""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import platformdirs

PACKAGES = ("python3", "python3-venv", "git")
MAKE_S, KEEP_S = 900, 30 * 24 * 3600
"""How long making it may take, and how old a kept one may be: Debian mends faults."""


class CannotMake(Exception):
    """The base image cannot be made here; the message says why."""


def base_archive():
    """Return a tar archive of the base image's files, made now or kept from an earlier run.

    Raises:
        CannotMake: This is no Debian, or its mirror does not answer.
    """
    suite = _suite()
    folder = Path(platformdirs.user_cache_dir("arena"), "docker")
    archive = folder / f"base-{suite}-{platform.machine()}-{'-'.join(PACKAGES)}.tar"
    if not archive.exists() or time.time() - archive.stat().st_mtime > KEEP_S:
        folder.mkdir(parents=True, exist_ok=True)
        _make(suite, _mirror(suite), folder / f"making-{os.getpid()}", archive)
    return archive


def _suite():
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or shutil.which("apt-get") is None:
        raise CannotMake(f"the base image is made from a Debian mirror, and this is {release['ID']}")
    return release["VERSION_CODENAME"]


def _mirror(suite):
    """Apt's mirror of a suite; it differs from machine to machine and is written down nowhere."""
    words = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
    for line in said.splitlines():
        codename, component, address = line.split(maxsplit=2)
        if (codename, component) == (suite, "main"):
            return address
    raise CannotMake(f"apt knows no mirror of {suite} (run apt-get update)")


def _make(suite, mirror, root, archive):
    words = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root), mirror]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=MAKE_S, check=False)
        if done.returncode != 0:
            raise CannotMake(f"debootstrap failed: {done.stdout.strip().splitlines()[-1:]}")
        for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / waste)
            (root / waste / "partial").mkdir(parents=True)
        partial = root.with_suffix(".tar")
        subprocess.run(["tar", "-C", root, "-cf", partial, "."], check=True)
        partial.rename(archive)
    finally:
        shutil.rmtree(root, ignore_errors=True)
