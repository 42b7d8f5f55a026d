"""Arena: an environment server for sandboxed multi-turn and multi-agent tasks, and the agents that learn against them.

These are the public names: what environments and agents import, and what a script needs to play.
"""

from typing import TYPE_CHECKING, Any

from arena.agent import Agent, AgentSpec, Seat
from arena.batching import make_vector
from arena.cache import cache_dir
from arena.env import Environment, EnvSpec, Options, SeatSpec, SingleAgentEnvironment, TaskMaker, Taskset
from arena.errors import (
    AgentError,
    ArenaError,
    BoundaryError,
    ConfigError,
    EnvError,
    GraderError,
    InvalidActionError,
    LimitReached,
    ModelError,
    OutOfOrderError,
    PrerequisiteError,
    ReplayError,
    ResetNeededError,
    SandboxError,
    ToolError,
    UnknownIdError,
    UnsupportedError,
    UsageError,
    did_you_mean,
)
from arena.extras import import_extra, installed_version
from arena.registry import (
    make,
    make_agent,
    make_retriever,
    register,
    register_agent,
    register_retriever,
    register_trainer,
)
from arena.rendering import legal_text, observation_text
from arena.retrieval import Document, Hit, Retriever, RetrieverSpec
from arena.sampling import ActionSampler
from arena.seeding import derive_seed, python_stream, stream
from arena.session import Session
from arena.spaces import FreeText
from arena.trace import Episode, read_episodes
from arena.trainer import AlgorithmSpec, Checkpoint, Row, Tell, Trainer, TrainerSpec, TrainingJob, read_checkpoint
from arena.types import (
    PLAYER,
    Action,
    AgentID,
    Array,
    Decision,
    Limit,
    Limits,
    Score,
    SeatStep,
    Task,
    TimeStep,
    Tool,
    ToolCall,
    Usage,
    restart,
    termination,
    transition,
    truncation,
)
from arena.vector import TabularModel, VectorEnvironment, VectorStep

if TYPE_CHECKING:
    from arena.client import connect

__all__ = [
    "PLAYER",
    "Action",
    "ActionSampler",
    "Agent",
    "AgentError",
    "AgentID",
    "AgentSpec",
    "AlgorithmSpec",
    "ArenaError",
    "Array",
    "BoundaryError",
    "Checkpoint",
    "ConfigError",
    "Decision",
    "Document",
    "EnvError",
    "EnvSpec",
    "Environment",
    "Episode",
    "FreeText",
    "GraderError",
    "Hit",
    "InvalidActionError",
    "Limit",
    "LimitReached",
    "Limits",
    "ModelError",
    "Options",
    "OutOfOrderError",
    "PrerequisiteError",
    "ReplayError",
    "ResetNeededError",
    "Retriever",
    "RetrieverSpec",
    "Row",
    "SandboxError",
    "Score",
    "Seat",
    "SeatSpec",
    "SeatStep",
    "Session",
    "SingleAgentEnvironment",
    "TabularModel",
    "Task",
    "TaskMaker",
    "Taskset",
    "Tell",
    "TimeStep",
    "Tool",
    "ToolCall",
    "ToolError",
    "Trainer",
    "TrainerSpec",
    "TrainingJob",
    "UnknownIdError",
    "UnsupportedError",
    "Usage",
    "UsageError",
    "VectorEnvironment",
    "VectorStep",
    "cache_dir",
    "connect",
    "derive_seed",
    "did_you_mean",
    "import_extra",
    "installed_version",
    "legal_text",
    "make",
    "make_agent",
    "make_retriever",
    "make_vector",
    "observation_text",
    "python_stream",
    "read_checkpoint",
    "read_episodes",
    "register",
    "register_agent",
    "register_retriever",
    "register_trainer",
    "restart",
    "stream",
    "termination",
    "transition",
    "truncation",
]


def __getattr__(name: str) -> Any:
    """Import `connect` when it is first used: whoever plays in process needs no WebSocket library."""
    if name == "connect":
        from arena.client import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
