"""OpenEnv's protocol on the wire: frames, HTTP with state, whose session is whose, and what is refused."""

import time
from types import SimpleNamespace

import msgspec
import pytest
from gymnasium.spaces import MultiDiscrete
from starlette.websockets import WebSocketDisconnect

from arena import InvalidActionError, Session, make, python_stream
from arena.protocol import SeatInfo
from arena.server.openenv.dialect import FieldError, parse_action
from arena.server.openenv.schema import action_schema
from arena.server.plain_seat import PlainSeat
from arena.spaces import FreeText, describe
from arena.types import Array, Tool, ToolCall
from tests.peers.hosting import serving

GUESS = "/openenv/text/guess-v0"
SAFE = "/openenv/play/safe-v0"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("path")) as client:
        yield client


@pytest.fixture
def client(served):
    served.cookies.clear()
    yield served
    served.cookies.clear()


def ask(socket, type, data=None):
    socket.send_json({"type": type} if data is None else {"type": type, "data": data})
    reply = socket.receive_json()
    return reply["type"], reply["data"]


def observe(socket, type, data=None):
    kind, told = ask(socket, type, data)
    assert kind == "observation", told
    return told


def refused(socket, type, data=None):
    kind, told = ask(socket, type, data)
    assert kind == "error", told
    return told


def play_here(task, seed, actions):
    """Play in this process: the session that the server must not differ from."""
    environment = make("text/guess-v0")
    session = Session(environment, environment.taskset("train").get(task), seed)
    session.open()
    for index, action in enumerate(actions, start=1):
        session.step(index, {"player": action})
    return session


# -- frames ---------------------------------------------------------------------------------------------------------


def test_a_whole_episode_over_the_socket_equals_one_in_this_process(client):
    guesses = ["8", "4", "2", "1", "3", "5", "6", "7"]
    here = play_here("range-8", 3, ["8"])
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        told = observe(socket, "reset", {"seed": 3, "task": "range-8"})
        assert told["reward"] is None
        assert told["done"] is False
        assert told["observation"]["text"] == here.journal[0].time_step.seats["player"].observation
        assert told["observation"]["instructions"].startswith("Guess the secret number")
        assert told["metadata"]["task"] == {"id": "range-8", "split": "train"}
        steps = []
        for guess in guesses:
            steps.append(observe(socket, "step", {"message": guess}))
            if steps[-1]["done"]:
                break
    here = play_here("range-8", 3, guesses[: len(steps)])
    expected = [record.time_step.seats["player"] for record in here.journal[1:]]
    assert [step["observation"]["text"] for step in steps] == [step.observation for step in expected]
    assert [step["reward"] for step in steps] == [step.reward for step in expected]
    last = steps[-1]["metadata"]
    assert (last["terminated"], last["truncated"], last["ending"]) == (True, False, "guessed")
    assert last["score"]["success"] is True
    assert "score" not in steps[0]["metadata"] or len(steps) == 1


def test_each_reset_is_a_new_session_and_ends_the_old_one(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1})
        first = ask(socket, "state")[1]["session_id"]
        observe(socket, "step", {"message": "1"})
        observe(socket, "reset", {"seed": 1})
        state = ask(socket, "state")[1]
        assert state["session_id"] != first
        assert state["step_count"] == 0
        open_ids = {row.id for row in client.hub.overview()}
        assert state["session_id"].partition(".")[0] in open_ids
        assert first.partition(".")[0] not in open_ids


def test_state_names_the_episode_and_counts_its_steps(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        assert (
            ask(socket, "state")[1] | {"env": "text/guess-v0", "step_count": 0, "episode_id": None}
            == (ask(socket, "state")[1])
        )
        observe(socket, "reset", {"seed": 5, "task_id": "range-64", "episode_id": "mine"})
        observe(socket, "step", {"message": "64"})
        state = ask(socket, "state")[1]
    assert (state["episode_id"], state["step_count"], state["seed"], state["task"]["id"]) == ("mine", 1, 5, "range-64")


def test_options_are_taken_and_what_is_no_option_is_named(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        told = observe(socket, "reset", {"seed": 0, "task": "range-64", "max_guesses": 1, "prompt": "x", "answer": 3})
        assert told["metadata"]["ignored"] == ["answer", "prompt"]
        assert "1 guess left" in told["observation"]["text"]
        told = observe(socket, "step", {"message": "64"})
        assert told["done"]
        assert told["metadata"]["ending"] in ("out_of_guesses", "guessed")


def test_without_a_seed_one_is_drawn_and_told(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        seeds = {observe(socket, "reset")["metadata"]["seed"] for _ in range(4)}
    assert len(seeds) > 1


def test_a_refused_action_leaves_the_episode_and_the_connection_as_they_were(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1, "task": "range-8"})
        error = refused(socket, "step", {"message": "9"})
        assert error["code"] == "EXECUTION_ERROR"
        assert "legal" in error["message"]
        assert error["error"]["code"] == "INVALID_ACTION"
        assert refused(socket, "step", {"message": "nine"})["message"] != error["message"]
        assert observe(socket, "step", {"message": "8"})["metadata"]["step"] == 1


def test_refusals_in_a_row_truncate_the_episode_and_the_state_says_so(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1, "task": "range-8"})
        errors = [refused(socket, "step", {"message": "9"}) for _ in range(10)]
        assert "truncated" not in errors[0]["error"]["details"]
        assert errors[-1]["error"]["details"]["truncated"]
        assert ask(socket, "state")[1]["done"] is True
        assert refused(socket, "step", {"message": "8"})["error"]["code"] == "RESET_NEEDED"
        assert observe(socket, "reset")["done"] is False


def test_a_step_before_the_reset_is_refused(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        assert refused(socket, "step", {"message": "1"})["code"] == "EXECUTION_ERROR"
        assert observe(socket, "reset")["done"] is False


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "INVALID_JSON"),
        ('{"type": "step", "data": {"message": 1180591620717411303424}}', "INVALID_JSON"),
        ('{"type": "step", "data": {"message": "\\ud800"}}', "INVALID_JSON"),
        ("[" * 5000 + "]" * 5000, "INVALID_JSON"),
        ("[]", "VALIDATION_ERROR"),
        ('{"type": "reset", "data": []}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {}, "more": 1}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": -1}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": true}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": 1.5}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"task": "../../etc/passwd"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"task": "range-8", "task_id": "range-16"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"split": "nowhere"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"max_guesses": "many"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"episode_id": ""}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": "1", "more": 1}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": "1", "metadata": []}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": "1", "metadata": {"step": "1"}}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"message": 1}}', "EXECUTION_ERROR"),
        ('{"type": "dance"}', "UNKNOWN_TYPE"),
        ('{"data": {}}', "UNKNOWN_TYPE"),
        ('{"type": 7}', "UNKNOWN_TYPE"),
    ],
)
def test_a_malformed_frame_gets_a_typed_error_and_the_connection_goes_on(client, frame, code):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1, "task": "range-8"})
        socket.send_text(frame)
        reply = socket.receive_json()
        assert (reply["type"], reply["data"]["code"]) == ("error", code)
        assert reply["data"]["message"]
        assert observe(socket, "step", {"message": "1"})["metadata"]["step"] == 1


def test_validation_errors_say_where(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset")
        (error,) = refused(socket, "step", {"message": "1", "colour": "red"})["errors"]
    assert error["loc"] == ["colour"]
    assert error["input"] == "red"


def test_a_binary_frame_is_no_json(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        socket.send_bytes(b"\x81\xa4type\xa5reset")
        assert socket.receive_json()["data"]["code"] == "INVALID_JSON"
        assert observe(socket, "reset")["done"] is False


def test_a_failed_reset_leaves_the_running_episode(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1, "task": "range-8"})
        refused(socket, "reset", {"task": "range-9"})
        assert observe(socket, "step", {"message": "1"})["metadata"]["step"] == 1


def test_a_step_that_is_sent_again_with_its_number_is_taken_once(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1, "task": "range-64"})
        step = {"message": "64", "metadata": {"step": 1}}
        assert observe(socket, "step", step) == observe(socket, "step", step)
        assert ask(socket, "state")[1]["step_count"] == 1
        other = {"message": "63", "metadata": {"step": 1}}
        assert refused(socket, "step", other)["error"]["code"] == "OUT_OF_ORDER"


def test_close_ends_the_session_and_the_connection(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset")
        session = ask(socket, "state")[1]["session_id"].partition(".")[0]
        socket.send_json({"type": "close"})
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()
        assert session not in {row.id for row in client.hub.overview()}


@pytest.mark.parametrize("how", ["query", "header"])
def test_a_lost_connection_is_taken_up_again_with_the_session_id(client, how):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1, "task": "range-64"})
        observe(socket, "step", {"message": "64"})
        capability = ask(socket, "state")[1]["session_id"]
    path, headers = f"{GUESS}/ws", {}
    if how == "query":
        path += f"?session_id={capability}"
    else:
        headers = {"X-Session-ID": capability}
    with client.websocket_connect(path, headers=headers) as socket:
        state = ask(socket, "state")[1]
        assert (state["step_count"], state["seed"], state["task"]["id"]) == (1, 1, "range-64")
        told = observe(socket, "step", {"message": "63"})
        assert told["metadata"]["step"] == 2
    assert told["observation"]["text"] == (
        play_here("range-64", 1, ["64", "63"]).journal[-1].time_step.seats["player"].observation
    )


@pytest.mark.parametrize("id", ["nonsense", "a.owner.b", "../../x", "x" * 5000])
def test_a_session_id_that_opens_nothing_is_refused(client, id):
    with client.websocket_connect(f"{GUESS}/ws", params={"session_id": id}) as socket:
        assert socket.receive_json()["data"]["code"] == "SESSION_ERROR"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_the_bare_id_of_a_session_opens_nothing(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset")
        id = ask(socket, "state")[1]["session_id"].partition(".")[0]
        with client.websocket_connect(f"{GUESS}/ws?session_id={id}") as other:
            assert other.receive_json()["data"]["error"]["code"] == "UNAUTHORIZED"


def test_a_session_of_another_environment_is_refused(client):
    with client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset")
        capability = ask(socket, "state")[1]["session_id"]
        with client.websocket_connect(f"{SAFE}/ws?session_id={capability}") as other:
            assert other.receive_json()["data"]["error"]["code"] == "UNKNOWN_ID"


@pytest.mark.parametrize(
    ("path", "code"),
    [("text/nothing-v0", "UNKNOWN_ID"), ("play/nim-v0", "UNSUPPORTED"), ("TEXT/guess-v0", "UNKNOWN_ID")],
)
def test_an_environment_that_cannot_be_played_refuses_the_connection_with_a_reason(client, path, code):
    with client.websocket_connect(f"/openenv/{path}/ws") as socket:
        reply = socket.receive_json()["data"]
        assert reply["code"] == "SESSION_ERROR"
        assert reply["error"]["code"] == code
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_a_wrong_token_is_refused_over_the_socket_and_over_http(client):
    headers = {"Authorization": "Bearer wrong"}
    with client.websocket_connect(f"{GUESS}/ws", headers=headers) as socket:
        assert socket.receive_json()["data"]["error"]["code"] == "UNAUTHORIZED"
    reply = client.post(f"{GUESS}/reset", headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"


def test_a_full_server_says_so_and_a_reset_on_it_makes_its_own_room(tmp_path):
    with serving(tmp_path, max_sessions=1) as client, client.websocket_connect(f"{GUESS}/ws") as socket:
        observe(socket, "reset", {"seed": 1})
        with client.websocket_connect(f"{GUESS}/ws") as other:
            error = refused(other, "reset")
            assert (error["code"], error["max_sessions"]) == ("CAPACITY_REACHED", 1)
            reply = client.post(f"{GUESS}/reset")
            assert reply.status_code == 429
            assert int(reply.headers["retry-after"]) >= 1
            observe(socket, "reset", {"seed": 2})
            socket.send_json({"type": "close"})
            with pytest.raises(WebSocketDisconnect):
                socket.receive_json()
            assert observe(other, "reset")["done"] is False


# -- HTTP -----------------------------------------------------------------------------------------------------------


def act(client, message, **how):
    body = {"action": {"message": message}, **how.pop("body", {})}
    reply = client.post(f"{GUESS}/step", json=body, **how)
    return reply.json() if reply.status_code == 200 else reply


def test_http_keeps_the_episode_by_cookie(client):
    reply = client.post(f"{GUESS}/reset", json={"seed": 1, "task": "range-64"})
    assert reply.json()["metadata"]["seed"] == 1
    assert "HttpOnly" in reply.headers["set-cookie"]
    assert "SameSite=strict" in reply.headers["set-cookie"]
    assert [act(client, guess)["metadata"]["step"] for guess in ("1", "2")] == [1, 2]
    state = client.get(f"{GUESS}/state").json()
    assert state["step_count"] == 2
    client.post(f"{GUESS}/reset", json={})
    again = client.get(f"{GUESS}/state").json()
    assert again["step_count"] == 0
    assert again["session_id"] != state["session_id"]


def test_http_keeps_many_episodes_apart_by_the_first_session_header(client):
    ids = []
    for seed in (1, 2):
        ids.append(client.post(f"{GUESS}/reset", json={"seed": seed}).headers["x-session-id"])
        client.cookies.clear()
    for id in ids:
        act(client, "1", headers={"X-Session-ID": id})
    act(client, "2", headers={"X-Session-ID": ids[1]})
    counts = [client.get(f"{GUESS}/state", headers={"X-Session-ID": id}).json()["step_count"] for id in ids]
    assert counts == [1, 2]
    client.post(f"{GUESS}/reset", headers={"X-Session-ID": ids[1]})
    state = client.get(f"{GUESS}/state", headers={"X-Session-ID": ids[1]}).json()
    assert state["step_count"] == 0
    assert client.get(f"{GUESS}/state", headers={"X-Session-ID": ids[0]}).json()["step_count"] == 1


def test_http_keeps_many_episodes_apart_by_episode_id(client):
    for name in ("a", "b"):
        client.post(f"{GUESS}/reset", json={"seed": 1, "episode_id": name})
    act(client, "1", body={"episode_id": "a"})
    counts = [client.get(f"{GUESS}/state", params={"episode_id": name}).json()["step_count"] for name in "ab"]
    assert counts == [1, 0]
    reply = act(client, "1", body={"episode_id": "c"})
    assert reply.status_code == 404
    assert "'c'" in reply.json()["detail"]


def test_http_without_any_name_takes_the_only_session_and_refuses_to_choose(client):
    headers = {"Authorization": "Bearer forgetful"}
    assert act(client, "1", headers=headers).status_code == 409
    client.post(f"{GUESS}/reset", headers=headers, json={"seed": 1, "task": "range-8"})
    client.cookies.clear()
    assert act(client, "1", headers=headers)["metadata"]["step"] == 1
    client.cookies.clear()
    client.post(f"{GUESS}/reset", headers=headers, json={"seed": 1, "task": "range-8"})
    client.cookies.clear()
    reply = act(client, "1", headers=headers)
    assert reply.status_code == 409
    assert "X-Session-ID" in reply.json()["detail"]


def test_http_without_any_name_drops_the_finished_episode_at_the_next_reset(client):
    headers = {"Authorization": "Bearer sequential"}
    for _ in range(3):
        client.post(f"{GUESS}/reset", headers=headers, json={"seed": 1, "task": "range-8", "max_guesses": 1})
        client.cookies.clear()
        assert act(client, "8", headers=headers)["done"] is True
        client.cookies.clear()
    assert sum(row.owner == "sequential" for row in client.hub.overview()) == 1


def test_http_sessions_of_one_principal_are_not_another_ones(client):
    client.post(f"{GUESS}/reset", headers={"Authorization": "Bearer alice"}, json={"episode_id": "hers"})
    client.cookies.clear()
    for how in ({}, {"body": {"episode_id": "hers"}}):
        reply = act(client, "1", headers={"Authorization": "Bearer bob"}, **how)
        assert reply.status_code in (404, 409)


def test_a_capability_alone_steps_but_does_not_begin_episodes_in_the_owners_name(client):
    alice = {"Authorization": "Bearer alice"}
    id = client.post(f"{GUESS}/reset", headers=alice, json={"seed": 1}).headers["x-session-id"]
    client.cookies.clear()
    holder = {"Authorization": f"Bearer {id}", "X-Session-ID": id}
    assert act(client, "1", headers=holder)["metadata"]["step"] == 1
    assert client.post(f"{GUESS}/reset", headers=holder).status_code == 403
    with client.websocket_connect(f"{GUESS}/ws", headers=holder) as socket:
        assert socket.receive_json()["data"]["error"]["code"] == "FORBIDDEN"


def test_a_repeated_request_id_gets_the_recorded_answer(client):
    client.post(f"{GUESS}/reset", json={"seed": 1, "task": "range-64"})
    first = act(client, "64", body={"request_id": "r1"})
    assert act(client, "64", body={"request_id": "r1"}) == first
    assert act(client, "64", body={"request_id": "r2"})["metadata"]["step"] == 2
    client.post(f"{GUESS}/reset", json={"seed": 1, "task": "range-64"})
    assert act(client, "64", body={"request_id": "r2"})["metadata"]["step"] == 1


def test_a_stale_cookie_does_not_stand_in_the_way_of_a_reset(client):
    client.cookies.set("openenv_session", "gone.owner.signature")
    assert client.post(f"{GUESS}/reset").status_code == 200
    client.cookies.clear()
    client.cookies.set("openenv_session", "gone.owner.signature")
    assert act(client, "1").status_code == 401


def test_an_episode_goes_on_after_a_restart_of_the_server(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with serving(tmp_path / "a", state=tmp_path / "state") as client:
        id = client.post(f"{GUESS}/reset", json={"seed": 1, "task": "range-64"}).headers["x-session-id"]
        act(client, "64")
    with serving(tmp_path / "b", state=tmp_path / "state") as client:
        assert act(client, "63", headers={"X-Session-ID": id})["metadata"]["step"] == 2
        client.cookies.set("openenv_session", id)
        assert client.get(f"{GUESS}/state").json()["step_count"] == 2


def test_an_http_session_whose_lease_has_passed_is_forgotten(client, monkeypatch):
    headers = {"Authorization": "Bearer absent"}
    client.post(f"{GUESS}/reset", headers=headers)
    client.cookies.clear()
    assert client.get(f"{GUESS}/state", headers=headers).status_code == 200
    later = time.monotonic() + 2 * client.hub.settings.idle_s
    monkeypatch.setattr("arena.server.openenv.http.time", SimpleNamespace(monotonic=lambda: later))
    assert client.get(f"{GUESS}/state", headers=headers).status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("reset", b"{", 422),
        ("reset", b"[]", 422),
        ("reset", b'{"seed": "one"}', 422),
        ("reset", b'{"episode_id": 7}', 422),
        ("reset", b"\xff\xfe", 422),
        ("step", b"{}", 422),
        ("step", b'{"action": "1"}', 422),
        ("step", b'{"action": {"message": "1"}, "request_id": 1}', 422),
        ("step", b'{"action": {"word": "1"}}', 422),
        ("step", b'{"action": {"message": "999"}}', 422),
    ],
)
def test_a_bad_http_body_gets_422_and_a_reason(client, path, body, status):
    client.post(f"{GUESS}/reset", json={"seed": 1, "task": "range-8"})
    reply = client.post(f"{GUESS}/{path}", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == status
    assert reply.json()["detail"]
    assert reply.json()["error"]["code"]


@pytest.mark.parametrize("path", ["schema", "metadata", "health", "state"])
def test_an_unknown_environment_is_not_found(client, path):
    reply = client.get(f"/openenv/text/guess-v9/{path}")
    assert reply.status_code == (409 if path == "state" else 404)


def test_an_environment_with_several_seats_is_refused_over_http(client):
    reply = client.post("/openenv/play/nim-v0/reset")
    assert reply.status_code == 422
    assert "2 seats" in reply.json()["detail"]


def test_the_openapi_document_lists_the_routes(client):
    document = client.get(f"{GUESS}/openapi.json").json()
    assert {"/reset", "/step", "/state", "/schema", "/metadata", "/health", "/mcp"} == document["paths"].keys()


def test_metadata_and_health(client):
    told = client.get(f"{GUESS}/metadata").json()
    assert told["name"] == "text/guess-v0"
    assert told["version"] == "0"
    assert told["description"]
    assert client.get(f"{GUESS}/health").json() == {"status": "healthy"}


# -- schemas, actions and observations ------------------------------------------------------------------------------


def test_the_schema_of_a_text_environment_asks_for_a_message(client):
    schema = client.get(f"{GUESS}/schema").json()
    action = schema["action"]
    assert action["required"] == ["message"]
    assert action["properties"]["message"]["maxLength"] == 8
    assert action["additionalProperties"] is False
    assert {"text", "reward", "done", "metadata", "legal_actions"} <= schema["observation"]["properties"].keys()
    assert "instructions" in schema["reset_observation"]["properties"]
    assert "step_count" in schema["state"]["properties"]


def test_numbers_go_in_and_arrays_come_out_as_plain_json(client):
    with client.websocket_connect("/openenv/play/dial-v0/ws") as socket:
        told = observe(socket, "reset", {"size": 3})
        assert told["observation"]["value"] == {"places": [1.0, 0.0, 0.0], "says": "at 0"}
        assert told["observation"]["legal_actions"] == [1, 2]
        assert refused(socket, "step", {"action_id": 3})["code"] == "EXECUTION_ERROR"
        assert refused(socket, "step", {"action_id": True})["code"] == "EXECUTION_ERROR"
        told = observe(socket, "step", {"action_id": 2})
        assert told["observation"]["value"]["places"] == [0.0, 0.0, 1.0]
        assert told["reward"] == 1.0
    schema = client.get("/openenv/play/dial-v0/schema").json()
    assert schema["action"]["properties"]["action_id"] == {"type": "integer", "minimum": 1, "maximum": 2}
    assert schema["observation"]["properties"]["value"]["properties"]["places"]["minItems"] == 5


def test_an_array_action_is_nested_lists(client):
    with client.websocket_connect("/openenv/play/aim-v0/ws") as socket:
        observe(socket, "reset")
        for values in ([[2.0, 0.0]], [0.0, 0.0], [[0.0], [0.0, 1.0]], [["0", "0"]], [[None, 1]], "[[0, 0]]"):
            assert refused(socket, "step", {"values": values})["code"] == "EXECUTION_ERROR"
        assert observe(socket, "step", {"values": [[0.25, 0]]})["reward"] == 1.0


def test_tools_are_listed_and_called_as_openenv_does(client):
    random = python_stream(4, "env")
    digits = [random.randrange(3) for _ in range(3)]
    with client.websocket_connect(f"{SAFE}/ws") as socket:
        listed = observe(socket, "step", {"type": "list_tools"})["observation"]["tools"]
        assert [tool["name"] for tool in listed] == ["turn", "listen", "reset"]
        assert "digit" in listed[0]["input_schema"]["properties"]
        observe(socket, "reset", {"seed": 4})
        heard = observe(socket, "step", {"type": "call_tool", "tool_name": "listen"})
        assert heard["observation"]["result"] == f"You hear {digits[0]} clicks."
        assert heard["observation"]["tool_name"] == "listen"
        assert heard["observation"]["error"] is None
        told = observe(socket, "step", {"type": "call_tool", "tool_name": "turn", "arguments": {"digit": 7}})
        assert told["observation"]["error"]["error_type"] == "invalid_args"
        told = observe(socket, "step", {"type": "call_tool", "tool_name": "blow"})
        assert told["observation"]["error"]["error_type"] == "tool_not_found"
        for digit in digits:
            told = observe(socket, "step", {"type": "call_tool", "tool_name": "turn", "arguments": {"digit": digit}})
        assert told["done"]
        assert told["reward"] == 1.0
        assert told["metadata"]["step"] == 4
        assert refused(socket, "step", {"message": "open"})["code"] == "VALIDATION_ERROR"


def test_a_seat_with_tools_and_text_takes_both():
    seat = PlainSeat(
        SeatInfo(
            observation_space=describe(FreeText(9)),
            action_space=describe(FreeText(9)),
            tools=(Tool("look", "Look.", {"type": "object"}),),
        )
    )
    assert len(action_schema(seat)["anyOf"]) == 3
    assert parse_action({"message": "hi"}, seat) == ("hi", None)
    call = {"type": "call_tool", "tool_name": "look", "arguments": {}, "metadata": {"step": 2}}
    assert parse_action(call, seat) == (ToolCall("look", {}), 2)
    assert parse_action({"type": "list_tools"}, seat) == (None, None)
    for bad in ({"type": "call_tool"}, {"type": "call_tool", "tool_name": "look", "arguments": 1}, {"type": "x"}):
        with pytest.raises(FieldError):
            parse_action(bad, seat)


def test_integers_are_not_rounded_into_arrays():
    space = describe(MultiDiscrete([3, 3]))
    seat = PlainSeat(SeatInfo(observation_space=space, action_space=space))
    taken = seat.action([1, 2])
    assert isinstance(taken, Array)
    assert taken.numpy().tolist() == [1, 2]
    assert msgspec.to_builtins(taken)["dtype"] == "int64"
    for value in ([1.5, 2], [10**30, 1], ["1", "2"], [[1], [2, 3]], {"0": 1}):
        with pytest.raises(InvalidActionError):
            seat.action(value)


# -- JSON-RPC beside the frames -------------------------------------------------------------------------------------


def rpc(client, method, env=SAFE, **params):
    return client.post(f"{env}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).json()


def test_a_session_begun_by_json_rpc_is_shared_with_a_socket(client):
    id = rpc(client, "openenv/session/create")["result"]["session_id"]
    names = [tool["name"] for tool in rpc(client, "tools/list", session_id=id)["result"]["tools"]]
    assert names == ["turn", "listen", "env_reset"]
    with client.websocket_connect(f"{SAFE}/ws?session_id={id}") as socket:
        observe(socket, "reset", {"seed": 4})
        heard = rpc(client, "tools/call", session_id=id, name="listen")["result"]
        assert heard["data"].startswith("You hear")
        assert heard["isError"] is False
        assert ask(socket, "state")[1]["step_count"] == 1
        assert "error" in rpc(client, "tools/call", session_id=id, name="turn", arguments={"digit": "x"})
        assert "error" in rpc(client, "tools/call", session_id=id, name="reset")
        told = ask(socket, "mcp", {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "listen"}})
        assert told[0] == "mcp"
        assert told[1]["result"]["data"].startswith("You hear")
    assert rpc(client, "openenv/session/close", session_id=id)["result"]["closed"] is True
    assert "error" in rpc(client, "tools/call", session_id=id, name="listen")


def test_json_rpc_that_is_none_is_answered_as_such(client):
    assert client.post(f"{SAFE}/mcp", content=b"{").json()["error"]["code"] == -32700
    assert client.post(f"{SAFE}/mcp", json={"id": 1}).json()["error"]["code"] == -32600
    assert rpc(client, "resources/list")["error"]["code"] in (-32601, -32000)
    assert rpc(client, "tools/call", session_id=7)["error"]["code"] == -32602
