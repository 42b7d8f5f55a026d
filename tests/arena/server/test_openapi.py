"""The HTTP API does what its OpenAPI schema says, for what fits the schema and for what does not."""

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

from arena.server import http
from tests.arena.server.harness import ServerProcess

load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A server of its own: what schemathesis creates must not fill another test's."""
    server = ServerProcess(tmp_path_factory.mktemp("attacked"), max_sessions=200, lease_s=5.0, keep_traces=20).start()
    yield server
    assert server.stop() == 0
    assert server.left_behind() == []


@pytest.fixture(scope="module")
def operations(attacked):
    schema = schemathesis.openapi.from_url(f"{attacked.url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return {f"{operation.method} {operation.path}": operation for operation in found}


def declared():
    """Every operation with what fits it, and with what does not where it takes more than text in its path."""
    app = FastAPI()
    app.include_router(http.routes(None, None))
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield pytest.param(f"{method} {path}", GenerationMode.POSITIVE, id=f"{method} {path}, fitting")
            if "requestBody" in operation or any(one["in"] == "query" for one in operation["parameters"]):
                yield pytest.param(f"{method} {path}", GenerationMode.NEGATIVE, id=f"{method} {path}, not fitting")


@pytest.mark.parametrize(("name", "mode"), list(declared()))
def test_every_answer_is_one_that_the_schema_promises(name, mode, operations):
    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operations[name].as_strategy(generation_mode=mode))
    def answered(case):
        if case.query:
            case.query.pop("wait_s", None)  # it makes the server wait, as asked
        response = case.call_and_validate(checks=CHECKS, timeout=60)
        if response.status_code >= 400:
            assert response.json()["error"]["code"]

    answered()


def test_it_still_serves_afterwards(attacked):
    created = httpx.post(f"{attacked.url}/v1/sessions", json={"env": "text/guess-v0", "key": "still-there"}, timeout=30)
    assert created.status_code == 201, created.text
