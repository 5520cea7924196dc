"""A client for chat completions as OpenAI, vLLM, llama.cpp and others serve them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import Self

from warmkit.common.http_client import HttpClient, Nonsense, Unanswered, check_address, said

T = TypeVar("T")

PATH = "/chat/completions"


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
        self._client = HttpClient(self.url, key_variable=key_variable, retries=retries, timeout=timeout, backoff=backoff)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def requests(self) -> int:
        """How many were sent, retries included."""
        return self._client.requests

    def complete(self, request: dict[str, Any], read: Callable[[str], T]) -> tuple[str, T]:
        """Return the text of the first answer that `read` understands, without the key, and what it read.

        Args:
            request: Model, messages and sampling parameters.
            read: Parses the text; a ValueError counts as a failed attempt.

        Raises:
            EndpointError: If all attempts failed, or one in a way that no retry mends. An endpoint that cannot be reached,
                or refuses the key, the account or the model, is not asked again for other requests either.
        """

        def understand(body: bytes) -> tuple[str, T]:
            text = _content(body)
            try:
                return self._client.strike(text), read(text)
            except ValueError as error:
                raise Nonsense(str(error)) from None

        return self._client.post(request, understand)


def _address(url: str) -> str:
    check_address(url, "http://host/v1")
    base = url.rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unanswered(f"expected a chat completion, found {said(body)}") from None
    if not isinstance(content, str):
        raise Unanswered(f"expected an answer of text, found {content!r}")
    return content
