"""RAM+, Yuan et al. 2026."""

from __future__ import annotations

import numpy as np
import pytest

from .edits import merged_vector


def test_without_overlap_or_with_overlap_alone_it_is_ram() -> None:
    apart = np.kron(np.eye(3), np.ones(4))
    dense = np.random.default_rng(0).normal(size=(3, 12))
    for vectors in (apart, dense):
        np.testing.assert_array_equal(merged_vector("ram-plus", vectors), merged_vector("ram", vectors))


@pytest.mark.parametrize(("own", "factor"), [(20, 1.05), (5, 1.1), (1, 1.1)])
def test_what_is_a_models_own_grows_with_what_it_shares_up_to_a_bound(own: int, factor: float) -> None:
    """One shared element against 20, 5 and 1 of its own: ratios 0.05, 0.2 and 1, the last bounded by alpha."""
    vectors = np.zeros((2, own + 1))
    vectors[0], vectors[1, 0] = 1.0, 3.0
    found = merged_vector("ram-plus", vectors, r=0.5 if own < 20 else 1.0, alpha=0.2)
    assert found[0] == 2
    np.testing.assert_allclose(found[1:], factor)
