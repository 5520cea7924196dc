"""Kind of what lies at a path: a file, a directory, or something that must not be read as one."""

from __future__ import annotations

import stat
from pathlib import Path


def kind_of(path: Path) -> str:
    """Return what lies at a path, links followed: `a file`, `a directory`, `a pipe`, `a socket` or `a device`."""
    mode = path.stat().st_mode
    kinds = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for holds, name in kinds if holds(mode)), "a device")
