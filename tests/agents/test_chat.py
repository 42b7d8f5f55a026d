from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import subprocess
import sys
import time
import traceback
from email.utils import formatdate

import numpy as np
import pytest
from gymnasium import spaces

from arena import (
    PLAYER,
    AgentError,
    ConfigError,
    EnvSpec,
    FreeText,
    InvalidActionError,
    ModelError,
    PrerequisiteError,
    Score,
    Seat,
    SeatSpec,
    Session,
    SingleAgentEnvironment,
    Task,
    Taskset,
    Tool,
    ToolCall,
    Usage,
    UsageError,
    make,
    make_agent,
    restart,
    termination,
    transition,
)
from arena.testing import check_agent

from .chat_server import Answer, ChatServer, Drop, Page, Status

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    return request.param


def make_chat(server, **options):
    usual = {"base_url": server.url, "model": "fake-1", "api_key_env": "OPENAI_API_KEY", "backoff_s": 0.001}
    return make_agent("chat", {**usual, **options})


def seat_of(spec, seed=0):
    env = make("text/guess-v0")
    return Seat(PLAYER, env.spec, spec, env.taskset("test").task(0), seed)


TEXT = SeatSpec(FreeText(), FreeText(), instructions="Play.")
NUMBER = SeatSpec(FreeText(), spaces.Discrete(5, start=1))
ADD = Tool(
    "add",
    "Add two numbers.",
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
)
SAY = Tool("say", "Say a number.", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
TOOLS = SeatSpec(FreeText(), None, (ADD, SAY))


def decide(server, spec=TEXT, *, seat=None, step=None, **options):
    """One decision of a fresh agent."""

    async def one():
        agent = make_chat(server, **options)
        try:
            agent.begin(seat or seat_of(spec))
            return await agent.act(step or restart("Go."))
        finally:
            await agent.close()

    return asyncio.run(one())


def fails(server, spec=TEXT, error=ModelError, **options):
    """The error of one decision, which is one line long and shows no key in all that hangs on it."""
    with pytest.raises(error) as raised:
        decide(server, spec, **options)
    shown = "".join(traceback.format_exception(raised.value)) + repr(vars(raised.value))
    assert KEY not in shown
    assert raised.value.__cause__ is None
    assert "\n" not in str(raised.value)
    json.dumps(raised.value.details)
    return raised.value


async def play(agent, env, task, seed):
    """One episode; returns the closed session and all decisions."""
    session = Session(env, task, seed)
    record = session.open()
    agent.begin(Seat(PLAYER, env.spec, env.seat(PLAYER), task, seed))
    decisions = []
    while session.acting:
        decision = await agent.act(record.time_step.seats[PLAYER])
        decisions.append(decision)
        try:
            record = session.step(
                len(session.journal),
                {PLAYER: decision.action},
                usage=decision.usage,
                decisions={PLAYER: decision.info},
            )
        except InvalidActionError as error:
            if session.acting:
                agent.refuse(error)
    agent.observe(session.journal[-1].time_step.seats[PLAYER])
    return session, decisions


# -- whole episodes --


def bisect(body):
    """A model that finds the number by bisection, from nothing but the conversation that it is sent."""
    told = "\n".join(m["content"] for m in body["messages"] if m["role"] == "user")
    low, high = 1, int(re.search(r"from 1 to (\d+)", told)[1])
    for hint, number in re.findall(r"It is (higher|lower) than (\d+)", told):
        low, high = (int(number) + 1, high) if hint == "higher" else (low, int(number) - 1)
    said = [m["content"] for m in body["messages"] if m["role"] == "assistant"]
    assert len(said) == len(re.findall(r"It is", told))
    return Answer(f" {(low + high) // 2}\n", usage=(100 + len(told), 2))


def test_wins_a_game_from_the_conversation(stream):
    with ChatServer(model=bisect, key=KEY) as server:

        async def game(seed):
            env = make("text/guess-v0")
            agent = make_chat(server, stream=stream, price_per_million_input_usd=3, price_per_million_output_usd=15)
            session, decisions = await play(agent, env, env.taskset("test").task(2), seed)
            await agent.close()
            return session, decisions

        for seed in range(3):
            server.requests.clear()
            session, decisions = asyncio.run(game(seed))
            end = session.end()
            assert end.score.success
            assert len(server.requests) == len(decisions) == end.steps
            read = sum(100 + sum(len(m["content"]) for m in r.messages if m["role"] == "user") for r in server.requests)
            read += sum(max(0, sum(m["role"] == "user" for m in r.messages) - 1) for r in server.requests)
            written = 2 * end.steps
            assert (end.usage.input_tokens, end.usage.output_tokens) == (read, written)
            assert end.usage.cost_usd == pytest.approx((3 * read + 15 * written) / 1e6, rel=1e-12)
            assert (end.usage.requests, end.usage.retries) == (end.steps, 0)
            assert session.journal[1].decisions[PLAYER]["text"] == " 50\n"
        first = server.requests[0]
        assert first.path == "/v1/chat/completions"
        assert [m["role"] for m in first.messages] == ["system", "user"]
        assert first.messages[0]["content"].startswith("Guess the secret number.")
        assert "Legal actions: 1, 2, 3" in first.messages[1]["content"]


def test_an_agent_plays_one_episode_after_the_other_and_forgets():
    with ChatServer(model=bisect) as server:

        async def games():
            agent = make_chat(server)
            for seed in range(3):
                env = make("text/guess-v0")
                session, _ = await play(agent, env, env.taskset("test").task(1), seed)
                assert session.end().score.success
            assert server.connections == 1
            await agent.close()
            await agent.close()

        asyncio.run(games())
        assert [m["role"] for m in server.requests[-1].messages].count("system") == 1


def test_episodes_at_once():
    def slowly(body):
        reply = bisect(body)
        reply.delay_s = 0.02
        return reply

    with ChatServer(model=slowly) as server:

        async def game(seed):
            env = make("text/guess-v0")
            agent = make_chat(server)
            session, _ = await play(agent, env, env.taskset("test").task(2), seed)
            await agent.close()
            return session.end()

        async def games():
            return await asyncio.gather(*(game(seed) for seed in range(12)))

        ends = asyncio.run(games())
        assert all(end.score.success for end in ends)
        assert sum(end.usage.requests for end in ends) == len(server.requests)
        assert server.most_at_once > 4


def test_a_refused_action_comes_back_as_feedback():
    with ChatServer(Answer("eleven"), Answer("0"), model=lambda body: Answer("5")) as server:

        async def game():
            env = make("text/guess-v0")
            agent = make_chat(server, list_legal_actions=False)
            result = await play(agent, env, env.taskset("test").task(0), 3)
            await agent.close()
            return result

        session, decisions = asyncio.run(game())
        assert (session.refused, session.end().score.success) == (2, True)
        assert [d.action for d in decisions] == ["eleven", "0", "5"]
        messages = server.requests[2].messages
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert messages[1]["content"] == "I think of a number from 1 to 10. You have 8 guesses left."
        assert messages[3]["content"].startswith("Refused: 'eleven' is not legal for player now (legal: 1, 2")


class SumTasks(Taskset):
    split = "train"

    def __len__(self):
        return 1

    def task(self, index):
        return Task("sum")


class Sum(SingleAgentEnvironment):
    """The sum of four numbers; `add` adds two of them."""

    spec = EnvSpec(
        id="test/sum-v0",
        summary="Add numbers with a tool, then say the sum.",
        endings={"said": "termination"},
        reward_range=(0.0, 1.0),
    )

    def seat(self, agent):
        return SeatSpec(FreeText(), None, (ADD, SAY), "Add up the numbers and say the sum.")

    def taskset(self, split):
        return SumTasks()

    def begin(self, task, seed):
        self.numbers = [seed + i for i in range(4)]
        return restart(f"The numbers are {self.numbers}.")

    def act(self, action):
        arguments = action.arguments
        if action.name == "add":
            if arguments["a"] == arguments["b"] == 0:
                raise InvalidActionError("adding nothing is not legal (legal: any other numbers)")
            return transition({"sum": np.int64(arguments["a"] + arguments["b"])}, 0.0)
        self.said = arguments["n"]
        return termination("Thank you.", float(self.said == sum(self.numbers)), ending="said")

    def score(self):
        return Score(float(self.said == sum(self.numbers)))


def add_up(body):
    """A model that adds by tool, and trusts only results that are paired with its calls."""
    numbers = json.loads(re.search(r"\[.*\]", body["messages"][1]["content"])[0])
    calls = {c["id"]: c for m in body["messages"] for c in m.get("tool_calls") or ()}
    total, used = 0, 0
    for message in body["messages"]:
        if message["role"] == "tool" and message["content"].startswith("{"):
            assert calls[message["tool_call_id"]]["function"]["name"] == "add"
            total = json.loads(message["content"])["sum"]
            used += 1
    if used == len(numbers):
        return Answer(calls=[("say", json.dumps({"n": total}))])
    if not calls:
        return Answer(calls=[("add", '{"a": 0, "b": 0}')])
    return Answer("I add.", calls=[("add", json.dumps({"a": total, "b": numbers[used]}))], reasoning="Hm, so.")


@pytest.mark.parametrize("window", [False, True])
def test_uses_tools_through_a_whole_episode(stream, window):
    with ChatServer(model=add_up) as server:

        async def game():
            env = Sum()
            options = {"history": "window", "window_turns": 20} if window else {}
            agent = make_chat(server, stream=stream, **options)
            result = await play(agent, env, SumTasks().task(0), 5)
            await agent.close()
            return result

        session, decisions = asyncio.run(game())
        assert session.end().score.value == 1.0
        assert session.refused == 1
        assert decisions[1].action == ToolCall("add", {"a": 0, "b": 5})
        assert decisions[1].info["text"] == "I add."
        assert decisions[1].info["reasoning"] == "Hm, so."
        body = server.requests[0].body
        assert body["tools"] == [ADD.openai(), SAY.openai()]
        assert body["tool_choice"] == "required"
        messages = server.requests[-1].messages
        assert [m["role"] for m in messages] == ["system", "user"] + ["assistant", "tool"] * 5
        assert messages[3]["content"].startswith("Refused: adding nothing")
        assert messages[5]["content"] == '{"sum":5}'


# -- what is sent --


def test_sends_the_options_and_nothing_that_is_not_set():
    with ChatServer(Answer("a"), Answer("b"), Answer("c")) as server:
        decide(server)
        assert set(server.requests[0].body) == {"model", "messages"}
        decide(
            server,
            temperature=0.5,
            top_p=1,
            max_tokens=7,
            seed=True,
            stream=False,
            system_prompt="You are $seat in $env, for $5. ",
            extra_body={"top_k": 3},
        )
        decide(server, seed=True, seat=seat_of(TEXT, seed=1))
        body = server.requests[1].body
        assert (body["temperature"], body["top_p"], body["max_tokens"], body["top_k"]) == (0.5, 1, 7, 3)
        assert body["messages"][0] == {"role": "system", "content": "You are player in text/guess-v0, for $5.\n\nPlay."}
        assert 0 <= body["seed"] < 2**31
        assert body["seed"] != server.requests[2].body["seed"]


def test_reads_only_the_named_variable(monkeypatch):
    for name in ("ORG_ID", "PROJECT_ID", "ADMIN_KEY", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Extra: from-the-environment\nAuthorization: Bearer wrong")
    monkeypatch.setenv("OTHER_KEY", "the-other-key")
    with ChatServer(Answer("a"), Answer("b"), Answer("c")) as server:
        decide(server)
        decide(server, api_key_env="OTHER_KEY")
        decide(server, api_key_env=None)
        sent = [request.headers for request in server.requests]
        assert [headers.get("authorization") for headers in sent] == [f"Bearer {KEY}", "Bearer the-other-key", None]
        assert "from-the-environment" not in repr(sent)
        assert not any(name.startswith("openai-") for headers in sent for name in headers)


def test_the_default_endpoint_ignores_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    async def client_url():
        agent = make_agent("chat", {"model": "m", "base_url": None})
        agent.begin(seat_of(TEXT))
        url = str(agent._endpoint._connect().base_url)
        await agent.close()
        return url

    assert asyncio.run(client_url()) == "https://api.openai.com/v1/"


def test_observations_that_are_no_text_become_json():
    observation = {"board": np.eye(2, dtype=np.int8), "turn": np.int64(3), "hand": ("a", 1.5)}
    with ChatServer(Answer("a")) as server:
        decide(server, step=restart(observation))
        assert json.loads(server.requests[0].messages[-1]["content"]) == {
            "board": [[1, 0], [0, 1]],
            "turn": 3,
            "hand": ["a", 1.5],
        }


def test_what_is_observed_between_goes_in_one_message():
    with ChatServer(Answer("a")) as server:

        async def one():
            agent = make_chat(server)
            agent.begin(seat_of(TEXT))
            agent.observe(restart("Black moves."))
            await agent.act(transition("White moves.", 0.0))
            await agent.close()

        asyncio.run(one())
        assert server.requests[0].messages[1:] == [{"role": "user", "content": "Black moves.\n\nWhite moves."}]


def test_a_window_keeps_the_opening_and_whole_turns():
    calls = [Answer(calls=[("add", json.dumps({"a": i, "b": 0}))]) for i in range(6)]
    with ChatServer(*calls) as server:

        async def six():
            agent = make_chat(server, history="window", window_turns=2)
            agent.begin(seat_of(TOOLS))
            await agent.act(restart("first"))
            for i in range(5):
                await agent.act(transition(f"result {i}", 0.0))
            await agent.close()

        asyncio.run(six())
        messages = server.requests[-1].messages
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "assistant", "tool"]
        assert [m["content"] for m in messages[1::2]] == ["first", "result 3", "result 4"]
        for call, result in (messages[2:4], messages[4:6]):
            assert call["tool_calls"][0]["id"] == result["tool_call_id"]
        assert json.loads(messages[2]["tool_calls"][0]["function"]["arguments"]) == {"a": 3, "b": 0}


# -- what is answered --


def test_records_what_the_model_said(stream):
    answer = Answer("look é𝄞", usage=(7, 5), reasoning="Let me see.", finish_reason="stop")
    with ChatServer(answer) as server:
        decision = decide(server, stream=stream, price_per_million_input_usd=2.5, price_per_million_output_usd=10)
        assert decision.action == "look é𝄞"
        assert decision.usage == Usage(7, 5, (7 * 2.5 + 5 * 10) / 1e6, requests=1)
        assert decision.info == {
            "text": "look é𝄞",
            "reasoning": "Let me see.",
            "finish_reason": "stop",
            "model": "fake-1",
        }


def test_says_when_the_usage_is_not_reported(stream):
    with ChatServer(Answer("a", usage=None)) as server:
        decision = decide(server, stream=stream)
        assert decision.usage == Usage(requests=1)
        assert decision.info["usage"] == "not reported"


def test_a_streamed_answer_asks_for_the_usage():
    with ChatServer(Answer("a")) as server:
        decide(server, stream=True)
        assert server.requests[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(("text", "action"), [("3", 3), (" 4\n", 4), ("+2", 2), ("-7", -7)])
def test_reads_a_whole_number(text, action, stream):
    with ChatServer(Answer(text)) as server:
        assert decide(server, NUMBER, stream=stream).action == action
        assert "whole number from 1 to 5" in server.requests[0].messages[0]["content"]


@pytest.mark.parametrize(
    ("options", "text", "action"),
    [
        ({"answer_pattern": r"Action: (.+)"}, "Action: no\nI mean\nAction:  go north ", "go north"),
        ({"answer_pattern": r"(?s)<action>(.*?)</action>"}, "so <action>\nwait\n</action>.", "wait"),
        ({"answer_pattern": r"Action: (.+)", "answer_unmatched": "whole"}, "go north", "go north"),
    ],
)
def test_finds_the_action_in_a_text(options, text, action):
    with ChatServer(Answer(text)) as server:
        assert decide(server, **options).action == action


@pytest.mark.parametrize(
    ("spec", "wrong", "feedback", "options"),
    [
        (TEXT, Answer(""), "Your answer was empty", {}),
        (TEXT, Answer(None), "Your answer was empty", {}),
        (TEXT, Answer("  \n", finish_reason="length"), "Your answer was cut off", {}),
        (TEXT, Answer("go"), "it must match 'Action: (.+)'", {"answer_pattern": "Action: (.+)"}),
        (TEXT, Answer(calls=[("add", "{}")]), "There is no tool 'add'", {}),
        (NUMBER, Answer("3.5"), "Answer with a whole number and nothing else, not '3.5'", {}),
        (NUMBER, Answer("three"), "whole number", {}),
        (NUMBER, Answer("٣"), "whole number", {}),
        (NUMBER, Answer("9" * 5000), "whole number", {}),
        (TOOLS, Answer("I would add."), "You did not call a tool. Call one of: add, say.", {}),
        (TOOLS, Answer(calls=[("add", '{"a": 1,')]), "The arguments of add must be a JSON object", {}),
        (TOOLS, Answer(calls=[("add", "[1, 2]")]), "The arguments of add must be a JSON object", {}),
        (TOOLS, Answer(calls=[("add", '{"a": NaN}')]), "The arguments of add must be a JSON object", {}),
        (TOOLS, Answer(calls=[("add", "[" * 3000)]), "The arguments of add must be a JSON object", {}),
        (TOOLS, Answer(calls=[("ad", '{"a": 1}')]), "There is no tool 'ad' (did you mean 'add'?)", {}),
        (TOOLS, Answer(calls=[("say", '{"n": 1}'), ("say", '{"n": 2}')]), "You called 2 tools at once", {}),
    ],
)
def test_tells_the_model_about_its_mistake_and_asks_again(spec, wrong, feedback, options, stream):
    right = Answer(calls=[("say", '{"n": 1}')]) if spec is TOOLS else Answer("Action: 1" if options else "1")
    with ChatServer(wrong, right) as server:
        decision = decide(server, spec, stream=stream, **options)
        assert decision.action == (ToolCall("say", {"n": 1}) if spec is TOOLS else 1 if spec is NUMBER else "1")
        assert decision.usage == Usage(20, 6, requests=2)
        assert feedback in decision.info["rejected"][0]["mistake"]
        messages = server.requests[1].messages
        assert feedback in messages[-1]["content"]
        open_calls = [c["id"] for m in messages for c in m.get("tool_calls") or ()]
        assert open_calls == [m["tool_call_id"] for m in messages if m["role"] == "tool"]
        assert len(set(open_calls)) == len(open_calls) == len(wrong.calls)
        for message in messages:
            assert message["content"] or message.get("tool_calls")
            for call in message.get("tool_calls") or ():
                assert isinstance(json.loads(call["function"]["arguments"]), dict)


def test_calls_without_ids_get_some(stream):
    answers = [Answer(calls=[("say", '{"n": 1}')], call_ids=False) for _ in range(3)]
    with ChatServer(*answers) as server:

        async def three():
            agent = make_chat(server, stream=stream)
            agent.begin(seat_of(TOOLS))
            for _ in range(3):
                await agent.act(transition("so", 0.0))
            await agent.close()

        asyncio.run(three())
        messages = server.requests[-1].messages
        assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == ["call_1", "call_2"]


def test_a_tool_without_arguments_may_be_called_with_none(stream):
    with ChatServer(Answer(calls=[("stop", "")])) as server:
        spec = SeatSpec(FreeText(), None, (Tool("stop", "", {"type": "object"}),))
        assert decide(server, spec, stream=stream).action == ToolCall("stop", {})


def test_a_seat_with_both_takes_either(stream):
    spec = SeatSpec(FreeText(), FreeText(), (SAY,))
    with ChatServer(Answer("hello"), Answer("aside", calls=[("say", '{"n": 1}')])) as server:
        assert decide(server, spec, stream=stream).action == "hello"
        assert decide(server, spec, stream=stream).action == ToolCall("say", {"n": 1})
        assert server.requests[0].body["tool_choice"] == "auto"


def test_text_mode_offers_no_tools():
    with ChatServer(Answer("hello")) as server:
        assert decide(server, SeatSpec(FreeText(), FreeText(), (SAY,)), mode="text").action == "hello"
        assert "tools" not in server.requests[0].body


@pytest.mark.parametrize("max_reparse", [0, 2])
def test_gives_up_on_a_model_that_does_not_learn(max_reparse):
    with ChatServer(model=lambda body: Answer("no")) as server:
        error = fails(server, NUMBER, AgentError, max_reparse=max_reparse)
        assert len(server.requests) == max_reparse + 1
        assert f"fake-1 gave {max_reparse + 1} answers that are no action; the last: Answer with" in str(error)
        asked = max_reparse + 1
        assert Usage(**error.details["usage"]) == Usage(10 * asked, 3 * asked, requests=asked)
        assert not error.retryable


# -- when the endpoint fails --


@pytest.mark.parametrize(
    "failure",
    [
        Status(429, headers={"retry-after": "0"}),
        Status(429, headers={"retry-after": formatdate(0, usegmt=True)}),
        Status(503, headers={"retry-after-ms": "1"}),
        Status(500),
        Status(408),
        Status(409),
        Drop(),
    ],
    ids=repr,
)
def test_asks_again_and_counts_it(failure, stream):
    with ChatServer(failure, failure, Answer("a")) as server:
        decision = decide(server, stream=stream)
        assert decision.action == "a"
        assert decision.usage == Usage(10, 3, requests=1, retries=2)
        assert len(server.requests) == 3


@pytest.mark.parametrize("events", [0, 1, 4])
@pytest.mark.parametrize("politely", [False, True])
def test_a_stream_that_breaks_off_is_asked_for_again(events, politely):
    broken = Drop(Answer("go north"), events=events, politely=politely)
    with ChatServer(broken, Answer("go south")) as server:
        if politely and events == 0:
            assert "no choices" in str(fails(server, stream=True))
        else:
            decision = decide(server, stream=True)
            assert decision.action == "go south"
            assert decision.usage == Usage(10, 3, requests=1, retries=1)


def test_waits_as_long_as_it_is_told():
    with ChatServer(Status(429, headers={"retry-after": "0.3"}), Answer("a")) as server:
        began = time.monotonic()
        decide(server, backoff_s=0)
        assert 0.3 <= time.monotonic() - began < 2


def test_does_not_wait_longer_than_allowed():
    with ChatServer(Status(429, "slow down", headers={"retry-after": "3600"})) as server:
        error = fails(server)
        assert error.retryable
        assert "answered 429: slow down" in str(error)
        assert "it asks to wait 3600 s, longer than max_wait_s" in str(error)


@pytest.mark.parametrize(
    ("failure", "status"), [(Status(503, "busy"), 503), (Status(429, "busy"), 429), (Status(500, "busy"), 500)]
)
def test_gives_up_after_max_retries(failure, status):
    with ChatServer(*[failure] * 3) as server:
        error = fails(server, max_retries=2)
        assert error.retryable
        assert error.details["status"] == status
        assert error.details["retries"] == 2
        assert f"{server.url} answered {status}: busy" in str(error)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Status(404, "The model `fake-1` does not exist", "model_not_found"), "check the option model ('fake-1')"),
        (
            Status(400, "The maximum context length is 8 tokens."),
            "set history: window with fewer window_turns",
        ),
        (Status(400, "Too long.", "context_length_exceeded"), "set history: window with fewer window_turns"),
        (Status(400, "temperature is wrong"), "answered 400: temperature is wrong"),
        (Status(403, "not in your country"), "check the key in the environment variable OPENAI_API_KEY"),
        (Status(429, "You exceeded your current quota", "insufficient_quota"), "exceeded your current quota"),
    ],
    ids=repr,
)
def test_does_not_ask_again_where_that_is_no_use(failure, words, stream):
    with ChatServer(failure) as server:
        error = fails(server, stream=stream)
        assert words in str(error)
        assert not error.retryable
        assert error.details["status"] == failure.code


def test_a_wrong_key_is_named_by_its_variable_and_never_shown(stream):
    with ChatServer(key="another") as server:  # which repeats the key that it got, as some servers do
        error = fails(server, stream=stream)
        assert "answered 401: Incorrect API key provided: Bearer [key]" in str(error)
        assert "check the key in the environment variable OPENAI_API_KEY" in str(error)
        assert not error.retryable


@pytest.mark.parametrize(
    "page",
    [
        Page("<html>Welcome to the gateway</html>"),
        Page('{"choices": []}', "application/json"),
        Page('{"choices": [{"index": 0}]}', "application/json"),
        Page('{"error": {"message": "out of memory"}}', "application/json"),
        Page('["a"]', "application/json"),
        Page("{", "application/json"),
        Page("", "application/json"),
        Page("[" * 100_000, "application/json"),
        Page("data: hello\n\n", "text/event-stream"),
        Page('data: "hello"\n\n', "text/event-stream"),
        Page('data: {"choices": 3}\n\n', "text/event-stream"),
        Page("data: [DONE]\n\n", "text/event-stream"),
    ],
    ids=lambda page: page.content[:30],
)
def test_an_answer_that_is_not_the_protocol(page, stream):
    with ChatServer(page) as server:
        error = fails(server, stream=stream)
        assert error.retryable
        assert f"{server.url} is no chat-completions endpoint" in str(error)
        assert "check base_url, which usually ends in /v1" in str(error)
        assert len(str(error)) < 400


def test_an_error_event_in_a_stream():
    page = Page('data: {"error": {"message": "the engine died"}}\n\n', "text/event-stream")
    with ChatServer(page, page) as server:
        error = fails(server, stream=True, max_retries=1)
        assert error.retryable
        assert "broke off its answer: the engine died" in str(error)


def test_an_endpoint_that_is_not_there():
    with ChatServer() as server:
        pass
    error = fails(server, max_retries=1)
    assert error.retryable
    assert f"the connection to {server.url} failed" in str(error)
    assert "check that the server runs" in str(error)


@pytest.mark.parametrize("slow", [Answer("a", delay_s=30), Answer("many words " * 100, delay_s=0.02)])
def test_an_answer_that_takes_too_long(slow, stream):
    with ChatServer(slow, slow) as server:
        if not stream and slow.delay_s < 1:
            assert decide(server, timeout_s=5).action
            return
        began = time.monotonic()
        error = fails(server, timeout_s=0.2, max_retries=1, stream=stream)
        assert time.monotonic() - began < 3
        assert error.retryable
        assert "did not answer within 0.2 s (option timeout_s)" in str(error)


@pytest.mark.parametrize("reply", [Answer("a", delay_s=30), Status(429, headers={"retry-after": "30"})], ids=repr)
def test_is_interrupted_at_once(reply, stream):
    with ChatServer(reply) as server:

        async def interrupted():
            agent = make_chat(server, stream=stream)
            agent.begin(seat_of(TEXT))
            task = asyncio.create_task(agent.act(restart("Go.")))
            while not server.requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 0.5
            await agent.close()

        asyncio.run(interrupted())


def test_what_an_endpoint_failure_cost_is_kept():
    with ChatServer(Answer(""), Status(400)) as server:
        error = fails(server)
        assert Usage(**error.details["usage"]) == Usage(10, 3, requests=1)


# -- the key --


def test_the_key_shows_nowhere(caplog, stream):
    echo = Answer(f"my key is {KEY}", reasoning=f"Bearer {KEY}", calls=[("say", json.dumps({"n": KEY}))])
    with caplog.at_level(logging.DEBUG), ChatServer(Status(500, KEY), echo, key=KEY) as server:
        spec = SeatSpec(FreeText(), FreeText(), (SAY,))
        decision = decide(server, spec, stream=stream)
        agent = make_chat(server)
        agent.begin(seat_of(TEXT))
        shown = repr((decision, agent, vars(agent), agent.options)) + caplog.text
        assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
        assert "[key]" in shown
        assert KEY not in shown


def test_a_short_key_is_no_secret_and_garbles_nothing(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ChatServer(Answer("none of these"), key="none") as server:
        assert decide(server).action == "none of these"


@pytest.mark.parametrize("value", ["", "  ", None])
def test_names_the_variable_that_is_missing(monkeypatch, value):
    monkeypatch.delenv("OPENAI_API_KEY")
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    with ChatServer() as server:
        error = fails(server, error=PrerequisiteError)
        assert "the environment variable OPENAI_API_KEY is not set" in str(error)
        assert "set the option api_key_env to null" in str(error)
        assert not server.requests


def test_a_key_in_place_of_its_variable_is_not_repeated():
    with ChatServer() as server:
        assert "name of an environment variable" in str(fails(server, error=UsageError, api_key_env=KEY))


@pytest.mark.parametrize("key", ["sk-ünïcode-0123456789", "sk-two\nlines-0123456789"])
def test_a_key_that_cannot_be_sent(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with ChatServer() as server:
        error = fails(server, error=PrerequisiteError)
        assert "OPENAI_API_KEY holds characters that no key has" in str(error)
        assert key not in str(error)


# -- options, seats, checks --


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "chat: model is missing"),
        ({"model": ""}, "model"),
        ({"model": "m", "base_url": "127.0.0.1:8000"}, "base_url: must be a URL such as"),
        ({"model": "m", "answer_pattern": "Action: .+"}, "answer_pattern: must have exactly one group"),
        ({"model": "m", "answer_pattern": "("}, "answer_pattern: is no regular expression"),
        ({"model": "m", "extra_body": {"messages": []}}, "extra_body: cannot replace messages"),
        ({"model": "m", "api_key": "x"}, "unknown option 'api_key'"),
        ({"model": "m", "timeout_s": 0}, "timeout_s"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        make_agent("chat", options)


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        (TEXT, {"mode": "tools"}, "has no tools"),
        (TOOLS, {"mode": "text"}, "acts by tools only"),
        (SeatSpec(FreeText(), spaces.Box(0, 1, (2,))), {}, "a language model cannot play actions of Box"),
    ],
)
def test_seats_that_it_cannot_play(spec, options, words):
    with ChatServer() as server:
        assert words in str(fails(server, spec, UsageError, **options))


def check(server, **options):
    async def one():
        agent = make_chat(server, **options)
        try:
            await agent.check()
        finally:
            await agent.close()

    asyncio.run(one())


@pytest.mark.parametrize("models", [200, 404, 503])
def test_check_is_content_with_an_endpoint_that_answers(models):
    with ChatServer(key=KEY, models=models) as server:
        check(server)
        assert not server.requests


def test_check_finds_what_is_wrong_before_the_run(monkeypatch):
    with ChatServer(key="another") as server, pytest.raises(PrerequisiteError, match="check the key in") as raised:
        check(server)
    assert KEY not in str(raised.value)
    with pytest.raises(PrerequisiteError, match="check that the server runs"):
        check(server)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(PrerequisiteError, match="OPENAI_API_KEY is not set"):
        check(server)


def test_close_closes_the_connections():
    with ChatServer(Answer("a"), Answer("b")) as server:

        async def twice():
            agent = make_chat(server)
            agent.begin(seat_of(TEXT))
            for _ in range(2):  # closed, it can be used again
                await agent.act(restart("Go."))
                assert server.connections == 1
                await agent.close()
                await agent.close()
                deadline = time.monotonic() + 5
                while server.connections:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
                agent.begin(seat_of(TEXT))
            await agent.close()

        asyncio.run(twice())
        gc.collect()


def test_importing_the_agent_does_not_import_the_package():
    code = (
        "import arena, sys; arena.make_agent('chat', {'model': 'm'});"
        " assert not {'openai', 'httpx', 'httpx2'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_declares_itself():
    spec = type(make_agent("chat", {"model": "m"})).spec
    assert (spec.deterministic, spec.extra, spec.exclusive) == (False, "chat", False)


def test_keeps_the_agent_contract(stream):
    with ChatServer(model=lambda body: Answer(str(len(body["messages"]) % 8 + 1))) as server:
        options = {"base_url": server.url, "model": "fake-1", "stream": stream, "price_per_million_input_usd": 1}
        check_agent("chat", env="text/guess-v0", options=options, seeds=(0,), max_steps=3).raise_if_failed()
