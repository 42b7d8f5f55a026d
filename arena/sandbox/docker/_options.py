"""What is particular to the Docker back end in a sandbox's settings."""

from __future__ import annotations

from pydantic import Field, ValidationError

from arena.env import Options
from arena.errors import UsageError
from arena.sandbox.contract import SandboxSettings

__all__ = ["DEFAULT_IMAGE", "DockerOptions", "check_directory", "parsed"]

DEFAULT_IMAGE = "arena-sandbox"
"""The image of `docker/sandbox.Dockerfile`."""
_TAKEN = (
    "/",
    "/tmp",
    "/usr",
    "/proc",
    "/dev",
    "/etc",
    "/sys",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/home",
    "/home/agent",
)


class DockerOptions(Options):
    """Options of the Docker back end."""

    runtime: str | None = Field(
        None, min_length=1, description="What runs containers, such as `runsc` (gVisor); the daemon's default if None."
    )
    begin_with_image: bool = Field(
        False, description="Whether the workspace begins with what the image has at its directory, as SWE-bench's do."
    )


def parsed(settings: SandboxSettings) -> DockerOptions:
    """Return the settings' options.

    Raises:
        UsageError: One of them is unknown or wrong.
    """
    try:
        options = DockerOptions.model_validate(dict(settings.options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"option {name!r} of the docker back end: {first['msg']} (known: {', '.join(DockerOptions.model_fields)})"
        ) from None
    if options.begin_with_image and settings.workspace is not None:
        raise UsageError("the workspace begins with a folder or with what the image has there, not with both")
    return options


def check_directory(directory: str) -> None:
    """Refuse a place where no workspace can be.

    Raises:
        UsageError: It is no absolute path, or that of something else.
    """
    if not directory.startswith("/") or "\0" in directory or (directory.rstrip("/") or "/") in _TAKEN:
        raise UsageError(f"the workspace's directory is an absolute path of its own, not {directory!r}")
