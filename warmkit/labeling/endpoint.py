"""A client for chat completions as OpenAI, vLLM, llama.cpp and others serve them.

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

from warmkit.errors import EndpointError, UsageError

T = TypeVar("T")

PATH = "/chat/completions"
STRUCK_OUT = "[key]"
LONGEST_REASON = 240
LARGEST_ANSWER = 1 << 24  # bytes
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 300.0  # a Retry-After beyond it ends the run
PASSING = (408, 425, 429)  # and 5xx: worth another try
FOR_ALL = (401, 402, 404)  # the key, the account or the model is wrong, so no question will be answered


class _Unanswered(Exception):
    """An attempt failed in a way that may pass, after `wait` seconds at least."""

    def __init__(self, reason: str, wait: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.unreachable = wait, unreachable


class _Nonsense(_Unanswered):
    """The server is well and said something that cannot be used; waiting would not help."""


class Endpoint:
    """An endpoint that completes chats; threads may share it.

    Args:
        url: Its base, `http://host/v1`, or the full address.
        key_variable: Environment variable with the key; without one no Authorization header is sent.
        retries: Further attempts after the first.
        timeout: Seconds for one attempt, from the first byte sent to the last received.
        backoff: Seconds before the first retry, doubled for each further one; random, between half of that and all.

    Raises:
        UsageError: If the address is not one, or the key cannot stand in a header.
    """

    def __init__(
        self,
        url: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        retries: int = 5,
        timeout: float = 60.0,
        backoff: float = 1.0,
    ) -> None:
        self.url = _address(url)
        self.requests = 0
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
        self._client.close()

    def complete(self, request: dict[str, Any], read: Callable[[str], T]) -> tuple[str, T]:
        """Return the text of the first answer that `read` understands, without the key, and what it read.

        Args:
            request: Model, messages and sampling parameters.
            read: Parses the text; a ValueError counts as a failed attempt.

        Raises:
            EndpointError: If all attempts failed, or one in a way that no retry mends. An endpoint that cannot be reached,
                or refuses the key, the account or the model, is not asked again for other requests either.
        """
        attempt = 0
        while True:
            if self._refusal is not None:
                raise EndpointError(self._refusal)
            attempt += 1
            try:
                return self._attempt(request, read)
            except _Unanswered as failure:
                if attempt > self._retries or failure.wait > LONGEST_WAIT:
                    raise self._given_up(failure, attempt) from None
                if not isinstance(failure, _Nonsense):
                    time.sleep(failure.wait + self._pause(attempt))

    def _pause(self, attempt: int) -> float:
        longest = min(self._backoff * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF)
        return random.uniform(longest / 2, longest)  # noqa: S311  (spreads load, guards nothing)

    def _given_up(self, failure: _Unanswered, attempts: int) -> EndpointError:
        if failure.wait > LONGEST_WAIT:
            return self._refused(f"{failure}; it asks for a pause of {failure.wait:.0f} s")
        reason = f"{failure} ({attempts} attempt{'s' * (attempts > 1)})"
        return self._refused(reason) if failure.unreachable else EndpointError(self._clean(reason))

    def _refused(self, reason: str) -> EndpointError:
        self._refusal = self._clean(reason)
        return EndpointError(self._refusal)

    def _attempt(self, request: dict[str, Any], read: Callable[[str], T]) -> tuple[str, T]:
        status, wait, body = self._send(request)
        if status in PASSING or status >= 500:
            raise _Unanswered(f"HTTP {status}: {_said(body)}", wait)
        if status != 200:
            reason = f"HTTP {status}: {_said(body)}"
            raise self._refused(reason) if status in FOR_ALL else EndpointError(self._clean(reason))
        text = _content(body)
        try:
            return self._strike(text), read(text)
        except ValueError as error:
            raise _Nonsense(str(error)) from None

    def _send(self, request: dict[str, Any]) -> tuple[int, float, bytes]:
        """Return status, seconds to wait and body."""
        with self._lock:
            self.requests += 1
        deadline = time.monotonic() + self._timeout
        body = bytearray()
        try:
            with self._client.stream("POST", self.url, json=request) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:  # the client's own limit is one between two chunks
                        raise httpx.ReadTimeout("")
                    if len(body) > LARGEST_ANSWER:
                        raise _Unanswered(f"an answer of more than {LARGEST_ANSWER >> 20} MiB")
        except httpx.TimeoutException:
            raise _Unanswered(f"no answer within {self._timeout:g} s") from None
        except httpx.ConnectError as error:
            raise _Unanswered(f"{self.url} cannot be reached: {error}", unreachable=True) from None
        except httpx.RequestError as error:
            raise _Unanswered(f"the connection broke: {error}") from None
        return response.status_code, _seconds(response.headers.get("retry-after")), bytes(body)

    def _clean(self, reason: str) -> str:
        """Make what may quote the server fit for a message: without the key, on one line, not too long."""
        return " ".join(self._strike(reason).split())[:LONGEST_REASON]

    def _strike(self, text: str) -> str:
        if self._key:
            for spelling in {self._key, repr(self._key)[1:-1], json.dumps(self._key)[1:-1], self._key.replace("/", "\\/")}:
                text = text.replace(spelling, STRUCK_OUT)
        return text


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"expected an endpoint like http://host/v1, found {url!r}")
    if parsed.userinfo or parsed.query:
        raise UsageError("expected an endpoint without user, password or query; the key goes into an environment variable")
    base = url.rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the environment variable {variable} holds characters that no key has")
    return key


def _said(body: bytes) -> str:
    """Return what an error response says: its message where it has one, else all of it."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
        text = json.dumps(document, ensure_ascii=False)
        return str(document["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return text.strip() or "no reason given"


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _Unanswered(f"expected a chat completion, found {_said(body)}") from None
    if not isinstance(content, str):
        raise _Unanswered(f"expected an answer of text, found {content!r}")
    return content


def _seconds(retry_after: str | None) -> float:
    """Read a Retry-After header: seconds or a date; 0 for none or nonsense."""
    if retry_after is None:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
