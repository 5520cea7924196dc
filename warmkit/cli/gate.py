"""Gates: a command that measures fails where a number is lower than asked, so that a pipeline stops there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from warmkit.errors import ScoreError, UsageError, nearest

AtLeast = Annotated[
    list[str] | None,
    typer.Option("--at-least", metavar="NAME=NUMBER", help="Exit 1 where this number is lower; again for more."),
]


def floors(given: Sequence[str] | None) -> dict[str, float]:
    """Parse `NAME=NUMBER`.

    Raises:
        UsageError: If one is anything else.
    """
    result: dict[str, float] = {}
    for each in given or []:
        name, _, number = each.rpartition("=")
        try:
            result[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--at-least {each}: expected NAME=NUMBER")
    return result


def check_names(wanted: Mapping[str, float], known: Sequence[str]) -> None:
    """Refuse a gate on a number that is not measured.

    Raises:
        UsageError: With the nearest name.
    """
    for name in wanted:
        if name not in known:
            raise UsageError(f"--at-least {name}={wanted[name]:g}: there is no {name!r}{nearest(name, known)}")


def hold(wanted: Mapping[str, float], found: Mapping[str, float], whose: str) -> None:
    """Check every number against its gate.

    Raises:
        ScoreError: Naming all that are too low.
    """
    low = [f"{name} {found[name]:.4g}, at least {floor:g}" for name, floor in wanted.items() if not found[name] >= floor]
    if low:
        raise ScoreError(f"{whose} is below what was asked: {'; '.join(low)}")
