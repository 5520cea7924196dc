"""Schedules of an average along a run: WSM's rule, Megatron-LM's coefficients, TRL's BEMA."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.errors import UsageError
from warmkit.merging.schedules import SCHEDULES, bema, run_coefficients

from .properties import deterministic

CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "minus-sqrt": lambda x: 1 - math.sqrt(x),
    "cosine": lambda x: math.cos(math.pi * x / 2) ** 2,
}
even = st.tuples(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 40)).map(
    lambda each: [each[0] + place * each[1] for place in range(each[2])]
)
uneven = st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True).map(sorted)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@deterministic
@given(uneven)
def test_coefficients_sum_to_one(name: str, steps: list[int]) -> None:
    assert run_coefficients(name, steps).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", CURVES)
@deterministic
@given(even)
def test_a_decay_scales_the_updates_between_checkpoints_by_its_curve(name: str, steps: list[int]) -> None:
    """The merge of any checkpoints is the first plus every later update times the curve at its place."""
    count = len(steps)
    checkpoints = np.random.default_rng(count).normal(size=(count, 5)).cumsum(axis=0)
    expected = checkpoints[0].copy()
    for place in range(1, count):
        expected += CURVES[name](place / count) * (checkpoints[place] - checkpoints[place - 1])
    np.testing.assert_allclose(run_coefficients(name, steps) @ checkpoints, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", CURVES)
def test_evenly_spaced_checkpoints_have_the_coefficients_that_megatron_gives_their_numbers(name: str) -> None:
    """Its `schedule_to_merge_coefficients` (main, June 2026) puts checkpoint i of n at i / n of the decay."""
    for count in (2, 3, 10):
        places = [CURVES[name](place / count) for place in range(count)] + [0.0]
        expected = [one - two for one, two in itertools.pairwise(places)]
        found = run_coefficients(name, [1000 + 250 * place for place in range(count)])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@deterministic
@given(even)
def test_linear_is_the_plain_mean_of_evenly_spaced_checkpoints(steps: list[int]) -> None:
    np.testing.assert_allclose(run_coefficients("linear", steps), np.full(len(steps), 1 / len(steps)), rtol=0, atol=1e-12)


def test_a_decay_over_uneven_checkpoints_goes_by_training_time() -> None:
    """Three quarters of the decay lie before the second checkpoint, so its update has a quarter of the rate."""
    found = run_coefficients("linear", [0, 300, 400 - 200 / 3])
    steps = np.array([0, 300, 400 - 200 / 3])
    end = steps[-1] + steps[-1] / 2
    rates = np.array([1, *(1 - steps[1:] / end), 0])
    np.testing.assert_allclose(found, rates[:-1] - rates[1:], rtol=0, atol=1e-12)
    assert found[0] > 0.5


def test_bema_is_that_of_trl() -> None:
    """Weights that TRL 1.16's callback wrote after 12 real steps of a Trainer (`tests/data/schedules/bema.py`)."""
    stored = json.loads((Path(__file__).parents[2] / "data" / "schedules" / "bema.json").read_text())
    for run in stored["runs"]:
        checkpoints = np.array([run["weights"][str(step)] for step in run["steps"]])
        found = bema(run["steps"], run["lag"], run["ema_power"], run["bias_power"]) @ checkpoints
        np.testing.assert_allclose(found, run["bema"], rtol=0, atol=2e-6)
        assert np.abs(found - checkpoints[-1]).max() > 1e-3


def test_one_checkpoint_is_itself() -> None:
    for name in SCHEDULES:
        assert run_coefficients(name, [700]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "steps", "own", "said"),
    [
        ("minus-sqr", [1, 2], {}, "unknown schedule 'minus-sqr'; did you mean 'minus-sqrt'?"),
        ("ema", [1, 2], {"mu": 1.5}, "mu must be at least 0 and at most 1, found 1.5"),
        ("bema", [1, 2], {"lag": -1.0}, "lag must be at least 0, found -1.0"),
        ("bema", [1, 2], {"ema_power": math.inf}, "ema_power must be at least 0, found inf"),
        ("linear", [1, 1], {}, "expected steps that increase"),
    ],
)
def test_what_is_wrong_is_said(name: str, steps: list[int], own: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        run_coefficients(name, steps, own)


def test_every_schedule_has_its_row_on_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "methods" / "average.md").read_text()
    assert [name for name in (*SCHEDULES, "manual") if f"| `{name}`" not in page] == []
