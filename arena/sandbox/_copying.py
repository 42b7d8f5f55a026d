"""Copies a folder into an empty one: what a snapshot holds.

    python _copying.py SOURCE TARGET LEFT_OUT PARENT

This file runs by itself, in namespaces in which it may read what nobody may, and ends with its parent. It follows no
link, goes as deep as the folders do (no path is longer than a name), and keeps holes and hard links. Extended
attributes that the other file system cannot hold are left out, but for those of overlayfs, whose names begin with
``user.overlay.``; LEFT_OUT is the beginning of names that are not wanted.
"""

# mypy: ignore-errors

import ctypes
import errno
import os
import signal
import stat
import sys

_SET_DEATH_SIGNAL = 1
_OVERLAY = "user.overlay."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Place:
    """A folder that is being copied: its names that are left, what it is, and what its parents are."""

    def __init__(self, source, target):
        self.names = os.listdir(source)
        self.info = os.fstat(source)
        self.source_id, self.target_id = _identity(source), _identity(target)


class _Copier:
    def __init__(self, source, target, left_out):
        self._source, self._target = os.open(source, _FOLDER), os.open(target, _FOLDER)
        self._left_out = left_out
        self._linked = set()
        self._links_name = "links"
        while self._links_name in os.listdir(self._source):
            self._links_name += "-"
        os.mkdir(self._links_name, 0o700, dir_fd=self._target)
        self._links = os.open(self._links_name, _FOLDER, dir_fd=self._target)

    def copy(self):
        """Copy all; only the folder that is at work is open, however deep it is."""
        places = [_Place(self._source, self._target)]
        while True:
            place = places[-1]
            if place.names:
                name = place.names.pop()
                info = os.stat(name, dir_fd=self._source, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(name, 0o700, dir_fd=self._target)
                    self._go(name)
                    places.append(_Place(self._source, self._target))
                else:
                    self._copy_one(name, info)
                continue
            if len(places) == 1:
                self._remove_links()
            self._finish(self._source, self._target, place.info)
            places.pop()
            if not places:
                return
            self._go("..")
            if (_identity(self._source), _identity(self._target)) != (places[-1].source_id, places[-1].target_id):
                raise OSError(errno.ESTALE, "a folder was moved while it was read")

    def _go(self, name):
        for side in ("_source", "_target"):
            before = getattr(self, side)
            setattr(self, side, os.open(name, _FOLDER, dir_fd=before))
            os.close(before)

    def _copy_one(self, name, info):
        if stat.S_ISREG(info.st_mode):
            if info.st_nlink == 1:
                self._copy_file(name, self._target, name)
            else:
                self._copy_linked(name, str(info.st_ino))
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=self._source), name, dir_fd=self._target)
            os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=self._target, follow_symlinks=False)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=self._target)

    def _copy_linked(self, name, number):
        """Link a file that is copied under its number, once, or once more where no more links are possible."""
        if number in self._linked:
            try:
                os.link(number, name, src_dir_fd=self._links, dst_dir_fd=self._target)
                return
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
            os.unlink(number, dir_fd=self._links)
        self._copy_file(name, self._links, number)
        self._linked.add(number)
        os.link(number, name, src_dir_fd=self._links, dst_dir_fd=self._target)

    def _copy_file(self, name, folder, new):
        source = os.open(name, _READ, dir_fd=self._source)
        try:
            info = os.fstat(source)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.ESTALE, "a file was exchanged while it was read")
            target = os.open(new, _WRITE, 0o600, dir_fd=folder)
            try:
                _copy_content(source, target, info)
                self._finish(source, target, info)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _finish(self, source, target, info):
        for name in os.listxattr(source):
            if name.startswith(self._left_out):
                continue
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError:
                if name.startswith(_OVERLAY):
                    raise
        os.fchmod(target, stat.S_IMODE(info.st_mode))
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _remove_links(self):
        for number in self._linked:
            os.unlink(number, dir_fd=self._links)
        os.close(self._links)
        os.rmdir(self._links_name, dir_fd=self._target)


def _identity(fd):
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _copy_content(source, target, info):
    """Copy what is between holes."""
    place = 0
    os.ftruncate(target, info.st_size)
    while place < info.st_size:
        try:
            place = os.lseek(source, place, os.SEEK_DATA)
            end = os.lseek(source, place, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole is all that is left
                return
            raise
        os.lseek(target, place, os.SEEK_SET)
        while place < end:
            count = os.sendfile(target, source, place, end - place)
            if count == 0:
                return
            place += count


def main() -> None:
    """Copy, and say in a line why it cannot be done."""
    source, target, left_out, parent = sys.argv[1:]
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if parent and os.getppid() != int(parent):
        sys.exit("its parent has ended")
    try:
        _Copier(source, target, left_out).copy()
    except OSError as error:
        sys.exit(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))


if __name__ == "__main__":
    main()
