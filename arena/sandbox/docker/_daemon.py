"""The Docker daemon: how it is reached, what it can, and what dead processes have left with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from arena.errors import PrerequisiteError, SandboxError
from arena.extras import import_extra
from arena.sandbox._scratch import scratch

__all__ = ["Daemon"]

_OURS = "arena.sandbox.lock"
_PLACE = "arena.sandbox.place"
_TIMEOUT_S = 600
_CHUNK = 1 << 20
_guard = threading.Lock()
_swept = set[tuple[int, str]]()


class Daemon:
    """A connection to the daemon that ``DOCKER_HOST`` names, else the machine's own.

    Attributes:
        address: The path of its socket.
        api: Docker's own client.
        info: What it says of itself.

    Raises:
        PrerequisiteError: Docker's client is not installed, no daemon answers, or it is somewhere else.
    """

    def __init__(self) -> None:
        docker = import_extra("docker", extra="docker")
        self._errors = import_extra("docker.errors", extra="docker")
        self._transport = import_extra("requests.exceptions", extra="docker").RequestException
        host = docker.utils.kwargs_from_env().get("base_url") or "unix:///var/run/docker.sock"
        if not host.startswith("unix://"):
            raise PrerequisiteError(f"sandboxes need a Docker daemon on this machine, with a unix socket, not {host}")
        self.address = host.removeprefix("unix://")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:  # Docker's client leaves it open
                probe.connect(self.address)
            self.api: Any = docker.APIClient(base_url=host, version="auto", timeout=_TIMEOUT_S)
        except (OSError, self._errors.DockerException):
            raise PrerequisiteError(f"no Docker daemon answers at {host}: start it, or set DOCKER_HOST") from None
        try:
            with self.asked("say what it can"):
                self.info: Mapping[str, Any] = self.api.info()
            with _guard:
                if (os.getpid(), self.address) not in _swept:
                    self._sweep()
                    _swept.add((os.getpid(), self.address))
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Turn what Docker's client raises into what the contract says.

        Raises:
            SandboxError: The daemon does not do it.
        """
        try:
            yield
        except (self._errors.DockerException, self._transport) as error:
            raise SandboxError(f"Docker does not {what}: {_reason(error)}") from error

    def require_image(self, image: str, remedy: str) -> None:
        """Refuse an image that is not there.

        Raises:
            PrerequisiteError: It is not there.
            SandboxError: The daemon fails.
        """
        with self.asked(f"look for the image {image!r}"):
            try:
                self.api.inspect_image(image)
            except self._errors.ImageNotFound:
                raise PrerequisiteError(f"there is no Docker image {image!r}; run: {remedy}") from None

    def remove(self, container: str) -> None:
        """Remove a container with its volumes, if it is there."""
        with self.asked("remove a container"):
            try:
                self.api.remove_container(container, force=True, v=True)
            except self._errors.NotFound:
                return
            except self._errors.APIError as error:
                if error.status_code != 409:
                    raise
        # It is being removed already, because it has ended.
        with contextlib.suppress(self._errors.DockerException, self._transport):
            self.api.wait(container, condition="removed", timeout=30)

    @contextlib.contextmanager
    def archive(self, container: str, path: str) -> Iterator[Iterable[bytes]]:
        """Open what a container has in a folder, as an archive.

        It is closed at once when it is not read to its end: the daemon holds the container as long as it sends.

        Raises:
            SandboxError: The daemon does not give it.
        """
        address = f"{self.api.base_url}/v{self.api.api_version}/containers/{container}/archive"
        with self.asked("copy the workspace"):
            answer = self.api.get(address, params={"path": f"{path}/."}, stream=True, timeout=_TIMEOUT_S)
            try:
                if not answer.ok:
                    raise SandboxError(f"Docker does not copy the workspace: {answer.text[:300]}")
                yield answer.iter_content(_CHUNK)
            finally:
                answer.close()

    def labels(self) -> dict[str, str]:
        """Return what marks a container as this process's own."""
        return {_OURS: str(scratch().folder / "lock"), _PLACE: _place()}

    def close(self) -> None:
        """Let the connections go."""
        self.api.close()

    def _sweep(self) -> None:
        """Remove the containers of processes that are dead; those whose process cannot be seen from here stay."""
        scratch()
        with self.asked("list containers"):
            found = self.api.containers(all=True, filters={"label": [_OURS, f"{_PLACE}={_place()}"]})
        for container in found:
            if not _is_locked(Path(container["Labels"][_OURS])):
                with contextlib.suppress(SandboxError):
                    self.remove(container["Id"])


def _place() -> str:
    """Return what tells in which files' system a process runs, so that paths of another one are not looked for here."""
    return os.readlink("/proc/self/ns/mnt")


def _is_locked(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return path.exists()
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", None) or error).split())[:500]
