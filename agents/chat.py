"""A language model behind any OpenAI-compatible chat-completions endpoint.

The model gets the seat's instructions as the system message, observations as the user's messages or as results of its
tool calls, and answers with text, a number or a tool call. Three kinds of failure are kept apart:

- An answer that is no action (no text, arguments that are not JSON, an unknown tool, several calls at once) is the
  model's mistake: it is told so and asked again, `max_reparse` times, and then the episode fails with an `AgentError`.
- An action that is not legal is refused by the session, and the model is told why.
- An endpoint that cannot be reached, refuses or answers nonsense is a `ModelError`.
"""

from __future__ import annotations

import re
from string import Template
from typing import Any, Literal

import msgspec
import pydantic
from gymnasium import spaces
from pydantic import Field

from arena import (
    Agent,
    AgentError,
    Decision,
    InvalidActionError,
    ModelError,
    Seat,
    SeatStep,
    Tool,
    Usage,
    UsageError,
    derive_seed,
    legal_text,
    observation_text,
    register_agent,
)

from ._chat_answers import MistakeError, format_hint, parse_answer
from ._chat_endpoint import Endpoint, EndpointOptions
from ._chat_history import History, join_paragraphs
from ._chat_protocol import Completion

_RESERVED = frozenset(["messages", "model", "n", "seed", "stream", "stream_options", "tool_choice", "tools"])


class ChatOptions(EndpointOptions):
    """Options of `chat`."""

    mode: Literal["auto", "tools", "text"] = Field(
        "auto", description="Offer the seat's tools, answer by text only, or (auto) tools where the seat has any."
    )
    tool_choice: Literal["auto", "required"] | None = Field(
        None, description="Sent with the tools; null: required where the seat acts by tools only, else auto."
    )
    temperature: float | None = Field(None, ge=0, description="Sampling temperature; null for the endpoint's default.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling; null for the endpoint's default.")
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="Most tokens of one answer; models that want max_completion_tokens get it by extra_body.",
    )
    seed: bool = Field(False, description="Send a sampling seed, derived from the episode's seed and the seat.")
    extra_body: dict[str, Any] = Field({}, description="Further fields of the request, sent as they are.")
    system_prompt: str = Field(
        "", description="Put before the seat's instructions; $env and $seat stand for the ids of both."
    )
    history: Literal["full", "window"] = Field(
        "full", description="Send everything, or the opening (system, first observation) and the last turns."
    )
    window_turns: int = Field(
        20, ge=1, description="Turns that a window keeps: an answer and what came back for it, feedback included."
    )
    list_legal_actions: bool = Field(
        True, description="Append the legal actions, where they are listed, to observations."
    )
    answer_pattern: str | None = Field(
        None, description="Regular expression with one group, the action in a text answer; the last match counts."
    )
    answer_unmatched: Literal["ask", "whole"] = Field(
        "ask", description="An answer without a match: tell the model and ask again, or take the whole text."
    )
    max_reparse: int = Field(
        2, ge=0, description="Times that the model is asked again after an answer that is no action."
    )
    price_per_million_input_usd: float = Field(0.0, ge=0, description="US dollars for a million input tokens.")
    price_per_million_output_usd: float = Field(0.0, ge=0, description="US dollars for a million output tokens.")

    @pydantic.field_validator("answer_pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"must have exactly one group, for instance 'Action: (.+)', but has {groups}")
        return pattern

    @pydantic.field_validator("extra_body")
    @classmethod
    def _adds_only(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_RESERVED & body.keys()):
            raise ValueError(f"cannot replace {', '.join(taken)}; use the options of that purpose")
        return body


@register_agent(
    "chat", summary="A language model behind an OpenAI-compatible endpoint.", deterministic=False, extra="chat"
)
class Chat(Agent):
    """Holds the conversation of one episode and asks the model for each action."""

    Options = ChatOptions
    _endpoint: Endpoint | None = None

    def begin(self, seat: Seat) -> None:
        """Take a seat and begin a new conversation.

        Raises:
            UsageError: The seat acts by arrays, or the mode does not fit it.
            PrerequisiteError: The `openai` package or the variable that holds the key is missing.
        """
        super().begin(seat)
        self._tools = self._offered(seat)
        self._endpoint = self._endpoint or Endpoint(self.options)
        window = self.options.window_turns if self.options.history == "window" else None
        self._history = History(self._system(seat), window)
        self._asked_again = False

    async def act(self, step: SeatStep) -> Decision:
        """Ask the model for an action.

        Raises:
            AgentError: The model did not answer with an action, however often it was told.
            ModelError: The endpoint failed. In both cases the details hold the usage so far.
        """
        if not self._asked_again:
            self.observe(step)
        self._asked_again = False
        usage, rejected = Usage(), list[dict[str, Any]]()
        while True:
            completion = await self._ask(usage)
            usage += self._usage(completion)
            try:
                action = self._parse(completion)
            except MistakeError as mistake:
                self._history.tell(str(mistake))
                rejected.append({**_record(completion), "mistake": str(mistake)})
            else:
                extra = {"rejected": rejected} if rejected else {}
                return Decision(action, usage, _record(completion) | extra)
            if len(rejected) > self.options.max_reparse:
                raise self._give_up(rejected, usage)

    def observe(self, step: SeatStep) -> None:
        """Add what the seat sees to the conversation: nothing where it waits for its turn and sees nothing."""
        text = observation_text(step.observation)
        if not text and not step.legal_actions:
            return
        if self.options.list_legal_actions and step.legal_actions:
            text = f"{text}\nLegal actions: {legal_text(step.legal_actions)}"
        self._history.tell(text)

    def refuse(self, error: InvalidActionError) -> None:
        """Tell the model why its action was refused."""
        self._history.tell(f"Refused: {error}")
        self._asked_again = True

    async def check(self) -> None:
        """Find out whether the endpoint answers and takes the key; asks for no completion, so it costs nothing.

        Raises:
            PrerequisiteError: It does not, or the `openai` package or the variable that holds the key is missing.
        """
        self._endpoint = self._endpoint or Endpoint(self.options)
        await self._endpoint.check()

    async def close(self) -> None:
        """Close the connections."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    def _offered(self, seat: Seat) -> tuple[Tool, ...]:
        """Return the tools that the model is offered."""
        space, tools, mode = seat.spec.action_space, seat.spec.tools, self.options.mode
        if mode == "tools" and not tools:
            raise UsageError(f"seat {seat.agent!r} of {seat.env.id} has no tools (allowed: mode auto or text)")
        if mode == "text" and space is None:
            raise UsageError(f"seat {seat.agent!r} of {seat.env.id} acts by tools only (allowed: mode auto or tools)")
        if space is not None and not isinstance(space, spaces.Text | spaces.Discrete):
            raise UsageError(f"a language model cannot play actions of {space} (allowed: Text, Discrete, tools)")
        return () if mode == "text" else tools

    def _system(self, seat: Seat) -> str:
        prompt = Template(self.options.system_prompt).safe_substitute(env=seat.env.id, seat=seat.agent)
        return join_paragraphs([prompt, seat.spec.instructions, format_hint(seat.spec, tools=bool(self._tools))])

    async def _ask(self, spent: Usage) -> Completion:
        """Return the model's answer to the conversation, which has been added to it."""
        assert self._endpoint is not None, "act comes after begin"
        try:
            completion = await self._endpoint.complete(self._request())
        except ModelError as error:
            error.details["usage"] = msgspec.to_builtins(spent)
            raise
        self._history.answer(completion)
        return completion

    def _request(self) -> dict[str, Any]:
        options = self.options
        request: dict[str, Any] = {"messages": self._history.messages()}
        for name in ("temperature", "top_p", "max_tokens"):
            if (value := getattr(options, name)) is not None:
                request[name] = value
        if options.seed:
            request["seed"] = derive_seed(self.seat.seed, "model", self.seat.agent) % 2**31
        if self._tools:
            default = "required" if self.seat.spec.action_space is None else "auto"
            request["tools"] = [tool.openai() for tool in self._tools]
            request["tool_choice"] = options.tool_choice or default
        return {**request, "extra_body": options.extra_body}

    def _parse(self, completion: Completion) -> Any:
        options = self.options
        return parse_answer(
            completion,
            self.seat.spec,
            tools=self._tools,
            pattern=options.answer_pattern,
            unmatched=options.answer_unmatched,
        )

    def _usage(self, completion: Completion) -> Usage:
        read, written = completion.input_tokens or 0, completion.output_tokens or 0
        options = self.options
        dollars = read * options.price_per_million_input_usd + written * options.price_per_million_output_usd
        return Usage(read, written, dollars / 1e6, requests=1, retries=completion.retries)

    def _give_up(self, rejected: list[dict[str, Any]], usage: Usage) -> AgentError:
        last = rejected[-1]["mistake"]
        message = f"{self.options.model} gave {len(rejected)} answers that are no action; the last: {last[:300]}"
        return AgentError(message, usage=msgspec.to_builtins(usage), rejected=rejected)


def _record(completion: Completion) -> dict[str, Any]:
    """Return what a trace keeps of an answer; what is empty is left out."""
    record = {
        "text": completion.text,
        "reasoning": completion.reasoning,
        "calls": [msgspec.to_builtins(call) for call in completion.calls],
        "finish_reason": completion.finish_reason,
        "model": completion.model,
        "usage": "not reported" if completion.input_tokens is None or completion.output_tokens is None else None,
    }
    return {name: value for name, value in record.items() if value}
