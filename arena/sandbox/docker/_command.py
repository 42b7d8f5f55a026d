"""A command in a container: it is started by the daemon, and ended by the container's first process."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence

from arena.errors import SandboxError, ToolError
from arena.sandbox.contract import ExecResult
from arena.sandbox.docker._container import USER, Container
from arena.sandbox.docker._daemon import Daemon
from arena.sandbox.docker._streams import Output, Stream

__all__ = ["Command", "new_mark"]

_START_S, _END_S = 60.0, 3.0
_INIT = "/sbin/docker-init"
_NO_FORK = "there are as many processes as there may be"


def new_mark() -> bytes:
    """Return what nobody can guess."""
    return secrets.token_hex(16).encode()


class Command:
    """A program that was started under an init process of its own, which adopts what it leaves behind.

    Args:
        daemon: Where.
        container: In which container.
        words: The program with its arguments; it writes its parent's and its own number first.
        environment: More variables.
        mark: What comes before its exit code.
        output_bytes: Most bytes kept of each stream.
        held: Closed by whoever holds the container; no command starts meanwhile.

    Raises:
        ToolError: It does not start, and the container is fine.
        SandboxError: The container is broken.
    """

    def __init__(
        self,
        daemon: Daemon,
        container: Container,
        words: Sequence[str],
        environment: Sequence[str],
        mark: bytes,
        output_bytes: int,
        held: contextlib.AbstractContextManager[object],
    ) -> None:
        self._daemon, self._container = daemon, container
        self.stdout = Output(output_bytes, mark, has_first_line=True)
        self.stderr = Output(output_bytes, mark, has_first_line=False)
        user = f"{USER}:{USER}"
        with held:
            with daemon.asked("start a command"):
                self._id: str = daemon.api.exec_create(
                    container.id, [_INIT, "-s", "--", *words], stdin=True, environment=environment, user=user
                )["Id"]
            asked = {"Detach": False, "Tty": False}
            self.stream = Stream(daemon.address, f"/exec/{self._id}/start", asked, _START_S)
            self.stream.on_output(self.stdout.add, self.stderr.add)
            self.stream.send(mark + b"\n")
            try:
                self._root, self.first = self._numbers()
            except BaseException:
                self.stream.close()
                raise

    def _numbers(self) -> tuple[int, int]:
        """Return the number of its init process, and its own, once they are known."""
        came = self.stream.wait(lambda: self.stdout.first is not None, time.monotonic() + _START_S)
        words = (self.stdout.first or b"").split()
        if came and len(words) == 2 and all(word.isdigit() for word in words):
            return int(words[0]), int(words[1])
        self._container.ask("ping")
        said = b" ".join([self.stdout.first or b"", self.stdout.take()[0], self.stderr.take()[0]])
        text = " ".join(said.decode(errors="replace").split())[-300:]
        raise ToolError(f"the command does not start: {text or _NO_FORK}")

    def is_done(self) -> bool:
        """Return whether it is known what became of it, and all that it wrote before."""
        return self.stdout.said is not None and self.stderr.said is not None

    def wait(self, deadline: float) -> bool:
        """Send and receive until it has ended, or the time is up; return whether it has ended."""
        return self.stream.wait(self.is_done, deadline) or self.stream.has_ended

    def code(self) -> int:
        """Return its exit code, once it has ended.

        Raises:
            ToolError: There is no such program or directory, or no process more.
            SandboxError: The container is broken.
        """
        said = self.stdout.said
        if said is None or self.stderr.said is None:
            return self._lost_code()
        if said in ("directory", "program"):
            raise ToolError(f"No such file or directory: there is no such {said}")
        if not said.isdigit():
            raise SandboxError(f"a command's exit code is {said!r}")
        return int(said) & 255

    def _lost_code(self) -> int:
        """Return the code of one that was ended together with what would have told it."""
        self._container.ask("ping")
        code = self.ended_with()
        if code < 128:
            raise ToolError(f"the command does not start: {_NO_FORK}")
        return code

    def ended_with(self) -> int:
        """Return what its init process ended with."""
        deadline = time.monotonic() + _END_S
        with self._daemon.asked("say what became of a command"):
            while (found := self._daemon.api.exec_inspect(self._id))["Running"] and time.monotonic() < deadline:
                time.sleep(0.01)
        return 137 if found["ExitCode"] is None else int(found["ExitCode"])

    def kill(self, *, spare_first: bool = False) -> None:
        """End all that came of it; not the command itself if asked.

        Raises:
            SandboxError: The container does not answer.
        """
        self._container.ask("end", self._root, *([self._root, self.first] if spare_first else []))

    def result(self, began: float, code: int | None) -> ExecResult:
        """Return what came of it, or of the last command of a shell."""
        (out, out_omitted), (err, err_omitted) = self.stdout.take(), self.stderr.take()
        return ExecResult(code, out, err, out_omitted, err_omitted, time.monotonic() - began, code is None)

    def close(self) -> None:
        """Let its streams go."""
        self.stream.close()
