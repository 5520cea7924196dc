"""Numbers for shells: a command that measures prints one alone, or fails where one is lower than asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from warmkit.cli.console import Console
from warmkit.errors import ScoreError, UsageError, nearest

AtLeast = Annotated[
    list[str] | None,
    typer.Option("--at-least", metavar="NAME=NUMBER", help="Exit 1 where this number is lower. Repeatable."),
]


Print = Annotated[
    str | None,
    typer.Option(
        "--print", metavar="NAME", help="Print this one number and nothing else, for a shell or `soup --greedy --score`."
    ),
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
            raise UsageError(f"--at-least {each}: expected NAME=NUMBER, for instance val=0.8")
    return result


def check_print(console: Console, printed: str | None) -> None:
    """Refuse a number beside a document.

    Raises:
        UsageError: If both are asked for.
    """
    if printed is not None and console.json:
        raise UsageError("--print prints one number, and --json a document: give one of them")


def check_names(wanted: Mapping[str, float], printed: str | None, known: Sequence[str]) -> None:
    """Refuse a number that is not measured.

    Raises:
        UsageError: With the nearest name.
    """
    asked = {name: f"--at-least {name}={floor:g}" for name, floor in wanted.items()}
    asked |= {} if printed is None else {printed: f"--print {printed}"}
    for name, option in asked.items():
        if name not in known:
            raise UsageError(f"{option}: there is no {name!r}{nearest(name, known)}")


def check_shares(wanted: Mapping[str, float]) -> None:
    """Refuse a gate in percent.

    Raises:
        UsageError: With the share that is meant.
    """
    for name, floor in wanted.items():
        if floor > 1:
            raise UsageError(f"--at-least {name}={floor:g}: expected a share from 0 to 1, for instance {name}={floor / 100:g}")


def hold(wanted: Mapping[str, float], found: Mapping[str, float], whose: str) -> None:
    """Check every number against its gate.

    Raises:
        ScoreError: Naming all that are too low.
    """
    low = [f"{name} {found[name]:.4g}, at least {floor:g}" for name, floor in wanted.items() if not found[name] >= floor]
    if low:
        raise ScoreError(f"{whose} is below what was asked: {'; '.join(low)}")
