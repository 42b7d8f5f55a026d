"""Workspaces as archives. They are packed here and unpacked by the daemon in a container, never on this machine."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from arena.errors import SandboxError, UsageError
from arena.sandbox.docker._container import USER

__all__ = ["Archive", "pack", "reowned", "save"]

_BUFFER = 1 << 20


class Archive:
    """A file that holds a workspace.

    Args:
        path: Where it is; deleted by `close`.
    """

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open it to be read.

        Raises:
            UsageError: It is closed.
        """
        if self._path is None:
            raise UsageError("the snapshot is closed")
        with self._path.open("rb") as file:
            yield file

    def close(self) -> None:
        """Delete it."""
        path, self._path = self._path, None
        if path is not None:
            path.unlink(missing_ok=True)


def save(chunks: Iterable[bytes], path: Path, most: int) -> Archive:
    """Return an archive of what comes.

    Raises:
        SandboxError: It is more than `most` bytes, as files with holes may become.
    """
    archive, size = Archive(path), 0
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                if (size := size + len(chunk)) > most:
                    raise SandboxError(f"the workspace takes more than {most} bytes as an archive (files with holes?)")
                file.write(chunk)
    except BaseException:
        archive.close()
        raise
    return archive


def pack(folder: Path, path: Path) -> Archive:
    """Return an archive of a folder of this machine, whose files will belong to the commands' user.

    Raises:
        UsageError: Something in it cannot be read.
    """
    archive = Archive(path)
    try:
        with tarfile.open(path, "w", bufsize=_BUFFER, format=tarfile.PAX_FORMAT) as tar:
            tar.add(folder, ".", filter=_owned)
    except OSError as error:
        archive.close()
        raise UsageError(f"the workspace cannot be read: {error}") from None
    except BaseException:
        archive.close()
        raise
    return archive


def reowned(archive: Archive, path: Path) -> Archive:
    """Return an archive of the same files, which will belong to the commands' user; the first one is closed."""
    found = Archive(path)
    try:
        with archive.opened() as file, tarfile.open(fileobj=file, mode="r|") as old, tarfile.open(path, "w") as new:
            for member in old:
                new.addfile(_owned(member), old.extractfile(member) if member.isreg() else None)
    except BaseException:
        found.close()
        raise
    finally:
        archive.close()
    return found


def _owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = USER
    member.uname = member.gname = ""
    member.mode &= ~(stat.S_ISUID | stat.S_ISGID)
    return member
