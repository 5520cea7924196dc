"""Numbers for shells: a command that measures prints one alone, or fails where one is lower than asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmkit.cli.command import option
from warmkit.cli.console import Console
from warmkit.errors import ScoreError, UsageError, nearest


@dataclass(eq=False, repr=False)
class Gates:
    """Numbers that a shell reads or that a command fails by."""

    at_least: list[str] | None = option(None, "Exit 1 where this number is lower. Repeatable.", metavar="NAME=NUMBER")
    printed: str | None = option(
        None, "Print this one number and nothing else, for a shell or `soup --greedy --score`.", "--print", metavar="NAME"
    )

    def floors(self) -> dict[str, float]:
        """Parse `NAME=NUMBER`.

        Raises:
            UsageError: If one is anything else.
        """
        result: dict[str, float] = {}
        for each in self.at_least or []:
            name, _, number = each.rpartition("=")
            try:
                result[name] = float(number)
            except ValueError:
                name = ""
            if not name:
                raise UsageError(f"--at-least {each}: expected NAME=NUMBER, for instance val=0.8")
        return result

    def check(self, console: Console) -> None:
        """Refuse a number beside a document, and gates that are none.

        Raises:
            UsageError: If both are asked for.
        """
        if self.printed is not None and console.json:
            raise UsageError("--print prints one number, and --json a document: give one of them")
        self.floors()

    def check_names(self, known: Sequence[str]) -> None:
        """Refuse a number that is not measured.

        Raises:
            UsageError: With the nearest name.
        """
        asked = {name: f"--at-least {name}={floor:g}" for name, floor in self.floors().items()}
        asked |= {} if self.printed is None else {self.printed: f"--print {self.printed}"}
        for name, said in asked.items():
            if name not in known:
                raise UsageError(f"{said}: there is no {name!r}{nearest(name, known)}")

    def check_shares(self) -> None:
        """Refuse a gate in percent.

        Raises:
            UsageError: With the share that is meant.
        """
        for name, floor in self.floors().items():
            if floor > 1:
                raise UsageError(
                    f"--at-least {name}={floor:g}: expected a share from 0 to 1, for instance {name}={floor / 100:g}"
                )

    def result(self, console: Console, found: Mapping[str, float], whose: str, document: Any, *parts: Any) -> None:
        """Print the one number, else the result; then check every number against its gate.

        Raises:
            ScoreError: Naming all that are too low.
        """
        if self.printed is None:
            console.result(document, *parts)
        else:
            console.number(found[self.printed])
        low = [
            f"{name} {found[name]:.4g}, at least {floor:g}" for name, floor in self.floors().items() if not found[name] >= floor
        ]
        if low:
            raise ScoreError(f"{whose} is below what was asked: {'; '.join(low)}")
