"""Verdicts: what a rule, written down before the run, says of the numbers of all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from warmkit.evaluation.few_values import Estimate, student_interval
from warmkit.evidence.reproduction.claim_recipe import Statement

FEWEST = 3
"""Seeds with which anything is decided."""
EQUAL = 6
"""Seeds that decide where all have one value, so that their spread says nothing.

Were each as likely on one side of the border as on the other, so many would all be on a given side once in 2^6 times: 1.6%.
"""
Ruling = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """How a statement fared.

    Attributes:
        statement: Which.
        values: Its number on every seed; None where there is none.
        mean: Over the seeds that have one, with Student's interval of 95%; None where none has.
        ruling: As it falls.
        why: What keeps it undecided.
    """

    statement: Statement
    values: list[float | None]
    mean: Estimate | None
    ruling: Ruling
    why: str = ""

    @property
    def passes(self) -> bool:
        """Whether the mean is on the right side of the rule, sure or not: what a gate asks for."""
        return self.mean is not None and _inside(self.statement, self.mean.value)


def judge(statement: Statement, values: Sequence[float | None]) -> Verdict:
    """Apply a statement's rule.

    It holds where the 95% interval of the mean over seeds (Student's t) lies wholly on the side that the statement claims; it
    does not hold where the interval lies wholly on the other; else, and with fewer than three seeds, it is undecided. So a
    number whose mean lies on the border is said to hold in 2.5 of 100 cases. Seeds that all have one value have no spread: they
    decide if they are six or more. Numbers are differences within a seed wherever two things are compared.

    Args:
        statement: With its rule.
        values: A number for every seed.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Verdict(statement, list(values), None, "undecided", "no seed reaches it")
    mean = student_interval(known)
    return Verdict(statement, list(values), mean, *_ruling(statement, mean, len(known)))


def _ruling(statement: Statement, mean: Estimate, seeds: int) -> tuple[Ruling, str]:
    if seeds < FEWEST:
        return "undecided", "1 seed" if seeds == 1 else f"{seeds} seeds"
    if mean.low == mean.high and _on_border(statement, mean.value):
        return "undecided", "all seeds lie on the border"
    if mean.low == mean.high and seeds < EQUAL:
        return "undecided", f"{seeds} seeds with one value do not say how far others lie"
    if _inside(statement, mean.low) and _inside(statement, mean.high):
        return "holds", ""
    return ("does not hold", "") if _outside(statement, mean) else ("undecided", "the interval has both sides")


def _on_border(statement: Statement, value: float) -> bool:
    return value in (statement.above, statement.below) or (statement.within is not None and abs(value) == statement.within)


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
