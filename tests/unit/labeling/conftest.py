"""A server and clients of it that do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.unit.labeling.server import KEY, Server, serving
from warmkit.labeling.endpoint import Endpoint


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as running:
        yield running


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Endpoint]]:
    """Open endpoints on the server, or on another address."""
    with ExitStack() as stack:

        def call(url: str = server.url, **options: Any) -> Endpoint:
            return stack.enter_context(Endpoint(url, **{"retries": 2, "timeout": 30, "backoff": 0.001, **options}))

        yield call
