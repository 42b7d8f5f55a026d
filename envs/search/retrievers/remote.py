"""A client of retrieval servers that speak Search-R1's ``POST /retrieve``.

Asked is ``{"queries": [text], "topk": n, "return_scores": true}``; the answer is ``{"result": [[hit]]}`` with one list
for each query. A hit is ``{"document": document, "score": number}``, or the bare document where a server knows no
scores; a document is ``{"contents": text}``, with or without an ``"id"``.

A search, whatever the server does, takes at most `deadline_s` of its ``retriever.json``: connecting, headers and bodies
that come byte by byte, repetitions, and the waits between them.

Source: Jin et al. 2025, "Search-R1", arXiv:2503.09516, whose retrieval server this asks.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import os
import random
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Annotated, Any

import msgspec
from pydantic import Field

from arena import (
    ConfigError,
    Document,
    EnvError,
    Hit,
    Options,
    PrerequisiteError,
    Retriever,
    UsageError,
    import_extra,
    register_retriever,
)

from .._corpora import CORPUS_NAME, folder_of
from ._breaker import Breaker, Open
from ._indexed import checked
from ._loop import LoopThread
from ._store import Shared

__all__ = ["Remote", "RemoteOptions"]

_FILE = "retriever.json"
_MOST_BYTES = 64 << 20
"""Longest answer that is read."""
_MOST_CONNECTIONS = 128
_CONNECT_TIMEOUT_S = 5.0
_FIRST_DELAY_S = 0.25
"""Wait before the first repetition, which doubles."""
_LONGEST_RETRY_AFTER_S = 3600.0
"""Longest wait that a server is believed to want."""
_FAILURES, _COOL_DOWN_S = 5, 15.0
"""How many searches in a row may fail before none is tried for a while, and for how long."""
_PROBE_S = 1.0
"""When to come back if another search is just finding out whether the server is well again."""
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_FOR_QUERY = frozenset({400, 413, 414, 422})
_jitter = random.SystemRandom()


class RemoteOptions(Options):
    """Options of `remote`."""

    corpus: str = Field("remote", pattern=CORPUS_NAME, description=f"Name of the corpus, whose folder has {_FILE}.")


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``retriever.json`` says.

    Attributes:
        url: Where to post, ``http`` or ``https``, without a user or a password.
        timeout_s: Longest time of one attempt, in seconds; not more than `deadline_s`.
        deadline_s: Longest time of one search with all its attempts and the waits between them, in seconds: for so long
            it may hold up whoever searches, which is a worker with all its sessions.
        retries: How often a failed request is sent again, if there is time.
        token_variable: Name of the environment variable with the bearer token, if the server wants one.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s#]+$", max_length=2000)]
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 15.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=20)] = 3
    token_variable: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class _Document(msgspec.Struct, frozen=True):
    contents: str
    id: str | int | None = None


class _Hit(msgspec.Struct, frozen=True):
    document: _Document
    score: float


class _Scored(msgspec.Struct, frozen=True):
    result: list[list[_Hit]]


class _Unscored(msgspec.Struct, frozen=True):
    result: list[list[_Document]]


class _Failed(Exception):
    """The server did not answer as it should; the message says how.

    Args:
        message: What happened.
        again: Whether it may help to ask again.
        after_s: How long the server wants to be left alone before that.
    """

    def __init__(self, message: str, *, again: bool, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.again, self.after_s = again, after_s


class _Refused(Exception):
    """The server is well, and did not want this request.

    Args:
        message: What it said.
        for_query: What it asked for is the reason, and not who asked, or where.
    """

    def __init__(self, message: str, *, for_query: bool = False) -> None:
        super().__init__(message)
        self.for_query = for_query


@register_retriever(
    "remote",
    summary="Asks a server that speaks Search-R1's /retrieve.",
    extra="search",
    deterministic=False,
    blocking=True,
)
class Remote(Retriever):
    """Asks another server."""

    Options = RemoteOptions
    _server: _Server | None = None

    def open(self) -> None:
        """Read where the server is; nothing is asked yet."""
        name = self.options.corpus
        settings = _settings(name)
        token = _token(name, settings)
        _check_url(name, settings.url)
        key = (os.getpid(), settings, token)  # connections do not survive a fork
        self._server = _servers.get(key, lambda: _Server(settings, token))

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Return the server's documents for each query, in its order; 1/rank is the score where it gives none."""
        server = checked(self._server, topk)
        if not queries:
            return []
        what = f"the retrieval server of corpus {self.options.corpus!r}"
        try:
            return server.search(queries, topk)
        except _Refused as error:
            raise (UsageError if error.for_query else EnvError)(f"{what} {error}") from error
        except _Failed as error:
            after_s = max(error.after_s, server.rests_s)
            after = {"retry_after_s": after_s} if error.again and after_s else {}
            raise EnvError(f"{what} {error}", retryable=error.again, **after) from error
        except Open as error:
            after_s = max(error.for_s, _PROBE_S)
            again = f"it is asked again in {after_s:.1f} s"
            raise EnvError(
                f"{what} failed {_FAILURES} times in a row; {again}", retryable=True, retry_after_s=after_s
            ) from error

    def close(self) -> None:
        """Let go of the connections; others may hold them still."""
        self._server = None


class _Server:
    """One retrieval server: connections to it, and whether it is well. Shared by all who ask it.

    Args:
        settings: Where it is, and how patient to be.
        token: Bearer token, or None.
    """

    def __init__(self, settings: ServerSettings, token: str | None) -> None:
        self._httpx = httpx = import_extra("httpx", extra="search")
        self._settings = settings
        self._breaker = Breaker(_FAILURES, _COOL_DOWN_S)
        self._client = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})},
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS),
            follow_redirects=False,
            trust_env=False,
        )
        self._loop = LoopThread()
        weakref.finalize(self, _close, self._loop, self._client)

    @property
    def rests_s(self) -> float:
        """Seconds for which it is left alone."""
        return self._breaker.for_s

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Return what the server finds.

        Raises:
            _Failed: It does not answer, or answers nonsense.
            _Refused: It does not want the request.
            Open: It has failed so often that it is left alone for a while.
        """
        asked = {"queries": list(queries), "topk": topk, "return_scores": True}
        with self._breaker.call(_Failed):
            answer = self._loop.result(self._answer(msgspec.json.encode(asked)))
            return _hits(answer, len(queries), topk)

    async def _answer(self, body: bytes) -> bytes:
        """Return the answer's body, asking again after failures that may pass, as long as there is time."""
        settings, now = self._settings, asyncio.get_running_loop().time
        ends_at = now() + settings.deadline_s
        for attempt in count():
            try:
                return await self._ask(body, min(settings.timeout_s, ends_at - now()))
            except _Failed as failure:
                delay_s = max(_FIRST_DELAY_S * 2**attempt * _jitter.uniform(0.5, 1.5), failure.after_s)
                if not failure.again or attempt >= settings.retries or now() + delay_s >= ends_at:
                    raise
            await asyncio.sleep(delay_s)
        raise AssertionError("a count does not end")

    async def _ask(self, body: bytes, timeout_s: float) -> bytes:
        """Send one request; it is over after `timeout_s`, and its connection closed, wherever it stands."""
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream("POST", self._settings.url, content=body, headers=headers) as response,
            ):
                _check_status(response)
                return await _read(response)
        except TimeoutError as error:
            raise _Failed(f"did not finish its answer within {timeout_s:.3g} s", again=True) from error
        except self._httpx.HTTPError as error:
            raise _Failed(f"cannot be reached or broke off: {_reason(error)}", again=True) from error


def _reason(error: Exception) -> str:
    """Return what the operating system said first, else what httpx says."""
    first: BaseException = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    if isinstance(first, OSError) and first.errno and first.errno > 0:
        return os.strerror(first.errno)
    return str(error) or type(error).__name__


def _close(loop: LoopThread, client: Any) -> None:
    loop.stop(client.aclose())


_servers: Shared[tuple[int, ServerSettings, str | None], _Server] = Shared(keep=4)


def _settings(name: str) -> ServerSettings:
    """Return what the file of a corpus says about its server.

    Raises:
        ConfigError: There is no such corpus or file, or it says something else.
    """
    try:
        settings = msgspec.json.decode((folder_of(name) / _FILE).read_bytes(), type=ServerSettings)
    except OSError as error:
        raise ConfigError(f"corpus {name!r}: {_FILE} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'corpus {name!r}: {_FILE} must be like {{"url": "http://host:8000/retrieve", "timeout_s": 10,'
            f' "deadline_s": 15, "retries": 3, "token_variable": "NAME"}}, where only the url is needed: {error}'
        ) from error
    if settings.timeout_s > settings.deadline_s:
        raise ConfigError(
            f"corpus {name!r}: {_FILE} allows one attempt {settings.timeout_s:g} s and a whole search"
            f" {settings.deadline_s:g} s (allowed: a timeout_s of at most deadline_s)"
        )
    return settings


def _check_url(name: str, url: str) -> None:
    """Raise `ConfigError` if no request can be sent to the URL."""
    httpx = import_extra("httpx", extra="search")
    try:
        parsed = httpx.URL(url)
        valid = parsed.host and not parsed.userinfo and (parsed.port is None or 0 < parsed.port < 65536)
    except httpx.InvalidURL:
        valid = False
    if not valid:
        raise ConfigError(f"corpus {name!r}: the url in {_FILE} must be like http://host:8000/retrieve, without a user")


def _token(name: str, settings: ServerSettings) -> str | None:
    """Return the bearer token that the settings name.

    Raises:
        PrerequisiteError: The environment variable is not set.
        ConfigError: It holds what no header can.
    """
    if settings.token_variable is None:
        return None
    token = os.environ.get(settings.token_variable, "").strip()
    if not token:
        raise PrerequisiteError(f"corpus {name!r}: its server wants a token; set ${settings.token_variable}")
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"corpus {name!r}: ${settings.token_variable} must be printable ASCII")
    return token


def _check_status(response: Any) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in _RETRYABLE:
        after_s = _retry_after_s(response.headers.get("Retry-After"))
        raise _Failed(f"answered with status {status}", again=True, after_s=after_s)
    if response.is_redirect:
        raise _Refused(f"answered with status {status}; redirects are not followed")
    if 400 <= status < 500:
        raise _Refused(f"refused the request with status {status}", for_query=status in _FOR_QUERY)
    raise _Failed(f"answered with status {status}", again=False)


async def _read(response: Any) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _Failed(f"answered compressed ({encoding!r}), which was not asked for", again=False)
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > _MOST_BYTES:
            raise _Failed(f"answered more than {_MOST_BYTES:,} bytes", again=False)
    return bytes(body)


def _retry_after_s(value: str | None) -> float:
    """Return the seconds that a ``Retry-After`` header asks for, given in seconds or as a date; 0 for none."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, (date - datetime.now(UTC)).total_seconds()), _LONGEST_RETRY_AFTER_S)


def _hits(body: bytes, queries: int, topk: int) -> list[list[Hit]]:
    """Return the hits of an answer.

    Raises:
        _Failed: It is not JSON, not of this shape, or not one list for each query.
    """
    scored = _decode(body)
    if len(scored) != queries:
        raise _Failed(f"answered {len(scored)} lists of hits for {queries} queries", again=False)
    return [[Hit(_document(hit.document), hit.score) for hit in hits[:topk]] for hits in scored]


def _decode(body: bytes) -> list[list[_Hit]]:
    try:
        return msgspec.json.decode(body, type=_Scored).result
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        malformed = error
    try:
        unscored = msgspec.json.decode(body, type=_Unscored).result
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        what = " ".join(str(malformed).split())[:200]
        raise _Failed(f"answered what is no list of hits: {what}", again=False) from malformed
    return [[_Hit(document, 1 / rank) for rank, document in enumerate(found, 1)] for found in unscored]


def _document(document: _Document) -> Document:
    """Return a document; one without an id is named by a digest of what it says."""
    if document.id is None:
        digest = hashlib.blake2b(document.contents.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return Document.parse(digest, document.contents)
    return Document.parse(str(document.id), document.contents)
