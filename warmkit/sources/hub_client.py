"""Asking the Hub: how long to go on, and what it refuses, in one line each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

from warmkit.common.addresses import without_secrets
from warmkit.errors import CheckpointError, HubError
from warmkit.sources.remote_file import ATTEMPTS_TO_OPEN, PassingError, Patience

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")


def patiently(repo: str, revision: str | None, ask: Callable[[], T]) -> T:
    """Ask the Hub, again where it says that it is busy.

    Raises:
        HubError: If it refuses or cannot be reached.
    """

    def attempt() -> T:
        with hub_errors(repo, revision):
            try:
                return ask()
            except OSError as error:
                if passing := _passing(error):
                    raise passing from None
                raise

    try:
        return Patience().persist(f"the Hub, asked for {repo!r}", attempt, ATTEMPTS_TO_OPEN)
    except CheckpointError as error:
        raise HubError(str(error)) from None


def _passing(error: OSError) -> PassingError | None:
    from huggingface_hub.errors import HfHubHTTPError

    from warmkit.common.http_client import retry_after

    reason = error if isinstance(error, HfHubHTTPError) else error.__cause__  # where it is not in the cache either
    if not isinstance(reason, HfHubHTTPError):
        return None
    status = reason.response.status_code
    if status not in (408, 429) and status < 500:
        return None
    return PassingError(f"HTTP {status}", wait=retry_after(reason.response.headers.get("Retry-After")))


@contextlib.contextmanager
def hub_errors(repo: str, revision: str | None = None) -> Generator[None, None, None]:
    """Turn what huggingface_hub raises into one line.

    Raises:
        HubError: Naming the repository, and what to do.
    """
    try:
        yield
    except Exception as error:
        message = _message(repo, revision, error)
        if message is None:
            raise
        raise HubError(message) from None


def _message(repo: str, revision: str | None, error: Exception) -> str | None:
    from huggingface_hub import errors as hub

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # "Error while uploading", with its reason
        return (
            _message(repo, revision, error.__cause__)
            or f"the upload to {repo!r} failed: {without_secrets(str(error.__cause__))[:200]}"
        )
    said = without_secrets(str(error))  # a signed address, where the Hub leads to its storage
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)[:200]
    known: dict[type[Exception], str] = {  # the first that fits counts
        hub.GatedRepoError: gated(repo),
        hub.RepositoryNotFoundError: absent(repo),
        hub.RevisionNotFoundError: f"the Hub's {repo!r} has no revision {revision!r}",
        hub.LocalTokenNotFoundError: "no token for the Hub; log in with `hf auth login`, or set HF_TOKEN",
        hub.OfflineModeIsEnabled: f"{repo!r} cannot be reached: HF_HUB_OFFLINE is set",
        hub.HFValidationError: f"{repo!r} is no name of a repository: {line}",
        hub.LocalEntryNotFoundError: f"the Hub cannot be reached and {repo!r} is not in the local cache",
    }
    for kind, message in known.items():
        if isinstance(error, kind):
            return message
    if isinstance(error, hub.HfHubHTTPError):
        return f"{_refused(repo, error)}: {line}"
    unreachable = isinstance(error, OSError) or any(word in type(error).__name__ for word in ("Connect", "Timeout", "Protocol"))
    return f"the Hub cannot be reached, asked for {repo!r}: {line}" if unreachable else None


def _refused(repo: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return f"the Hub does not know who asks for {repo!r} (log in with `hf auth login`)"
    if status == 403:
        return f"the Hub does not let this account do that with {repo!r}"
    return f"the Hub refused what was asked for {repo!r}"


def absent(repo: str) -> str:
    return f"the Hub has no repository {repo!r}, or it is private (log in with `hf auth login`)"


@contextlib.contextmanager
def without_bars() -> Generator[None, None, None]:
    """Let huggingface_hub draw no progress bars meanwhile."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def gated(repo: str) -> str:
    return f"{repo!r} is gated: ask for access on its page on the Hub, then log in with `hf auth login`"
