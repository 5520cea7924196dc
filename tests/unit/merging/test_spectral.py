"""What a matrix is to the spectral methods, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from warmkit.merging.edits import Place
from warmkit.merging.spectral import stack_of_matrices

from .edits import SPECTRAL, merged_vector, reference

every = pytest.mark.parametrize("method", SPECTRAL)


@pytest.mark.parametrize(
    ("shape", "name", "found"),
    [
        ((30, 10), "layers.0.w", (1, 30, 10)),
        ((300,), "norm.weight", None),
        ((), "temperature", None),
        ((300, 1), "gate", None),
        ((1, 300), "cls_token", None),
        ((4, 30, 10), "layers.0.mlp.experts.gate_up_proj", (4, 30, 10)),
        ((30, 10, 3), "conv1.weight", None),
        ((8, 3, 4, 4), "patch_embedding.weight", None),
    ],
)
def test_matrices_are_told_by_shape_and_stacks_of_experts_by_name(
    shape: tuple[int, ...], name: str, found: tuple[int, int, int] | None
) -> None:
    assert stack_of_matrices(Place(0, name, shape, 0, 1)) == found


@every
def test_a_turned_matrix_gives_the_turned_merge(method: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 300))
    turned = vectors.reshape(3, 30, 10).transpose(0, 2, 1).reshape(3, 300)
    merged = merged_vector(method, vectors, shape=(30, 10)).reshape(30, 10)
    np.testing.assert_allclose(merged_vector(method, turned, shape=(10, 30)).reshape(10, 30).T, merged, atol=1e-12)


@every
def test_each_matrix_of_a_stack_of_experts_is_merged_by_itself(method: str) -> None:
    vectors = np.random.default_rng(1).normal(size=(2, 4, 60))
    merged = merged_vector(method, vectors.reshape(2, 240), shape=(4, 10, 6), tensor="mlp.experts.down_proj", cuts=[7, 100])
    alone = [merged_vector(method, vectors[:, expert], shape=(10, 6)) for expert in range(4)]
    np.testing.assert_array_equal(merged.reshape(4, 60), alone)


@every
def test_long_matrices_are_taken_in_parts(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(2).normal(size=(2, 300))
    monkeypatch.setattr("warmkit.merging.spectral.ROWS", 7)
    found = merged_vector(method, vectors, shape=(30, 10))
    np.testing.assert_allclose(found, reference(method, vectors, shape=(30, 10)), atol=1e-10)


@every
def test_weights_of_16_bits_are_held_in_float32(method: str) -> None:
    vectors = torch.randn(2, 300, generator=torch.Generator().manual_seed(3)).half()
    expected = reference(method, vectors.double().numpy(), shape=(30, 10))
    found = merged_vector(method, vectors.view(torch.int16).numpy(), shape=(30, 10))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@every
def test_what_is_not_finite_is_averaged_so_that_it_stays_where_it_is(method: str) -> None:
    vectors = np.ones((2, 300))
    vectors[1, 5] = np.nan
    merged = merged_vector(method, vectors, shape=(30, 10))
    assert np.flatnonzero(np.isnan(merged)).tolist() == [5]
    assert (np.delete(merged, 5) == 1).all()
