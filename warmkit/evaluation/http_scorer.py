"""Rewards from a server: completions go out as JSON, numbers come back.

The request holds three lists of one length: `prompts` (text, or messages), `completions`, and `query`, each prompt's text with
its completion behind it. The response is `{"rewards": [...]}`, `{"scores": [...]}` or the list alone, a number for each
completion in their order. So a reward model server written for OpenRLHF's `--remote_rm_url`, which reads `query` and answers
with `rewards`, serves as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from warmkit.common.http_client import HttpClient, Unanswered, Unusable, said
from warmkit.data.prompts import Prompt
from warmkit.errors import EndpointError, ScoreError

KEY_VARIABLE = "WARMKIT_ENDPOINT_KEY"
BATCH = 64  # completions a request
TIMEOUT = 180.0  # seconds for one attempt
BACKOFF = 1.0  # seconds before the first of five retries: half a minute in all

Scorer = Callable[[Sequence[Prompt], Sequence[str]], list[float]]


def open_endpoint(url: str) -> Scorer:
    """Return a scorer that asks a server; nothing is sent yet.

    The key in WARMKIT_ENDPOINT_KEY, if there is one, goes along as `Authorization: Bearer KEY` and nowhere else.

    Raises:
        UsageError: If the key cannot stand in a header.
    """

    def connect() -> HttpClient:
        return HttpClient(url, key_variable=KEY_VARIABLE, timeout=TIMEOUT, backoff=BACKOFF)

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        parts = [slice(start, start + BATCH) for start in range(0, len(completions), BATCH)]
        try:
            with connect() as client:  # one a call: between two steps of a training an open connection would go stale
                return [each for part in parts for each in _scores(client, prompts[part], completions[part])]
        except EndpointError as error:
            raise ScoreError(f"reward {url}: {error}") from None

    connect().close()  # a bad key is refused now
    return score


def _scores(client: HttpClient, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
    return client.post(_request(prompts, completions), lambda body: _read(body, len(completions)))


def _request(prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Any]:
    return {
        "prompts": [prompt.content for prompt in prompts],
        "completions": list(completions),
        "query": [prompt.text + completion for prompt, completion in zip(prompts, completions)],
    }


def _read(body: bytes, count: int) -> list[float]:
    """Return the numbers of a response; the count is checked here, where a surplus cannot make up for a later lack."""
    try:
        document: Any = json.loads(body, parse_int=float)  # what is too large becomes infinite, and is refused as such
    except (ValueError, RecursionError):
        raise Unanswered(f"expected JSON, found {said(body)}") from None
    numbers: Any = document
    if isinstance(document, dict):
        numbers = document.get("rewards", document.get("scores"))
    if not isinstance(numbers, list):
        raise Unusable(f'expected {{"rewards": [...]}}, {{"scores": [...]}} or a list, found {said(body)}')
    if len(numbers) != count:
        raise Unusable(f"expected {count} numbers, one a completion, found {len(numbers)}")
    for each in numbers:
        if not isinstance(each, float):
            raise Unusable(f"expected a number for each completion, found {json.dumps(each)}")
    return numbers
