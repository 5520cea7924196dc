"""The files that tensors are read from, by any thread at any place; remote ones by byte ranges."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from warmkit.common.file_kinds import kind_of
from warmkit.errors import CheckpointError, FormatError
from warmkit.sources.file_identity import Identity, check_identity, identity_of
from warmkit.sources.handles import Handles

if TYPE_CHECKING:
    from warmkit.sources.prefetch import Prefetcher
    from warmkit.sources.remote_file import RemoteFile

WeightFile: TypeAlias = "Path | RemoteFile"


def refuse_irregular(path: Path) -> None:
    """Refuse what is no regular file, before it is opened: a pipe that nobody writes to would be waited for for ever.

    Raises:
        CheckpointError: Naming what it is.
    """
    try:
        what = kind_of(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if what != "a file":
        raise CheckpointError(f"{path}: expected a file, found {what}")


class Files:
    """Open files. Use it as a context, or close it.

    Args:
        known: Identities that files must have when they are opened.
    """

    def __init__(self, known: Mapping[Path, Identity] | None = None) -> None:
        self._known = known or {}
        self._handles = Handles(os.O_RDONLY, self._opened)
        self._prefetcher: Prefetcher | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def read(self, file: WeightFile, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes of a file from `offset` on.

        Raises:
            FormatError: If the file ends before that.
            ChangedError: If it is no longer the file that it was.
            CheckpointError: If the system cannot read it, or a remote file does not arrive.
        """
        if not isinstance(file, Path):
            self._remote().read(file, offset, view)
            return
        try:
            with self._handles.use(file) as descriptor:
                while view.nbytes:
                    if not (got := os.preadv(descriptor, [view], offset)):
                        raise FormatError(f"{file}: ends at byte {offset:,}: it was truncated while it was read")
                    view, offset = view[got:], offset + got
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None

    def ahead(self, file: WeightFile, offset: int, size: int) -> None:
        """Announce a coming read, so that it overlaps the work before it. Of a remote file, announce each read once."""
        if not isinstance(file, Path):
            self._remote().ahead(file, offset, size)
        elif hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError), self._handles.use(file) as descriptor:  # reading it will say what is wrong
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close every file; a later read opens it again."""
        self.stop()
        self._prefetcher = None
        self._handles.close()

    def stop(self) -> None:
        """End what is being fetched from remote files; whoever waits for it gets an error."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _remote(self) -> Prefetcher:
        with self._lock:
            if self._prefetcher is None:
                from warmkit.sources.prefetch import Prefetcher

                self._prefetcher = Prefetcher()
            return self._prefetcher

    def _opened(self, file: Path, descriptor: int) -> None:
        if file in self._known:
            check_identity(file, self._known[file], identity_of(os.fstat(descriptor)))
