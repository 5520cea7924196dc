"""Verdicts follow their rules, whatever the numbers are."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.errors import UsageError
from warmkit.evidence.reproduction.claim_recipe import Statement
from warmkit.evidence.reproduction.reproduction_page import every_seed, interval
from warmkit.evidence.reproduction.verdicts import judge


def statement(**rule: float) -> Statement:
    return Statement("name", "says", "number", **rule)


@pytest.mark.parametrize(
    ("rule", "values", "ruling"),
    [
        ({"above": 0.0}, [0.2, 0.3, 0.4], "holds"),
        ({"above": 0.0}, [-0.2, -0.3, -0.4], "does not hold"),
        ({"above": 0.0}, [0.1, 0.2, 0.3], "undecided"),  # a bootstrap of three would never leave what was seen
        ({"above": 0.0}, [-0.1, 0.2, 0.3], "undecided"),
        ({"above": 0.15}, [0.1, 0.2, 0.3], "undecided"),
        ({"below": 1.0}, [0.1, 0.2, 0.3], "holds"),
        ({"below": -0.05}, [0.1, 0.2, 0.3], "does not hold"),
        ({"within": 1.0}, [0.1, -0.2, 0.3], "holds"),
        ({"within": 0.05}, [0.4, 0.5, 0.6], "does not hold"),
        ({"within": 0.05}, [-0.4, -0.5, -0.6], "does not hold"),
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
    verdict = judge(statement(above=0.0), [None, 1.5, 2.0, 2.5])
    assert verdict.ruling == "holds"
    assert verdict.mean is not None
    assert verdict.mean.value == 2.0
    assert judge(statement(above=0.0), [None, 1.0, 2.0]).ruling == "undecided"
    nothing = judge(statement(above=0.0), [None, None, None])
    assert (nothing.ruling, nothing.why, nothing.passes) == ("undecided", "no seed reaches it", False)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_at_the_border_of_its_rule_a_statement_is_said_to_hold_in_few_cases(n: int) -> None:
    draws = np.random.default_rng(n).normal(size=(4000, n)).tolist()
    rulings = [judge(statement(above=0.0), values).ruling for values in draws]
    assert rulings.count("holds") / len(rulings) == pytest.approx(0.025, abs=0.007)
    assert rulings.count("does not hold") / len(rulings) == pytest.approx(0.025, abs=0.007)


@pytest.mark.parametrize(
    ("rule", "values", "ruling", "why"),
    [
        ({"above": 50.0}, [100.0] * 5, "undecided", "5 seeds with one value do not say how far others lie"),
        ({"above": 50.0}, [100.0] * 6, "holds", ""),
        ({"below": 50.0}, [100.0] * 6, "does not hold", ""),
        ({"above": 0.0}, [0.0] * 10, "undecided", "all seeds lie on the border"),
        ({"within": 2.0}, [-2.0] * 10, "undecided", "all seeds lie on the border"),
    ],
)
def test_seeds_with_one_value_decide_if_they_are_many(
    rule: dict[str, float], values: list[float], ruling: str, why: str
) -> None:
    verdict = judge(statement(**rule), values)
    assert (verdict.ruling, verdict.why) == (ruling, why)


@pytest.mark.parametrize(
    ("values", "words", "all_of_them"),
    [
        ([2.0], "+2", "+2"),
        ([2.0, None], "+2 (1 of 2 seeds)", "+2, not reached"),
        ([99.0, 100.0, 99.5], "+99.5 (+98.3 to +100)", "+99, +100, +99.5"),
        ([98.0, None, 99.0], "+98.5 (+92.1 to +100, 2 of 3 seeds)", "+98, not reached, +99"),
        ([None], "not reached", "not reached"),
    ],
)
def test_a_page_shows_every_seed_and_no_share_beyond_all(values: list[float | None], words: str, all_of_them: str) -> None:
    verdict = judge(Statement("name", "says", "number", above=50, unit="percent"), values)
    assert (interval(verdict), every_seed(verdict)) == (words, all_of_them)


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
