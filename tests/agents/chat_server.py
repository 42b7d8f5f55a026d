"""A real HTTP server on a loopback port that speaks the chat-completions protocol, and misbehaves on demand.

It answers each request with the next reply of its script; when that is used up, with what its `model` says to the
request. Everything that it receives is kept in `requests`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: Json

    @property
    def messages(self) -> list[Json]:
        return self.body["messages"]


@dataclass
class Answer:
    """What the model says; streamed in small pieces when the request asks for a stream."""

    text: str | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    usage: tuple[int, int] | None = (10, 3)
    finish_reason: str | None = None
    reasoning: str | None = None
    call_ids: bool = True
    delay_s: float = 0.0

    @property
    def reason(self) -> str:
        return self.finish_reason or ("tool_calls" if self.calls else "stop")

    def tool_calls(self, number: int) -> list[Json]:
        return [
            {
                "id": f"call-{number}-{i}" if self.call_ids else "",
                "type": "function",
                "function": {"name": name, "arguments": args},
            }
            for i, (name, args) in enumerate(self.calls)
        ]

    def counted(self) -> Json | None:
        if self.usage is None:
            return None
        read, written = self.usage
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


@dataclass
class Status:
    """An HTTP error."""

    code: int
    message: str = "no"
    error_code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Page:
    """A body of any kind with status 200."""

    content: str
    content_type: str = "text/html"


@dataclass
class Drop:
    """The connection is cut: before the response, or after `events` of a stream; politely is as if it were the end."""

    answer: Answer | None = None
    events: int = 0
    politely: bool = False


Reply = Answer | Status | Page | Drop


class ChatServer:
    """The server; a context manager.

    Args:
        script: Replies, in order.
        model: Answers once the script is used up.
        key: The bearer key that it wants; None takes anybody.
        models: Status of ``GET /v1/models``.
    """

    def __init__(
        self,
        *script: Reply,
        model: Callable[[Json], Reply] | None = None,
        key: str | None = None,
        models: int = 200,
    ) -> None:
        self.script, self.model, self.key, self.models = list(script), model, key, models
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.connections = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def reply(self, request: Request) -> tuple[int, Reply]:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            scripted = self.script.pop(0) if self.script else None
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            given = request.headers.get("authorization", "nothing")
            return number, Status(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        if scripted is not None:
            return number, scripted
        assert self.model is not None, "the script is used up"
        return number, self.model(request.body)

    def enter(self, change: int) -> None:
        with self._lock:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            server.connections += 1

        def finish(self) -> None:
            super().finish()
            server.connections -= 1

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            if server.key is not None and self.headers.get("authorization") != f"Bearer {server.key}":
                self.send(401, json.dumps({"error": {"message": self.headers.get("authorization")}}))
            else:
                self.send(server.models, json.dumps({"object": "list", "data": []}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            number, reply = server.reply(request)
            server.enter(+1)
            try:
                self.send_reply(number, reply, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                server.enter(-1)

        def send_reply(self, number: int, reply: Reply, body: Json) -> None:
            match reply:
                case Status():
                    error = {"message": reply.message, "code": reply.error_code, "type": "x", "param": None}
                    self.send(reply.code, json.dumps({"error": error}), headers=reply.headers)
                case Page():
                    self.send(200, reply.content, reply.content_type)
                case Drop(answer=None):
                    self.close_connection = True
                case Drop():
                    assert reply.answer is not None
                    self.stream(
                        list(_events(number, reply.answer, body))[: reply.events], cut=True, chunked=not reply.politely
                    )
                case Answer() if body.get("stream"):
                    self.stream(_events(number, reply, body), delay_s=reply.delay_s)
                case Answer():
                    server.closing.wait(reply.delay_s)
                    self.send(200, json.dumps(_completion(number, reply)))

        def send(self, code: int, text: str, kind: str = "application/json", headers: Json | None = None) -> None:
            data = text.encode()
            self.send_response(code)
            for name, value in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def stream(self, events: Any, *, delay_s: float = 0.0, cut: bool = False, chunked: bool = True) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header(*(("transfer-encoding", "chunked") if chunked else ("connection", "close")))
            self.end_headers()
            for event in events:
                data = f"data: {event}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
                self.wfile.flush()
                server.closing.wait(delay_s)
            if cut:
                self.close_connection = True
            elif chunked:
                self.wfile.write(b"0\r\n\r\n")

    return Handler


def _completion(number: int, answer: Answer) -> Json:
    message: Json = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = answer.tool_calls(number)
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    choice = {"index": 0, "message": message, "finish_reason": answer.reason}
    return _envelope(number, "chat.completion", [choice], usage=answer.counted())


def _envelope(number: int, kind: str, choices: list[Json], **more: Any) -> Json:
    known = {name: value for name, value in more.items() if value is not None}
    return {
        "id": f"c-{number}",
        "object": kind,
        "created": int(time.time()),
        "model": "fake-1",
        "choices": choices,
        **known,
    }


def _events(number: int, answer: Answer, body: Json) -> Iterator[str]:
    """The answer as data of server-sent events: text two characters at a time, arguments three."""

    def chunk(delta: Json, finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return json.dumps(_envelope(number, "chat.completion.chunk", [choice]))

    yield chunk({"role": "assistant", "content": ""})
    if answer.reasoning:
        for piece in _pieces(answer.reasoning, 2):
            yield chunk({"reasoning_content": piece})
    for piece in _pieces(answer.text or "", 2):
        yield chunk({"content": piece})
    for index, call in enumerate(answer.tool_calls(number)):
        arguments = call["function"]["arguments"]
        head = {"index": index, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        for piece in _pieces(arguments, 3):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, answer.reason)
    if answer.usage and body.get("stream_options", {}).get("include_usage"):
        yield json.dumps(_envelope(number, "chat.completion.chunk", [], usage=answer.counted()))
    yield "[DONE]"


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]
