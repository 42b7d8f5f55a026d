"""MCP on the wire: the handshake, what an agent can do and see, exactly-once, seats, and what is refused."""

import itertools
import json
import threading

import pytest

from arena.protocol import Close, Create, Read, SeatTerms, Step, Truncate
from arena.server.access import Caller, Principal
from arena.server.mcp.session import McpSessions
from arena.server.mcp.tools import RESERVED_NAMES, exposed_name
from arena.types import Limit
from tests.peers.hosting import ask, serving

VERSION = "2025-06-18"
ids = itertools.count(1)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("path")) as client:
        yield client


def create(client, env="text/guess-v0", **fields):
    return ask(client, Create(id=0, env=env, key=f"key-{next(ids):08}", **fields))


class Agent:
    """The least that an MCP client is."""

    def __init__(self, client, capability, version=VERSION):
        self.client = client
        self.headers = {"Authorization": f"Bearer {capability}", "Accept": "application/json, text/event-stream"}
        reply = self.post("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": {}})
        assert reply.status_code == 200, reply.text
        self.begun = reply.json()["result"]
        self.headers |= {"Mcp-Session-Id": reply.headers["mcp-session-id"], "MCP-Protocol-Version": version}
        assert self.post("notifications/initialized", id=None).status_code == 202

    def post(self, method, params=None, *, id=0, headers=None):
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if id is not None:
            message["id"] = id or next(ids)
        return self.client.post("/mcp", json=message, headers=self.headers | (headers or {}))

    def call(self, name, arguments=None, *, id=0):
        reply = self.post("tools/call", {"name": name, "arguments": arguments or {}}, id=id)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def act(self, action, *, id=0):
        return self.call("act", {"action": action}, id=id)["result"]

    def tools(self):
        return self.post("tools/list").json()["result"]["tools"]


def text(result):
    (content,) = result["content"]
    return content["text"]


# -- the handshake --------------------------------------------------------------------------------------------------


def test_initialize_tells_the_task_and_the_first_observation(client):
    agent = Agent(client, create(client, task="range-8").capability)
    assert agent.begun["protocolVersion"] == VERSION
    assert agent.begun["capabilities"] == {"tools": {"listChanged": False}}
    assert agent.begun["serverInfo"]["name"] == "arena"
    instructions = agent.begun["instructions"]
    assert instructions.startswith("Guess the secret number")
    assert "from 1 to 8" in instructions
    assert "Legal actions: 1, 2, 3" in instructions


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [("2024-11-05", "2024-11-05"), ("2025-11-25", "2025-11-25"), ("2099-01-01", "2025-11-25"), ("", "2025-11-25")],
)
def test_the_version_is_the_clients_where_it_is_known_and_else_the_latest(client, asked, agreed):
    session = create(client)
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": asked}}
    reply = client.post("/mcp", json=message, headers={"Authorization": f"Bearer {session.capability}"})
    assert reply.json()["result"]["protocolVersion"] == agreed


def test_ping_and_unknown_methods(client):
    agent = Agent(client, create(client).capability)
    assert agent.post("ping").json()["result"] == {}
    for method in ("resources/list", "prompts/list", "session/reset", "reset"):
        assert agent.post(method).json()["error"]["code"] == -32601


def test_notifications_and_responses_are_accepted_without_an_answer(client):
    agent = Agent(client, create(client).capability)
    reply = agent.post("notifications/cancelled", {"requestId": 1}, id=None)
    assert (reply.status_code, reply.content) == (202, b"")
    reply = client.post("/mcp", json={"jsonrpc": "2.0", "id": 4, "result": {}}, headers=agent.headers)
    assert reply.status_code == 202


def test_delete_ends_the_mcp_session_and_not_the_episode(client):
    session = create(client)
    agent = Agent(client, session.capability)
    agent.act("1")
    assert client.delete("/mcp", headers=agent.headers).status_code == 204
    assert agent.post("ping").status_code == 404
    assert client.delete("/mcp", headers=agent.headers).status_code == 404
    assert "guesses left" in text(Agent(client, session.capability).act("1"))


def test_after_a_restart_of_the_server_the_agent_initializes_again_and_plays_on(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with serving(tmp_path / "a", state=tmp_path / "state") as client:
        session = create(client, task="range-64", seed=1)
        before = Agent(client, session.capability)
        seen = text(before.act("64"))
    with serving(tmp_path / "b", state=tmp_path / "state") as client:
        before.client = client
        assert before.post("ping").status_code == 404
        again = Agent(client, session.capability)
        assert seen.partition("\n")[0] in again.begun["instructions"]
        again.act("63")
        assert steps_of(client, session) == 2


def test_get_is_not_allowed(client):
    reply = client.get("/mcp", headers={"Accept": "text/event-stream"})
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST, DELETE"


@pytest.mark.parametrize("shown", [None, "Basic abc", "Bearer", "Bearer x", "Bearer a.owner.b", "Bearer a.b.c.d"])
def test_without_a_valid_capability_nothing_is_answered(client, shown):
    headers = {} if shown is None else {"Authorization": shown}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": VERSION}}
    for reply in (client.post("/mcp", json=message, headers=headers), client.delete("/mcp", headers=headers)):
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"


def test_a_capability_for_watching_does_not_play(client):
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": VERSION}}
    reply = client.post("/mcp", json=message, headers={"Authorization": f"Bearer {create(client).watch}"})
    assert reply.status_code == 400
    assert "watching" in reply.json()["error"]["message"]
    assert "mcp-session-id" not in reply.headers


def test_the_owner_of_a_session_with_several_seats_must_name_one(client):
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": VERSION}}
    session = create(client, env="play/nim-v0")
    reply = client.post("/mcp", json=message, headers={"Authorization": f"Bearer {session.capability}"})
    assert reply.status_code == 400
    assert "2 seats" in reply.json()["error"]["message"]


def test_an_mcp_session_is_of_no_use_with_another_capability(client):
    mine, other = Agent(client, create(client).capability), create(client)
    stolen = mine.post("ping", headers={"Authorization": f"Bearer {other.capability}"})
    assert stolen.status_code == 404


def test_a_request_outside_a_session_is_refused(client):
    agent = Agent(client, create(client).capability)
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Authorization": agent.headers["Authorization"]}
    assert client.post("/mcp", json=message, headers=headers).status_code == 400
    assert client.post("/mcp", json=message, headers=headers | {"Mcp-Session-Id": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Accept": "text/event-stream"}, 406),
        ({"MCP-Protocol-Version": "1999-01-01"}, 400),
    ],
)
def test_headers_that_say_something_else_are_refused(client, headers, status):
    agent = Agent(client, create(client).capability)
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    everything = agent.headers | {"Content-Type": "application/json"} | headers
    assert client.post("/mcp", content=body, headers=everything).status_code == status


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b'{"jsonrpc": "2.0", "id": 1180591620717411303424, "method": "ping"}', 400, -32700),
        (b"[" * 5000 + b"]" * 5000, 400, -32700),
        (b"7", 200, -32600),
        (b'{"id": 1, "method": "ping"}', 200, -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', 200, -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', 200, -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', 200, -32600),
        (b'{"jsonrpc": "2.0", "id": [1], "method": "ping"}', 200, -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', 200, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', 200, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]}', 200, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}', 200, -32602),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "act", "arguments": 7}}',
            200,
            -32602,
        ),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "reset"}}', 200, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "2"}}', 200, -32602),
        (b"[]", 400, -32600),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', 400, -32600),
    ],
)
def test_what_is_no_request_gets_the_json_rpc_error(client, body, status, code):
    agent = Agent(client, create(client).capability)
    headers = agent.headers | {"Content-Type": "application/json"}
    reply = client.post("/mcp", content=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert "traceback" not in reply.text.lower()
    assert agent.post("ping").json()["result"] == {}


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 7}])
def test_initialize_without_a_version_is_refused(client, params):
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"Authorization": f"Bearer {create(client).capability}"}
    reply = client.post("/mcp", json=message, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"], reply.json()["id"]) == (400, -32602, 1)


def test_batches_are_taken_where_the_version_has_them(client):
    agent = Agent(client, create(client).capability, version="2025-03-26")
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": {"name": "act", "arguments": {"action": "1"}}},
        {"jsonrpc": "2.0", "id": "c", "method": "initialize", "params": {}},
        5,
    ]
    replies = client.post("/mcp", json=batch, headers=agent.headers).json()
    assert [reply["id"] for reply in replies] == ["a", "b", "c", None]
    assert replies[0]["result"] == {}
    assert "guesses left" in text(replies[1]["result"])
    assert [reply["error"]["code"] for reply in replies[2:]] == [-32601, -32600]
    only_notifications = client.post("/mcp", json=batch[1:2], headers=agent.headers)
    assert only_notifications.status_code == 202


# -- playing --------------------------------------------------------------------------------------------------------


def test_a_whole_game_by_the_act_tool(client):
    session = create(client, task="range-8", seed=3)
    agent = Agent(client, session.capability)
    assert [tool["name"] for tool in agent.tools()] == ["act", "observe"]
    assert agent.tools()[0]["inputSchema"]["properties"]["action"]["type"] == "string"
    low, high = 1, 8
    while True:
        guess = (low + high) // 2
        result = agent.act(str(guess))
        if result["structuredContent"]["terminated"]:
            break
        low, high = (guess + 1, high) if "higher" in text(result) else (low, guess - 1)
    assert "is right!" in text(result)
    assert "The episode is over." in text(result)
    assert result["structuredContent"]["is_due"] is False
    after = agent.act("1")
    assert after["isError"]
    assert "over" in text(after)
    assert "is right!" in text(agent.call("observe")["result"])


def test_an_illegal_or_malformed_action_is_a_result_that_the_agent_reads(client):
    agent = Agent(client, create(client, task="range-8").capability)
    for arguments in ({"action": "9"}, {"action": 3}, {"action": None}, {}, {"action": "1", "more": 2}, {"word": "1"}):
        result = agent.call("act", arguments)["result"]
        assert result["isError"] is True
        assert text(result)
    assert "legal: 1, 2" in text(agent.act("9"))
    assert "7 guesses left" in text(agent.act("1")) or "right" in text(agent.act("1"))


def test_the_tools_of_an_environment_are_the_agents_and_reserved_names_are_renamed(client):
    agent = Agent(client, create(client, env="play/safe-v0", seed=4).capability)
    assert [tool["name"] for tool in agent.tools()] == ["turn", "listen", "env_reset", "observe"]
    heard = agent.call("listen")["result"]
    assert text(heard).startswith("You hear")
    assert agent.call("env_reset")["result"]["structuredContent"]["observation"] == "All wheels are back."
    wrong = agent.call("turn", {"digit": "two"})["result"]
    assert wrong["isError"]
    assert "digit" in text(wrong)
    for name in ("reset", "act", "blow", "step", ""):
        assert agent.call(name)["error"]["code"] == -32602


def test_numbers_and_arrays_have_typed_schemas(client):
    dial = Agent(client, create(client, env="play/dial-v0").capability)
    assert dial.tools()[0]["inputSchema"]["properties"]["action"]["type"] == "integer"
    assert dial.act(2)["structuredContent"]["observation"]["says"] == "at 2"
    aim = Agent(client, create(client, env="play/aim-v0").capability)
    assert aim.tools()[0]["inputSchema"]["properties"]["action"]["items"]["minItems"] == 2
    assert aim.act([[0.25]])["isError"] is True
    assert aim.act([[0.25, 0]])["structuredContent"]["terminated"] is True


def test_nothing_that_an_agent_is_sent_tells_reward_or_score(client):
    agent = Agent(client, create(client, env="play/safe-v0", seed=4).capability)
    said = json.dumps(agent.begun) + json.dumps(agent.tools())
    for _ in range(3):
        digit = int(text(agent.call("listen")["result"]).split()[2])
        said += json.dumps(agent.call("turn", {"digit": digit}))
    said += json.dumps(agent.call("observe"))
    assert "The safe is open" in said
    for word in ("reward", "score", "0.25", "success", "ending", "secret_note", "metrics"):
        assert word not in said


def test_structured_content_came_with_2025_06_18(client):
    assert "structuredContent" not in Agent(client, create(client).capability, version="2025-03-26").act("1")
    assert "structuredContent" in Agent(client, create(client).capability, version="2025-11-25").act("1")


def test_no_reserved_name_is_shown():
    for name in [*RESERVED_NAMES, "Reset", "SCORE"]:
        assert exposed_name(name, {f"env_{name}"}) == f"env_env_{name}"
        assert exposed_name(name, set()) == f"env_{name}"
    assert exposed_name("look", {"look"}) == "look"


def test_an_episode_that_was_truncated_elsewhere_says_so(client):
    caller = Caller(Principal("owner", frozenset({"play"})))
    session = ask(client, Create(id=0, env="text/guess-v0", key="truncated-key"), caller)
    agent = Agent(client, session.capability)
    ask(client, Truncate(id=0, session=session.session, index=1, limit=Limit("tokens", 2, 1)), caller)
    seen = agent.call("observe")["result"]
    assert seen["structuredContent"]["truncated"] is True
    assert "over" in text(seen)


def test_refusals_in_a_row_end_the_episode(client):
    agent = Agent(client, create(client, task="range-8").capability)
    said = [text(agent.act("9")) for _ in range(10)]
    assert "over" in said[-1]
    assert "over" not in said[0]
    assert "over" in text(agent.act("1"))


# -- exactly once ---------------------------------------------------------------------------------------------------


def steps_of(client, session):
    caller = Caller(None)
    caller.add(client.hub.capabilities.open(session.capability))
    return ask(client, Read(id=0, session=session.session), caller).next - 1


def test_a_repeated_id_gets_the_recorded_answer(client):
    session = create(client, task="range-64")
    agent = Agent(client, session.capability)
    first = agent.act("64", id="a")
    assert agent.act("64", id="a") == first
    assert steps_of(client, session) == 1
    agent.act("64", id="b")
    assert agent.act("64", id="a") == first
    assert steps_of(client, session) == 2


def test_an_id_of_another_type_is_another_id(client):
    session = create(client, task="range-64")
    agent = Agent(client, session.capability)
    agent.act("64", id=900_001)
    agent.act("64", id="900001")
    assert steps_of(client, session) == 2


def test_a_repeated_id_with_another_call_is_refused(client):
    session = create(client, task="range-64")
    agent = Agent(client, session.capability)
    agent.act("64", id="a")
    assert agent.call("act", {"action": "63"}, id="a")["error"]["code"] == -32600
    assert steps_of(client, session) == 1


def test_a_refusal_is_counted_once_however_often_it_is_asked_for(client):
    session = create(client, task="range-8")
    agent = Agent(client, session.capability)
    assert len({text(agent.act("9", id="a")) for _ in range(12)}) == 1
    assert "guesses left" in text(agent.act("1", id="b")) or "right" in text(agent.act("1", id="b"))


def test_an_answer_of_long_ago_is_refused_and_never_taken_again(client):
    session = create(client, task="range-64", options={"max_guesses": 1000})
    agent = Agent(client, session.capability)
    for number in range(70):
        agent.act("64", id=f"n{number}")
    assert agent.call("act", {"action": "64"}, id="n0")["error"]["code"] == -32600
    assert agent.act("64", id="n69")["isError"] is False
    assert steps_of(client, session) == 70


def test_the_same_request_at_the_same_time_acts_once(client):
    session = create(client, task="range-64")
    agent = Agent(client, session.capability)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(agent.act("64", id="same"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert steps_of(client, session) == 1


def test_a_seat_has_a_few_mcp_sessions_and_the_oldest_makes_room(client):
    session = create(client)
    agents = [Agent(client, session.capability) for _ in range(9)]
    assert agents[0].post("ping").status_code == 404
    assert [agent.post("ping").status_code for agent in agents[1:]] == [200] * 8


def test_idle_mcp_sessions_are_forgotten():
    class Known:
        grant, used_at = "seat", 0.0

        def __init__(self, id):
            self.id = id

    sessions = McpSessions(idle_s=1.0)
    sessions.add(Known("old"))
    sessions.add(Known("new"))
    assert sessions.find("old", "seat") is None
    assert sessions.find("new", "seat").id == "new"


# -- seats ----------------------------------------------------------------------------------------------------------


def seated(client, env, **terms):
    session = create(client, env=env, seats=terms)
    return {seat: Agent(client, capability) for seat, capability in session.seat_capabilities.items()}


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits for the others for long."""
    monkeypatch.setattr("arena.server.mcp.play._WAIT_S", 0.2)


def test_two_agents_play_a_game_in_turns_and_each_answer_is_the_next_turn(client):
    agents = seated(client, "play/nim-v0")
    answers = {}

    def second():
        answers["seen"] = agents["second"].call("observe")["result"]
        agents["second"].act(2)
        answers["won"] = agents["second"].act(2)

    thread = threading.Thread(target=second)
    thread.start()
    answers["first"] = agents["first"].act(1)
    answers["lost"] = agents["first"].act(2)
    thread.join()
    assert answers["seen"]["structuredContent"]["is_due"] is True
    assert "6 stones; you took 0" in text(answers["seen"])
    said = answers["first"]["structuredContent"]
    assert said["is_due"] is True
    assert said["observation"] == "4 stones; you took 1"
    assert said["earlier_observations"] == ["6 stones; you took 1"]
    assert all(answers[end]["structuredContent"]["terminated"] for end in ("won", "lost"))


@pytest.mark.usefixtures("impatient")
def test_acting_out_of_turn_is_refused_and_waiting_ends(client):
    agents = seated(client, "play/nim-v0")
    refused = agents["second"].act(1)
    assert refused["isError"]
    assert "not your turn" in text(refused)
    waited = agents["second"].call("observe")["result"]
    assert waited["structuredContent"]["is_due"] is False
    assert "not your turn" in text(waited)
    moved = agents["first"].act(2)
    assert moved["structuredContent"]["is_due"] is False
    assert "5 stones" in text(moved)
    assert agents["second"].call("observe")["result"]["structuredContent"]["is_due"] is True


@pytest.mark.usefixtures("impatient")
def test_an_action_that_waits_for_the_others_is_noted_and_its_outcome_comes_by_observe(client):
    agents = seated(client, "play/match-v0")
    noted = agents["left"].act(1, id="once")
    assert noted["isError"] is False
    assert "noted" in text(noted)
    assert noted["structuredContent"]["is_due"] is False
    assert agents["left"].act(0)["isError"] is True
    assert "noted" in text(agents["left"].call("observe")["result"])
    assert agents["right"].act(1)["structuredContent"]["is_due"] is True
    seen = agents["left"].call("observe")["result"]
    assert seen["structuredContent"]["is_due"] is True
    assert agents["left"].act(1, id="once") == noted


def test_a_seat_that_never_acts_is_played_by_its_default(client):
    agents = seated(client, "play/match-v0", right=SeatTerms(deadline_s=0.05, default=1))
    for _ in range(3):
        result = agents["left"].act(1)
    assert result["structuredContent"]["terminated"] is True


def test_a_seat_sees_nothing_of_the_other_one(client):
    agents = seated(client, "play/nim-v0")
    thread = threading.Thread(target=lambda: [agents["first"].act(1) for _ in range(3)])
    thread.start()
    said = json.dumps([agents["second"].call("observe"), *(agents["second"].act(2) for _ in range(2))])
    thread.join()
    assert "6 stones; you took 0" in said
    assert "3 stones; you took 2" in said
    assert "you took 1" not in said


def test_the_owners_step_moves_the_agent_on_and_never_twice(client):
    caller = Caller(Principal("owner", frozenset({"play"})))
    session = ask(client, Create(id=0, env="text/guess-v0", key="shared-key", task="range-64"), caller)
    agent = Agent(client, session.capability)
    agent.act("64")
    ask(client, Step(id="mine", session=session.session, index=2, actions={"player": "63"}), caller)
    assert "than 63" in text(agent.call("observe")["result"])
    agent.act("62")
    assert steps_of(client, session) == 3


def test_a_session_that_is_gone_is_said_to_be(client):
    caller = Caller(Principal("owner", frozenset({"play"})))
    session = ask(client, Create(id=0, env="text/guess-v0", key="closing-key"), caller)
    agent = Agent(client, session.capability)
    ask(client, Close(id=0, session=session.session), caller)
    for name in ("observe", "act"):
        error = agent.call(name, {"action": "1"} if name == "act" else {})["error"]
        assert error["code"] == -32000
        assert error["data"]["code"] == "SESSION_GONE"
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": VERSION}}
    reply = client.post("/mcp", json=message, headers={"Authorization": f"Bearer {session.capability}"})
    assert reply.status_code == 404
