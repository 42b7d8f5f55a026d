"""The back end that starts Docker containers."""

from arena.sandbox.docker.sandbox import DockerSandbox, DockerSnapshot

__all__ = ["DockerSandbox", "DockerSnapshot"]
