"""OpenEnv's wire shapes: what its clients send and what they read; `openenv_schema` says the same as JSON schemas.

One text frame is one JSON object ``{"type", "data"}``. Observations leave out reward and done, which stand beside them,
and repeat the metadata. Nothing here does I/O.
"""

from __future__ import annotations

from typing import Any

from arena.errors import (
    ArenaError,
    CapacityError,
    ForbiddenError,
    PrerequisiteError,
    SessionGoneError,
    UnauthorizedError,
    UnsupportedError,
    UsageError,
)
from arena.protocol import SeatInfo
from arena.server.plain_seat import PlainSeat
from arena.trace import EndRecord, StepRecord
from arena.types import Action, SeatStep, Tool, ToolCall, encode_json

__all__ = [
    "FieldError",
    "action_field",
    "error_data",
    "error_frame",
    "frame",
    "observation_data",
    "parse_action",
    "parse_frame",
    "tool_error_data",
    "tools_data",
]

_FIELDS = {"string": "message", "integer": "action_id"}
_TOOL_FIELDS = {"list_tools": {"type"}, "call_tool": {"type", "tool_name", "arguments"}}


class FieldError(UsageError):
    """A frame, an action or an argument of `reset` is not of the shape that the schema says.

    Args:
        message: One line.
        loc: Where, from the outside in.
        given: What stands there.
    """

    def __init__(self, message: str, *loc: str, given: Any = None) -> None:
        super().__init__(message)
        self.errors = [{"type": "value_error", "loc": list(loc), "msg": self.message, "input": given}]


# -- frames ---------------------------------------------------------------------------------------------------------


def frame(type: str, data: dict[str, Any]) -> str:
    """Return a frame as text."""
    return encode_json({"type": type, "data": data}).decode()


def parse_frame(message: Any) -> tuple[str, dict[str, Any]]:
    """Return a frame's type and data; data that are absent are empty.

    Raises:
        FieldError: The frame or its data are no object, or it has other keys.
    """
    if not isinstance(message, dict):
        raise FieldError("a frame is a JSON object with the keys type and data", given=message)
    data = message.get("data", {})
    if not isinstance(data, dict):
        raise FieldError("the data of a frame are a JSON object", "data", given=data)
    unknown = message.keys() - {"type", "data"}
    if unknown:
        raise FieldError("a frame has the keys type and data only", min(unknown), given=message)
    return str(message.get("type", "")), data


def error_frame(error: ArenaError, code: str | None = None) -> str:
    """Return the error frame of a refusal or failure."""
    return frame("error", error_data(error, code))


def error_data(error: ArenaError, code: str | None = None) -> dict[str, Any]:
    """Return an error with OpenEnv's code and what OpenEnv puts beside it; Arena's own record stands at `error`."""
    record = error.record()
    data: dict[str, Any] = {"message": error.message, "code": code or _code(error), "error": record}
    match error:
        case FieldError():
            data["errors"] = error.errors
        case CapacityError():
            data |= {name: record.details.get(name) for name in ("active_sessions", "max_sessions")}
    return data


def _code(error: ArenaError) -> str:
    match error:
        case FieldError():
            return "VALIDATION_ERROR"
        case CapacityError():
            return "CAPACITY_REACHED"
        case PrerequisiteError():
            return "FACTORY_ERROR"
        case SessionGoneError() | UnauthorizedError() | ForbiddenError() | UnsupportedError():
            return "SESSION_ERROR"
    return "EXECUTION_ERROR"


# -- actions --------------------------------------------------------------------------------------------------------


def parse_action(data: dict[str, Any], seat: PlainSeat) -> tuple[Action | None, int | None]:
    """Return the action that a step's data mean, and the number of the step where ``metadata.step`` gives one.

    The action is None for ``list_tools``, which takes no step.

    Raises:
        FieldError: The data are not what `action_schema` says.
        InvalidActionError: The value is of another kind than the seat's actions.
    """
    metadata = data.get("metadata", {})
    if not isinstance(metadata, dict):
        raise FieldError("metadata is a JSON object", "metadata", given=metadata)
    index = metadata.get("step")
    if index is not None and type(index) is not int:
        raise FieldError("metadata.step is the number of the step, 1 for the first", "metadata", "step", given=index)
    kind = data.get("type")
    if seat.info.tools and isinstance(kind, str) and kind in _TOOL_FIELDS:
        return _parse_tool_action(kind, data), index
    if seat.action_schema is None:
        raise FieldError("type is call_tool or list_tools: the seat acts through tools only", "type", given=kind)
    name = action_field(seat)
    _refuse_unknown(data, {name})
    if name not in data:
        raise FieldError(f"the field {name} is missing", name, given=data)
    return seat.action(data[name]), index


def _parse_tool_action(kind: str, data: dict[str, Any]) -> ToolCall | None:
    _refuse_unknown(data, _TOOL_FIELDS[kind])
    if kind == "list_tools":
        return None
    name, arguments = data.get("tool_name"), data.get("arguments", {})
    if not isinstance(name, str):
        raise FieldError("tool_name is the name of a tool", "tool_name", given=name)
    if not isinstance(arguments, dict):
        raise FieldError("arguments is a JSON object", "arguments", given=arguments)
    return ToolCall(name, arguments)


def _refuse_unknown(data: dict[str, Any], allowed: set[str]) -> None:
    unknown = data.keys() - allowed - {"metadata"}
    if unknown:
        name = min(unknown)
        message = f"{name[:80]!r} is no field of the action (allowed: {', '.join(sorted(allowed))}, metadata)"
        raise FieldError(message, name, given=data[name])


def action_field(seat: PlainSeat) -> str:
    """Return the field that holds an action which is no tool call."""
    return _FIELDS.get((seat.action_schema or {}).get("type", ""), "values")


# -- observations ---------------------------------------------------------------------------------------------------


def observation_data(
    seat: PlainSeat, record: StepRecord, step: SeatStep, action: Action | None, end: EndRecord | None, **more: Any
) -> dict[str, Any]:
    """Return what OpenEnv's clients read after a reset or a step.

    Args:
        seat: The seat.
        record: The step.
        step: What the seat was given in it.
        action: What the seat did; a tool call's answer has OpenEnv's shape for tools.
        end: The verdict, at the end.
        more: Further metadata.
    """
    metadata = _metadata(record, step, end) | more
    if isinstance(action, ToolCall):
        observation = {"tool_name": action.name, "result": seat.value(step.observation), "error": None}
    else:
        observation = _observation(seat, step)
        if record.index == 0 and seat.info.instructions:
            observation["instructions"] = seat.info.instructions
    reward = None if record.index == 0 else step.reward
    observation["metadata"] = metadata
    return {"observation": observation, "reward": reward, "done": step.is_last, "metadata": metadata}


def tools_data(tools: tuple[Tool, ...], *, done: bool) -> dict[str, Any]:
    """Return the answer to ``list_tools``."""
    listed = [{"name": t.name, "description": t.description, "input_schema": t.parameters} for t in tools]
    return {"observation": {"tools": listed, "metadata": {}}, "reward": None, "done": done}


def tool_error_data(call: ToolCall, info: SeatInfo, message: str, *, done: bool) -> dict[str, Any]:
    """Return the answer to a tool call that was refused: nothing has changed."""
    known = any(tool.name == call.name for tool in info.tools)
    error = {"error_type": "invalid_args" if known else "tool_not_found", "message": message}
    observation = {"tool_name": call.name, "result": None, "error": error, "metadata": {}}
    return {"observation": observation, "reward": None, "done": done}


def _observation(seat: PlainSeat, step: SeatStep) -> dict[str, Any]:
    observation: dict[str, Any] = {"text": seat.text(step.observation)}
    if not seat.is_text:
        observation["value"] = seat.value(step.observation)
    observation["legal_actions"] = None if step.legal_actions is None else list(step.legal_actions)
    return observation


def _metadata(record: StepRecord, step: SeatStep, end: EndRecord | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "step": record.index,
        "terminated": step.terminated,
        "truncated": step.truncated,
        "ending": step.ending,
    }
    if step.info:
        metadata["info"] = step.info
    if record.limit is not None:
        metadata["limit"] = record.limit
    if end is not None:
        metadata |= {"score": end.score, "error": end.error}
    return metadata
