"""Finding a PettingZoo environment by name, and making it: from a closed list of packages only."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from arena import ConfigError, PrerequisiteError, did_you_mean, import_extra

from .._foreign import allowed_packages, headless, is_below, shielded

__all__ = ["VARIABLE", "Source", "check_name", "find"]

VARIABLE = "ARENA_PETTINGZOO"
"""The environment variable in which the operator names further packages."""

_LIBRARIES = ("pettingzoo.atari", "pettingzoo.butterfly", "pettingzoo.classic", "pettingzoo.sisl", "mpe2")
_TUPLE_LIBRARIES = ("lbforaging", "rware")
_USUAL = (*_LIBRARIES, *_TUPLE_LIBRARIES)

_NEEDED = {"cooperative_pong": {"render_mode": "rgb_array"}}
"""Arguments without which a game does not work: cooperative pong observes nothing but black where it draws nothing."""
_UNFORGETTING = ("knights_archers_zombies",)
"""Games whose reset keeps something of the episode before: zombies come at other times."""

_MODULE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
_REGISTRY_ID = re.compile(r"[a-z0-9_]+/[A-Za-z0-9_]+[-_]v\d+")
_TUPLE_ID = re.compile(r"(?P<package>[A-Za-z][A-Za-z0-9_]*):(?P<id>[A-Za-z0-9_.-]+-v\d+)")
_VERSIONED = re.compile(r".*_v\d+")


@dataclass(frozen=True)
class Source:
    """Where environments of one name come from.

    Attributes:
        name: The name.
        create: Makes one from keyword arguments.
        declared: What declares the parameters: a class or function.
        defaults: Keyword arguments that the name stands for.
        forgetful: A reset begins anew in every respect; where it does not, each episode needs a new environment.
    """

    name: str
    create: Callable[..., Any]
    declared: Any
    defaults: Mapping[str, Any] = field(default_factory=dict)
    forgetful: bool = True

    def make(self, arguments: Mapping[str, Any]) -> Any:
        """Return a new environment.

        Raises:
            ConfigError: An argument is no parameter, or the constructor refuses it.
            PrerequisiteError: A package or a file that it needs is not there.
        """
        if arguments:
            self._check_names(arguments)
        return self._create(arguments)

    def _create(self, arguments: Mapping[str, Any]) -> Any:
        try:
            with headless():
                return shielded.call(self.create, **{**self.defaults, **arguments})
        except ModuleNotFoundError as error:
            raise _missing(self.name, error) from error
        except Exception as error:  # the boundary to a constructor of others, with arguments of the user's
            what = f" with the arguments {dict(arguments)}" if arguments else ""
            first = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{self.name} cannot be made{what}: {type(error).__name__}: {first}") from error

    def _check_names(self, arguments: Mapping[str, Any]) -> None:
        known = _parameters(self.declared)
        if known is None:  # it passes everything on to a class that it holds
            known = _parameters(type(getattr(self._create({}).unwrapped, "env", None))) or set()
        known -= {"render_mode"}
        for name in arguments:
            if name not in known:
                raise ConfigError(f"{self.name} has no argument {name!r}{did_you_mean(name, sorted(known))}")


def _parameters(declared: Any) -> set[str] | None:
    """Return the names of a callable's parameters; None where it takes any."""
    found = inspect.signature(declared).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return {parameter.name for parameter in found if parameter.kind is not parameter.VAR_POSITIONAL}


def check_name(name: str) -> str:
    """Return a name that looks like one of an allowed environment; nothing is imported.

    Raises:
        ValueError: The message says what is allowed.
        ConfigError: `ARENA_PETTINGZOO` is malformed.
    """
    packages = allowed_packages(_USUAL, VARIABLE)
    short = repr(name[:80])
    if _REGISTRY_ID.fullmatch(name):
        return name
    if match := _TUPLE_ID.fullmatch(name):
        if match["package"] in packages and match["package"] not in _LIBRARIES:
            return name
    elif _MODULE.fullmatch(name):
        own = is_below(name, _LIBRARIES) and _VERSIONED.fullmatch(name)
        if own or is_below(name, tuple(package for package in packages if package not in _USUAL)):
            return name
    else:
        raise ValueError(
            f"{short} is no name of an environment (allowed: a module such as 'mpe2.simple_spread_v3', a registry id"
            " such as 'classic/chess-v6', or 'lbforaging:Foraging-8x8-2p-3f-v3')"
        )
    raise ValueError(
        f"{short} may not be loaded (allowed: versioned modules below {', '.join(packages)};"
        f" whoever runs this process adds packages with {VARIABLE})"
    )


def find(name: str) -> Source:
    """Return where environments of this name come from.

    Raises:
        ConfigError: There is no such environment.
        PrerequisiteError: Its package is not installed.
    """
    return _find(name, os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=64)
def _find(name: str, _variable: str) -> Source:
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(f"marl/pettingzoo-v0: module: {error}") from error
    if match := _TUPLE_ID.fullmatch(name):
        return _in_gymnasium(name, match["package"], match["id"])
    if _REGISTRY_ID.fullmatch(name):
        return _in_registry(name)
    return _in_module(name, _load(name))


def _in_module(name: str, module: Any, attribute: str | None = None) -> Source:
    for kind in [attribute] if attribute else ["parallel_env", "env"]:
        if hasattr(module, kind):
            create = getattr(module, kind)
            game = str(getattr(module, "__name__", "")).rpartition(".")[2].partition("_v")[0]
            declared = getattr(module, "raw_env", create)
            return Source(name, create, declared, _NEEDED.get(game, {}), game not in _UNFORGETTING)
    raise ConfigError(f"{name} has neither parallel_env nor env: it is no PettingZoo environment")


def _in_registry(name: str) -> Source:
    try:
        with headless():  # PettingZoo names a sound driver when it is imported
            from pettingzoo.env_registry import registration
    except ModuleNotFoundError as error:
        raise ConfigError("registry ids need PettingZoo 1.27; name the module instead") from error
    id = re.sub(r"_v(?=\d+$)", "-v", name)
    registries = (registration.parallel_registry, registration.aec_registry)
    spec = next((registry[id] for registry in registries if id in registry), None)
    if spec is None:
        known = sorted({*registries[0], *registries[1]})
        raise ConfigError(f"PettingZoo's registry has no {name!r}{_near(id, known)}")
    entry = spec.entry_point
    if isinstance(entry, str):
        path, _, attribute = entry.partition(":")
    else:
        path, attribute = getattr(entry, "__module__", ""), getattr(entry, "__name__", "")
    packages = allowed_packages(_USUAL, VARIABLE)
    if not is_below(path, packages):
        raise ConfigError(f"{name} lies in {path}, which may not be loaded (allowed: {', '.join(packages)})")
    found = _in_module(name, _load(path), attribute)
    cycles = {} if spec.max_cycles in (None, -1) else {"max_cycles": spec.max_cycles}
    return replace(found, defaults={**found.defaults, **cycles, **spec.kwargs})


def _in_gymnasium(name: str, package: str, id: str) -> Source:
    import gymnasium

    _load(package)
    spec = gymnasium.registry.get(id)
    entry = None if spec is None else spec.entry_point
    path, _, attribute = entry.partition(":") if isinstance(entry, str) else ("", "", "")
    if spec is None or not is_below(path, (package,)):
        known = [other for other, one in gymnasium.registry.items() if str(one.entry_point).startswith(package)]
        raise ConfigError(f"{package} has no environment {id!r}{_near(id, known)}")
    create = getattr(_load(path), attribute)
    return Source(name, create, create, spec.kwargs)


def _load(path: str) -> Any:
    """Return an imported module of an allowed package.

    Raises:
        ConfigError: The package has no such module.
        PrerequisiteError: The package, or one that it needs, is not installed.
    """
    parent, _, last = path.rpartition(".")
    above = _load(parent) if parent else None
    if above is not None:
        names = [info.name for info in pkgutil.iter_modules(getattr(above, "__path__", []))]
        if last not in names:
            games = [f"{parent}.{name}" for name in names if _VERSIONED.fullmatch(name)]
            raise ConfigError(f"there is no module {path!r}{_near(path, games)}")
    try:
        with headless():
            return shielded.call(import_extra, path, extra="marl")
    except ModuleNotFoundError as error:
        raise _missing(path, error) from error


def _missing(name: str, error: ModuleNotFoundError) -> PrerequisiteError:
    return PrerequisiteError(
        f"{name} needs the package {error.name!r}, which is not installed; run: pip install 'arena-rl[marl]'",
        package=error.name or "",
        extra="marl",
    )


def _near(given: str, known: Sequence[str]) -> str:
    """Return what `did_you_mean` says, but no list of more than a few lines."""
    hint = did_you_mean(given, known)
    return hint if len(hint) <= 1000 else f" (such as {known[0]!r})"
