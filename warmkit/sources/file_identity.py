"""Identity of a file: what tells that it was replaced or overwritten while it was in use."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from warmkit.errors import ChangedError


class Identity(NamedTuple):
    """What a file system says of a file; a link counts as what it leads to."""

    inode: int
    size: int
    modified: int  # nanoseconds


def identity(path: Path) -> Identity | None:
    """Return the identity of a file as it is now, None if it is not there."""
    try:
        return identity_of(path.stat())
    except OSError:
        return None


def identity_of(found: os.stat_result) -> Identity:
    return Identity(found.st_ino, found.st_size, found.st_mtime_ns)


def identities_at(place: Path) -> dict[Path, Identity]:
    """Return the identities of a file, or of the files in a directory and its sub-folders: what a checkpoint consists of.

    Taken before anything is read, they cannot be those of files that came later.
    """
    if not place.is_dir():
        found = identity(place)
        return {} if found is None else {place: found}
    inner = [each for each in _entries(place) if _is(each, stat.S_ISDIR)]
    entries = [*_entries(place), *(entry for folder in inner for entry in _entries(Path(folder.path)))]
    return {Path(entry.path): identity_of(entry.stat()) for entry in entries if _is(entry, stat.S_ISREG)}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        return


def _is(entry: os.DirEntry[str], kind: Callable[[int], bool]) -> bool:
    try:
        return kind(entry.stat().st_mode)
    except OSError:
        return False


def check_unchanged(known: Mapping[Path, Identity], files: Iterable[Path]) -> None:
    """Check that files are what they were.

    Raises:
        ChangedError: Naming the first that is not.
    """
    for file in files:
        if file in known:
            check_identity(file, known[file], identity(file))


def check_identity(file: Path, before: Identity, now: Identity | None) -> None:
    """Check one file, whose identity is known.

    Raises:
        ChangedError: If it has another one.
    """
    if now == before:
        return
    if now is None:
        what = "was removed"
    elif now.inode != before.inode:
        what = "was replaced by another file"
    else:
        grown = "" if now.size == before.size else f" ({before.size:,} bytes before, {now.size:,} now)"
        what = f"was overwritten{grown}"
    raise ChangedError(
        f"{file}: {what} while it was read, so the result would be of two versions; nothing was written. Wait until nothing "
        "writes there, and give the same command again"
    )
