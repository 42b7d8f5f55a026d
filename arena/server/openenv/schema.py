"""OpenEnv's wire shapes as JSON schemas, and the OpenAPI document of one environment."""

from __future__ import annotations

from typing import Any

from arena.server.openenv.dialect import action_field
from arena.server.plain_seat import PlainSeat

__all__ = ["action_schema", "observation_schema", "openapi", "state_schema"]

_METADATA = {"type": "object", "additionalProperties": True, "default": {}, "description": "Additional metadata"}
_ANYTHING: dict[str, Any] = {}
_HTTP_VERSION = "1.0.0"


def action_schema(seat: PlainSeat) -> dict[str, Any]:
    """Return the JSON schema of a step's data: one field named for the kind of action, or a tool action."""
    shapes = []
    if seat.action_schema is not None:
        shapes.append(_object({action_field(seat): seat.action_schema, "metadata": _METADATA}, [action_field(seat)]))
    if seat.info.tools:
        names = {"type": "string", "enum": [tool.name for tool in seat.info.tools]}
        call = {"type": {"const": "call_tool"}, "tool_name": names, "arguments": {"type": "object", "default": {}}}
        shapes.append(_object(call | {"metadata": _METADATA}, ["type", "tool_name"]))
        shapes.append(_object({"type": {"const": "list_tools"}, "metadata": _METADATA}, ["type"]))
    title = {"title": "Action"}
    return shapes[0] | title if len(shapes) == 1 else {"anyOf": shapes} | title


def observation_schema(seat: PlainSeat, *, reset: bool) -> dict[str, Any]:
    """Return the JSON schema of an observation, as typed clients see it: with reward and done."""
    properties: dict[str, Any] = {"text": {"type": "string", "description": "The observation as text"}}
    if not seat.is_text:
        properties["value"] = seat.observation_schema
    properties["legal_actions"] = {
        "anyOf": [{"type": "array"}, {"type": "null"}],
        "description": "Legal now, if listed",
    }
    if reset:
        properties["instructions"] = {"type": "string", "description": "What the player is told before the start"}
    shapes = [_object(properties | _outcome(), ["text"])]
    if seat.info.tools and not reset:
        called = {"tool_name": {"type": "string"}, "result": _ANYTHING, "error": _ANYTHING}
        shapes.append(_object(called | _outcome(), ["tool_name"]))
        shapes.append(_object({"tools": {"type": "array", "items": {"type": "object"}}} | _outcome(), ["tools"]))
    title = {"title": "ResetObservation" if reset else "Observation"}
    return shapes[0] | title if len(shapes) == 1 else {"anyOf": shapes} | title


def state_schema() -> dict[str, Any]:
    """Return the JSON schema of the state."""
    text = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    properties = {
        "episode_id": text,
        "step_count": {"type": "integer", "minimum": 0, "default": 0},
        "done": {"type": "boolean", "default": False},
        "session_id": text | {"description": "Re-attaches to this session: keep it secret"},
    }
    return {"title": "State", "type": "object", "properties": properties, "additionalProperties": True}


def openapi(env: str, summary: str) -> dict[str, Any]:
    """Return the OpenAPI document of one environment's routes; the version is that of OpenEnv's HTTP interface."""
    posts = dict.fromkeys(("/reset", "/step", "/mcp"), "post")
    gets = dict.fromkeys(("/state", "/schema", "/metadata", "/health"), "get")
    answer = {"200": {"description": "As OpenEnv's own server answers."}}
    return {
        "openapi": "3.1.0",
        "info": {"title": env, "version": _HTTP_VERSION, "description": summary},
        "paths": {path: {method: {"responses": answer}} for path, method in (posts | gets).items()},
    }


def _outcome() -> dict[str, Any]:
    reward = {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None}
    return {"done": {"type": "boolean", "default": False}, "reward": reward, "metadata": _METADATA}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
