"""Files that appear whole, in one step at the end, and in place of nothing that they must not replace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import IO

from warmkit.common.file_kinds import kind_of
from warmkit.common.renaming import rename_into_nothing
from warmkit.errors import OutputError


def check_free(path: Path, force: bool) -> None:
    """Refuse to replace a file without `force`, and what is no file (a directory, a device) in any case.

    Raises:
        OutputError: Naming it.
    """
    what = None
    with contextlib.suppress(OSError):  # nothing is there, or writing says what is wrong
        what = kind_of(path)
    if what not in (None, "a file"):
        raise OutputError(f"{path}: cannot be written: it is {what}")
    if what is not None and not force:
        raise _taken(path)


@contextlib.contextmanager
def whole_file(path: Path, force: bool) -> Generator[IO[str], None, None]:
    """Open a file to write text to; it is at `path` when the block ends, and nowhere if that fails.

    Raises:
        OutputError: If it cannot be written, or a file is there without `force`, one that came meanwhile too.
    """
    check_free(path, force)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            partial.replace(path)
        elif not rename_into_nothing(partial, path):
            raise _taken(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path}: already exists; choose another -o, or replace it with --force")
