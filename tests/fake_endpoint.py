"""A chat-completions server on this machine, in a thread, that answers as a test tells it to."""

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    """What the server does; `text` becomes a chat completion unless there is a raw `body`."""

    text: str = ""
    status: int = 200
    body: bytes | None = None
    headers: dict = field(default_factory=dict)
    kind: str = "whole"  # or "hang", "reset", "cut": the connection ends within the body

    def bytes(self) -> bytes:
        if self.body is not None:
            return self.body
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


class FakeEndpoint(ThreadingHTTPServer):
    """`answer(prompt, time)` is the reply to a prompt asked for the `time`-th time, from 1. Use as a context."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[str, int], Reply | str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[str] = []
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.times: Counter = Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "FakeEndpoint":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, *request: object) -> None:
        """A client that gave up is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, server = body["messages"][-1]["content"], self.server
        prompt = prompt if isinstance(prompt, str) else json.dumps(prompt)
        with server.lock:
            server.asked.append(prompt)
            server.bodies.append(body | {"path": self.path})
            server.keys.append(self.headers["Authorization"])
            server.times[prompt] += 1
            times = server.times[prompt]
        reply = server.answer(prompt, times)
        reply = Reply(reply) if isinstance(reply, str) else reply
        if reply.kind == "hang":
            server.over.wait(10)
        elif reply.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.send(reply)

    def send(self, reply: Reply) -> None:
        data = reply.bytes()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if reply.kind == "cut" else data)

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""
