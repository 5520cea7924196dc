"""A web server on this machine that gives byte ranges, slowly or wrongly where a test asks for it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Fault = str | int


class Web(ThreadingHTTPServer):
    """Serves the files under `root`.

    Attributes:
        faults: What goes wrong with the next requests for ranges behind the beginning of a file, one after the other: a
            status; `drop` in the middle of a body; `early`, after a hundred bytes; `whole` file instead of a range; another
            `range`; another `length`; a `stranger`'s entity tag; `short`, less than asked for, and said so.
        always: What goes wrong with all of them.
        retry_after: Sent with a 429.
        latency: Seconds before an answer.
        hang: Never answer a request for a range behind the beginning.
        hanging: How many such requests there are.
        ranges: The ranges that were asked for, with their paths.
        moments: When.
        asked: All paths.
        headers: Of the last request, by path.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or WebHandler)
        self.root, self.latency, self.retry_after = root, 0.0, "0"
        self.hang, self.hanging, self.over = False, 0, threading.Event()
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.ranges: list[tuple[str, int, int]] = []
        self.moments: list[float] = []
        self.asked: list[str] = []
        self.connections: list[socket.socket] = []
        self.headers: dict[str, dict[str, str]] = {}
        self.scheme = "http"

    def speak_tls(self, certificate: Path) -> None:
        """Be an https server, with a certificate and key in one file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        self.over.set()
        super().server_close()
        for each in self.connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


class WebHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path  # a proxy is asked for whole addresses
        self.server.asked.append(path)
        self.server.headers[path] = dict(self.headers)
        time.sleep(self.server.latency)
        self.send_file(self.server.root / path.lstrip("/"))

    def send_file(self, file: Path, more: dict[str, str] | None = None) -> None:
        if not file.is_file():
            self.reply(404, {}, b"nothing here")
            return
        stat = file.stat()
        tag = '"' + hashlib.sha256(f"{stat.st_ino}{stat.st_mtime_ns}{stat.st_size}".encode()).hexdigest()[:16] + '"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes", **(more or {})}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None or self.headers.get("If-Range", tag) != tag:
            self.reply(200, headers, file.read_bytes())
            return
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, stat.st_size)
        if start >= stat.st_size:
            self.reply(416, {"Content-Range": f"bytes */{stat.st_size}"}, b"")
            return
        self.server.ranges.append((self.path, start, stop))
        self.server.moments.append(time.monotonic())
        fault = None
        if start and self.server.hang:
            self.server.hanging += 1
            self.server.over.wait()
        if start:
            fault = self.server.always or (self.server.faults.popleft() if self.server.faults else None)
        with file.open("rb") as opened:
            opened.seek(start)
            body = opened.read(stop - start)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
        self.send_range(file, fault, headers, body)

    def send_range(self, file: Path, fault: Fault | None, headers: dict[str, str], body: bytes) -> None:
        if isinstance(fault, int):
            more = {"Retry-After": self.server.retry_after} if fault == 429 else {}
            self.reply(fault, more, b"later")
        elif fault in ("drop", "early"):
            self.reply(206, headers, body, sent=len(body) // 2 if fault == "drop" else 100)
            self.close_connection = True
        elif fault == "whole":
            self.reply(200, headers, file.read_bytes())
        elif fault == "range":
            first, last, size = map(int, re.split(r"[-/]", headers["Content-Range"].split()[1]))
            self.reply(206, {**headers, "Content-Range": f"bytes {first - 1}-{last - 1}/{size}"}, body)
        elif fault == "length":
            self.reply(206, headers, body[:-1])
        elif fault == "short":
            first, _, size = re.split(r"[-/]", headers["Content-Range"].split()[1])
            half = body[: -(-len(body) // 2)]
            self.reply(206, {**headers, "Content-Range": f"bytes {first}-{int(first) + len(half) - 1}/{size}"}, half)
        elif fault == "stranger":
            self.reply(206, {**headers, "ETag": '"another"'}, body)
        else:
            self.reply(206, headers, body)

    def reply(self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])


@contextlib.contextmanager
def serving(server: Web) -> Iterator[Web]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
