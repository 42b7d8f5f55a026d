"""Bearer tokens: a file of names, scopes and hashes.

A line is ``name scopes sha256:<hex>``: the name is for logs and limits, the scopes are those of
`arena.server.access.SCOPES` with commas between them. Empty lines and what follows a ``#`` are skipped. Several lines
may share a name, so that a token can be replaced before the old one is taken away.

The secrets are 256 random bits, so there is nothing to guess and one plain SHA-256 protects them at rest; a slow,
salted hash is for passwords that people choose.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from arena.errors import ConfigError, UnauthorizedError, did_you_mean
from arena.server.access import SCOPES, Principal

__all__ = ["TokenFile", "add_token"]

PREFIX = "arena_"
"""What every secret begins with, so that scanners and our own logs know one when they see it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_OTHERS = stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    principal: Principal
    digest: bytes


class TokenFile:
    """The tokens that are valid now. A changed file is read again by itself, so that a token can be taken away.

    While the server runs, a wrong line is logged and lets nobody in; the others hold. A file that is gone lets nobody
    in at all.

    Args:
        path: The file.
        lines: What it holds.
        stamp: Identity of the file that was read.
    """

    def __init__(self, path: Path, lines: list[_Line], stamp: object) -> None:
        self.path = path
        self._lines, self._stamp = lines, stamp

    @classmethod
    def load(cls, path: Path) -> TokenFile:
        """Return the tokens of a file.

        Raises:
            ConfigError: It cannot be read, others may read or change it, a line is wrong (the message has its number),
                or there is no token in it.
        """
        text, stamp = _read(path)
        lines, faults = _parse(text)
        if faults:
            raise ConfigError(f"token file {path}, {faults[0]}")
        if not lines:
            raise ConfigError(f"token file {path} holds no token; make one with: arena token {path} NAME")
        return cls(path, lines, stamp)

    def principal(self, authorization: str | None) -> Principal:
        """Return whose token an ``Authorization`` header shows.

        Raises:
            UnauthorizedError: There is no header, it is no bearer token, or the token is not valid here.
        """
        scheme, _, secret = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise UnauthorizedError("this server wants a bearer token: the header 'Authorization: Bearer <token>'")
        return self.authenticate(secret.strip())

    def authenticate(self, secret: str) -> Principal:
        """Return whose token this is; every line is compared, in constant time.

        Raises:
            UnauthorizedError: Nobody's.
        """
        self._refresh()
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).digest()
        found = None
        for line in self._lines:
            if hmac.compare_digest(line.digest, digest):
                found = line.principal
        if found is None:
            raise UnauthorizedError("this token is not valid here")
        return found

    def _refresh(self) -> None:
        if _stamp(self.path) == self._stamp:
            return
        try:
            text, self._stamp = _read(self.path)
        except ConfigError as error:
            if self._lines:
                _log.error("%s; nobody is let in until it can be read", error)
            self._lines, self._stamp = [], None
            return
        self._lines, faults = _parse(text)
        for fault in faults:
            _log.error("token file %s, %s; the line is ignored", self.path, fault)
        _log.info("token file %s was read again: %d tokens", self.path, len(self._lines))


def add_token(path: Path, name: str, scopes: Iterable[str]) -> str:
    """Append a new token to a file, which is created for its owner alone, and return the secret.

    It is one write of one line: a server that reads the file meanwhile sees it whole or not at all.

    Raises:
        ConfigError: The name or a scope is not allowed, or the file is not one that a server would take.
    """
    chosen = ",".join(scope for scope in SCOPES if scope in _checked(name, scopes))
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write the token file {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        text, _ = _read(path)
        _, faults = _parse(text)
        if faults:
            raise ConfigError(f"token file {path}, {faults[0]}")
        torn = "\n" if text and not text.endswith("\n") else ""
        os.write(handle, f"{torn}{name} {chosen} sha256:{digest}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    return secret


def _checked(name: str, scopes: Iterable[str]) -> set[str]:
    chosen = set(scopes)
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"a token's name is up to 64 letters, digits, '.', '_' and '-', not {name!r}")
    for scope in sorted(chosen - SCOPES.keys()):
        raise ConfigError(f"no scope {scope!r}{did_you_mean(scope, SCOPES)}")
    if not chosen:
        raise ConfigError(f"a token needs a scope: {', '.join(SCOPES)}")
    return chosen


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path) -> tuple[str, object]:
    stamp = _stamp(path)  # before the text: a change in between is noticed the next time
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no token file {path}; make one with: arena token {path} NAME") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {path}: {getattr(error, 'strerror', None) or error}") from error
    if mode & _OTHERS:
        raise ConfigError(f"token file {path} is open to others (mode {mode & 0o777:o}); run: chmod 600 {path}")
    return text, stamp


def _parse(text: str) -> tuple[list[_Line], list[str]]:
    lines, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = line.partition("#")[0].split()
            if words:
                lines.append(_line(words))
        except ConfigError as error:
            faults.append(f"line {number}: {error}")
    return lines, faults


def _line(words: list[str]) -> _Line:
    found = _HASH.fullmatch(words[-1])
    if len(words) != 3 or found is None:
        raise ConfigError("a line is 'name scopes sha256:<64 hex digits>'")
    name, scopes, _ = words
    return _Line(Principal(name, frozenset(_checked(name, scopes.split(",")))), bytes.fromhex(found[1]))
