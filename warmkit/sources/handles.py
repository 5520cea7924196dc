"""Open files, of which there may be more than the system lets a process have at once."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

FEWEST, MOST = 8, 1 << 16


@dataclass
class _Handle:
    """An open file; as a context it is lent."""

    descriptor: int
    lock: threading.Lock
    users: int = 0

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1


class Handles:
    """Descriptors by path, opened when they are wanted; where there are too many, the one used longest ago is closed.

    Args:
        flags: Of `os.open`.
        opened: Called with path and descriptor when a file has been opened; may refuse it by raising.
        closing: Called with a descriptor before it is closed.
        most: How many stay open; by default a third of what the system allows, for readers and writers run side by side.
    """

    def __init__(
        self,
        flags: int,
        opened: Callable[[Path, int], None] = lambda path, descriptor: None,
        closing: Callable[[int], None] = lambda descriptor: None,
        most: int | None = None,
    ) -> None:
        self._flags, self._opened, self._closing = flags, opened, closing
        self._most = max(FEWEST, raised_limit() // 3) if most is None else most
        self._handles: OrderedDict[Path, _Handle] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, path: Path) -> AbstractContextManager[int]:
        """Lend the descriptor of a file; it stays open until it is given back.

        Raises:
            OSError: If the file cannot be opened.
        """
        with self._lock:
            handle = self._handles.get(path) or self._open(path)
            handle.users += 1
            self._handles.move_to_end(path)
        return handle

    def __len__(self) -> int:
        return len(self._handles)

    def close(self) -> None:
        """Close every file; a later use opens it again."""
        with self._lock:
            while self._handles:
                _, handle = self._handles.popitem()
                self._end(handle)

    def _open(self, path: Path) -> _Handle:
        while len(self._handles) >= self._most and self._close_one():
            pass
        try:
            descriptor = os.open(path, self._flags)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._close_one():
                raise
            descriptor = os.open(path, self._flags)
        try:
            self._opened(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._handles[path] = _Handle(descriptor, self._lock)
        return self._handles[path]

    def _close_one(self) -> bool:
        """Close the file that was used longest ago and is not in use; say whether there was one."""
        path = next((path for path, handle in self._handles.items() if not handle.users), None)
        if path is not None:
            self._end(self._handles.pop(path))
        return path is not None

    def _end(self, handle: _Handle) -> None:
        try:
            self._closing(handle.descriptor)
        finally:
            os.close(handle.descriptor)


def raised_limit() -> int:
    """Return how many files this process may have open, once it has asked for as many as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return MOST if soft == resource.RLIM_INFINITY else soft
