"""Numbers that change over a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.errors import UsageError
from warmkit.layouts.layer_settings import Rule, depths, read_setting, value_at, write_setting

POINTS = st.lists(st.floats(-10, 10), min_size=1, max_size=6).map(tuple)


@pytest.mark.parametrize(
    ("points", "depth", "expected"),
    [
        ((0.3,), 0.7, 0.3),
        ((0, 1), 0.25, 0.25),
        ((0, 0.5, 0.3, 0.7, 1), 0.5, 0.3),
        ((0, 0.5, 0.3, 0.7, 1), 0.625, 0.5),  # half way from 0.3 at 1/2 to 0.7 at 3/4
        ((1, 0.7, 0.1), 1.0, 0.1),
        ((1, 0.7, 0.1), 0.75, 0.4),
    ],
)
def test_a_gradient_is_linear_between_its_points(points: tuple[float, ...], depth: float, expected: float) -> None:
    assert Rule(points).at(depth) == pytest.approx(expected, abs=1e-15)


@given(POINTS, st.floats(0, 1))
def test_a_gradient_is_what_numpy_interpolates_and_ends_at_its_ends(points: tuple[float, ...], depth: float) -> None:
    expected = np.interp(depth, np.linspace(0, 1, len(points)) if len(points) > 1 else [0], points)
    assert Rule(points).at(depth) == pytest.approx(float(expected), abs=1e-9)
    assert (Rule(points).at(0), Rule(points).at(1)) == (points[0], points[-1])


def test_depth_runs_over_the_layers_of_each_stack_and_is_zero_outside() -> None:
    names = ["embed.weight", *(f"model.layers.{n}.w" for n in range(5)), "vision.blocks.0.w", "vision.blocks.1.w", "head"]
    found = depths(names)
    assert [found[f"model.layers.{n}.w"] for n in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert (found["vision.blocks.0.w"], found["vision.blocks.1.w"]) == (0, 1)
    assert (found["embed.weight"], found["head"]) == (0, 0)
    assert depths(["h.0.w"]) == {"h.0.w": 1.0}


def test_the_first_rule_that_fits_decides() -> None:
    setting = read_setting([{"pattern": "mlp", "value": [0, 1]}, {"pattern": "*.norm.*", "value": 7}, {"value": 0.5}], "t")
    assert value_at(setting, "model.layers.1.mlp.up.weight", 0.25, "t") == (0, 0.25)
    assert value_at(setting, "model.layers.1.norm.weight", 0.25, "t") == (1, 7)
    assert value_at(setting, "lm_head.weight", 0.25, "t") == (2, 0.5)


def test_a_tensor_that_no_rule_fits_is_an_error_that_names_it() -> None:
    setting = read_setting([{"pattern": "mlp", "value": 1}], "t")
    with pytest.raises(UsageError, match=r"t says nothing of 'lm_head\.weight'; end its rules with one without a pattern"):
        value_at(setting, "lm_head.weight", 0, "t")


@pytest.mark.parametrize("value", [0.5, [0.1, 0.2], [{"pattern": "mlp", "value": [0.0, 1.0]}, {"value": 2.0}]])
def test_a_setting_is_written_as_it_was_read(value: Any) -> None:
    assert write_setting(read_setting(value, "t")) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("much", "t must be a number, a list of numbers or a list of"),
        (True, "t must be a number"),
        ([], "t must be a number"),
        ([0.5, {"value": 1}], "t must be a number"),
        ([{"filter": "mlp", "value": 1}], "unknown key 'filter'"),
        ([{"pattern": "mlp"}], "value must be a number or a list of numbers, found None"),
        ([{"pattern": 3, "value": 1}], "pattern must be text, found 3"),
        ([0.5, float("nan")], "finite"),
    ],
)
def test_what_is_no_setting_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_setting(value, "t")
