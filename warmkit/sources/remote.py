"""Models that are streamed: weights by byte ranges, never on disk; the small files beside them in a folder here."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from warmkit.common.addresses import printable
from warmkit.common.json_files import parse_json
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.sources.beside import Beside
from warmkit.sources.foreign_forms import refuse_form
from warmkit.sources.remote_file import RemoteFile
from warmkit.sources.weight_names import INDEX, PICKLES, SINGLE

T = TypeVar("T")

AT_A_TIME = 8


@dataclass(frozen=True)
class Remote:
    """A checkpoint that is elsewhere.

    Attributes:
        source: What the user calls it, without secrets.
        folder: Where its small files lie; for a lone weight file a path that is not there.
        files: The weights.
        mapping: From tensors to file names, as its index says; None without one.
        beside: What lies beside the weights.
        others: Its files.
    """

    source: str
    folder: Path
    files: list[RemoteFile]
    mapping: dict[str, str] | None
    beside: Beside = Beside((), ())
    others: list[RemoteFile] = field(default_factory=lambda: [])


def choose(names: Iterable[str], place: str) -> tuple[list[str], str | None]:
    """Return the weight files of a model directory, or its index.

    Raises:
        CheckpointError: If there is none, or it is not clear which.
    """
    known = set(names)
    if INDEX in known:
        return [], INDEX
    if SINGLE in known:
        return [SINGLE], None
    if "adapter_config.json" in known:
        raise UnsupportedError(f"{place}: a LoRA adapter, which cannot be streamed; download it first")
    found = sorted(name for name in known if name.endswith(".safetensors") and "/" not in name)
    if len(found) == 1:
        return found, None
    if found:
        raise FormatError(f"{place}: {len(found)} safetensors files ({', '.join(found[:4])}) and no {INDEX}")
    pickles = sorted(name for name in known if name.endswith(PICKLES))
    if pickles:
        raise UnsupportedError(f"{place}: only pickle files ({', '.join(pickles[:3])}), which cannot be streamed")
    refuse_form(sorted(known), place)
    raise CheckpointError(f"{place}: expected {SINGLE} or {INDEX}, found neither")


def read_mapping(index: bytes, place: str) -> dict[str, str]:
    """Return the weight map of an index.

    Raises:
        FormatError: If it is none, or leads out of the model.
    """
    content = parse_json(index, place)
    mapping = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(value, str) for value in mapping.values()):
        raise FormatError(f"{place}: expected a weight_map from tensor names to file names")
    for name in set(mapping.values()):
        if not is_plain(name) or not name.endswith(".safetensors"):
            raise FormatError(f"{place}: points to {name[:200]!r}, which is no safetensors file of this model")
    return mapping


def check_single(names: Iterable[str], mapping: Mapping[str, str], place: str) -> None:
    """Refuse a model directory whose index leaves its one file out, so that it is not clear which one counts."""
    if SINGLE in names and set(mapping.values()) != {SINGLE}:
        raise FormatError(f"{place}: holds both {SINGLE} and {INDEX}, so it is not clear which one counts")


def save(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write small files.

    Raises:
        CheckpointError: If a name leads out of the folder.
    """
    for name, body in files.items():
        if not is_plain(name):
            raise CheckpointError(f"{name[:200]!r} is no name of a file inside a model")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def is_plain(name: str) -> bool:
    """Say whether a name that somebody else gave is a path inside a folder here, whatever system reads it."""
    if not name:
        return True  # the place itself
    parts = name.split("/")
    return not any(part in ("", ".", "..") or printable(part) != part or set(part) & {":", "\\"} for part in parts)


def several(fetch: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Fetch many at a time, in order."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(fetch, names))


def temporary_folder(owner: object) -> Path:
    """Create a folder that is removed when its owner is, at the end of the process at the latest."""
    folder = tempfile.mkdtemp(prefix="warmkit-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
