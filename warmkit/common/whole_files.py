"""Small files that are there whole or not at all, whatever kills who writes them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator
from pathlib import Path

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
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)
