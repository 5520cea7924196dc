"""A judge behind a real HTTP server, whose answers a test scripts."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very/secret-0123456789"


@dataclass(frozen=True)
class Reply:
    """One HTTP response; with `length` beyond the body the connection breaks inside it."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def says(text: object, status: int = 200) -> Reply:
    """Return a chat completion with this text."""
    return Reply(json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}), status)


def fails(status: int, message: str = "not now", **headers: str) -> Reply:
    return Reply(json.dumps({"error": {"message": message}}), status, headers)


@dataclass(frozen=True)
class Seen:
    """A request as the server received it; `number` counts from 1."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return self.body["messages"][0]["content"]

    @property
    def answers(self) -> tuple[str, str]:
        first, second = (re.search(rf"<answer-{n}>\n(.*?)\n</answer-{n}>", self.text, re.DOTALL) for n in (1, 2))
        assert first is not None
        assert second is not None
        return first[1], second[1]


Judge = Callable[[Seen], Reply]


def prefers_good(seen: Seen) -> Reply:
    """Judge by what an answer says."""
    return says(f"One of them is good.\n\nPreferred: {1 if 'good' in seen.answers[0] else 2}")


def prefers_the_first(_: Seen) -> Reply:
    return says("I like the first.\nPreferred: 1")


class Server:
    """A running server.

    Attributes:
        judge: Makes the reply to a request; may be replaced at any time.
        seen: All requests so far.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.judge: Judge = prefers_good
        self.seen: list[Seen] = []
        self._arrived = threading.Condition()

    def receive(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Seen:
        with self._arrived:
            self.seen.append(Seen(len(self.seen) + 1, path, headers, body))
            self._arrived.notify_all()
            return self.seen[-1]

    def wait_for(self, count: int) -> None:
        """Wait until this many requests have come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.seen) >= count, timeout=60)


@contextmanager
def serving() -> Iterator[Server]:
    """Serve on a free port while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.judge(server.receive(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            data = reply.body.encode()
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(reply.length or len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client was killed, or did not wait
                self.close_connection = True
            if reply.length is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        server = Server(listening.server_port)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
