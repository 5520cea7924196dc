"""Signature of a run: what changes while it goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".json", ".jsonl", ".yaml")
SKIPPED = ("data", "evaluation", "tensorboard", "wandb")

Signature = frozenset[tuple[str, int, int]]


def signature(paths: Sequence[Path]) -> Signature:
    """Return size and time of every file that a report reads; it differs when one changed, came or went."""
    return frozenset(found for path in paths for file in _files(path) if (found := _stamp(file)) is not None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found: list[Path] = []
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if name not in SKIPPED and not name.startswith(".")]
        found += [Path(folder) / name for name in names if name.endswith(SUFFIXES)]
    return found


def _stamp(file: Path) -> tuple[str, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None  # gone since it was listed
    return str(file), status.st_mtime_ns, status.st_size
