"""JSON-RPC 2.0: reading a request, and the two kinds of reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from arena.errors import ArenaError

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "SERVER_ERROR",
    "RpcError",
    "RpcId",
    "RpcRequest",
    "failure",
    "failure_of",
    "is_id",
    "parse_request",
    "success",
]

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR, SERVER_ERROR = -32602, -32603, -32000
_LONGEST_ID = 256

RpcId: TypeAlias = int | str


class RpcError(Exception):
    """A request that is answered by a JSON-RPC error.

    Args:
        code: One of this module's.
        message: One line.
        data: Further facts, JSON-serialisable.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A request, or a notification where `id` is None."""

    method: str
    params: dict[str, Any]
    id: RpcId | None


def parse_request(message: Any) -> RpcRequest | None:
    """Return the request that a JSON value is; None for a response, which no server of ours asked for.

    Raises:
        RpcError: It is none.
    """
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'a request is a JSON object with "jsonrpc": "2.0"')
    if "method" not in message and ("result" in message or "error" in message):
        return None
    method, params, id = message.get("method"), message.get("params", {}), message.get("id")
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method is the name of a method")
    if "id" in message and not is_id(id):
        raise RpcError(INVALID_REQUEST, f"id is an integer, or a text of at most {_LONGEST_ID} characters")
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params is a JSON object")
    return RpcRequest(method, params, id)


def is_id(value: Any) -> bool:
    """Return whether a value can be a request's id."""
    return type(value) is int or (isinstance(value, str) and len(value) <= _LONGEST_ID)


def success(id: RpcId | None, result: Any) -> dict[str, Any]:
    """Return the reply with a result."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failure(id: RpcId | None, error: RpcError) -> dict[str, Any]:
    """Return the reply with an error."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        told["data"] = error.data
    return {"jsonrpc": "2.0", "id": id, "error": told}


def failure_of(error: ArenaError) -> RpcError:
    """Return an error of Arena's as a server error; its record is the data."""
    return RpcError(SERVER_ERROR, error.message, error.record())
