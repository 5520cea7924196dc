"""The files that tensors are read from: each opened once, read by any thread at any place, remote ones by byte ranges."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from warmkit.errors import CheckpointError, FormatError

if TYPE_CHECKING:
    from warmkit.checkpoints.prefetch import Prefetcher
    from warmkit.checkpoints.remote_file import RemoteFile

WeightFile: TypeAlias = "Path | RemoteFile"


class Files:
    """Open files. Use it as a context, or close it."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
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
            CheckpointError: If the system cannot read it, or a remote file does not arrive.
        """
        if not isinstance(file, Path):
            self._remote().read(file, offset, view)
            return
        while view.nbytes:
            try:
                got = os.preadv(self._descriptor(file), [view], offset)
            except OSError as error:
                raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
            if not got:
                raise FormatError(f"{file}: ends at byte {offset:,}: it was truncated while it was read")
            view, offset = view[got:], offset + got

    def ahead(self, file: WeightFile, offset: int, size: int) -> None:
        """Announce a coming read, so that it overlaps the work before it. Of a remote file, announce each read once."""
        if not isinstance(file, Path):
            self._remote().ahead(file, offset, size)
        elif hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor(file), offset, size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close every file; a later read opens it again."""
        self.stop()
        self._prefetcher = None
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def stop(self) -> None:
        """End what is being fetched from remote files; whoever waits for it gets an error."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _remote(self) -> Prefetcher:
        with self._lock:
            if self._prefetcher is None:
                from warmkit.checkpoints.prefetch import Prefetcher

                self._prefetcher = Prefetcher()
            return self._prefetcher

    def _descriptor(self, file: Path) -> int:
        if file not in self._descriptors:
            with self._lock:
                if file not in self._descriptors:
                    self._descriptors[file] = os.open(file, os.O_RDONLY)
        return self._descriptors[file]
