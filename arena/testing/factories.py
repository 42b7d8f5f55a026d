"""What may be checked: an id, a class, or a function that makes a new environment or agent every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from arena.agent import Agent
from arena.env import Environment
from arena.errors import ConfigError
from arena.registry import make, make_agent, parse_options

__all__ = ["AgentFactory", "EnvFactory", "resolve_agent", "resolve_env"]

EnvFactory: TypeAlias = str | Callable[[], Environment]
"""An id, a class, or a function that returns a new environment every time."""

AgentFactory: TypeAlias = str | Callable[[], Agent]
"""An id, a class, or a function that returns a new agent every time."""


def resolve_env(given: EnvFactory, options: Mapping[str, Any] | None) -> Callable[[], Environment]:
    """Return a function that makes a new environment every time.

    Raises:
        UnknownIdError: No such environment, when it is made.
        ConfigError: The options are wrong, or given beside a function that takes none.
    """
    return _resolve(given, options, make)


def resolve_agent(given: AgentFactory, options: Mapping[str, Any] | None) -> Callable[[], Agent]:
    """Return a function that makes a new agent every time.

    Raises:
        UnknownIdError: No such agent, when it is made.
        ConfigError: The options are wrong, or given beside a function that takes none.
    """
    return _resolve(given, options, make_agent)


def _resolve(given: Any, options: Mapping[str, Any] | None, make_by_id: Callable[..., Any]) -> Callable[[], Any]:
    if isinstance(given, str):
        return lambda: make_by_id(given, options)
    if isinstance(given, type):
        cls: Any = given
        return lambda: cls(parse_options(cls.spec.id, cls.Options, options or {}))
    if options is not None:
        raise ConfigError("options go with an id or a class; a function applies options of its own")
    return given  # type: ignore[no-any-return]
