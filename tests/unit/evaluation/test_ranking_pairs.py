"""The pairs that choose are not those that report."""

from __future__ import annotations

import random

import pytest

from warmkit.data.preferences import Pair
from warmkit.errors import DataError
from warmkit.evaluation.ranking_pairs import halves


def pairs(prompts: int, each: int = 1) -> list[Pair]:
    return [Pair(f"prompt {p}", f"good {p} {n}", f"bad {p} {n}") for p in range(prompts) for n in range(each)]


@pytest.mark.parametrize(("prompts", "each"), [(2, 1), (3, 1), (101, 1), (40, 3), (1, 60), (2, 50)])
def test_two_halves_are_all_pairs_and_share_none(prompts: int, each: int) -> None:
    rows = pairs(prompts, each)
    ranking, rest = halves(rows)
    assert sorted(ranking + rest) == list(range(len(rows)))
    assert 0 <= len(ranking) - len(rest) <= max(1, 2 * each) or len(ranking) - len(rest) == -1
    assert ranking
    assert rest


def test_pairs_of_one_prompt_stay_together() -> None:
    rows = pairs(40, 3)
    sides = [{rows[place].prompt for place in side} for side in halves(rows)]
    assert not sides[0] & sides[1]


def test_pairs_of_few_prompts_are_divided_one_by_one_and_a_pair_given_twice_stays_together() -> None:
    rows = pairs(1, 60) + [Pair(each.prompt, each.rejected, each.chosen) for each in pairs(1, 60)]
    sides = [{frozenset((rows[place].chosen, rows[place].rejected)) for place in side} for side in halves(rows)]
    assert len(sides[0]) == len(sides[1]) == 30
    assert not sides[0] & sides[1]


def test_sides_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = pairs(50, 2)
    shuffled = random.Random(0).sample(rows, len(rows))
    first = {rows[place].chosen for place in halves(rows)[0]}
    assert first == {shuffled[place].chosen for place in halves(shuffled)[0]}


def test_chats_are_divided_too() -> None:
    chosen, rejected = ([{"role": "assistant", "content": each}] for each in ("good", "bad"))
    rows = [Pair([{"role": "user", "content": str(n)}], chosen, rejected) for n in range(20)]
    assert [len(side) for side in halves(rows)] == [10, 10]


def test_one_pair_cannot_rank_and_report() -> None:
    with pytest.raises(DataError, match=r"data\.validation: expected at least 2 different pairs.*; found 1"):
        halves(pairs(1) * 3)
