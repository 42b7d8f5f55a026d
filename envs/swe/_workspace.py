"""The sandbox in which an instance is worked on: how it begins, and which patch has been made in it."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any

from arena import GraderError, ToolError
from arena.sandbox import (
    ExecResult,
    Guarantee,
    Mount,
    Sandbox,
    SandboxLimits,
    SandboxSettings,
    Snapshot,
    open_sandbox,
)

from ._sources import Place

__all__ = ["LARGEST_PATCH", "PatchTooLargeError", "Workspace", "open_place"]

LARGEST_PATCH = 4 << 20
_HISTORY = 512 << 20
_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
}
_COMMITTER = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "arena"), ("EMAIL", "arena@localhost"), ("DATE", "2000-01-01T00:00:00Z"))
}
_AS_IT_IS = "* -text -ident -filter -working-tree-encoding"
_BEGIN = f"""set -e
rm -rf .git
git init --quiet --initial-branch=main .
mkdir -p .git/info
echo '{_AS_IT_IS}' > .git/info/attributes
git config core.fsmonitor false
git config gc.auto 0
git add --all --force .
git commit --quiet --no-verify --message 'The repository, as it is given'"""
_HAND_OUT = "tar -C .git -cf - ."


class PatchTooLargeError(ToolError):
    """The patch has more bytes than are graded."""


def open_place(
    place: Place, limits: SandboxLimits, unenforced: Collection[Guarantee], more: tuple[Mount, ...] = ()
) -> Sandbox:
    """Start a sandbox with an instance's repository, as it stands at its base commit.

    Raises:
        GraderError: The instance's own patches cannot be undone.
        SandboxError: It does not start, or cannot guarantee what it must.
    """
    sandbox = open_sandbox(_settings(place, limits, unenforced, more), backend=place.backend)
    try:
        for patch in place.undone:
            if patch.strip():
                undone = apply_patch(sandbox, patch.encode(), "--reverse")
                if not undone.ok:
                    raise GraderError(f"a patch of the instance does not fit its source: {_last_line(undone)}")
    except BaseException:
        sandbox.stop()
        raise
    return sandbox


def apply_patch(sandbox: Sandbox, patch: bytes, *options: str) -> ExecResult:
    """Apply a patch to a sandbox's workspace, all of it or nothing. Nothing outside the workspace is changed."""
    command = ["git", "apply", "--whitespace=nowarn", *options, "-"]
    variables = {**_GIT, "GIT_DIR": "/nonexistent"}
    return sandbox.exec(command, stdin=patch, environment=variables, timeout_s=120, output_bytes=LARGEST_PATCH)


class Workspace:
    """An instance that is being worked on.

    The repository has a git history of one commit. What was changed since is asked of a copy of that history, which the
    sandbox does not have while anything runs in it.

    Args:
        place: What its sandbox is made of.
        limits: What may be used.
        unenforced: Guarantees that may be missing.
        state: Files to begin with, and the history that belongs to them; the instance's base where absent.

    Raises:
        GraderError: The instance cannot be set up.
        SandboxError: The sandbox does not start.

    Attributes:
        history: The history as it was at the beginning, packed.
    """

    def __init__(
        self,
        place: Place,
        limits: SandboxLimits,
        unenforced: Collection[Guarantee],
        state: tuple[Snapshot, bytes] | None = None,
    ) -> None:
        self.place = place
        if state is not None:
            self.sandbox = open_sandbox(_settings(place, limits, unenforced), backend=place.backend, snapshot=state[0])
            self.history = state[1]
            return
        self.sandbox = open_place(place, limits, unenforced)
        try:
            removed = self.sandbox.exec(["rm", "-rf", "--", *place.hidden]) if place.hidden else None
            if removed is not None and not removed.ok:
                raise GraderError(f"the hidden tests cannot be taken away: {_last_line(removed)}")
            begun = self.sandbox.exec(_BEGIN, environment={**_GIT, **_COMMITTER}, timeout_s=300)
            if not begun.ok:
                raise GraderError(f"the repository cannot be put under version control: {_last_line(begun)}")
            packed = self.sandbox.exec(_HAND_OUT, output_bytes=_HISTORY, timeout_s=300)
            if not packed.ok or packed.omitted_stdout:
                raise GraderError(f"the repository's history cannot be kept: {_last_line(packed)}")
            self.history = packed.stdout
        except BaseException:
            self.sandbox.stop()
            raise

    def facts(self) -> dict[str, Any]:
        """Return how the sandbox keeps what is in it, for the trace."""
        sandbox = self.sandbox
        return {
            "backend": self.place.backend,
            "enforced": dict(sandbox.enforced),
            "missing": dict(sandbox.missing),
            "limits": sandbox.settings.limits.model_dump(),
        }

    def patch(self) -> bytes:
        """Return what was changed since the beginning, as a patch. All that runs is ended first.

        What git is told to ignore is left out, as in SWE-bench; files in repositories within it are files like others.

        Raises:
            PatchTooLargeError: It has more than `LARGEST_PATCH` bytes.
            SandboxError: The sandbox is broken.
        """
        sandbox = self.sandbox
        sandbox.kill()
        history = f"/tmp/arena-{secrets.token_hex(16)}"
        script = f"""set -e
find /tmp -mindepth 1 -delete 2>/dev/null || true
mkdir -m 700 {history}
tar -C {history} -xf -
chmod -R u+rwX . 2>/dev/null || true
find . -mindepth 2 -name .git -prune -exec rm -rf {{}} +
git add --all .
git diff --cached --binary --no-color --no-ext-diff --no-textconv --no-renames --full-index HEAD"""
        variables = {**_GIT, "GIT_DIR": history, "GIT_WORK_TREE": self.place.directory}
        made = sandbox.exec(
            script, stdin=self.history, environment=variables, timeout_s=300, output_bytes=LARGEST_PATCH
        )
        sandbox.exec(["rm", "-rf", history])
        if made.timed_out or made.omitted_stdout:
            raise PatchTooLargeError(f"the changes make a patch of more than {LARGEST_PATCH:,} bytes")
        if not made.ok:
            raise ToolError(f"the changes cannot be made a patch: {_last_line(made)}")
        return made.stdout

    def snapshot(self) -> Snapshot:
        """Return the files as they are."""
        return self.sandbox.snapshot()

    def restore(self, snapshot: Snapshot, history: bytes) -> None:
        """Make the files what they were."""
        self.sandbox.restore(snapshot)
        self.history = history

    def close(self) -> None:
        """Stop the sandbox. May be called twice."""
        self.sandbox.stop()


def _settings(
    place: Place, limits: SandboxLimits, unenforced: Collection[Guarantee], more: tuple[Mount, ...] = ()
) -> SandboxSettings:
    return SandboxSettings(
        workspace=place.repository,
        directory=place.directory,
        mounts=(*place.mounts, *more),
        environment=place.environment,
        limits=limits,
        image=place.image,
        options=place.options,
        unenforced=frozenset(unenforced),
    )


def _last_line(result: ExecResult) -> str:
    lines = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {result.exit_code}"
