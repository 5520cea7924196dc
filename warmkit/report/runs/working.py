"""Lock of a run's directory: whether somebody works in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def is_going(run: Path) -> bool:
    """Say whether a process holds the lock of a run's directory.

    The kernel's table of locks is asked where there is one: trying the lock could refuse a run that starts in that moment.
    """
    file = run / "lock"
    try:
        status = file.stat()
        table = Path("/proc/locks").read_text()
    except OSError:
        return _try(file)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(place in line.split() for line in table.splitlines())


def _try(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
