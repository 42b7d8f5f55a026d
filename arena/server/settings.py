"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServerSettings"]


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """All settings of a server, with their defaults.

    Attributes:
        envs: Ids of the environments that it offers; None is every one that is installed.
        imports: Modules that the workers import at the start because they register environments of the operator's own.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        workers: Worker processes.
        state: Folder in which sessions survive a restart; None keeps them in memory.
        token_file: File of hashed bearer tokens; without one only loopback may be bound.
        allow_expert: Give expert actions to anybody on a server without tokens.
        corpora: Corpora that `POST /retrieve` searches, each with its retriever's id; the first one is the default.
        corpus_workers: Processes that search each of them.
        max_sessions: Open sessions on this server.
        max_sessions_per_token: Open sessions of one principal.
        max_steps_per_s: Steps per second of one session; 0 is no limit.
        max_token_steps_per_s: Steps per second of one principal; 0 is no limit.
        max_wall_time_s: The longest that a session may last.
        max_message_bytes: Largest request.
        lease_s: Seconds that a session outlives its last contact, unless its client asks otherwise.
        max_lease_s: The longest lease that a client may ask for.
        idle_s: Seconds without a verb after which a session ends, connected or not.
        step_timeout_s: Seconds after which a worker that does not answer is taken for dead, or, in an environment that
            waits on a thread of its own, a call that does not return for lost.
        drain_s: Seconds that requests in flight get when the server stops.
        keep_traces: Traces of closed sessions that are kept.
        keep_trace_bytes: Bytes of them that are kept in memory, on a server without `state`.
    """

    envs: tuple[str, ...] | None = None
    imports: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8700
    workers: int = 2
    state: Path | None = None
    token_file: Path | None = None
    allow_expert: bool = False
    corpora: tuple[tuple[str, str], ...] = ()
    corpus_workers: int = 1
    max_sessions: int = 4096
    max_sessions_per_token: int = 4096
    max_steps_per_s: float = 0.0
    max_token_steps_per_s: float = 0.0
    max_wall_time_s: float = 24 * 3600.0
    max_message_bytes: int = 8 * 2**20
    lease_s: float = 120.0
    max_lease_s: float = 24 * 3600.0
    idle_s: float = 3600.0
    step_timeout_s: float = 600.0
    drain_s: float = 10.0
    keep_traces: int = 1000
    keep_trace_bytes: int = 256 * 2**20
