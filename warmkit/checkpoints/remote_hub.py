"""Hub repositories, streamed: small files through the Hub's cache, weights from the addresses that the Hub names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from warmkit.checkpoints.http_connections import Response
from warmkit.checkpoints.http_file import HttpFile, Site
from warmkit.checkpoints.hub import PATTERNS, parse_repository
from warmkit.checkpoints.remote import Remote, choose, read_mapping, several
from warmkit.checkpoints.remote_file import ATTEMPTS_TO_OPEN, PassingError, Patience
from warmkit.errors import CheckpointError, HubError
from warmkit.http_client import retry_after

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")

SMALL = [pattern for pattern in PATTERNS if pattern != "*.safetensors"]


def open_hub(source: str) -> Remote:
    """Open a repository at one commit, which the revision names now; whatever is pushed meanwhile is not read.

    Raises:
        HubError: If the Hub refuses or cannot be reached.
        CheckpointError: If the repository holds no weights that can be streamed.
    """
    from huggingface_hub import HfApi, get_token, hf_hub_url, snapshot_download

    repo, revision = parse_repository(source)
    info = patiently(repo, revision, lambda: HfApi().model_info(repo, revision=revision))
    commit, names = info.sha or "main", [each.rfilename for each in info.siblings or ()]
    place = f"hf://{repo}@{revision or commit}"
    weights, index = choose(names, place)
    with without_bars():
        folder = Path(patiently(repo, revision, lambda: snapshot_download(repo, revision=commit, allow_patterns=SMALL)))
    mapping = read_mapping((folder / index).read_bytes(), f"{place}/{index}") if index else None
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    site = Site(headers, lambda response: _explain(repo, revision, response))

    def open_file(name: str) -> HttpFile:
        url = hf_hub_url(repo, name, revision=commit)
        return HttpFile(site, url, f"{place}/{name}", name, version=commit)

    files = several(open_file, sorted(set(mapping.values())) if mapping else weights)
    return Remote(source, folder, [*files], mapping)


def patiently(repo: str, revision: str | None, ask: Callable[[], T]) -> T:
    """Ask the Hub, again where it says that it is busy.

    Raises:
        HubError: If it refuses or cannot be reached.
    """

    def attempt() -> T:
        from huggingface_hub.errors import HfHubHTTPError

        with hub_errors(repo, revision):
            try:
                return ask()
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in (408, 429) or status >= 500:
                    raise PassingError(f"HTTP {status}", wait=retry_after(error.response.headers.get("Retry-After"))) from None
                raise

    try:
        return Patience().persist(f"the Hub, asked for {repo!r}", attempt, ATTEMPTS_TO_OPEN)
    except CheckpointError as error:
        raise HubError(str(error)) from None


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
        return _message(repo, revision, error.__cause__) or f"the upload to {repo!r} failed: {error.__cause__}"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
    known: dict[type[Exception], str] = {  # the first that fits counts
        hub.GatedRepoError: _gated(repo),
        hub.RepositoryNotFoundError: _absent(repo),
        hub.RevisionNotFoundError: f"the Hub's {repo!r} has no revision {revision!r}",
        hub.LocalTokenNotFoundError: "no token for the Hub; log in with `hf auth login`, or set HF_TOKEN",
        hub.OfflineModeIsEnabled: f"{repo!r} cannot be reached: HF_HUB_OFFLINE is set",
        hub.HFValidationError: f"{repo!r} is no name of a repository: {line}",
        hub.LocalEntryNotFoundError: f"the Hub cannot be reached, asked for {repo!r}",
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


def _explain(repo: str, revision: str | None, response: Response) -> CheckpointError | None:
    code = response.headers.get("X-Error-Code")
    if code == "GatedRepo":
        return HubError(_gated(repo))
    if code == "RevisionNotFound":
        return HubError(f"the Hub's {repo!r} has no revision {revision!r}")
    if response.status == 401:
        return HubError(_absent(repo))
    return None


def _absent(repo: str) -> str:
    return f"the Hub has no repository {repo!r}, or it is private (log in with `hf auth login`)"


def _gated(repo: str) -> str:
    return f"{repo!r} is gated: ask for access on its page on the Hub, then log in with `hf auth login`"
