"""Files behind HTTP: byte ranges whose answers are checked, and small files whole."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from urllib.parse import SplitResult, urljoin

from warmkit.common.addresses import shown
from warmkit.errors import CheckpointError, FormatError, TransferError
from warmkit.sources.http_connections import Connections, Response, quoted
from warmkit.sources.remote_file import ATTEMPTS_TO_OPEN, PassingError, Patience, RemoteFile

BEGINNING = 1 << 16  # most headers fit
LARGEST_SMALL_FILE = 1 << 28
MOST_REDIRECTS = 5

Explain = Callable[[Response], CheckpointError | None]
"""From an answer that refuses to what to tell the user; None where the status says it."""


class AbsentError(CheckpointError):
    """There is no such file."""


class Room:
    """How many bytes of small files may still come, all together; threads share it."""

    def __init__(self) -> None:
        self._left, self._lock = LARGEST_SMALL_FILE, threading.Lock()

    @contextmanager
    def taken(self, place: str, size: int) -> Generator[None, None, None]:
        """Count a file before it is read; one that does not arrive gives its room back.

        Raises:
            CheckpointError: If there is no room for it.
        """
        try:
            with self._lock:
                self._left -= size
                full = self._left < 0
            if full:
                most = LARGEST_SMALL_FILE >> 20
                raise CheckpointError(f"{place}: the small files beside the weights have more than {most} MiB together")
            yield
        except BaseException:
            with self._lock:
                self._left += size
            raise


def web_address(url: str) -> SplitResult:
    """Return the parts of a web address.

    Raises:
        TransferError: If it is none.
    """
    try:
        address = quoted(url)
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise TransferError(f"{shown(url)[:200]}: no web address: {error}") from None
    if address.scheme not in ("http", "https") or not host:
        raise TransferError(f"{shown(url)[:200]}: expected a web address, http:// or https:// and a host")
    return address


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port: who gets to see what is sent there."""
    address = web_address(url)
    return address.scheme, address.hostname or "", address.port or (443 if address.scheme == "https" else 80)


def _led(place: str, address: str, target: str) -> str:
    """Return where a redirect leads."""
    try:
        there = urljoin(address, target)
        web_address(there)
    except (ValueError, TransferError):
        raise TransferError(f"{place}: leads to {shown(target)[:80]!r}, which is no web address") from None
    return there


class Site:
    """A server, or a service behind one: how to ask it.

    Args:
        headers: Sent to the first address of every file and to that server alone: redirects lead to strangers.
        explain: What a refusal means here.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, explain: Explain = lambda _: None) -> None:
        self.connections, self.patience = Connections(), Patience()
        self._headers, self._explain, self._room = dict(headers or {}), explain, Room()

    @contextmanager
    def get(
        self, place: str, url: str, headers: Mapping[str, str], known: str | None = None
    ) -> Generator[tuple[Response, str], None, None]:
        """Ask for `url`, following redirects; yield the answer and its address.

        Args:
            place: What is asked, for messages.
            url: Its first address.
            headers: Sent everywhere.
            known: Where redirects led before.

        Raises:
            PassingError: If another attempt may succeed.
            CheckpointError: If the server refuses.
        """
        home, address = origin(url), known or url
        for _ in range(MOST_REDIRECTS + 1):
            own = {**self._headers, **headers} if origin(address) == home else headers
            with self.connections.get(address, own) as response:
                target = response.headers.get("Location") if 300 <= response.status < 400 else None
                if target is None:
                    self._check(place, response)
                    yield response, address
                    return
            address = _led(place, address, target)
        raise TransferError(f"{place}: leads from one address to the next, more than {MOST_REDIRECTS} times")

    def _check(self, place: str, response: Response) -> None:
        from warmkit.common.http_client import retry_after

        status = response.status
        if status in (408, 425, 429) or status >= 500:
            raise PassingError(f"HTTP {status} {response.reason}", wait=retry_after(response.headers.get("Retry-After")))
        if explained := self._explain(response):
            raise explained
        if status in (401, 403):
            raise TransferError(f"{place}: access denied (HTTP {status})")
        if status in (404, 410):
            raise AbsentError(f"{place}: not there (HTTP {status})")
        if status not in (200, 206, 412, 416):
            raise TransferError(f"{place}: HTTP {status} {response.reason}")

    def small_file(self, place: str, url: str) -> bytes | None:
        """Return a small file whole, None where there is none.

        Raises:
            CheckpointError: If it does not arrive, or is not small.
        """

        def attempt() -> bytes | None:
            try:
                with self.get(place, url, {}) as (response, _), self._room.taken(place, response.length or 0):
                    announced = response.length is not None
                    body = response.read(LARGEST_SMALL_FILE + 1)
                    if response.length:
                        raise PassingError(f"ended {response.length:,} bytes early")
            except AbsentError:
                return None
            if not announced:
                with self._room.taken(place, len(body)):
                    pass
            return body

        return self.patience.persist(place, attempt, ATTEMPTS_TO_OPEN)


class HttpFile(RemoteFile):
    """A file that a server gives in byte ranges. Opening it asks for its beginning, which also tells size and version.

    Args:
        site: The server.
        url: Its address.
        place: The same without secrets.
        name: Its path inside the model.
        version: What tells that it is another file, where entity tags do not: they are compared only without it.

    Raises:
        CheckpointError: If it is not there, or the server gives no ranges.
    """

    def __init__(self, site: Site, url: str, place: str, name: str, version: str | None = None) -> None:
        super().__init__(place, name, site.patience)
        self._site, self._url = site, url
        self._known: str | None = None  # where redirects led; signed addresses expire, then the first one is asked again
        self._tag: str | None = None
        self.beginning = self._patience.persist(place, self._open, ATTEMPTS_TO_OPEN)
        self.version = version or self._tag or ""
        if version is not None:
            self._tag = None

    def _open(self) -> bytes:
        with self._site.get(self.place, self._url, {"Range": f"bytes=0-{BEGINNING - 1}"}) as (response, where):
            if response.status == 416 or response.headers.get("Content-Length") == "0":
                raise FormatError(f"{self.place}: expected a safetensors file, found 0 bytes")
            first_byte, last_byte, self.size = self._range_of(response)
            if first_byte != 0 or last_byte != min(BEGINNING, self.size) - 1:
                raise self._lie(f"bytes 0-{BEGINNING - 1} of {self.size:,} were asked for, it gave {first_byte}-{last_byte}")
            body = response.read(last_byte + 1)
            if len(body) <= last_byte:
                raise PassingError(f"ended after {len(body):,} of {last_byte + 1:,} bytes")
            self._known, self._tag = where, _tag(response)
            return body

    def receive(self, offset: int, view: memoryview) -> None:
        """Ask for one range and read the answer as far as it goes."""
        known, last = self._known, offset + view.nbytes - 1
        headers = {"Range": f"bytes={offset}-{last}"}
        if self._tag is not None and self._tag.startswith('"'):
            headers["If-Range"] = self._tag
        try:
            with self._site.get(self.place, self._url, headers, known) as (response, where):
                self._check_answer(response, offset, last)
                self._known = where
                got = _fill(response, view)
        except (TransferError, AbsentError):
            if known in (None, self._url):
                raise
            self._known = None  # an address that was signed for a time
            raise PassingError("the address that it led to is not valid any more") from None
        if got < view.nbytes:
            raise PassingError(f"the server ended {view.nbytes - got:,} bytes early", got)

    def _check_answer(self, response: Response, offset: int, last: int) -> None:
        replaced = CheckpointError(f"{self.place}: was replaced while it was read; run the command again")
        if self._tag is not None and response.status in (200, 206) and _tag(response) != self._tag:
            raise replaced
        if response.status in (412, 416):
            raise replaced
        first_byte, last_byte, size = self._range_of(response)
        if size != self.size:
            raise replaced
        if first_byte != offset or last_byte > last:
            raise self._lie(f"bytes {offset}-{last} were asked for, it gave {first_byte}-{last_byte}")

    def _range_of(self, response: Response) -> tuple[int, int, int]:
        """Return first byte, last byte and size that an answer says of itself."""
        if response.status == 200:
            raise self._lie("it answers with the whole file (HTTP 200) where a part was asked for")
        encoding, said = response.headers.get("Content-Encoding", "identity"), response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", said.strip())
        if match is None or encoding != "identity":
            raise self._lie(f"expected Content-Range: bytes FIRST-LAST/SIZE, found {said[:60]!r} ({encoding})")
        first, last, size = map(int, match.groups())
        if not first <= last < size or response.length not in (None, last - first + 1):
            raise self._lie(f"it announces {said[:60]!r} and a length of {response.length}")
        return first, last, size

    def _lie(self, what: str) -> TransferError:
        return TransferError(f"{self.place}: the server does not keep to byte ranges: {what}; download the file instead")

    def check(self) -> None:
        """Every answer was checked when it came."""

    def close(self) -> None:
        self._site.connections.close()


def _tag(response: Response) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _fill(response: Response, view: memoryview) -> int:
    """Read an answer into `view`; return how many bytes came."""
    got = 0
    try:
        while got < view.nbytes and (count := response.readinto(view[got:])):
            got += count
    except (OSError, HTTPException) as error:
        raise PassingError(f"the connection broke: {error}", got) from None
    return got
