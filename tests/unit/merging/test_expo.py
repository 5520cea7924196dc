"""ExPO, Zheng et al. 2024."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.merging.expo import expo
from warmkit.merging.methods import METHODS

from .properties import Vector, assert_streams_to_rounding


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 2.0])
def test_it_is_liti_with_one_more(alpha: float) -> None:
    init, model = np.array([1.0, -2.0]), np.array([2.0, 2.0])
    merged = init + expo(np.ones(1), alpha)[0] * (model - init)
    np.testing.assert_allclose(merged, model + alpha * (model - init), rtol=1e-15)


def test_of_several_models_it_goes_beyond_their_mean() -> None:
    assert expo(np.array([0.25, 0.75]), 1.0).tolist() == [0.5, 1.5]


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return init + 1.3 * (shares @ models - init)


def test_it_streams_to_rounding() -> None:
    assert_streams_to_rounding(METHODS["expo"], reference)
