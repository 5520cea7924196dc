"""Bytes, seconds and numbers of parameters as people read them."""

from __future__ import annotations

import re

from warmkit.errors import UsageError

SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}


def size(count: float) -> str:
    """Write a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration(seconds: float) -> str:
    """Write a time as people read it.

    Examples:
        >>> duration(0.42), duration(75), duration(4000), duration(200000)
        ('0.42 s', '1 min 15 s', '1 h 7 min', '2 d 8 h')
    """
    if seconds < 60:
        return f"{round(seconds, 2):.2g} s"
    for unit, part, names in ((1, 60, "min s"), (60, 60, "h min")):
        large, small = divmod(round(seconds / unit), part)
        if large < (60 if unit == 1 else 24):
            return "{1} {0[0]} {2} {0[1]}".format(names.split(), large, small)
    large, small = divmod(round(seconds / 3600), 24)
    return f"{large} d {small} h"


def seconds_of(text: str | float) -> float:
    """Read a time: a number of seconds, or one with its unit.

    Raises:
        UsageError: If it is none, or not above 0.

    Examples:
        >>> seconds_of("2h"), seconds_of("1.5 min"), seconds_of(30)
        (7200.0, 90.0, 30.0)
    """
    match = re.fullmatch(r"(?P<count>\d+(?:\.\d+)?) ?(?P<unit>s|min|m|h|d)?", str(text).strip())
    if match is None or not float(match["count"]):
        raise UsageError(f"expected a time such as 90s, 30min, 2h or 1d, found {text!r}")
    return float(match["count"]) * SECONDS[match["unit"] or "s"]


def number(count: float) -> str:
    """Write a number of parameters as people read it."""
    for unit in ("", "K", "M"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} B"
