"""Thin factors: exact where LAPACK decomposes, near the least error where a subspace is sampled."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.merging import truncated_svd as svd


def test_small_matrices_lose_the_least_that_a_rank_can() -> None:
    matrix = np.random.default_rng(1).standard_normal((20, 33))
    spectrum = np.linalg.svd(matrix, compute_uv=False) ** 2
    for rank in (1, 7, 20, 40):
        found = svd.truncated_svd(matrix, rank)
        assert found.exact
        assert found.b.shape == (20, min(rank, 20))
        np.testing.assert_allclose(np.square(matrix - found.b @ found.a).sum(), spectrum[rank:].sum(), atol=1e-12)


def test_large_matrices_are_decomposed_on_a_subspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svd, "EXACT", 64)
    draw = np.random.default_rng(3)
    thin = (draw.standard_normal((300, 8)) @ draw.standard_normal((8, 400))).astype(np.float32)
    found = svd.truncated_svd(thin, 8)
    assert not found.exact
    np.testing.assert_allclose(found.b @ found.a, thin, atol=2e-4)
    full = (draw.standard_normal((300, 300)) * 0.97 ** np.arange(300)) @ draw.standard_normal((300, 400))
    spectrum = np.linalg.svd(full, compute_uv=False) ** 2
    for rank in (4, 16):
        part = svd.truncated_svd(full, rank)
        loss = np.square(full - part.b @ part.a).sum()
        assert spectrum[rank:].sum() <= loss * (1 + 1e-9)
        assert loss <= 1.01 * spectrum[rank:].sum()
    kept = svd.truncated_svd(full, 4, energy=0.5)
    enough = int(np.flatnonzero(np.cumsum(spectrum) >= 0.5 * spectrum.sum())[0]) + 1
    assert kept.a.shape[0] in (enough, enough + 1)
