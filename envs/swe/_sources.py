"""Where repositories come from: source distributions of the package index, local mirrors, and images.

What is fetched is data: archives are unpacked without links out of them and without special files, and nothing of them
is run outside a sandbox. Of what tests need only wheels are installed, which run nothing. All is cached and shared.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from arena import ConfigError, EnvError, PrerequisiteError, UnsupportedError, cache_dir, import_extra
from arena.sandbox import Mount

from .._making import scratch_folder
from ._instances import Instance, SourceDistribution
from ._sample import sample_files

__all__ = ["Place", "fetch_source", "make_environment", "mirror_of", "place_of", "unpacked"]

_VENV = "/opt/venv"
_PYTEST = "pytest>=8,<9"
_LARGEST_SOURCE = 200 << 20
_LARGEST_UNPACKED, _MOST_FILES = 1 << 30, 100_000
_TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a sandbox for an instance is made of.

    Attributes:
        backend: The back end that can show it.
        repository: A folder with the repository as it was fetched; None where the image has it.
        image: The image.
        options: Of the back end.
        directory: Where the repository is in the sandbox.
        mounts: What else is shown.
        environment: Variables of every command.
        python: The program that runs tests, with its arguments.
        undone: Patches to undo in the repository before anything begins.
        hidden: What the player does not get of it.
    """

    backend: str
    repository: Path | None
    directory: str = "/workspace"
    image: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    python: tuple[str, ...] = ("python", "-P")
    undone: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def place_of(instance: Instance, backend: str, mirrors: Path | None) -> Place:
    """Return what an instance's sandbox is made of; fetches and builds what was not fetched before.

    Args:
        instance: Which.
        backend: The sandbox back end that is to be used.
        mirrors: The operator's folder of mirrors.

    Raises:
        UnsupportedError: This back end cannot show it.
        ConfigError: Its commit is not in the mirror.
        EnvError: Something cannot be fetched.
        PrerequisiteError: A program or an extra is missing.
    """
    if instance.source is not None:
        source = instance.source
        venv = make_environment(source.requirements, source.paths)
        return _local(backend, fetch_source(source), venv, undone=(instance.test_patch, instance.patch))
    if instance.is_sample:
        return _local(
            backend, _written(sample_files()), make_environment((), (".",)), (instance.test_patch, instance.patch)
        )
    if backend == "docker" and instance.image is not None:
        return Place(
            backend=backend,
            repository=None,
            directory=instance.folder,
            image=instance.image,
            options={"begin_with_image": True},
            environment={"PATH": "/opt/miniconda3/envs/testbed/bin:/opt/miniconda3/bin:/usr/local/bin:/usr/bin:/bin"},
            python=("python",),
            hidden=instance.test_files if instance.dotted else (),
        )
    mirror = mirror_of(instance.repo, mirrors)
    if mirror is None:
        raise UnsupportedError(
            f"instance {instance.id} comes from an image, which the {backend} sandbox cannot show: choose the docker "
            f"sandbox, or put a mirror of {instance.repo} among the mirrors"
        )
    settings = _settings_of(mirror)
    venv = make_environment(settings["requirements"], settings["paths"])
    return _local(backend, _exported(mirror, instance.base_commit), venv)


def _local(backend: str, repository: Path, venv: Path, undone: tuple[str, ...] = ()) -> Place:
    """Return a place on this machine's own system, whose packages are hidden: they may hold the solution."""
    if backend != "bubblewrap":
        raise UnsupportedError(
            f"the {backend} sandbox shows images, and this instance has none (allowed: sandbox: bubblewrap)"
        )
    nothing = cache_dir("swe", "nothing")
    hidden = [Path(sysconfig.get_path(name, vars={"base": sys.base_prefix})) for name in ("purelib", "platlib")]
    hidden += [Path("/usr/lib/python3/dist-packages"), *Path("/usr/local/lib").glob("python3*/dist-packages")]
    shown = [path.resolve() for path in hidden if path.is_dir()]
    return Place(
        backend=backend,
        repository=repository,
        mounts=(Mount(venv, _VENV), *(Mount(nothing, str(path)) for path in dict.fromkeys(shown))),
        environment={
            "PATH": f"{_VENV}/bin:/usr/local/bin:/usr/bin:/bin",
            "VIRTUAL_ENV": _VENV,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "TZ": "UTC",
        },
        undone=undone,
    )


def _written(files: Mapping[str, str]) -> Path:
    """Return a folder with files of Arena's own."""

    def write(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")

    return _kept(cache_dir("swe", "samples") / _digest(repr(sorted(files.items()))), write)


# -- source distributions ----------------------------------------------------------------------------------------------


def find_source(package: str, version: str) -> tuple[str, Any]:
    """Return the digest of a source distribution, and its entry on the package index.

    Raises:
        ConfigError: There is no such version, or it has no source distribution.
        EnvError: The index cannot be reached.
    """
    index = import_extra("pypi_simple", extra="swe")
    with _fetching(f"{package}=={version}"), index.PyPISimple() as client:
        try:
            page = client.get_project_page(package)
        except index.NoSuchProjectError:
            raise ConfigError(f"there is no package {package!r} on the package index") from None
    found = [one for one in page.packages if one.package_type == "sdist"]
    for one in found:
        if one.version == version and "sha256" in one.digests:
            return one.digests["sha256"], one
    known = ", ".join(one.version for one in found[-5:] if one.version)
    raise ConfigError(f"{package} has no source distribution of version {version} (the last ones: {known or 'none'})")


def fetch_source(source: SourceDistribution) -> Path:
    """Return the folder with what a source distribution holds.

    Raises:
        ConfigError: There is none of that digest.
        EnvError: It cannot be fetched.
    """

    def fetch(folder: Path) -> None:
        digest, entry = find_source(source.package, source.version)
        if digest != source.sha256:
            raise ConfigError(f"{source.package}=={source.version} on the package index is not the one that was used")
        index = import_extra("pypi_simple", extra="swe")
        if entry.size is not None and entry.size > _LARGEST_SOURCE:
            raise ConfigError(f"{entry.filename} has {entry.size:,} bytes; {_LARGEST_SOURCE:,} is the most")
        archive = folder.with_name(f"{folder.name}.archive")
        try:
            with _fetching(entry.filename), index.PyPISimple() as client:
                client.download_package(entry, archive, verify=True, timeout=60)
            unpacked(archive.read_bytes(), folder)
        finally:
            archive.unlink(missing_ok=True)

    return _kept(cache_dir("swe", "sources") / source.sha256, fetch)


@contextmanager
def _fetching(what: str) -> Iterator[None]:
    """Turn what the network does into an error of ours."""
    requests = import_extra("requests", extra="swe")
    index = import_extra("pypi_simple", extra="swe")
    try:
        yield
    except (requests.RequestException, index.DigestMismatchError, index.UnsupportedContentTypeError) as error:
        raise EnvError(f"{what} cannot be fetched from the package index: {error}") from None


def unpacked(archive: bytes, folder: Path) -> None:
    """Unpack an archive's one folder, or all of it, into a folder that is there.

    Raises:
        EnvError: It is neither a tar nor a zip archive, or holds what would leave the folder.
    """
    inner = folder.with_name(f"{folder.name}.unpacked")
    inner.mkdir()
    try:
        if zipfile.is_zipfile(io.BytesIO(archive)):
            with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
                _check_size(entry.file_size for entry in zipped.infolist())
                zipped.extractall(inner)
        else:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                _check_size(entry.size for entry in tar)
                tar.extractall(inner, filter="data")
        found = list(inner.iterdir())
        for path in list(found[0].iterdir()) if len(found) == 1 and found[0].is_dir() else found:
            path.rename(folder / path.name)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise EnvError(f"a source archive cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(inner, ignore_errors=True)


def _check_size(sizes: Iterable[int]) -> None:
    """Refuse an archive of too many or too large files; a tar is read no further than that."""
    total = 0
    for number, size in enumerate(sizes, 1):
        total += size
        if total > _LARGEST_UNPACKED or number > _MOST_FILES:
            raise ValueError(f"it has more than {_LARGEST_UNPACKED:,} bytes, or than {_MOST_FILES:,} files")


# -- mirrors -----------------------------------------------------------------------------------------------------------


def mirror_of(repo: str, mirrors: Path | None) -> Path | None:
    """Return the operator's mirror of a repository: ``owner__name``, with or without ``.git``. Names are compared."""
    if mirrors is None or not mirrors.is_dir():
        return None
    names = {repo.replace("/", "__"), f"{repo.replace('/', '__')}.git"}
    return next((path for path in sorted(mirrors.iterdir()) if path.name in names and path.is_dir()), None)


def _settings_of(mirror: Path) -> dict[str, Sequence[str]]:
    """Return what a mirror's tests need: the lines of the files ``NAME.requirements`` and ``NAME.paths`` beside it."""
    found = dict[str, Sequence[str]]()
    for what, default in (("requirements", ()), ("paths", (".", "src"))):
        file = mirror.with_name(f"{mirror.name.removesuffix('.git')}.{what}")
        found[what] = tuple(file.read_text("utf-8").split()) if file.is_file() else default
    return found


def _exported(mirror: Path, commit: str) -> Path:
    """Return a folder with a commit's files, and no history."""

    def export(folder: Path) -> None:
        command = ["git", "-C", str(mirror), "-c", "safe.directory=*", "-c", "core.attributesFile=/dev/null"]
        command += ["archive", "--format=tar", commit]
        archived = _run(command)
        if archived.returncode:
            raise ConfigError(f"the mirror {mirror.name} has no commit {commit[:12]}")
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
            tar.extractall(folder, filter="data")

    return _kept(cache_dir("swe", "mirrors") / f"{_digest(mirror.name)[:16]}-{commit}", export)


# -- environments ------------------------------------------------------------------------------------------------------


def make_environment(requirements: Sequence[str], paths: Sequence[str], directory: str = "/workspace") -> Path:
    """Return a virtual environment with pytest and what is required, for the path `/opt/venv` in a sandbox.

    The repository itself is not installed: its folders are on the path, behind everything else.

    Raises:
        EnvError: Something cannot be installed.
    """
    wanted = [_PYTEST, *requirements]
    folders = [str(PurePosixPath(directory) / path) for path in paths]
    name = _digest(repr((sys.version, sys.base_prefix, wanted, folders)))

    def make(folder: Path) -> None:
        python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        _need(_run([str(python), "-I", "-m", "venv", "--without-pip", str(folder)]), "a virtual environment")
        packages = next(folder.glob("lib/python3*/site-packages"))
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-compile", "--only-binary", ":all:"]
        _need(_run([*pip, "--", *wanted]), f"what the tests need ({', '.join(wanted)})")
        for module in ("sitecustomize", "usercustomize"):  # so that none of the repository's is taken
            (packages / f"{module}.py").write_text("", "utf-8")
        (packages / "repository.pth").write_text("".join(f"{path}\n" for path in folders), "utf-8")
        for script in (folder / "bin").iterdir():
            _move_script(script, folder)

    return _kept(cache_dir("swe", "environments") / name, make)


def _move_script(script: Path, folder: Path) -> None:
    """Let a script name the interpreter where the sandbox shows it."""
    if script.is_symlink() or not script.is_file():
        return
    content = script.read_bytes()
    if content.startswith(b"#!"):
        script.write_bytes(content.replace(os.fsencode(folder), _VENV.encode()))


def _need(done: subprocess.CompletedProcess[bytes], what: str) -> None:
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise EnvError(f"{what} cannot be made: {re.sub('^ERROR: ', '', lines[-1]) if lines else done.returncode}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(command[0]) is None:
        raise PrerequisiteError(f"software-engineering tasks need the program {command[0]!r}")
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT_S, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise EnvError(f"{command[0]} did not end within {_TIMEOUT_S:g} s") from None


def _kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, made beside its place if it is not there: whoever finds one finds a whole one."""
    if folder.is_dir():
        return folder
    with scratch_folder(folder.parent) as scratch:
        new = scratch / "new"
        new.mkdir()
        make(new)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another was faster
                raise
    return folder


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
