"""Task arithmetic, Ilharco et al. 2023."""

from __future__ import annotations

import numpy as np

from warmkit.merging.methods import METHODS
from warmkit.merging.task_arithmetic import task_arithmetic

from .properties import Vector, assert_streams_to_rounding, merge


def reference(init: Vector, models: Vector, scales: Vector) -> Vector:
    merged = init.copy()
    for scale, model in zip(scales, models):
        merged += scale * (model - init)
    return merged


def test_scales_are_not_normalised() -> None:
    np.testing.assert_array_equal(task_arithmetic(np.array([1.0, 1.0, 1.0])), [1, 1, 1])


def test_adding_two_models_adds_what_each_learned() -> None:
    init = np.array([1.0, 1.0, 1.0])
    models = init + np.array([[2.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    np.testing.assert_array_equal(merge(METHODS["task-arithmetic"], init, models, np.ones(2)), [3, -2, 1])


def test_a_negative_scale_subtracts_a_task() -> None:
    init, model = np.array([1.0, 1.0]), np.array([3.0, 0.5])
    np.testing.assert_array_equal(merge(METHODS["task-arithmetic"], init, model[None], np.array([-1.0])), 2 * init - model)


def test_scales_of_zero_return_the_init() -> None:
    init = np.array([1.0, -1.0])
    np.testing.assert_array_equal(merge(METHODS["task-arithmetic"], init, np.eye(2), np.zeros(2)), init)


def test_eta_multiplies_every_scale() -> None:
    rng = np.random.default_rng(0)
    init, models, scales = rng.normal(size=5), rng.normal(size=(3, 5)), np.array([1.0, -0.5, 2.0])
    np.testing.assert_allclose(
        merge(METHODS["task-arithmetic"], init, models, scales, eta=0.3),
        merge(METHODS["task-arithmetic"], init, models, 0.3 * scales),
    )


def test_merge_through_the_kernels_is_the_sum() -> None:
    assert_streams_to_rounding(METHODS["task-arithmetic"], reference)
    assert_streams_to_rounding(METHODS["task-arithmetic"], reference, eta=1.0)
