"""The remote API's messages: what a client sends, what a server answers.

One frame is one message. A WebSocket text frame is JSON, a binary frame is MessagePack, and a reply comes in the format
of its request. Every request carries an `id` of the client's choice and its reply carries the same one. The verbs are
idempotent, so a client that lost its connection sends again whatever was not answered: a step is known by its index,
`create` and `fork` by their `key`, and the others change nothing that was not changed before.

HTTP offers the same verbs with the same fields: what is in the path is left out of the body, and there is no `id`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from arena.env import EnvSpec
from arena.errors import ErrorRecord
from arena.trace import EndRecord, StepRecord
from arena.types import Action, AgentID, Limit, Limits, SeatStep, Tool, Usage

__all__ = [
    "PROTOCOL_VERSION",
    "Act",
    "Acted",
    "Attach",
    "Attached",
    "Close",
    "Closed",
    "Create",
    "Created",
    "Describe",
    "EnvironmentInfo",
    "EnvironmentList",
    "Environments",
    "ErrorReply",
    "Expert",
    "ExpertAction",
    "Fork",
    "GetTrace",
    "Read",
    "Records",
    "Reply",
    "Request",
    "RequestId",
    "SeatInfo",
    "SeatRecord",
    "SeatTerms",
    "Step",
    "StepItem",
    "StepMany",
    "Stepped",
    "SteppedMany",
    "TaskPage",
    "TaskRef",
    "Tasks",
    "TraceText",
    "Truncate",
]

PROTOCOL_VERSION = 1
"""Stands in every path: ``/v1/ws``, ``/v1/sessions``."""

RequestId: TypeAlias = int | str
Role: TypeAlias = Literal["owner", "seat", "watch"]
Status: TypeAlias = Literal["running", "over", "failed", "closed"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class _Request(_Message, frozen=True, kw_only=True, tag_field="type"):
    id: RequestId


class _Reply(_Message, frozen=True, kw_only=True, tag_field="type"):
    id: RequestId | None = None


# -- parts ----------------------------------------------------------------------------------------------------------


class TaskRef(_Message, frozen=True, kw_only=True):
    """A task by name; its data stay on the server."""

    id: str
    split: str


class SeatInfo(_Message, frozen=True, kw_only=True):
    """What a seat sees and can do.

    Attributes:
        observation_space: As `arena.spaces.describe` writes it.
        action_space: The same; None where the seat acts through tools only.
        tools: The tools that it may call.
        instructions: What a language model or a person is told before the first observation.
    """

    observation_space: dict[str, Any]
    action_space: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    instructions: str = ""


class SeatTerms(_Message, frozen=True, kw_only=True):
    """How a remote seat is played.

    Attributes:
        deadline_s: Seconds from the moment its action is due; None is no deadline.
        default: Played when the deadline passes; where absent, an action drawn from the legal ones.
    """

    deadline_s: float | None = None
    default: Action | None = None


class SeatRecord(_Message, frozen=True, kw_only=True):
    """A step as one seat may see it: nothing of the other seats, and no digest from which to guess it.

    Attributes:
        index: Number of the step.
        step: What the seat was given; None where it had ended before.
        action: What the seat did at this step.
        defaulted: The action was its default: the deadline had passed.
        acting: The seats whose action is due next.
        limit: The limit that this step reached.
    """

    index: int
    step: SeatStep | None
    action: Action | None = None
    defaulted: bool = False
    acting: tuple[AgentID, ...] = ()
    limit: Limit | None = None


class StepItem(_Message, frozen=True, kw_only=True):
    """One step of a batch; the fields are those of `Step`."""

    session: str
    index: int
    actions: dict[AgentID, Action]
    usage: Usage | None = None
    agent_s: dict[AgentID, float] = {}
    decisions: dict[AgentID, dict[str, Any]] = {}


# -- requests -------------------------------------------------------------------------------------------------------


class Environments(_Request, frozen=True, kw_only=True, tag="environments"):
    """List the environments that this server offers. Answered by `EnvironmentList`."""


class Describe(_Request, frozen=True, kw_only=True, tag="describe"):
    """Describe an environment with some options. Answered by `EnvironmentInfo`."""

    env: str
    options: dict[str, Any] = {}


class Tasks(_Request, frozen=True, kw_only=True, tag="tasks"):
    """List tasks `start` to `stop` (at most 1,000) of a split. Answered by `TaskPage`."""

    env: str
    options: dict[str, Any] = {}
    split: str | None = None
    start: int = 0
    stop: int = 100


class Create(_Request, frozen=True, kw_only=True, tag="create"):
    """Begin a session. Answered by `Created`.

    Attributes:
        env: The environment's id.
        key: Chosen by the client, unique to it (a UUID): a repeat with the same key gets the same session.
        options: The environment's options.
        task: A task's id; where absent, one drawn with the seed.
        split: The task's split; the environment's first one where absent.
        seed: The episode's root seed.
        limits: What the episode may use; the server may allow less.
        lease_s: Seconds that the session outlives its last contact; the server's default where absent.
        seats: Where given, remote seats claim and play the session, each on these terms, and steps are taken when every
            acting seat has acted.
    """

    env: str
    key: str
    options: dict[str, Any] = {}
    task: str | None = None
    split: str | None = None
    seed: int = 0
    limits: Limits = Limits()
    lease_s: float | None = None
    seats: dict[AgentID, SeatTerms] | None = None


class Attach(_Request, frozen=True, kw_only=True, tag="attach"):
    """Use a session on this connection. `create` and `fork` attach by themselves. Answered by `Attached`."""

    capability: str


class Step(_Request, frozen=True, kw_only=True, tag="step"):
    """Take step `index`; a repeat gets the recorded answer. Answered by `Stepped`.

    Attributes:
        session: The session's id.
        index: 1 for the first step.
        actions: An action for every acting seat.
        usage: What deciding cost.
        agent_s: Seconds that each seat took to decide.
        decisions: What agents want recorded beside their actions.
    """

    session: str
    index: int
    actions: dict[AgentID, Action]
    usage: Usage | None = None
    agent_s: dict[AgentID, float] = {}
    decisions: dict[AgentID, dict[str, Any]] = {}


class StepMany(_Request, frozen=True, kw_only=True, tag="step_many"):
    """Take a step in each of many sessions. Answered by `SteppedMany`, in the same order."""

    steps: list[StepItem]


class Act(_Request, frozen=True, kw_only=True, tag="act"):
    """Play a remote seat's part of step `index`. Answered by `Acted`, once the step has been taken."""

    session: str
    index: int
    action: Action
    seat: AgentID | None = None


class Truncate(_Request, frozen=True, kw_only=True, tag="truncate"):
    """End a running episode as step `index`, because the driver reached a limit. Answered by `Stepped`."""

    session: str
    index: int
    limit: Limit
    usage: Usage | None = None


class Expert(_Request, frozen=True, kw_only=True, tag="expert"):
    """Ask one of the environment's experts, on servers that allow it. Answered by `ExpertAction`."""

    session: str
    seat: AgentID
    kind: str | None = None


class Read(_Request, frozen=True, kw_only=True, tag="read"):
    """Read the steps after step `after`. Answered by `Records`; where there are none yet, after up to `wait_s`."""

    session: str
    after: int = -1
    wait_s: float = 0.0
    seat: AgentID | None = None


class Fork(_Request, frozen=True, kw_only=True, tag="fork"):
    """Begin a session that stands where this one stood after step `at`, the latest where absent. See `Created`."""

    session: str
    key: str
    at: int | None = None


class Close(_Request, frozen=True, kw_only=True, tag="close"):
    """End a session. Answered by `Closed`.

    Attributes:
        session: The session's id.
        error: What failed on the client's side, where the episode was not played to its end.
        usage: What has been spent since the last step.
    """

    session: str
    error: ErrorRecord | None = None
    usage: Usage | None = None


class GetTrace(_Request, frozen=True, kw_only=True, tag="trace"):
    """Fetch the trace of an episode that is over. Answered by `TraceText`."""

    session: str


Request: TypeAlias = (
    Environments
    | Describe
    | Tasks
    | Create
    | Attach
    | Step
    | StepMany
    | Act
    | Truncate
    | Expert
    | Read
    | Fork
    | Close
    | GetTrace
)

# -- replies --------------------------------------------------------------------------------------------------------


class ErrorReply(_Reply, frozen=True, kw_only=True, tag="error"):
    """The request was refused or failed; `details.retry_after_s` says when to try again, where that helps."""

    error: ErrorRecord


class EnvironmentList(_Reply, frozen=True, kw_only=True, tag="environments"):
    """What each environment declares."""

    environments: list[EnvSpec]


class EnvironmentInfo(_Reply, frozen=True, kw_only=True, tag="environment"):
    """An environment: its declaration, its options (as given and as a JSON schema), its seats."""

    spec: EnvSpec
    options: dict[str, Any]
    options_schema: dict[str, Any]
    seats: dict[AgentID, SeatInfo]
    tasks: dict[str, int]


class TaskPage(_Reply, frozen=True, kw_only=True, tag="tasks"):
    """Some tasks of a split, and how many there are."""

    tasks: list[TaskRef]
    total: int
    start: int


class Created(_Reply, frozen=True, kw_only=True, tag="created"):
    """A session that has begun.

    Attributes:
        session: Its id.
        capability: Whoever holds this text owns the session. Keep it secret.
        watch: Whoever holds this one may read every step.
        seat_capabilities: One for each remote seat.
        env: The environment's id.
        spec: What the environment declares.
        options: Its resolved options.
        task: The task.
        seed: The episode's root seed.
        limits: The limits that hold.
        seats: What each seat sees and can do.
        record: The first step, or the one that was forked at.
        lease_s: Seconds that the session outlives its last contact.
    """

    session: str
    capability: str
    watch: str
    env: str
    spec: EnvSpec
    options: dict[str, Any]
    task: TaskRef
    seed: int
    limits: Limits
    seats: dict[AgentID, SeatInfo]
    record: StepRecord
    lease_s: float
    seat_capabilities: dict[AgentID, str] = {}


class Attached(_Reply, frozen=True, kw_only=True, tag="attached"):
    """What a capability opens.

    Attributes:
        session: The session's id.
        role: What the holder is.
        seat: Which seat, for that role.
        env: The environment's id.
        spec: What the environment declares.
        status: How the episode stands.
        next: Index of the next step.
        acting: The seats whose action is due.
        seats: What each seat sees and can do; the holder's own only, for a seat.
        options: The environment's options; like what follows, for the owner only.
        task: The task.
        seed: The episode's root seed.
        limits: The limits that hold.
        lease_s: Seconds that the session outlives its last contact.
    """

    session: str
    role: Role
    env: str
    spec: EnvSpec
    status: Status
    next: int
    seats: dict[AgentID, SeatInfo]
    acting: tuple[AgentID, ...] = ()
    seat: AgentID | None = None
    options: dict[str, Any] = {}
    task: TaskRef | None = None
    seed: int | None = None
    limits: Limits | None = None
    lease_s: float | None = None


class Stepped(_Reply, frozen=True, kw_only=True, tag="stepped"):
    """A step; with the verdict, where it was the last one."""

    session: str
    record: StepRecord
    end: EndRecord | None = None


class SteppedMany(_Reply, frozen=True, kw_only=True, tag="stepped_many"):
    """The answers to a batch, in its order."""

    results: list[Stepped | ErrorReply]


class Acted(_Reply, frozen=True, kw_only=True, tag="acted"):
    """The step that a seat's action led to, as the seat may see it."""

    session: str
    record: SeatRecord


class ExpertAction(_Reply, frozen=True, kw_only=True, tag="expert_action"):
    """What the environment's expert would do."""

    action: Action


class Records(_Reply, frozen=True, kw_only=True, tag="records"):
    """Steps: whole ones for the owner and for spectators, a seat's own view for a seat."""

    session: str
    status: Status
    next: int
    acting: tuple[AgentID, ...] = ()
    records: list[StepRecord] = []
    seat_records: list[SeatRecord] = []
    end: EndRecord | None = None


class Closed(_Reply, frozen=True, kw_only=True, tag="closed"):
    """The verdict on a session that is closed now."""

    session: str
    end: EndRecord


class TraceText(_Reply, frozen=True, kw_only=True, tag="trace"):
    """A trace as JSON lines, as `arena replay` reads them."""

    session: str
    lines: str


Reply: TypeAlias = (
    ErrorReply
    | EnvironmentList
    | EnvironmentInfo
    | TaskPage
    | Created
    | Attached
    | Stepped
    | SteppedMany
    | Acted
    | ExpertAction
    | Records
    | Closed
    | TraceText
)
