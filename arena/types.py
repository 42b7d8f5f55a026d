"""The values that travel: actions, what a seat sees, time steps, tasks, scores, limits.

Each is defined once as a frozen msgspec struct and used in process, on the wire (JSON and MessagePack) and on disk.

*Seat* and *agent*: a seat is a place in an environment, named by an `AgentID` (PettingZoo calls it an agent); an
agent is whoever sits there. A single-agent task is the case of one seat, called ``player``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from arena.errors import InvalidActionError, LimitKind, UsageError

__all__ = [
    "PLAYER",
    "Action",
    "AgentID",
    "Array",
    "Decision",
    "Limit",
    "LimitKind",
    "Limits",
    "Score",
    "SeatStep",
    "Task",
    "TimeStep",
    "Tool",
    "ToolCall",
    "Usage",
    "decode_json",
    "decode_msgpack",
    "encode_canonical",
    "encode_json",
    "encode_msgpack",
    "restart",
    "termination",
    "transition",
    "truncation",
]

AgentID: TypeAlias = str
PLAYER: AgentID = "player"
"""The one seat of a single-agent environment."""

_DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)


class Array(msgspec.Struct, frozen=True, tag="array", tag_field="type", forbid_unknown_fields=True):
    """An n-dimensional array of numbers: an action of a Box space, or part of an observation on the wire.

    Attributes:
        dtype: A NumPy boolean, integer or float type name; nothing that needs pickle.
        shape: Lengths of the dimensions.
        data: The elements in C order, little-endian; base64 in JSON.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> Array:
        """Return a copy of `array` as a message.

        Raises:
            UsageError: The elements are not booleans or fixed-size numbers.
        """
        if array.dtype.name not in _DTYPES:
            raise UsageError(
                f"arrays of dtype {array.dtype.name!r} cannot be sent (allowed: {', '.join(sorted(_DTYPES))})"
            )
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return cls(array.dtype.name, tuple(int(n) for n in array.shape), little.tobytes())

    def numpy(self) -> NDArray[Any]:
        """Return the array, writable.

        Raises:
            UsageError: The dtype is not allowed, or the data do not fill the shape.
        """
        if self.dtype not in _DTYPES:
            raise UsageError(f"arrays of dtype {self.dtype!r} are not accepted (allowed: {', '.join(sorted(_DTYPES))})")
        dtype = np.dtype(self.dtype).newbyteorder("<")
        size = 1
        for n in self.shape:
            if n < 0:
                raise UsageError(f"an array cannot have shape {self.shape}")
            size *= n
        if size * dtype.itemsize != len(self.data):
            raise UsageError(f"{len(self.data)} bytes do not fill {self.dtype}{list(self.shape)}")
        try:
            return np.frombuffer(self.data, dtype).reshape(self.shape).astype(self.dtype)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"an array cannot have shape {self.shape}: {error}") from error


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call", tag_field="type", forbid_unknown_fields=True):
    """A call of one of the seat's tools.

    Attributes:
        name: The tool's name.
        arguments: The arguments, valid against the tool's JSON schema.
    """

    name: str
    arguments: dict[str, Any] = {}


Action: TypeAlias = str | int | ToolCall | Array
"""What a seat can do: text, a discrete choice, a tool call, or an array."""


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function that a seat may call, in the shape that OpenAI's and MCP's protocols share.

    Attributes:
        name: Letters, digits, `_` and `-`.
        description: What it does, for the model.
        parameters: JSON schema of the arguments, an object schema.
    """

    name: str
    description: str
    parameters: dict[str, Any]

    def openai(self) -> dict[str, Any]:
        """Return the tool as an entry of a chat completion request's `tools`."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


class SeatStep(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one seat is given at one time step. Made by `restart`, `transition`, `termination` or `truncation`.

    Attributes:
        observation: An element of the seat's observation space.
        reward: Received for the step that led here, a finite float; 0 at the start.
        terminated: The episode ended for this seat by the task's own rules.
        truncated: The seat is no longer watched; the task itself had not ended.
        ending: The declared name of how it ended; None while it goes on.
        legal_actions: Text actions or discrete choices that are legal now, where the environment lists them.
        info: Further facts for this seat, JSON-serialisable and deterministic where the environment is.
    """

    observation: Any
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    ending: str | None = None
    legal_actions: tuple[str | int, ...] | None = None
    info: dict[str, Any] = {}

    @property
    def is_last(self) -> bool:
        """Whether this is the seat's last step."""
        return self.terminated or self.truncated


def restart(observation: Any, *, legal_actions: Iterable[str | int] | None = None, **info: Any) -> SeatStep:
    """Return a seat's first step: there is no reward yet."""
    return SeatStep(observation, legal_actions=None if legal_actions is None else tuple(legal_actions), info=info)


def transition(
    observation: Any, reward: float, *, legal_actions: Iterable[str | int] | None = None, **info: Any
) -> SeatStep:
    """Return a step after which the seat goes on."""
    legal = None if legal_actions is None else tuple(legal_actions)
    return SeatStep(observation, float(reward), legal_actions=legal, info=info)


def termination(observation: Any, reward: float, *, ending: str, **info: Any) -> SeatStep:
    """Return a seat's last step where the task itself ended (won, lost, answered): its value beyond is zero."""
    return SeatStep(observation, float(reward), terminated=True, ending=ending, info=info)


def truncation(observation: Any, reward: float, *, ending: str, **info: Any) -> SeatStep:
    """Return a seat's last step where only the watching stopped: learning still bootstraps from it."""
    return SeatStep(observation, float(reward), truncated=True, ending=ending, info=info)


class TimeStep(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every seat is given at one time step, and who must act next.

    Attributes:
        seats: The step of every seat that was alive before it; one that ended earlier is absent.
        acting: The seats whose action is due next: one in turn-based play, all in simultaneous play, none at the end.
    """

    seats: dict[AgentID, SeatStep]
    acting: tuple[AgentID, ...] = ()

    @classmethod
    def solo(cls, step: SeatStep) -> TimeStep:
        """Return the time step of a single-agent environment."""
        return cls({PLAYER: step}, () if step.terminated or step.truncated else (PLAYER,))

    @property
    def is_last(self) -> bool:
        """Whether the episode is over: nobody is to act."""
        return not self.acting


class Task(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One instance of an environment: a game, a repository with an issue, a question.

    Attributes:
        id: Unique within the environment; what a client names. Never a path.
        split: The split that it belongs to.
        data: What the environment needs to build it, JSON-serialisable.
    """

    id: str
    split: str = "train"
    data: dict[str, Any] = {}

    def __post_init__(self) -> None:
        # A default is left out of messages when it is the very same object, and equal tasks must have equal digests.
        msgspec.structs.force_setattr(self, "split", sys.intern(self.split))


class Score(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The task's own verdict on an episode, apart from the reward that training uses.

    Attributes:
        value: The score, in the range that the environment declares.
        success: Whether the task was solved; None where that is not defined.
        metrics: Further numbers by declared name.
        seats: The score of each seat, in multi-agent tasks.
    """

    value: float
    success: bool | None = None
    metrics: dict[str, float] = {}
    seats: dict[AgentID, float] = {}


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What deciding cost.

    Attributes:
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, reasoning included.
        cost_usd: Price in US dollars, where prices are known.
        requests: Requests that were answered.
        retries: Requests that were repeated.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    requests: int = 0
    retries: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_usd + other.cost_usd,
            self.requests + other.requests,
            self.retries + other.retries,
        )


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An action with what an agent wants recorded beside it.

    Attributes:
        action: The action.
        usage: What it cost.
        info: Recorded in the trace: the raw completion, log-probabilities, the reasoning.
    """

    action: Action
    usage: Usage | None = None
    info: dict[str, Any] = {}


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit that was reached: how much was used of how much was allowed."""

    kind: LimitKind
    value: float
    limit: float


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What an episode may use; None is no limit. Reaching one truncates the episode, and is never an error.

    Attributes:
        steps: Environment steps.
        wall_time_s: Seconds from the start of the episode, agents included.
        step_time_s: Seconds that the environment may take for one step.
        tokens: Input and output tokens of all agents.
        cost_usd: US dollars of all agents.
        invalid_actions: Refused actions in a row.
    """

    steps: int | None = None
    wall_time_s: float | None = None
    step_time_s: float | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    invalid_actions: int | None = 10

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"limit {name} is {value}; it must be positive, or absent for no limit")


def _to_wire(value: Any) -> Any:
    """Return a NumPy value as something msgspec encodes."""
    if isinstance(value, np.ndarray):
        return Array.of(value)
    if isinstance(value, np.generic):
        return value.item()
    raise UsageError(f"a value of type {type(value).__name__} cannot be sent")


_json_encoder = msgspec.json.Encoder(enc_hook=_to_wire, order="deterministic")
_msgpack_encoder = msgspec.msgpack.Encoder(enc_hook=_to_wire, order="deterministic")
encode_json = _json_encoder.encode
"""Encode a message as one line of JSON."""
encode_msgpack = _msgpack_encoder.encode
"""Encode a message as MessagePack."""
encode_canonical = msgspec.json.Encoder(enc_hook=_to_wire, order="sorted").encode
"""Encode a message as JSON that is the same bytes for the message and for what is decoded from it."""


def decode_json(data: bytes | str, type: Any = Any) -> Any:
    """Decode JSON into a message of `type`.

    Raises:
        UsageError: Not JSON, or not such a message.
    """
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"not a valid message: {error}") from error


def decode_msgpack(data: bytes, type: Any = Any) -> Any:
    """Decode MessagePack into a message of `type`.

    Raises:
        UsageError: Not MessagePack, or not such a message.
    """
    try:
        return msgspec.msgpack.decode(data, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"not a valid message: {error}") from error


def as_action(value: Any) -> Action:
    """Return `value` as an action: arrays and NumPy integers are converted, actions are returned as they are.

    Raises:
        InvalidActionError: It is none of text, integer, tool call or array.
    """
    kind = type(value)
    if kind is str or kind is int or kind is ToolCall or kind is Array:
        return value  # type: ignore[no-any-return]
    if isinstance(value, np.integer):
        return int(value)
    what = f"a value of type {kind.__name__}"
    if isinstance(value, np.ndarray):
        try:
            return Array.of(value)
        except UsageError as error:
            what = str(error)
    raise InvalidActionError(f"{what} is no action (allowed: text, an integer, a tool call, an array of numbers)")


def as_actions(actions: Mapping[AgentID, Any]) -> dict[AgentID, Action]:
    """Return a mapping of seats to actions, each through `as_action`."""
    return {agent: as_action(value) for agent, value in actions.items()}
