"""`/retrieve`: Search-R1's shape, its limits, and what happens when a search goes wrong."""

import asyncio
import contextlib
import errno
import json
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from arena.errors import ArenaError, ConfigError
from arena.registry import make_retriever
from arena.server import connections
from arena.server.access import Caller, Principal
from arena.server.metrics import Metrics
from arena.server.retrieve.corpora import Retrieval, corpus_names
from arena.server.retrieve.endpoint import RetrieveEndpoint
from arena.server.settings import ServerSettings
from arena.server.tokens import add_token
from tests.arena.server.harness import REPOSITORY, ServerProcess, wait_until
from tests.serving import running_server

TOYS = {
    "imports": ["tests.arena.served", "tests.arena.server.harness_envs", "tests.arena.server.harness_retrievers"],
    "envs": ["text/guess-v0"],
    "workers": 1,
    "corpora": [["toys", "test/toy"], ["others", "test/elsewhere"]],
}
SECRET = "xylophone"


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A server with two corpora."""
    server = ServerProcess(tmp_path_factory.mktemp("toys"), **TOYS).start()
    yield server
    assert server.stop() == 0
    assert server.left_behind() == []


def post(server, body, path="/retrieve", **options):
    return httpx.post(f"{server.url}{path}", json=body, timeout=60, **options)


def refused(response, status, code):
    """Check that a request was refused as every route refuses, in one line, and return the line."""
    assert response.status_code == status, response.text
    assert response.json()["type"] == "error"
    error = response.json()["error"]
    assert error["code"] == code
    assert "\n" not in error["message"]
    return error["message"]


@contextlib.contextmanager
def held(server, name="gate"):
    """Searches for ``hold NAME`` end when this does."""
    gate = server.temporary / name
    gate.mkdir()
    try:
        yield gate / "begun"
    finally:
        shutil.rmtree(gate, ignore_errors=True)


# -- Search-R1's clients --------------------------------------------------------------------------------------------


def search_r1(url, queries, topk=3):
    """What Search-R1's clients do: post, take the result, and write the passages as text for the model."""
    payload = {"queries": queries, "topk": topk, "return_scores": True}
    request = urllib.request.Request(url, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        results = json.load(response)["result"]
    return [passages_text(result) for result in results]


def passages_text(result):
    lines = []
    for number, item in enumerate(result, 1):
        title, *rest = item["document"]["contents"].split("\n")
        lines.append(f"Doc {number}(Title: {title}) {chr(10).join(rest)}\n")
    return "".join(lines)


def test_a_client_of_search_r1_works(toys):
    assert search_r1(f"{toys.url}/retrieve", ["tea", "salt"], topk=2) == [
        'Doc 1(Title: "toys 0") What is known of tea.\nDoc 2(Title: "toys 1") What is known of tea.\n',
        'Doc 1(Title: "toys 0") What is known of salt.\nDoc 2(Title: "toys 1") What is known of salt.\n',
    ]


def test_it_works_with_the_real_index_as_arena_serve_starts_it(tmp_path, monkeypatch):
    corpus = tmp_path / "plants"
    corpus.mkdir()
    documents = [
        ("tea", "Made from leaves."),
        ("oak", "The oak has leaves and acorns."),
        ("ice", "Cold."),
    ]
    lines = [{"id": f"p{n}", "contents": f'"{title}"\n{text}'} for n, (title, text) in enumerate(documents)]
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("ARENA_SEARCH_DATA", str(tmp_path))
    with running_server("--corpus", "plants", "--env", "text/guess-v0", "--workers", "1") as url:
        assert search_r1(f"{url}/retrieve", ["acorns"]) == ['Doc 1(Title: "oak") The oak has leaves and acorns.\n']
        given = {"queries": ["leaves of an oak", "zzz"], "topk": 2, "return_scores": True}
        answer = httpx.post(f"{url}/retrieve/plants", json=given).json()["result"]
    retriever = make_retriever("bm25", {"corpus": "plants"})
    retriever.open()
    expected = retriever.search(given["queries"], 2)
    retriever.close()
    assert [[(hit["document"]["id"], hit["score"]) for hit in hits] for hits in answer] == [
        [(hit.document.id, pytest.approx(hit.score)) for hit in hits] for hits in expected
    ]
    assert answer[0][0] == {"document": lines[1], "score": pytest.approx(expected[0][0].score)}
    assert answer[1] == []


# -- the shape ------------------------------------------------------------------------------------------------------


def test_with_scores_and_without(toys):
    document = {"id": "0", "contents": '"toys 0"\nWhat is known of tea.'}
    asked = {"queries": ["tea"], "topk": 1}
    assert post(toys, {**asked, "return_scores": True}).json() == {"result": [[{"document": document, "score": 1.0}]]}
    assert post(toys, {**asked, "return_scores": False}).json() == {"result": [[document]]}
    assert post(toys, asked).json() == {"result": [[document]]}


@pytest.mark.parametrize("more", [{}, {"topk": None}, {"return_scores": False}, {"unknown": 1}])
def test_what_is_left_out_has_the_defaults_of_search_r1(toys, more):
    (found,) = post(toys, {"queries": ["tea"], **more}).json()["result"]
    assert [document["id"] for document in found] == ["0", "1", "2"]


def test_no_query_has_no_answer(toys):
    assert post(toys, {"queries": []}).json() == {"result": []}


def test_an_odd_query_is_a_query(toys):
    queries = ["", " ", "é ☃ \U0001f600", '"\\', "\0"]
    answer = post(toys, {"queries": queries, "topk": 1}).json()["result"]
    assert [hits[0]["contents"].partition("\n")[2] for hits in answer] == [f"What is known of {q}." for q in queries]


def test_the_most_that_is_allowed(toys):
    for queries in ([f"{number}".ljust(128, "x") for number in range(4096)], ["x" * 4000] * 131):
        result = post(toys, {"queries": queries, "topk": 1}).json()["result"]
        texts = [hits[0]["contents"].partition("\n")[2] for hits in result]
        assert texts == [f"What is known of {query}." for query in queries]
    (most,) = post(toys, {"queries": ["tea"], "topk": 100}).json()["result"]
    assert [document["id"] for document in most] == [str(rank) for rank in range(100)]


def test_the_first_corpus_or_one_by_name(toys):
    def title(path):
        return post(toys, {"queries": ["tea"], "topk": 1}, path).json()["result"][0][0]["contents"].split("\n")[0]

    titles = [title(path) for path in ("/retrieve", "/retrieve/", "/retrieve/toys", "/retrieve/others")]
    assert titles == ['"toys 0"', '"toys 0"', '"toys 0"', '"others 0"']


def test_the_list_of_corpora(toys):
    one = {"name": "toys", "retriever": "test/toy", "documents": 1000}
    other = {"name": "others", "retriever": "test/elsewhere", "documents": 1000}
    assert httpx.get(f"{toys.url}/retrieve").json() == {"corpora": [one, other]}
    assert httpx.get(f"{toys.url}/retrieve/others").json() == {"corpora": [other]}


def test_the_schema_names_the_paths_that_are_there(toys, server):
    paths = httpx.get(f"{toys.url}/openapi.json").json()["paths"]
    assert {path for path in paths if "retrieve" in path} == {"/retrieve", "/retrieve/toys", "/retrieve/others"}
    assert not [path for path in httpx.get(f"{server.url}/openapi.json").json()["paths"] if "retrieve" in path]


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({}, "queries"),
        ([], "object"),
        ({"queries": "tea"}, "array"),
        ({"queries": [1]}, "$.queries[0]"),
        ({"queries": [None]}, "$.queries[0]"),
        ({"queries": ["tea"], "topk": "3"}, "$.topk"),
        ({"queries": ["tea"], "topk": 2.5}, "$.topk"),
        ({"queries": ["tea"], "topk": True}, "$.topk"),
        ({"queries": ["tea"], "topk": 0}, "1 to 100"),
        ({"queries": ["tea"], "topk": 101}, "1 to 100"),
        ({"queries": ["tea"], "topk": 10**30}, "1 to 100"),
        ({"queries": ["tea"], "return_scores": "yes"}, "$.return_scores"),
        ({"queries": ["tea"] * 4097}, "at most 4096"),
        ({"queries": ["tea"] * 1025, "topk": 50}, "50 documents for each of 1025 queries; at most 51200"),
        ({"queries": ["tea", "x" * 4001]}, "query 1 has 4001 characters; at most 4000"),
        ({"queries": ["tea", "a " * 513]}, "query 1 has more than 512 words"),
        (
            {"queries": ["a " * 512] * 513},
            "525312 characters together; at most 524288 are allowed in one request: send",
        ),
    ],
)
def test_what_is_wrong_or_too_much_is_said_in_one_line(toys, body, hint):
    assert hint in refused(post(toys, body), 422, "USAGE")


NO_JSON = [b"", b"{", b"\xff", b'{"queries": ["\xff"]}', b'{"queries": ["\\ud800"]}', b"[" * 5000]


@pytest.mark.parametrize("body", NO_JSON)
def test_what_is_no_json_is_refused(toys, body):
    assert refused(httpx.post(f"{toys.url}/retrieve", content=body), 422, "USAGE")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda v: st.lists(v, max_size=3)
)


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional={key: json_values for key in ("queries", "topk", "return_scores")}))
def test_whatever_is_sent_is_answered_or_refused(toys, body):
    response = httpx.post(f"{toys.url}/retrieve", content=json.dumps(body), timeout=60)
    if response.status_code == 200:
        wanted = body.get("topk") or 3
        assert [len(hits) for hits in response.json()["result"]] == [wanted] * len(body["queries"])
    else:
        assert refused(response, 422, "USAGE")


def test_a_corpus_that_is_not_there(toys, server):
    line = refused(post(toys, {"queries": ["tea"]}, "/retrieve/toy"), 404, "UNKNOWN_ID")
    assert "did you mean 'toys'" in line
    for response in (post(server, {"queries": ["tea"]}), httpx.get(f"{server.url}/retrieve")):
        assert "arena serve --corpus NAME" in refused(response, 404, "UNKNOWN_ID")


def test_a_path_that_only_begins_so_is_not_this_one(toys):
    assert "there is nothing here" in refused(post(toys, {"queries": ["tea"]}, "/retrievers"), 404, "UNKNOWN_ID")


def test_another_method_is_not_allowed(toys):
    response = httpx.put(f"{toys.url}/retrieve", json={})
    refused(response, 405, "USAGE")
    assert response.headers["allow"] == "GET, HEAD, POST"
    head = httpx.head(f"{toys.url}/retrieve")
    assert (head.status_code, head.content) == (200, b"")


def test_it_wants_the_server_s_token_and_obeys_its_limit(serve, tmp_path):
    file = tmp_path / "tokens"
    secret = add_token(file, "alice", ["play"])
    server = serve(**TOYS, token_file=str(file), max_message_bytes=2048)
    for headers in ({}, {"authorization": "Bearer arena_" + "x" * 43}):
        refused(post(server, {"queries": ["tea"]}, headers=headers), 401, "UNAUTHORIZED")
        refused(httpx.get(f"{server.url}/retrieve", headers=headers), 401, "UNAUTHORIZED")
    mine = {"authorization": f"Bearer {secret}"}
    assert len(post(server, {"queries": ["tea"]}, headers=mine).json()["result"]) == 1
    refused(post(server, {"queries": ["x" * 1500] * 2}, headers=mine), 413, "TOO_LARGE")
    created = {"env": "text/guess-v0", "key": "a-session-for-an-agent"}
    capability = post(server, created, "/v1/sessions", headers=mine).json()["capability"]
    for headers in ({"arena-session": capability}, {"authorization": f"Bearer {capability}"}):
        refused(post(server, {"queries": ["tea"]}, headers=headers), 401, "UNAUTHORIZED")


def test_a_page_of_another_site_may_not_ask(toys):
    refused(post(toys, {"queries": ["tea"]}, headers={"origin": "https://elsewhere.example"}), 403, "FORBIDDEN")


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_search_that_fails_is_a_bad_gateway_and_the_next_one_is_not(toys):
    before = toys.metric("arena_retrieve_failures_total", corpus="toys", code="ENV")
    assert refused(post(toys, {"queries": ["tea", "fail"]}), 502, "ENV") == "the toys are broken"
    assert refused(post(toys, {"queries": [f"crash {SECRET}"]}), 502, "ENV") == "the search failed: KeyError"
    assert "1 queries with 0 lists" in refused(post(toys, {"queries": ["short"]}), 502, "ENV")
    assert post(toys, {"queries": ["tea"]}).status_code == 200
    assert toys.metric("arena_retrieve_failures_total", corpus="toys", code="ENV") == before + 3


def test_one_request_s_mistake_is_not_that_of_others_in_its_batch(toys):
    with ThreadPoolExecutor(40) as pool, held(toys) as begun:
        first = pool.submit(post, toys, {"queries": ["hold gate"]})
        wait_until(begun.exists)
        good = [pool.submit(post, toys, {"queries": [f"tea {number}"]}) for number in range(20)]
        bad = pool.submit(post, toys, {"queries": ["crash"]})
        shutil.rmtree(begun.parent)
        assert [future.result().status_code for future in (first, *good, bad)] == [200] * 21 + [502]


def test_a_process_that_dies_costs_the_others_a_delay(toys):
    with ThreadPoolExecutor(16) as pool:
        good = [pool.submit(post, toys, {"queries": [f"tea {number}"] * 20}) for number in range(12)]
        bad = pool.submit(post, toys, {"queries": ["die"]})
        good += [pool.submit(post, toys, {"queries": [f"salt {number}"] * 20}) for number in range(12)]
        assert "has died" in refused(bad.result(), 502, "ENV")
        assert [future.result().status_code for future in good] == [200] * 24
    toys.remember()


def test_the_log_holds_no_query(toys):
    for query in (SECRET, f"fail {SECRET}", f"crash {SECRET}"):
        post(toys, {"queries": [query]})
        post(toys, {"queries": [query], "topk": SECRET})
    log = toys.log.read_text()
    assert "KeyError at" in log
    assert SECRET not in log


def test_queries_and_seconds_are_counted(toys):
    names = ("arena_retrieve_queries_total", "arena_retrieve_seconds_count", "arena_retrieve_seconds_bucket")
    before = [toys.metric(name, corpus="others") for name in names]
    post(toys, {"queries": ["tea", "salt", "tin"]}, "/retrieve/others")
    queries, requests, bucket = (toys.metric(name, corpus="others") for name in names)
    assert (queries, requests) == (before[0] + 3, before[1] + 1)
    assert bucket > before[2]


# -- many at once ---------------------------------------------------------------------------------------------------


def test_each_of_64_clients_gets_its_own_answers(toys):
    def ask(number):
        queries = [f"{number} {position}" for position in range(number % 20 + 1)]
        with httpx.Client(timeout=60) as client:
            for _ in range(3):
                body = {"queries": queries, "topk": number % 5 + 1, "return_scores": number % 2 == 0}
                result = client.post(f"{toys.url}/retrieve", json=body).json()["result"]
                for query, hits in zip(queries, result, strict=True):
                    documents = [hit["document"] if number % 2 == 0 else hit for hit in hits]
                    assert [one["id"] for one in documents] == [str(rank) for rank in range(number % 5 + 1)]
                    assert all(one["contents"].endswith(f"What is known of {query}.") for one in documents)

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(ask, range(64)))


def test_a_slow_search_keeps_nobody_else_waiting(toys):
    with ThreadPoolExecutor(1) as pool, held(toys) as begun:
        slow = pool.submit(post, toys, {"queries": ["hold gate"]})
        wait_until(begun.exists)
        assert post(toys, {"queries": ["tea"]}, "/retrieve/others").status_code == 200
        session = post(toys, {"env": "text/guess-v0", "task": "range-8", "key": "beside-a-search"}, "/v1/sessions")
        capability = {"arena-session": session.json()["capability"]}
        step = {"index": 1, "actions": {"player": "4"}}
        path = f"/v1/sessions/{session.json()['session']}/steps"
        assert post(toys, step, path, headers=capability).status_code == 200
        assert not slow.done()
    assert slow.result().status_code == 200


def test_a_retriever_that_asks_another_server_waits_for_several_answers_at_once(toys):
    with ThreadPoolExecutor(1) as pool, held(toys) as begun:
        slow = pool.submit(post, toys, {"queries": ["hold gate"]}, "/retrieve/others")
        wait_until(begun.exists)
        assert post(toys, {"queries": ["tea"]}, "/retrieve/others").status_code == 200
        assert not slow.done()
    assert slow.result().status_code == 200


# -- the server's end -----------------------------------------------------------------------------------------------


def test_requests_in_flight_are_answered_when_the_server_stops(serve):
    server = serve(**TOYS)
    with ThreadPoolExecutor(4) as pool, held(server) as begun:
        slow = [pool.submit(post, server, {"queries": ["hold gate"]}) for _ in range(4)]
        wait_until(begun.exists)
        wait_until(lambda: server.metric("arena_retrieve_open", corpus="toys") == 4)
        ended = threading.Thread(target=server.stop)
        ended.start()
        wait_until(lambda: "draining" in server.log.read_text())
        shutil.rmtree(begun.parent)
        assert [future.result().status_code for future in slow] == [200] * 4
        ended.join()
    assert server.process.returncode == 0


def test_a_search_that_does_not_end_does_not_keep_the_server(serve):
    server = serve(**{**TOYS, "drain_s": 0.2})
    with ThreadPoolExecutor(1) as pool, held(server) as begun:
        slow = pool.submit(post, server, {"queries": ["hold gate"]})
        wait_until(begun.exists)
        assert server.stop() == 0
        assert slow.exception() is not None or slow.result().status_code >= 500
    assert server.left_behind() == []


# -- the beginning --------------------------------------------------------------------------------------------------


def test_the_names_of_corpora():
    assert corpus_names([]) == ()
    assert corpus_names(["facts", "wiki-18=dense"]) == (("facts", "bm25"), ("wiki-18", "dense"))


@pytest.mark.parametrize("text", ["", "=", "=bm25", "Wiki", "../wiki", "wiki=", "-x", "a b"])
def test_what_is_no_name_of_a_corpus(text):
    with pytest.raises(ConfigError, match="--corpus is NAME or NAME=RETRIEVER"):
        corpus_names([text])


def test_a_corpus_given_twice():
    with pytest.raises(ConfigError, match="twice"):
        corpus_names(["wiki", "wiki=dense"])


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("nowhere=test/toy", "there is no corpus 'nowhere' here"),
        ("lacking=test/toy", "pip install toys"),
        ("toys=test/tiy", "no retriever 'test/tiy' (did you mean 'test/toy'"),
        ("Wiki", "--corpus is NAME"),
    ],
)
def test_a_corpus_that_cannot_be_searched_ends_arena_serve(option, line):
    command = [sys.executable, "-c", "from arena.cli import main; main()", "serve", "--port", "0", "--workers", "1"]
    options = ["--import", "tests.arena.server.harness_retrievers", "--env", "text/guess-v0", "--corpus", option]
    done = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


# -- queues, in this process ----------------------------------------------------------------------------------------


class Asked:
    """A request to the endpoint, without a network."""

    def __init__(self, endpoint, queries):
        self.sent, self.gone = [], asyncio.Event()
        self._body = msgspec.json.encode({"queries": queries})
        scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": []}
        self.task = asyncio.create_task(endpoint(scope, self._receive, self._send))

    async def _receive(self):
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.sent.append(message)

    async def status(self):
        await self.task
        return self.sent[0]["status"] if self.sent else None

    def header(self, name):
        return dict(self.sent[0]["headers"]).get(name)


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A search for ``hold gate`` ends when this folder is removed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


@contextlib.asynccontextmanager
async def searching(**options):
    """Yield an endpoint and its corpus."""
    imports = ("tests.arena.server.harness_retrievers",)
    chosen = ServerSettings(corpora=(("toys", "test/toy"),), imports=imports, **options)
    retrieval = Retrieval(chosen, Metrics())
    await retrieval.start()
    me = Principal("me", frozenset({"play"}))
    try:
        yield RetrieveEndpoint(retrieval, lambda scope: Caller(me)), retrieval.corpus(None)
    finally:
        await retrieval.stop()


async def begun(gate):
    while not (gate / "begun").exists():
        await asyncio.sleep(0.005)


def waits(corpus):
    """Return how many queries of a corpus wait."""
    return sum(request.waiting for queue in corpus._queues.values() for request in queue)


async def queued(corpus, count):
    while waits(corpus) < count:
        await asyncio.sleep(0.005)


async def sent(corpus, count):
    while sum(process.load for process in corpus._processes) < count:
        await asyncio.sleep(0.005)


def test_more_than_fits_is_told_to_come_again(gate, monkeypatch):
    monkeypatch.setattr("arena.server.retrieve.corpus._MOST_WAITING", 60)

    async def run():
        async with searching() as (endpoint, corpus):
            first = Asked(endpoint, ["hold gate"])
            await begun(gate)
            ahead = Asked(endpoint, ["tea"])
            await sent(corpus, 2)
            patient = [Asked(endpoint, ["tea"] * 20) for _ in range(3)]
            await queued(corpus, 60)
            refused = Asked(endpoint, ["tea"] * 20)
            assert await refused.status() == 503
            assert int(refused.header(b"retry-after")) >= 1
            assert msgspec.json.decode(refused.sent[1]["body"])["error"]["code"] == "CAPACITY_REACHED"
            gate.rename(gate.with_name("open"))
            assert [await one.status() for one in (first, ahead, *patient)] == [200] * 5
            assert await Asked(endpoint, ["tea"] * 20).status() == 200

    asyncio.run(run())


def test_a_client_that_has_gone_leaves_nothing_to_do(gate, monkeypatch):
    monkeypatch.setattr("arena.server.retrieve.endpoint._UNWATCHED_S", 0.01)

    async def run():
        async with searching() as (endpoint, corpus):
            first = Asked(endpoint, ["hold gate"])
            await begun(gate)
            others = [Asked(endpoint, ["tea"] * 100) for _ in range(3)]
            await queued(corpus, 200)
            for one in others:
                one.gone.set()
            assert [await one.status() for one in others] == [None] * 3
            assert (waits(corpus), corpus._waiting, corpus._queues) == (0, 0, {})
            gate.rename(gate.with_name("open"))
            assert await first.status() == 200
            assert await Asked(endpoint, ["tea"]).status() == 200

    asyncio.run(run())


def test_a_request_that_takes_too_long_is_given_up(gate, monkeypatch):
    monkeypatch.setattr("arena.server.retrieve.endpoint._UNWATCHED_S", 0.01)

    async def run():
        async with searching(step_timeout_s=1.0) as (endpoint, corpus):
            slow, behind = Asked(endpoint, ["hold gate"]), Asked(endpoint, ["tea"] * 100)
            assert [await slow.status(), await behind.status()] == [502, 502]
            assert (waits(corpus), corpus._waiting) == (0, 0)
            gate.rename(gate.with_name("open"))
            while not corpus._processes:  # the one that did not answer has been killed
                await asyncio.sleep(0.005)
            assert await Asked(endpoint, ["tea"]).status() == 200

    asyncio.run(run())


def test_many_queries_of_one_do_not_keep_another_with_few_waiting(gate):
    async def run():
        async with searching() as (endpoint, corpus):
            first = Asked(endpoint, ["hold gate"])
            await begun(gate)
            many = Asked(endpoint, ["tea"] * 512)
            await queued(corpus, 500)
            few = Asked(endpoint, ["tea"])
            await queued(corpus, 501)
            gate.rename(gate.with_name("open"))
            await asyncio.wait([many.task, few.task], return_when=asyncio.FIRST_COMPLETED)
            assert few.task.done()
            assert not many.task.done()
            assert [await one.status() for one in (first, many, few)] == [200] * 3
            assert len(msgspec.json.decode(many.sent[1]["body"])["result"]) == 512

    asyncio.run(run())


def test_every_number_of_documents_has_its_turn(gate):
    async def run():
        async with searching() as (_, corpus):
            requests = [corpus.submit([f"tea {n}"] * (n % 7 + 1), n % 6 + 1, False) for n in range(60)]
            for number, request in enumerate(requests):
                result = msgspec.json.decode(await request.answer)["result"]
                assert [len(hits) for hits in result] == [number % 6 + 1] * (number % 7 + 1)
            assert corpus._queues == {}

    asyncio.run(run())


def test_two_processes_search_one_corpus(gate):
    async def run():
        async with searching(corpus_workers=2) as (endpoint, _):
            slow = Asked(endpoint, ["hold gate"])
            await begun(gate)
            assert await Asked(endpoint, ["tea"]).status() == 200
            assert not slow.task.done()
            gate.rename(gate.with_name("open"))
            assert await slow.status() == 200

    asyncio.run(run())


def test_what_waits_when_it_stops_fails(gate):
    async def run():
        async with searching() as (_, corpus):
            held, behind = corpus.submit(["hold gate"], 1, False), corpus.submit(["tea"] * 100, 1, False)
            await begun(gate)
        for request in (held, behind):
            with pytest.raises(ArenaError, match="the server stops"):
                await request.answer

    asyncio.run(run())


def test_a_client_that_takes_nothing_of_its_answer_is_let_go(monkeypatch):
    monkeypatch.setattr(connections, "PEER_S", 12)

    async def run():
        loop = asyncio.get_running_loop()
        lost = loop.create_future()

        class Watched(connections.GuardedHttp):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                lost.set_result(exc)

        async with searching() as (endpoint, _):
            config = uvicorn.Config(endpoint, log_config=None, ws="none")
            config.load()
            listening = await loop.create_server(lambda: Watched(config, ServerState(), {}), "127.0.0.1", 0)
            body = msgspec.json.encode({"queries": ["x" * 256] * 512, "topk": 100})  # its answer has 16 MB
            head = f"POST /retrieve HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
            with socket.create_connection(listening.sockets[0].getsockname()) as client:
                await asyncio.to_thread(client.sendall, head.encode() + body)
                why = await asyncio.wait_for(lost, 120)
            listening.close()
        assert why.errno == errno.ETIMEDOUT

    asyncio.run(run())


def test_a_crowd_that_connects_at_once_is_let_in(toys):
    request = b"GET /retrieve HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", toys.port))) for _ in range(300)]
        for one in crowd:
            one.sendall(request)
        assert all(one.recv(15).startswith(b"HTTP/1.1 200") for one in crowd)
