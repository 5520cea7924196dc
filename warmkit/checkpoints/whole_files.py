"""Small files that are there whole or not at all, whatever kills who writes them."""

from __future__ import annotations

import os
from pathlib import Path

from warmkit.checkpoints.staging import writing


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, power loss included.

    Raises:
        OutputError: If it cannot be written.
    """
    with writing(file):
        partial = file.with_name(f".{file.name}.partial")
        partial.write_bytes(content)
        flush_and_rename(partial, file)


def flush_and_rename(partial: Path, file: Path) -> None:
    """Put a file that was written under another name in place, once it is on disk."""
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)
