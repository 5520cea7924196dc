"""Verdicts follow their rules, whatever the numbers are."""

from __future__ import annotations

import pytest

from warmkit.errors import UsageError
from warmkit.reproduction.recipe import Statement
from warmkit.reproduction.verdicts import judge


def statement(**rule: float) -> Statement:
    return Statement("name", "says", "number", **rule)


@pytest.mark.parametrize(
    ("rule", "values", "ruling"),
    [
        ({"above": 0.0}, [0.1, 0.2, 0.3], "holds"),
        ({"above": 0.0}, [-0.1, -0.2, -0.3], "does not hold"),
        ({"above": 0.0}, [-0.1, 0.2, 0.3], "undecided"),
        ({"above": 0.15}, [0.1, 0.2, 0.3], "undecided"),
        ({"below": 1.0}, [0.1, 0.2, 0.3], "holds"),
        ({"below": 0.05}, [0.1, 0.2, 0.3], "does not hold"),
        ({"within": 0.5}, [0.1, -0.2, 0.3], "holds"),
        ({"within": 0.05}, [0.1, 0.2, 0.3], "does not hold"),
        ({"within": 0.05}, [-0.1, -0.2, -0.3], "does not hold"),
        ({"within": 0.25}, [0.1, 0.2, 0.3], "undecided"),
        ({"within": 0.01}, [-1.0, 0.0, 1.0], "undecided"),  # wide, around nothing: neither close nor far
    ],
)
def test_the_interval_decides(rule: dict[str, float], values: list[float], ruling: str) -> None:
    assert judge(statement(**rule), values).ruling == ruling


@pytest.mark.parametrize(("values", "why"), [([1.0], "1 seed"), ([1.0, 2.0], "2 seeds")])
def test_few_seeds_decide_nothing(values: list[float], why: str) -> None:
    verdict = judge(statement(above=0.0), values)
    assert (verdict.ruling, verdict.why, verdict.passes) == ("undecided", why, True)


def test_seeds_that_do_not_reach_a_number_do_not_count() -> None:
    verdict = judge(statement(above=0.0), [None, 1.0, 2.0, 3.0])
    assert verdict.ruling == "holds"
    assert verdict.mean is not None
    assert verdict.mean.value == 2.0
    assert judge(statement(above=0.0), [None, 1.0, 2.0]).ruling == "undecided"
    nothing = judge(statement(above=0.0), [None, None, None])
    assert (nothing.ruling, nothing.why, nothing.passes) == ("undecided", "no seed reaches it", False)


@pytest.mark.parametrize(
    ("rule", "values", "passes"),
    [({"above": 0.0}, [-0.1, 0.3], True), ({"above": 0.0}, [-0.3, 0.1], False), ({"within": 1.0}, [3.0, -3.0], True)],
)
def test_a_gate_asks_for_the_side_of_the_mean(rule: dict[str, float], values: list[float], passes: bool) -> None:
    assert judge(statement(**rule), values).passes is passes


@pytest.mark.parametrize("rule", [{}, {"above": 0.0, "below": 1.0}])
def test_a_statement_has_one_rule(rule: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="name: expected one of above, below and within"):
        statement(**rule)
