"""Renames in one step, which the system may or may not have."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_NO_REPLACE, _EXCHANGE = 1, 2
_AT_CWD = -100


def rename_into_nothing(new: Path, place: Path) -> bool:
    """Rename a directory to where nothing is; return False, and do nothing, if something is there."""
    try:
        if not _rename(new, place, _NO_REPLACE):
            if os.path.lexists(place):
                return False
            new.rename(place)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    return True


def exchange(new: Path, old: Path) -> None:
    """Swap two directories, in one step where the system can; then `new` holds the old content."""
    if _rename(new, old, _EXCHANGE):
        return
    aside = new.with_name("replaced")
    old.rename(aside)
    new.rename(old)
    aside.rename(new)


def _rename(one: Path, two: Path, flag: int) -> bool:
    """Call renameat2; return False where the system or the file system has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(two), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))
