import io
import json
import logging
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import ConfigError
from arena.server.access import Capabilities, Grant
from arena.server.logs import configure_logs, log_context, redact

TOKEN = "arena_" + secrets.token_urlsafe(32)
NAMES = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")
CAPABILITIES = Capabilities(b"k" * 32)


@pytest.fixture(autouse=True)
def _as_before():
    loggers = [logging.getLogger(name) for name in ("", *NAMES)]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    for handler in loggers[0].handlers[:]:
        loggers[0].removeHandler(handler)  # pytest's: `configure_logs` would close them
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def logged(log_format, write, **kwargs):
    stream = io.StringIO()
    configure_logs(log_format, stream=stream, **kwargs)
    write(logging.getLogger("arena.test"))
    return stream.getvalue()


def test_json_lines_hold_time_level_logger_message_and_ids():
    def write(log):
        with log_context(principal="alice", session="s-1"), log_context(request=7):
            log.warning("took %d steps", 3)
        log.info("done", extra={"worker": 2})

    first, second = map(json.loads, logged("json", write).splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "warning",
        "logger": "arena.test",
        "message": "took 3 steps",
        "session": "s-1",
        "request": "7",
        "principal": "alice",
    }
    assert (second["message"], second["worker"]) == ("done", "2")
    assert "principal" not in second


def test_text_lines_hold_the_same():
    def write(log):
        with log_context(session="s-1"):
            log.warning("took %d steps", 3)

    assert logged("text", write).endswith(" warning arena.test: took 3 steps session=s-1\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_can_forge_a_line(log_format):
    lines = logged(log_format, lambda log: log.info("no task %s", "a\n2026 info arena: all is well\r\x1b[2J\udc80"))
    assert len(lines.splitlines()) == 1
    assert "\x1b" not in lines


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        *(CAPABILITIES.issue(Grant("s-abc_1", role)) for role in ("owner", "watch")),
        CAPABILITIES.issue(Grant("s", "seat", "white player")),
    ],
    ids=["token", "owner", "watcher", "seat"],
)
def test_no_secret_is_written_wherever_it_stands(log_format, secret):
    hidden = secret.rpartition(".")[2]

    def write(log):
        log.info("GET /v1/sessions?capability=%s HTTP/1.1", secret)
        log.info("got %r", (secret, {"again": secret}))
        log.info({"headers": [(b"authorization", b"Bearer " + secret.encode())]})
        with log_context(session=secret):
            log.info("in the context")
        log.info("extra", extra={"principal": secret})
        try:
            raise ValueError(f"bad credential {secret}")
        except ValueError:
            log.exception("failed")

    written = logged(log_format, write)
    assert "redacted" in written
    assert hidden not in written


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2-hunter2",
        "authorization=hunter2-hunter2",
        "{'Authorization': 'Basic hunter2-hunter2'}",
        '{"cookie": "arena_login=hunter2-hunter2; other=1"}',
        "(b'authorization', b'Bearer hunter2-hunter2')",
        "[('Cookie', 'hunter2-hunter2')]",
        "Set-Cookie: a=hunter2-hunter2; HttpOnly",
        "Proxy-Authorization: hunter2-hunter2",
        "curl -H 'Authorization: Bearer hunter2-hunter2' http://here",
        "sent Bearer hunter2-hunter2",
    ],
)
def test_credential_headers_are_blotted_out_however_they_are_printed(text):
    assert "hunter2" not in redact(text)
    assert "redacted" in redact(text)


@given(st.text(), st.text())
def test_a_token_is_found_in_any_text(before, after):
    assert TOKEN not in redact(f"{before} {TOKEN} {after}")


@pytest.mark.parametrize(
    "text",
    [
        "session s-1 of text/guess-v0 ended: over",
        "GET /v1/sessions/abc.owner 200",
        "arena_sessions_open is a metric",
        "the bearer of this message",
        "no authorization was given, says http.server.owner",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_uvicorn_s_loggers_go_the_same_way_and_requests_are_not_logged():
    def write(_):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application")
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("uvicorn.error").info('127.0.0.1 - "WebSocket /v1/ws" [accepted]')
        logging.getLogger("uvicorn.access").info("GET /")
        logging.getLogger("uvicorn.access").error("GET /")

    (line,) = logged("json", write).splitlines()
    assert json.loads(line)["logger"] == "uvicorn.error"


def test_tracebacks_are_in_the_record():
    def write(log):
        try:
            raise KeyError("a")
        except KeyError:
            log.exception("failed")

    assert "KeyError: 'a'" in json.loads(logged("json", write))["traceback"]
    text = logged("text", write).splitlines()
    assert text[0].endswith("failed")
    assert all(line.startswith("    ") for line in text[1:])


def test_another_format_is_refused():
    with pytest.raises(ConfigError, match="text, json"):
        configure_logs("xml")
