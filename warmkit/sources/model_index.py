"""The index of a model in several files: which file holds which tensor, all of them inside the model's directory."""

from __future__ import annotations

import os
from pathlib import Path

from warmkit.common.json_files import read_object
from warmkit.errors import FormatError


def read_index(path: Path) -> dict[str, str]:
    """Read which file holds which tensor."""
    mapping = read_object(path).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(v, str) for v in mapping.values()):
        raise FormatError(f"{path}: expected a weight_map from tensor names to file names")
    return mapping


def inside(directory: Path, name: str, index: Path, suffixes: tuple[str, ...] = (".safetensors",)) -> Path:
    """Return the path of a file that an index names, which must lie in its directory."""
    path = directory / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise FormatError(f"{index}: points outside its directory: {name[:200]!r}")
    if not _is_file(path):
        raise FormatError(f"{index}: points to {name[:200]!r}, which is not there; download or copy it again")
    if path.suffix not in suffixes:
        raise FormatError(f"{index}: points to {name!r}, which is no {suffixes[0].lstrip('.')} file")
    if not stays_inside(path, directory):
        raise FormatError(f"{index}: {name!r} is a link that leaves the directory")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or none at all
        return False


def stays_inside(path: Path, directory: Path) -> bool:
    """Say whether a path, its links followed, ends in its model's directory, or in the blobs of its own Hub cache entry."""
    target, home = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    if target.is_relative_to(home):
        return True
    return home.parent.name == "snapshots" and target.is_relative_to(home.parent.parent / "blobs")
