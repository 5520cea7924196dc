"""Files behind HTTP: byte ranges whose answers are checked, and small files whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from urllib.parse import urljoin, urlsplit

from warmkit.checkpoints.http_connections import Connections, Response
from warmkit.checkpoints.remote_file import ATTEMPTS_TO_OPEN, PassingError, Patience, RemoteFile
from warmkit.errors import CheckpointError, FormatError, TransferError

BEGINNING = 1 << 16  # most headers fit
LARGEST_SMALL_FILE = 1 << 28
MOST_REDIRECTS = 5

Explain = Callable[[Response], CheckpointError | None]
"""From an answer that refuses to what to tell the user; None where the status says it."""


class AbsentError(CheckpointError):
    """There is no such file."""


class Site:
    """A server, or a service behind one: how to ask it.

    Args:
        headers: Sent to the first address of every file and to that server alone: redirects lead to strangers.
        explain: What a refusal means here.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, explain: Explain = lambda _: None) -> None:
        self.connections, self.patience = Connections(), Patience()
        self._headers, self._explain = dict(headers or {}), explain

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
        home, address = urlsplit(url).netloc, known or url
        for _ in range(MOST_REDIRECTS + 1):
            own = {**self._headers, **headers} if urlsplit(address).netloc == home else headers
            with self.connections.get(address, own) as response:
                target = response.headers.get("Location") if 300 <= response.status < 400 else None
                if target is None:
                    self._check(place, response)
                    yield response, address
                    return
            address = urljoin(address, target)
            if urlsplit(address).scheme not in ("http", "https"):
                raise TransferError(f"{place}: leads to {address[:80]!r}, which is no web address")
        raise TransferError(f"{place}: leads from one address to the next, more than {MOST_REDIRECTS} times")

    def _check(self, place: str, response: Response) -> None:
        from warmkit.http_client import retry_after

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
                with self.get(place, url, {}) as (response, _):
                    body = response.read(LARGEST_SMALL_FILE + 1)
                    missing = response.length
            except AbsentError:
                return None
            if len(body) > LARGEST_SMALL_FILE:
                raise CheckpointError(f"{place}: larger than {LARGEST_SMALL_FILE >> 20} MiB")
            if missing:
                raise PassingError(f"ended {missing:,} bytes early")
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
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", said.strip())
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
