"""Verdicts: what a rule, written down before the run, says of the numbers of all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from warmkit.evaluation.accuracy import Estimate, mean_interval
from warmkit.reproduction.recipe import Statement

FEWEST = 3
"""Seeds with which anything is decided."""


@dataclass(frozen=True)
class Verdict:
    """How a statement fared.

    Attributes:
        statement: Which.
        values: Its number on every seed; None where there is none.
        mean: Over the seeds that have one, with its bootstrap interval; None where none has.
        ruling: As it falls.
        why: What keeps it undecided.
    """

    statement: Statement
    values: list[float | None]
    mean: Estimate | None
    ruling: Literal["holds", "does not hold", "undecided"]
    why: str = ""

    @property
    def passes(self) -> bool:
        """Whether the mean is on the right side of the rule, sure or not: what a gate asks for."""
        return self.mean is not None and _inside(self.statement, self.mean.value)


def judge(statement: Statement, values: Sequence[float | None]) -> Verdict:
    """Apply a statement's rule.

    It holds where the 95% bootstrap interval of the mean over seeds lies wholly on the side that the statement claims; it does
    not hold where the interval lies wholly on the other; else, and with fewer than three seeds, it is undecided. The numbers
    are differences within a seed wherever two things are compared.

    Args:
        statement: With its rule.
        values: A number for every seed.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Verdict(statement, list(values), None, "undecided", "no seed reaches it")
    mean = mean_interval(known)
    if len(known) < FEWEST:
        seeds = "1 seed" if len(known) == 1 else f"{len(known)} seeds"
        return Verdict(statement, list(values), mean, "undecided", seeds)
    low, high = _inside(statement, mean.low), _inside(statement, mean.high)
    if low and high:
        return Verdict(statement, list(values), mean, "holds")
    if _outside(statement, mean):
        return Verdict(statement, list(values), mean, "does not hold")
    return Verdict(statement, list(values), mean, "undecided", "the interval has both sides")


def _inside(statement: Statement, value: float) -> bool:
    if statement.within is not None:
        return abs(value) <= statement.within
    if statement.above is not None:
        return value > statement.above
    assert statement.below is not None
    return value < statement.below


def _outside(statement: Statement, mean: Estimate) -> bool:
    """Say whether the whole interval is on the wrong side; one around a tolerance band is on both."""
    if statement.within is not None:
        return mean.low > statement.within or mean.high < -statement.within
    return not _inside(statement, mean.low) and not _inside(statement, mean.high)
