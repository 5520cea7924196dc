"""Several seeds of the demo: each number seed by seed, with Student's interval of the mean."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.evidence.made_up import demo_document
from warmkit.evaluation.few_values import student_interval
from warmkit.evidence.demo.demo_spread import conclusion, ensemble_gain, members_gain, page_of_seeds, spread_tables


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    """Three seeds, in the last of which WARM is worse than its members and 3.6 points below its ensemble."""
    found = [demo_document(seed) for seed in (4, 5, 6)]
    accuracies = {row["model"]: row for row in found[2]["reward_models"]}
    accuracies["WARM"]["validation"] = 0.780
    found[1]["policies"][3]["gold"] = 0.5
    return found


def test_every_seed_is_a_row_and_the_last_ones_are_mean_and_interval(documents: list[dict[str, Any]]) -> None:
    table = spread_tables(documents)[0]
    assert [row[0] for row in table.rows] == ["4", "5", "6", "mean", "95%"]
    column = table.columns.index("WARM")
    assert [row[column] for row in table.rows[:3]] == ["0.820", "0.820", "0.780"]
    interval = student_interval([0.82, 0.82, 0.78])
    assert [row[column] for row in table.rows[3:]] == [
        f"{interval.value:.3f}",
        f"{interval.low:.3f} to {interval.high:.3f}",
    ]
    gains = table.columns.index("WARM less its members, points")
    assert [row[gains] for row in table.rows[:3]] == ["1.6", "1.6", "-2.4"]


def test_a_difference_of_almost_nothing_has_no_sign() -> None:
    document = demo_document()
    accuracies = {row["model"]: row for row in document["reward_models"]}
    accuracies["ensemble"]["validation"] = accuracies["WARM"]["validation"] - 0.0001
    table = spread_tables([document])[0]
    assert table.rows[0][table.columns.index("ensemble less WARM, points")] == "0.0"
    assert "which is above it by 0.0 points" in conclusion([document])


def test_one_seed_has_no_interval() -> None:
    table = spread_tables([demo_document()])[0]
    assert [row[0] for row in table.rows] == ["0", "mean"]


def test_gains_are_in_points(documents: list[dict[str, Any]]) -> None:
    assert [members_gain(each) for each in documents] == pytest.approx([1.6, 1.6, -2.4])
    assert [ensemble_gain(each) for each in documents] == pytest.approx([-0.4, -0.4, 3.6])


def test_it_is_said_in_how_many_seeds_things_came_out(documents: list[dict[str, Any]]) -> None:
    said = conclusion(documents)
    gain = student_interval([1.6, 1.6, -2.4])
    ends = f"(95%: {gain.low:.1f} to {gain.high:.1f})"
    assert said.startswith(
        f"WARM is above the mean of its members in 2 of 3 seeds, by {gain.value:.1f} points in the mean {ends}."
    )
    assert "It is within 3 points of its ensemble in 2 of 3 seeds, which is above it by " in said
    assert "Of labels learned by heart it keeps less than the ensemble in 3 of 3 seeds, by 43.0 points in the mean" in said
    assert "At the KL of its policies their merge has the higher gold reward in 3 of 3 seeds, by 0.10" in said
    assert said.endswith("Without its anchor a policy ends below the SFT model in 2 of 3 seeds.")


def test_the_page_leads_to_the_page_of_each_seed(documents: list[dict[str, Any]]) -> None:
    noted = copy.deepcopy(documents)
    noted[1]["notes"] = ["run-6 does not average"]
    page = page_of_seeds(noted)
    assert page.notes == ["Seed 5: run-6 does not average"]
    first = page.sections[0].blocks[0]
    assert isinstance(first, str)
    assert "[seed 4](seed-4/report.html), [seed 5](seed-5/report.html), [seed 6](seed-6/report.html)" in first
