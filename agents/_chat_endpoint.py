"""An OpenAI-compatible chat-completions endpoint: one request in, one answer out, with retries and time limits.

The `openai` package speaks HTTP. Retries are done here and not by the package, because it neither repeats a stream that
broke off nor counts what it repeated when it gives up. Of the environment only the named key is read: whatever the
package would take from other ``OPENAI_*`` variables is overridden (except ``OPENAI_LOG``, which it reads on import).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pydantic
from pydantic import Field

from arena import ModelError, Options, PrerequisiteError, UsageError, import_extra

from ._chat_failures import BrokenOffError, Failure, NotTheProtocolError, explain
from ._chat_protocol import Body, Completion, RequestedCall, TokenCount, add_chunk, convert, parse

__all__ = ["Endpoint", "EndpointOptions"]

_CHECK_S = 20.0
_OPENAI = "https://api.openai.com/v1"
_MIN_SECRET = 8  # shorter keys are placeholders such as "none"; hiding those would garble answers


class EndpointOptions(Options):
    """The options that concern the endpoint and not the play."""

    base_url: str | None = Field(
        "http://127.0.0.1:8000/v1", description="The endpoint, up to and without /chat/completions; null for OpenAI's."
    )
    model: str = Field(min_length=1, description="Name of the model, as the endpoint knows it.")
    api_key_env: str | None = Field(
        None,
        description="Environment variable that holds the key (OPENAI_API_KEY, say); null for none.",
    )
    stream: bool = Field(False, description="Ask for a streamed answer.")
    timeout_s: float = Field(600.0, gt=0, description="Seconds for one request, its whole answer included.")
    max_retries: int = Field(
        4, ge=0, description="Repetitions of a request after time-outs, lost connections, and 408, 409, 429 and 5xx."
    )
    backoff_s: float = Field(
        0.5, ge=0, description="Seconds before the first repetition; doubled each time, less up to a quarter at random."
    )
    max_wait_s: float = Field(
        60.0, ge=0, description="Longest wait before a repetition; a longer Retry-After gives up at once."
    )

    @pydantic.field_validator("base_url")
    @classmethod
    def _is_plain_url(cls, url: str | None) -> str | None:
        parts = urlsplit(url or _OPENAI)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL such as http://127.0.0.1:8000/v1, or null for OpenAI's")
        return url


class Endpoint:
    """A client of one endpoint; for one event loop until it is closed, and usable again after that.

    Args:
        options: Where it is and how to ask it.

    Raises:
        PrerequisiteError: The `openai` package or the variable that holds the key is missing.
    """

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._openai = import_extra("openai", extra="chat")
        self._key = _read_key(options.api_key_env)
        self._client: Any = None
        self._jitter = random.Random()

    async def complete(self, request: Mapping[str, Any]) -> Completion:
        """Return the model's answer.

        Args:
            request: The body of a chat-completions request, without `model` and `stream`.

        Raises:
            ModelError: There is none, after all repetitions that may help; the message says what to do.
        """
        retries = 0
        while isinstance(outcome := await self._attempt(request), Failure):
            wait_s = self._wait_s(outcome, retries)
            if wait_s is None:
                raise self._error(outcome, retries)
            await asyncio.sleep(wait_s)
            retries += 1
        return msgspec.structs.replace(outcome, retries=retries)

    async def check(self) -> None:
        """Find out whether the endpoint answers and takes the key, by asking for its list of models.

        Raises:
            PrerequisiteError: It does not; the message says what to do.
        """
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._connect().models.with_raw_response.list(extra_headers=self._headers())
        except Exception as error:  # the boundary, as in `_attempt`
            failure = explain(error, self._options, self._openai)
            if failure is None:
                raise
        else:
            return
        if failure.status in (None, 401, 403):  # another status is an answer: not every endpoint lists its models
            raise PrerequisiteError(self._hide(failure.message))

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _attempt(self, request: Mapping[str, Any]) -> Completion | Failure:
        ask = self._stream if self._options.stream else self._whole
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return self._completion(await ask({"model": self._options.model, **request}))
        except Exception as error:  # the boundary: what the network or the server does wrong becomes data
            failure = explain(error, self._options, self._openai)
            if failure is None:
                raise
            return failure

    def _error(self, failure: Failure, retries: int) -> ModelError:
        """Return what to raise; the package's exception is not chained, as it holds the request and with it the key."""
        details = {"base_url": self._options.base_url or _OPENAI, "status": failure.status, "retries": retries}
        return ModelError(self._hide(failure.message), retryable=failure.retryable, **details)

    def _wait_s(self, failure: Failure, retries: int) -> float | None:
        """Return the seconds to wait before asking again; None where that is no use."""
        options = self._options
        if not failure.ask_again or retries >= options.max_retries:
            return None
        if failure.retry_after_s is not None:
            return failure.retry_after_s
        longest = min(options.backoff_s * 2.0 ** min(retries, 30), options.max_wait_s)
        return longest * self._jitter.uniform(0.75, 1.0)

    async def _whole(self, request: dict[str, Any]) -> Body:
        raw = await self._connect().chat.completions.with_raw_response.create(**request, extra_headers=self._headers())
        return convert(parse(raw.http_response.content))

    async def _stream(self, request: dict[str, Any]) -> Body:
        asked = {"stream": True, "stream_options": {"include_usage": True}, "extra_headers": self._headers(), **request}
        stream = await self._connect().chat.completions.create(**asked)
        whole = Body([])
        async with stream:
            async for chunk in stream:
                if not hasattr(chunk, "to_dict"):
                    raise NotTheProtocolError(f"an event that is no chunk: {str(chunk)[:100]!r}")
                add_chunk(whole, convert(chunk.to_dict(warnings=False)))
        if whole.choices and whole.choices[0].finish_reason is None:
            raise BrokenOffError("the stream ended before the answer did")
        return whole

    def _connect(self) -> Any:
        if self._client is None:
            options = self._options
            client = self._openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=options.base_url or _OPENAI,
                timeout=options.timeout_s,
                max_retries=0,
            )
            # What it took from the environment; for OPENAI_CUSTOM_HEADERS, the last, there is no public name.
            client.organization = client.project = client.admin_api_key = client.webhook_secret = None
            client._custom_headers = {}
            self._client = client
        return self._client

    def _headers(self) -> dict[str, Any]:
        return {"Authorization": f"Bearer {self._key}" if self._key else self._openai.Omit()}

    def _completion(self, body: Body) -> Completion:
        if not body.choices:
            raise NotTheProtocolError("no choices")
        choice = body.choices[0]
        message = choice.message
        if message is None:
            raise NotTheProtocolError("a choice without a message")
        usage = body.usage or TokenCount()
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        return Completion(
            text=self._hide(message.content),
            reasoning=self._hide(message.reasoning_content or message.reasoning),
            calls=tuple(RequestedCall(*map(self._hide, call)) for call in calls),
            finish_reason=self._hide(choice.finish_reason) or None,
            model=self._hide(body.model) or None,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
        )

    def _hide(self, text: str | None) -> str:
        """Return text that may be recorded: valid UTF-8, and without the key, should the server repeat it."""
        text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text.replace(self._key, "[key]") if len(self._key) >= _MIN_SECRET else text


def _read_key(variable: str | None) -> str:
    if variable is None:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", variable):  # not shown: it may be the key itself
        raise UsageError(
            "api_key_env is not the name of an environment variable; put the key in one, and its name here"
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise PrerequisiteError(
            f"the environment variable {variable} is not set; set it to the endpoint's key,"
            " or set the option api_key_env to null for a server without keys"
        )
    if not (key.isascii() and key.isprintable()):
        raise PrerequisiteError(f"the environment variable {variable} holds characters that no key has; set it again")
    return key
