"""Files that come and go, workspaces and mounts."""

from __future__ import annotations

import os
from pathlib import Path

from arena.errors import ToolError
from arena.sandbox import Mount
from arena.testing.report import Clauses
from arena.testing.sandbox_probe import SandboxProbe, output, same, texts
from arena.testing.verdicts import broken, must_refuse

__all__ = ["CLAUSES"]

CLAUSES = Clauses[SandboxProbe]()


@CLAUSES.add
def files_come_and_go_as_they_are(probe: SandboxProbe) -> None:
    """Every byte; folders on the way are made."""
    sandbox = probe.fresh()
    content = os.urandom(1 << 20)
    for path in ("a.bin", "new/folders/on the way/\u00fc\n.bin", "/tmp/b.bin", "no/text\udcff\n\udcfe '.bin"):
        sandbox.write_file(path, content)
        if sandbox.read_file(path) != content:
            broken(f"{path!r} comes back otherwise")
    sandbox.write_file("a.bin", b"short")
    same("written again", b"short", sandbox.read_file("a.bin"))
    sandbox.write_file("run.sh", b"#!/bin/sh\necho ran\n", mode=0o755)
    same("mode", "ran\n", output(sandbox, "./run.sh"))


@CLAUSES.add
def what_is_no_file_is_a_tool_error(probe: SandboxProbe) -> None:
    """There is no such file, it cannot be read, is no regular file, or is too large."""
    sandbox = probe.fresh()
    output(sandbox, "mkfifo pipe; mkdir folder; head -c 2000 /dev/zero > big; ln -s loop loop")
    for path in ("nothing", "pipe", "folder", "/dev/zero", "/dev/null", "loop", "big/inside"):
        with must_refuse(ToolError, f"reading {path}"):
            sandbox.read_file(path)
    with must_refuse(ToolError, "reading too much"):
        sandbox.read_file("big", max_bytes=1999)
    for path in ("folder", "big/inside", "/usr/new", "/proc/new", "pipe"):
        with must_refuse(ToolError, f"writing {path}"):
            sandbox.write_file(path, b"x")
    same("afterwards", 2000, len(sandbox.read_file("big", max_bytes=2000)))


@CLAUSES.add
def links_lead_nowhere_else(probe: SandboxProbe) -> None:
    """Links are followed inside the sandbox."""
    outside = probe.folder / "outside.txt"
    outside.write_text("secret")
    sandbox = probe.fresh()
    output(
        sandbox, f"ln -s {outside} link; ln -s /etc/passwd users; ln -s / root; ln -s ../../../../../../..{outside} up"
    )
    for path in ("link", f"root{outside}", "up", str(outside)):
        with must_refuse(ToolError, f"reading {path}"):
            sandbox.read_file(path)
    if sandbox.read_file("users") == Path("/etc/passwd").read_bytes():
        broken("the users of this machine can be read")
    for path in ("link", "up"):
        try:
            sandbox.write_file(path, b"overwritten")
        except ToolError:
            continue
    same("outside", "secret", outside.read_text())


@CLAUSES.add
def the_workspace_begins_as_the_folder(probe: SandboxProbe) -> None:
    """A folder of this machine whose content the workspace begins with; it is read, never changed."""
    folder = probe.workspace()
    sandbox = probe.fresh(workspace=folder)
    same("content", "kept\ndeep\n", output(sandbox, "cat kept.txt sub/deep.txt"))
    output(sandbox, "echo more >> kept.txt; rm -rf sub; mkdir sub; echo new > sub/new.txt")
    same("inside", "kept\nmore\nnew\n", output(sandbox, "cat kept.txt sub/*"))
    same("outside", {"kept.txt": "kept\n", "deep.txt": "deep\n"}, texts(folder))


@CLAUSES.add
def mounts_are_shown_and_cannot_be_changed(probe: SandboxProbe) -> None:
    """A folder or file of this machine that is shown in the sandbox, and cannot be changed there."""
    folder = probe.workspace()
    mounts = (Mount(folder, "/data/shown"), Mount(folder / "kept.txt", "/data/one.txt"))
    sandbox = probe.fresh(mounts=mounts)
    same("content", "deep\nkept\n", output(sandbox, "cat /data/shown/sub/deep.txt /data/one.txt"))
    for command in (
        "echo x >> /data/shown/kept.txt",
        "rm /data/one.txt",
        "touch /data/shown/new",
        "chmod 777 /data/shown",
    ):
        if sandbox.exec(command).ok:
            broken(f"{command!r} succeeded")
    same("outside", {"kept.txt": "kept\n", "deep.txt": "deep\n"}, texts(folder))
