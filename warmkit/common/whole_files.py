"""Small files that are there whole or not at all, whatever kills who writes them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from warmkit.errors import OutputError


@contextlib.contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Turn what the system says of a failed write into an OutputError about `path`."""
    full = f"{path}: the disk is full; free some space and run the same command again: it goes on from here"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(full) from None
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    except Exception as error:  # safetensors and torch have exceptions of their own for a failed write
        if any(words in str(error) for words in ("No space left on device", "PytorchStreamWriter failed")):
            raise OutputError(full) from None
        raise


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
    flush(partial)
    partial.replace(file)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines.

    Raises:
        OutputError: If they cannot be written.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
