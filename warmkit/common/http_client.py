"""A client that posts JSON to one address, for judges and scorers behind HTTP; threads may share it.

What may pass (429, 5xx, a timeout, a broken connection) is tried again after a pause that grows; what no retry mends is not.
The key is read from the environment, sent in one header, and struck out of everything that comes back.
"""

from __future__ import annotations

import email.utils
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from typing_extensions import Self

from warmkit.common.addresses import shown, without_secrets
from warmkit.errors import EndpointError, UsageError

T = TypeVar("T")

STRUCK_OUT = "[key]"
LONGEST_REASON = 240
LARGEST_ANSWER = 1 << 24  # bytes
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 300.0  # a Retry-After beyond it ends the run
PASSING = (408, 425, 429)  # and 5xx: worth another try
FOR_ALL = (401, 402, 404)  # the key, the account or the address is wrong, so no request will be answered


class Unanswered(Exception):
    """An attempt failed in a way that may pass, after `wait` seconds at least."""

    def __init__(self, reason: str, wait: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.unreachable = wait, unreachable


class Nonsense(Unanswered):
    """The server is well and said something that cannot be used; waiting would not help, asking again may."""


class Unusable(Exception):
    """The server said something that it would say again."""


class HttpClient:
    """A client of one address.

    Args:
        url: The full address; see `check_address`.
        key_variable: Environment variable with the key; without one no Authorization header is sent.
        retries: Further attempts after the first.
        timeout: Seconds for one attempt, from the first byte sent to the last received.
        backoff: Seconds before the first retry, doubled for each further one; random, between half of that and all.

    Raises:
        UsageError: If the key cannot stand in a header.
    """

    def __init__(self, url: str, *, key_variable: str, retries: int = 5, timeout: float = 60.0, backoff: float = 1.0) -> None:
        self.url, self.requests = url, 0
        self._retries, self._timeout, self._backoff = retries, timeout, backoff
        self._key = _key(key_variable)
        self._refusal: str | None = None
        self._lock = threading.Lock()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.Client(headers=headers, timeout=timeout, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def post(self, document: dict[str, Any], read: Callable[[bytes], T]) -> T:
        """Return what `read` makes of the first answer that it can use.

        Args:
            document: Sent as JSON.
            read: Parses the body of an answer with status 200; raises Unanswered, Nonsense or Unusable.

        Raises:
            EndpointError: If all attempts failed, or one in a way that no retry mends. A server that cannot be reached, or
                refuses the key, the account or the address, is not asked again for other requests either.
        """
        attempt = 0
        while True:
            if self._refusal is not None:
                raise EndpointError(self._refusal)
            attempt += 1
            try:
                return self._attempt(document, read)
            except Unanswered as failure:
                if attempt > self._retries or failure.wait > LONGEST_WAIT:
                    raise self._given_up(failure, attempt) from None
                if not isinstance(failure, Nonsense):
                    time.sleep(failure.wait + self._pause(attempt))

    def strike(self, text: str) -> str:
        """Return a text of the server without the key, however it is spelled."""
        if self._key:
            for spelling in {self._key, repr(self._key)[1:-1], json.dumps(self._key)[1:-1], self._key.replace("/", "\\/")}:
                text = text.replace(spelling, STRUCK_OUT)
        return text

    def _pause(self, attempt: int) -> float:
        longest = min(self._backoff * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF)
        return random.uniform(longest / 2, longest)  # noqa: S311  (spreads load, guards nothing)

    def _given_up(self, failure: Unanswered, attempts: int) -> EndpointError:
        if failure.wait > LONGEST_WAIT:
            return self._refused(f"{failure}; it asks for a pause of {failure.wait:.0f} s")
        reason = f"{failure} ({attempts} attempt{'s' * (attempts > 1)})"
        return self._refused(reason) if failure.unreachable else EndpointError(self._clean(reason))

    def _refused(self, reason: str) -> EndpointError:
        self._refusal = self._clean(reason)
        return EndpointError(self._refusal)

    def _attempt(self, document: dict[str, Any], read: Callable[[bytes], T]) -> T:
        status, wait, body = self._send(document)
        if status in PASSING or status >= 500:
            raise Unanswered(f"HTTP {status}: {said(body)}", wait)
        if status != 200:
            reason = f"HTTP {status}: {said(body)}"
            raise self._refused(reason) if status in FOR_ALL else EndpointError(self._clean(reason))
        try:
            return read(body)
        except Unusable as error:
            raise EndpointError(self._clean(str(error))) from None

    def _send(self, document: dict[str, Any]) -> tuple[int, float, bytes]:
        """Return status, seconds to wait and body."""
        with self._lock:
            self.requests += 1
        deadline = time.monotonic() + self._timeout
        body = bytearray()
        try:
            with self._client.stream("POST", self.url, json=document) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:  # the client's own limit is one between two chunks
                        raise httpx.ReadTimeout("")
                    if len(body) > LARGEST_ANSWER:
                        raise Unanswered(f"an answer of more than {LARGEST_ANSWER >> 20} MiB")
        except httpx.TimeoutException:
            raise Unanswered(f"no answer within {self._timeout:g} s") from None
        except httpx.ConnectError as error:
            raise Unanswered(f"{self.url} cannot be reached: {error}", unreachable=True) from None
        except httpx.RequestError as error:
            raise Unanswered(f"the connection broke: {error}") from None
        return response.status_code, retry_after(response.headers.get("retry-after")), bytes(body)

    def _clean(self, reason: str) -> str:
        """Make what may quote the server fit for a message: without the key, on one line, not too long."""
        return without_secrets(" ".join(self.strike(reason).split()))[:LONGEST_REASON]


def check_address(url: str, like: str) -> None:
    """Refuse what is no address, and one with a secret in it, which would be written down with the address.

    Args:
        url: The address.
        like: An example, for the message.

    Raises:
        UsageError: If it is not http or https, has no host, or has a user, a password or a query.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"expected an endpoint like {like}, found {shown(url)!r}")
    if parsed.userinfo or parsed.query:
        raise UsageError("expected an endpoint without user, password or query; the key goes into an environment variable")


def said(body: bytes) -> str:
    """Return what an error response says: its message where it has one, else all of it."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
        text = json.dumps(document, ensure_ascii=False)
        return str(document["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return text.strip() or "no reason given"


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the environment variable {variable} holds characters that no key has")
    return key


def retry_after(header: str | None) -> float:
    """Read a Retry-After header: seconds or a date; 0 for none or nonsense."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
