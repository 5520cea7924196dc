"""Model breadcrumbs with the election of TIES."""

from __future__ import annotations

import numpy as np

from .edits import merged_vector


def test_of_one_sign_it_is_breadcrumbs() -> None:
    vectors = np.abs(np.random.default_rng(0).normal(size=(3, 100)))
    plain = merged_vector("breadcrumbs", vectors, density=0.5, gamma=0.1)
    np.testing.assert_allclose(merged_vector("breadcrumbs-ties", vectors, density=0.5, gamma=0.1), plain)


def test_without_outliers_it_is_ties() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 100))
    for normalize in (False, True):
        found = merged_vector("breadcrumbs-ties", vectors, density=0.4, gamma=0.0, normalize=normalize)
        np.testing.assert_array_equal(found, merged_vector("ties", vectors, density=0.4, normalize=normalize))
