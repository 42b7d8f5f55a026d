"""The pages without a browser: who may look, what is shown, and that nothing others wrote gets out of its place."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fastapi.testclient import TestClient

from arena.errors import CapacityError, EnvError, SessionGoneError
from arena.server.access import Principal
from arena.server.pages.login import COOKIE
from arena.server.pages.text import Excerpts, duration_text, line, value_text, visible
from arena.server.pages.trace import page_at
from arena.trace import AgentRef, EpisodeRecord
from arena.types import Array, Limit, Task, TimeStep, ToolCall, Usage, restart, termination, transition
from tests.arena.server.fake_pages_hub import (
    BROKEN,
    DUEL,
    FAILURE,
    SOLO,
    TOKENS,
    FakeHub,
    guarded_app,
    open_app,
    solo,
)

HOSTILE = (
    "</pre></td><script>alert(1)</script><img src=x onerror=alert(1)>\" autofocus onfocus='alert(1)' x=\""
    "{{ 7919*7907 }}\x1b[31mred\x1b[0m \u202egnp.exe \u200bhidden \U000e0041\x00\x07\r\x9b\ud800"
)
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\U000e0000-\U000e0fff]"
)
ALLOWED_ATTRIBUTES = {
    "class", "id", "href", "lang", "charset", "name", "content", "nonce", "scope", "role", "tabindex", "title", "dir",
    "datetime", "colspan", "rel", "type", "hidden", "aria-label", "aria-labelledby", "aria-pressed", "aria-current",
    "data-append", "data-poll", "data-total", "http-equiv",
}  # fmt: skip


class Document(HTMLParser):
    """What a page consists of."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.links, self.words = [], set(), [], []
        self.feed(html)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name == "href"]

    def handle_endtag(self, tag):
        if tag in ("dt", "dd", "td", "th", "p", "li", "h1", "h2", "h3", "h4"):
            self.words.append(" ")

    def handle_data(self, data):
        if self.cdata_elem is None:  # no style, no script
            self.words.append(data)


@pytest.fixture
def hub():
    return FakeHub()


@pytest.fixture
def client(hub):
    with TestClient(open_app(hub)) as client:
        yield client


@pytest.fixture
def guarded(hub):
    with TestClient(guarded_app(hub), follow_redirects=False) as client:
        yield client


def read(client, path, status=200):
    response = client.get(path)
    assert response.status_code == status
    return Document(response.text)


def played(hub, steps=3, **options):
    session = hub.session(**options)
    for index in range(1, steps):
        session.add(solo(f"observation {index}", 0.5), {"player": f"action {index}"})
    return session


# -- what the pages say ---------------------------------------------------------------------------------------------


def test_the_index_lists_every_environment_with_its_seats_and_counts_the_sessions(hub, client):
    played(hub, id="s-1")
    played(hub, id="s-2").finish()
    page = read(client, "/")
    assert {f"/environments/{spec.id}" for spec in hub.specs} <= set(page.links)
    assert "1 live session" in page.text
    assert "1 finished" in page.text
    rows = [re.sub(r"\s+", " ", row) for row in page.text.split("Environments that this server offers")[1].split("v0")]
    assert "turns 2 train, test" in rows[2]


def test_the_seats_of_an_environment_are_asked_for_once(hub, client):
    read(client, "/")
    read(client, "/")
    assert [request.env for request in hub.asked] == [DUEL.id]


def test_an_environments_page_shows_declaration_options_seats_tools_and_endings(client):
    text = read(client, f"/environments/{SOLO.id}").text
    for expected in ("out_of_guesses", "max_guesses", "minimum: 1", "Guesses used.", "free_text", "Look at a place."):
        assert expected in text


def test_tasks_are_paged_by_split(client):
    first = read(client, f"/environments/{SOLO.id}")
    assert "range-49" in first.text
    assert "range-50" not in first.text
    assert "?split=train&page=2" in first.links
    last = read(client, f"/environments/{SOLO.id}?split=train&page=3")
    assert "range-119" in last.text
    assert "1 task of the split test" in read(client, f"/environments/{SOLO.id}?split=test").text


def test_an_environment_that_cannot_be_described_shows_its_declaration_and_why(client):
    text = read(client, f"/environments/{BROKEN.id}").text
    assert "nowhere" in text
    assert text.count("it failed") == 2


def test_live_and_finished_sessions_stand_in_their_tables(hub, client):
    played(hub, id="live")
    played(hub, id="lost").finish(error=FAILURE)
    page = read(client, "/sessions")
    live, finished = page.text.split("Finished not long ago")
    assert ("live" in live, "lost" in live) == (True, False)
    assert ("ENV" in finished, "failed" in finished) == (True, True)
    assert "/sessions/live?page=last" in page.links
    assert "/sessions/lost" in page.links


def test_the_list_of_live_sessions_is_paged(hub, client):
    for number in range(130):
        hub.session(f"s-{number:03}")
    first, second = read(client, "/sessions"), read(client, "/sessions?page=2&fragment=1")
    shown = [set(re.findall(r"s-\d{3}", page.text)) for page in (first, second)]
    assert [len(ids) for ids in shown] == [100, 30]
    assert not shown[0] & shown[1]


def test_a_transcript_shows_actions_rewards_times_usage_limits_and_the_verdict(hub, client):
    session = hub.session()
    call = ToolCall("look", {"place": "under\nthe bed", "deep": {"far": 1}})
    session.add(
        solo("You see a lamp.", 0.25, legal=("take lamp",), odds=3), {"player": call}, env_s=0.0125,
        agent_s={"player": 2.5}, usage=Usage(1200, 34, 0.002, 1), decisions={"player": {"reasoning": "because"}},
    )  # fmt: skip
    session.add(solo("done", -1.0, ending="guessed"), {"player": 3}, limit=Limit("steps", 2, 2))
    session.finish()
    text = re.sub(r"\s+", " ", read(client, "/sessions/s-1").text)
    for expected in (
        "action: tool call, decided in 2.5 s look place under the bed", '"far": 1', "You see a lamp.", "reward +0.25",
        "1 legal action", "take lamp", '"odds": 3', "because", "environment 12.5 ms", "1,200 tokens in, 34 out, $0.002",
        "action: choice 3", "reward -1", "terminated: guessed", "Limit reached: steps, 2 of 2", "1 (solved)",
        "Refused actions 1", "0" * 31 + "2",
    ):  # fmt: skip
        assert expected in text


def test_a_transcript_of_several_seats_says_who_acted_and_what_each_saw(hub, client):
    session = hub.session(env=DUEL.id, seats=("left", "right"))
    for_both = {"left": transition("for left", 1.0), "right": transition("for right", -1.0)}
    session.add(TimeStep(for_both, ("right",)), {"left": "go"})
    session.add(TimeStep({"left": termination("alone", 0.0, ending="done")}), {"left": "on"})
    text = re.sub(r"\s+", " ", read(client, "/sessions/s-1").text)
    assert "acted: left" in text
    assert re.search(r"left left.s action: text go left sees for left reward \+1 .*right right sees for right", text)
    assert "right sees for right reward -1 acts next" in text
    assert "right sees nothing: its episode had ended before." in text


def test_a_long_transcript_is_paged_and_every_step_has_an_address(hub, client):
    played(hub, steps=450)
    ids = [re.findall(r'id="step-(\d+)"', client.get(f"/sessions/s-1{query}").text) for query in (
        "", "?page=2", "?page=5", "?page=last", "?step=250", "?page=99", "?step=999999999",
    )]  # fmt: skip
    spans = [(int(found[0]), int(found[-1])) for found in ids]
    assert spans == [(0, 99), (100, 199), (400, 449), (400, 449), (200, 299), (400, 449), (400, 449)]


def test_a_full_page_of_a_live_transcript_says_that_it_goes_on_elsewhere(hub, client):
    session = played(hub, steps=100)
    assert "another page" not in client.get("/sessions/s-1").text
    session.add(solo("one more"), {"player": "go"})
    fragment = client.get("/sessions/s-1?page=1&fragment=1&after=99").text
    assert "The latest steps are on another page." in fragment
    assert "/sessions/s-1?page=2" in fragment


def test_a_fragment_holds_the_new_steps_only_and_says_where_to_ask_next(hub, client):
    session = played(hub, steps=5)
    fragment = client.get("/sessions/s-1?page=1&fragment=1&after=2").text
    assert re.findall(r'id="step-(\d+)"', fragment) == ["3", "4"]
    assert 'data-poll="/sessions/s-1?page=1&amp;fragment=1&amp;after=4"' in fragment
    assert "<html" not in fragment
    session.finish()
    over = client.get("/sessions/s-1?page=1&fragment=1&after=4").text
    assert "data-poll" not in over
    assert "verdict-heading" in over


def test_without_script_a_live_page_reloads_itself_and_a_finished_one_does_not(hub, client):
    session = played(hub)
    refresh = '<noscript><meta http-equiv="refresh"'
    assert refresh in client.get("/sessions").text
    assert refresh in client.get("/sessions/s-1").text
    session.finish()
    assert refresh not in client.get("/sessions/s-1").text


# -- what is hostile ------------------------------------------------------------------------------------------------


def hostile_session(hub):
    session = hub.session("s-hostile", env=DUEL.id, task=HOSTILE, seats=(HOSTILE, "right"), owner=HOSTILE)
    session.header = EpisodeRecord(
        env=HOSTILE, task=Task(HOSTILE), seed=1, options={HOSTILE: HOSTILE}, seats={HOSTILE: AgentRef(HOSTILE)},
        versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    step = transition(HOSTILE, 1.0, legal_actions=(HOSTILE,), **{"key": {HOSTILE: [HOSTILE]}})
    session.add(
        TimeStep({HOSTILE: step, "right": restart({HOSTILE: HOSTILE})}), {HOSTILE: HOSTILE},
        decisions={HOSTILE: {HOSTILE: HOSTILE}},
    )  # fmt: skip
    session.add(
        TimeStep({HOSTILE: termination(HOSTILE, 0.0, ending=HOSTILE)}), {HOSTILE: ToolCall(HOSTILE, {HOSTILE: HOSTILE})}
    )
    return session


@pytest.mark.parametrize("path", ["/sessions", "/sessions/s-hostile", "/sessions/s-hostile?fragment=1"])
@pytest.mark.parametrize("failed", [False, True])
def test_nothing_hostile_becomes_markup_or_stays_hidden(hub, client, path, failed):
    session = hostile_session(hub)
    if failed:
        session.finish(error=FAILURE.__class__(code=HOSTILE, message=HOSTILE))
    html = client.get(path).text
    page = Document(html)
    assert "<script>alert" not in html
    assert not HIDDEN.search(html)
    assert page.tags.count("script") == ("fragment" not in path)
    assert "img" not in page.tags
    assert page.attributes <= ALLOWED_ATTRIBUTES
    assert "{{ 7919*7907 }}" in page.text
    assert "62615533" not in page.text
    assert "U+202E" in page.text
    assert "ESC" in page.text


def test_a_hostile_declaration_is_shown_as_text(hub, client):
    hub.instructions = HOSTILE
    html = client.get(f"/environments/{SOLO.id}").text
    assert "<script>" not in html
    assert not HIDDEN.search(html)
    assert Document(html).attributes <= ALLOWED_ATTRIBUTES


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/nope", "/sessions/..%2f..%2fetc%2fpasswd", "/sessions/%00", "/sessions/%3Cscript%3Ealert(1)",
        "/environments/text/nope-v0", "/environments/..%2f/x", "/environments/%E2%80%AE/x", "/sessions/" + "x" * 5000,
    ],
)  # fmt: skip
def test_unknown_ids_give_a_page_that_says_so(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert "<h1>Not found</h1>" in response.text or response.json() == {"detail": "Not Found"}
    assert "<script>" not in response.text
    assert not HIDDEN.search(response.text)


@pytest.mark.parametrize(
    "query", ["page=x", "page=1e9", "page=" + "9" * 40, "step=%00", "after=-", "page=٣", "step=1;2"]
)
def test_a_number_that_is_none_is_refused_with_what_is_allowed(hub, client, query):
    played(hub)
    page = read(client, f"/sessions/s-1?{query}", 422)
    assert "allowed is a whole number" in page.text


def test_long_texts_are_cut_and_say_so(hub, client):
    hub.session().add(solo("x" * 3_000_000), {"player": "y"})
    response = client.get("/sessions/s-1")
    assert len(response.text) < 100_000
    assert "2,980,000 more characters" in response.text


@pytest.mark.parametrize("said", ["x" * 100_000, "<\x1b" * 50_000, {"grid": [["x" * 1000] * 100] * 100}])
def test_one_page_stays_small_however_much_its_steps_say(hub, client, said):
    session = hub.session()
    for _ in range(199):
        session.add(solo(said), {"player": ToolCall("say", {"it": said, "more": [said] * 100})})
    assert len(client.get("/sessions/s-1").text) < 20_000_000


def test_visible_marks_what_hides_and_keeps_lines():
    assert visible("a\nb\tc") == "a\nb\tc"
    assert visible("<b>&\"'") == "&lt;b&gt;&amp;&#34;&#39;"
    assert visible("\x1b[0m") == '<span class="mark" title="control character U+001B">ESC</span>[0m'
    assert 'title="RIGHT-TO-LEFT OVERRIDE">U+202E<' in visible("\u202e")
    assert ">LF<" in line("a\nb")
    assert len(line("x" * 10_000)) < 300


def test_ordinary_text_of_any_script_is_left_alone():
    text = "naïve café — 日本語 ελληνικά עברית العربية 🙂 a\u0301 ½ “quoted”"
    assert visible(text) == text


def test_values_are_json_with_arrays_in_brief():
    board = np.zeros((84, 84, 3), np.uint8)
    assert value_text({"b": board}) == '{"b": "(uint8 array of shape 84×84×3, from 0 to 0, mean 0)"}'
    assert value_text(Array.of(np.array([[1, 2], [3, 4]]))) == "[[1, 2], [3, 4]]"
    sent = {"type": "array", "dtype": "int64", "shape": [2], "data": np.array([7, 8]).tobytes()}
    assert value_text([sent]) == "[[7, 8]]"
    assert json.loads(value_text({"long": ["item"] * 40}))["long"] == ["item"] * 40
    assert max(map(len, value_text({"long": ["item"] * 40, "deep": [[1.5] * 99] * 3}).splitlines())) <= 96


@pytest.mark.parametrize(
    "array",
    [
        {"type": "array", "dtype": "object", "shape": [1], "data": b"x"},
        {"type": "array", "dtype": "float64", "shape": [-1], "data": b""},
        {"type": "array", "dtype": "int8", "shape": [3], "data": b"x"},
        Array("int8", (3,), b"x"),
    ],
)
def test_an_array_that_is_none_is_shown_as_what_it_is(array):
    assert "array" in value_text(array)


def test_deep_and_endless_values_are_cut():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested deeper" in value_text(deep)
    assert json.loads(value_text([7] * 5000, 800))[-1] == "… 4,900 more"
    assert json.loads(value_text({f"{i:04}": i for i in range(5000)}, 2000))["…"] == "4,900 more"
    assert len(value_text({"x" * 10**6: ["y" * 10**6] * 1000})) < 25_000


def test_an_empty_array_is_shown():
    assert value_text(np.zeros((0, 3))) == "[]"


def test_excerpts_of_a_page_share_a_budget():
    show = Excerpts(each=1000, total=1500)
    lengths = [str(show.text("x" * 5000)).count("x") for _ in range(3)]
    assert lengths == [1000, 500, 200]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 µs"), (0.0003, "300 µs"), (0.25, "250 ms"), (12.34, "12.3 s"), (75, "1 min 15 s"), (7500, "2 h 5 min"),
     (200_000, "2 d 7 h"), (-1, "0 µs")],
)  # fmt: skip
def test_durations_are_in_the_unit_that_suits_them(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("total", "options", "expected"),
    [
        (0, {}, (1, 1, 0, 0)),
        (200, {"number": 2}, (1, 1, 0, 200)),
        (201, {"number": 2}, (2, 2, 200, 201)),
        (450, {"item": 399}, (2, 3, 200, 399 + 1)),
        (450, {"item": 400}, (3, 3, 400, 450)),
        (450, {"item": -5}, (1, 3, 0, 200)),
    ],
)
def test_pages_hold_every_item_once(total, options, expected):
    page = page_at(total, 200, **options)
    assert (page.number, page.pages, page.start, page.stop) == expected


# -- headers and login ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/sessions", "/sessions?fragment=1", "/sessions/nope", "/login", "/sessions/s-1"]
)
def test_every_answer_lets_nothing_else_in(hub, client, guarded, path):
    played(hub)
    for answer in (client.get(path), guarded.get(path)):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for rule in ("connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


def test_the_nonce_is_new_each_time_and_stands_on_style_and_script(client):
    seen = set()
    for _ in range(3):
        response = client.get("/sessions")
        nonce = re.search(r"script-src 'nonce-([^']+)'", response.headers["content-security-policy"]).group(1)
        assert set(re.findall(r'<(?:script|style) nonce="([^"]+)"', response.text)) == {nonce}
        seen.add(nonce)
    assert len(seen) == 3


def test_pages_ask_for_nothing_from_anywhere_else(hub, client):
    played(hub).finish()
    for path in ("/", "/sessions", "/sessions/s-1", f"/environments/{SOLO.id}", "/sessions/nope"):
        html = client.get(path).text
        assert all(link.startswith(("/", "#", "?")) and not link.startswith("//") for link in Document(html).links)
        assert not re.search(r"(src|srcset|action)=\"?(https?:)?//|@import|url\(", html)


@pytest.mark.parametrize("path", ["/", "/sessions", "/sessions/s-1", f"/environments/{SOLO.id}"])
def test_without_a_token_a_browser_is_sent_to_the_login(hub, guarded, path):
    played(hub)
    answer = guarded.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
    assert "s-1" not in answer.text


def test_a_fragment_without_a_token_is_refused_and_not_redirected(guarded):
    assert guarded.get("/sessions?fragment=1").status_code == 401


def test_a_full_or_broken_hub_gives_a_page_with_its_status(hub, client, monkeypatch):
    def view(error):
        async def fail(*_):
            raise error

        monkeypatch.setattr(hub, "view", fail)
        return client.get("/sessions/s-1")

    full = view(CapacityError("the server is full", retry_after_s=7.9))
    assert (full.status_code, full.headers["retry-after"]) == (429, "7")
    assert view(SessionGoneError("it was reaped")).status_code == 410
    broken = view(EnvError("it failed <b>"))
    assert broken.status_code == 502
    assert "it failed &lt;b&gt;" in broken.text


def test_a_bearer_token_with_the_scope_opens_the_pages_without_a_login(guarded):
    assert guarded.get("/", headers={"Authorization": "Bearer good-token"}).status_code == 200
    assert guarded.get("/", headers={"Authorization": "Bearer player-token"}).status_code == 403
    assert guarded.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 303


def test_logging_in_sets_a_strict_cookie_that_is_not_the_token_and_opens_the_page(hub, guarded):
    played(hub)
    answer = guarded.post("/login", data={"token": "good-token", "next": "/sessions/s-1"})
    cookie = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions/s-1")
    assert "good-token" not in cookie
    for rule in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age="):
        assert rule in cookie
    assert "Secure" not in cookie
    page = guarded.get("/sessions/s-1")
    assert page.status_code == 200
    assert 'action="/logout"' in page.text


def test_over_https_the_cookie_is_secure(hub):
    with TestClient(guarded_app(hub), base_url="https://testserver", follow_redirects=False) as client:
        assert "Secure" in client.post("/login", data={"token": "good-token"}).headers["set-cookie"]


@pytest.mark.parametrize(("token", "status"), [("wrong", 401), ("", 401), ("player-token", 403), (HOSTILE[:40], 401)])
def test_a_token_that_does_not_do_gives_the_form_again_and_no_cookie(guarded, token, status):
    answer = guarded.post("/login", data={"token": token})
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers
    assert not token or token not in answer.text.replace("bearer token", "")


def test_logging_out_takes_the_cookie_away(guarded):
    guarded.post("/login", data={"token": "good-token"})
    assert guarded.get("/").status_code == 200
    assert guarded.post("/logout", data={"x": "1"}).headers["location"] == "/login"
    assert guarded.get("/").status_code == 303


def test_a_cookie_that_was_logged_out_opens_nothing_any_more(guarded):
    cookie = guarded.post("/login", data={"token": "good-token"}).cookies[COOKIE]
    guarded.post("/logout", data={"x": "1"})
    assert guarded.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 303


@pytest.mark.parametrize("cookie", ["", "good-token", "x", "é", "\x00", "x" * 10_000])
def test_only_a_cookie_that_was_given_out_opens_the_pages(guarded, cookie):
    guarded.post("/login", data={"token": "good-token"})
    guarded.cookies.clear()
    assert guarded.get("/", headers={"Cookie": f"{COOKIE}={cookie}".encode()}).status_code == 303


def test_a_login_ends_with_its_token(guarded, monkeypatch):
    guarded.post("/login", data={"token": "good-token"})
    assert guarded.get("/").status_code == 200
    with monkeypatch.context() as patch:
        patch.setitem(TOKENS, "good-token", Principal("ada", frozenset({"play"})))
        assert guarded.get("/").status_code == 403
        patch.delitem(TOKENS, "good-token")
        assert guarded.get("/").status_code == 303
    assert guarded.get("/").status_code == 303


def test_one_login_too_many_ends_the_oldest(hub):
    with TestClient(guarded_app(hub, most=2), follow_redirects=False) as client:
        cookies = []
        for _ in range(3):
            cookies.append(client.post("/login", data={"token": "good-token"}).cookies[COOKIE])
            client.cookies.clear()
        found = [client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code for cookie in cookies]
    assert found == [303, 200, 200]


def test_a_login_expires(hub):
    now = [1000.0]
    with TestClient(guarded_app(hub, lifetime_s=60, clock=lambda: now[0]), follow_redirects=False) as client:
        value = client.post("/login", data={"token": "good-token"}).cookies[COOKIE]
        cookie = {"Cookie": f"{COOKIE}={value}"}
        now[0] = 1059.0
        assert client.get("/", headers=cookie).status_code == 200
        now[0] = 1060.0
        client.cookies.clear()
        assert client.get("/", headers=cookie).status_code == 303


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "/sessions/../../x?y",
        "javascript:alert(1)",
        "/\n/x",
    ],
)
def test_a_login_leads_to_these_pages_only(guarded, target):
    answer = guarded.post("/login", data={"token": "good-token", "next": target})
    assert answer.headers["location"] == "/"
    assert target not in guarded.get("/login", params={"next": target}).text


def test_a_form_of_another_site_is_refused(guarded):
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert guarded.post("/login", data={"token": "good-token"}, headers=foreign).status_code == 403
    guarded.post("/login", data={"token": "good-token"})
    assert guarded.post("/logout", data={"x": "1"}, headers=foreign).status_code == 403
    assert guarded.get("/").status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"token=" + b"x" * 10_000, "application/x-www-form-urlencoded", 413),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 422),
        (b"&".join(b"a=1" for _ in range(50)), "application/x-www-form-urlencoded", 422),
        (b'{"token": "good-token"}', "application/json", 422),
        (b"token=good-token", "text/plain", 422),
    ],
)
def test_a_form_that_is_none_is_refused(guarded, content, kind, status):
    answer = guarded.post("/login", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


def test_where_anybody_may_look_the_login_leads_to_the_index(client):
    answer = client.get("/login", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


# -- what everybody can use -----------------------------------------------------------------------------------------


def contrast(one, other):
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_its_ground_in_both_schemes(client, scheme):
    palettes = re.findall(r":root \{([^}]*)\}", client.get("/").text)
    assert len(palettes) == 2
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", palettes[scheme]))
    for text in ("text", "muted", "accent", "good", "bad", "warn"):
        for ground in ("ground", "panel", "action"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["mark"], colours["mark-ground"]) >= 4.5
