"""A web server of byte ranges with a latency and a bandwidth, in a process of its own.

    python -m tests.benchmarks.range_server FOLDER --latency 0.02 --bandwidth 500e6

All connections together get the bandwidth: a token bucket hands out sendfile calls of 256 KiB. It prints its address and then
counts; `GET /_sent` answers how many bytes were sent since it was last asked.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import threading
import time
from pathlib import Path

CHUNK = 1 << 18
BURST = 0.01  # seconds of bandwidth that may be saved up


class Bucket:
    """Tokens for bytes, at a rate shared by all threads."""

    def __init__(self, rate: float) -> None:
        self.rate, self.lock, self.next, self.sent = rate, threading.Lock(), 0.0, 0

    def take(self, count: int) -> None:
        with self.lock:
            now = time.monotonic()
            self.next = max(self.next, now - BURST) + count / self.rate
            wait, self.sent = self.next - now, self.sent + count
        if wait > 0:
            time.sleep(wait)


def serve(connection: socket.socket, root: Path, bucket: Bucket, latency: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as lines:
        while (request := lines.readline().decode()).startswith("GET "):
            headers = {}
            while (line := lines.readline().decode().strip()) != "":
                key, _, value = line.partition(":")
                headers[key.lower()] = value.strip()
            path = request.split()[1]
            if path == "/_sent":
                sent, bucket.sent = bucket.sent, 0
                body = str(sent).encode()
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                continue
            time.sleep(latency)
            answer(connection, root / path.lstrip("/"), headers.get("range", ""), bucket)


def answer(connection: socket.socket, file: Path, wanted: str, bucket: Bucket) -> None:
    if not file.is_file():
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        start, stop = (int(match[1]), min(int(match[2]) + 1, size)) if match else (0, size)
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{size}" if match else "200 OK"
        head = f'HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\nETag: "{size}"\r\n\r\n'
        connection.sendall(head.encode())
        while start < stop:
            count = min(CHUNK, stop - start)
            bucket.take(count)
            while count:
                sent = os.sendfile(connection.fileno(), opened.fileno(), start, count)
                start, count = start + sent, count - sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before every answer")
    parser.add_argument("--bandwidth", type=float, default=500e6, help="bytes a second, all connections together")
    given = parser.parse_args()
    bucket = Bucket(given.bandwidth)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            arguments = (connection, given.folder, bucket, given.latency)
            threading.Thread(target=serve, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
