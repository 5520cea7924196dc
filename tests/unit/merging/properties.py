"""What holds for merge methods whatever their formula, as assertions that take a method.

Vectors are [M, n] float64: task vectors, or full weights for a method that reads the angles of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from warmkit.merging.geometry import settle
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.liti import liti
from warmkit.merging.methods import Method

Vector: TypeAlias = NDArray[np.float64]
Reference: TypeAlias = Callable[[Vector, Vector, Vector], Vector]
"""From (init [n], models [M, n], shares [M]) to the merge [n], without a Gram matrix."""

deterministic = settings(deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
shares_of_second = st.floats(0, 1)
norms = st.floats(1e-3, 1e3)
degrees = st.floats(0, 179)

STORAGES = {"uint16": torch.bfloat16, "int16": torch.float16, "float32": torch.float32, "float64": torch.float64}
PRECISION = {"uint16": (8, -126), "int16": (11, -14), "float32": (24, -126), "float64": (53, -1022)}  # bits, least exponent


# ---- the pieces of a merge ------------------------------------------------------------------------------------------


def gram_of(vectors: Vector) -> Vector:
    return vectors @ vectors.T


def random_shares(rng: np.random.Generator, count: int) -> Vector:
    return rng.dirichlet(np.ones(count))


def siblings(rng: np.random.Generator, count: int, size: int = 7) -> Vector:
    """Return vectors of different norms with a common part, their angles between about 30 and 80 degrees."""
    return (rng.normal(size=(count, size)) + np.sign(rng.normal(size=size))) * rng.uniform(0.5, 2, size=(count, 1))


def unit_pair(angle: float, norm: float = 1.0) -> Vector:
    """Return two vectors of one norm, `angle` degrees apart."""
    radians = np.radians(angle)
    return norm * np.array([[1.0, 0.0], [np.cos(radians), np.sin(radians)]])


def merged_vector(method: Method, vectors: Vector, shares: Vector) -> Vector:
    """Return what a method makes of task vectors (of full weights: with the init at zero)."""
    return settle(method.solve(gram_of(vectors), shares)) @ vectors


def merge(method: Method, init: Vector, models: Vector, shares: Vector, eta: float = 1.0) -> Vector:
    """Return merged weights, in float64."""
    if method.space == "weights":
        return (1 - eta) * init + eta * merged_vector(method, models, shares)
    rows = liti(settle(method.solve(gram_of(models - init), shares)), eta)
    return rows @ np.vstack([init, models])


def equal_shares(count: int) -> Vector:
    return np.full(count, 1 / count)


def any_shares(method: Method, rng: np.random.Generator, count: int) -> Vector:
    """Return shares that a method honours: those that weigh all models alike get equal ones."""
    return equal_shares(count) if method.mix == "none" else random_shares(rng, count)


# ---- elements in storage --------------------------------------------------------------------------------------------


def stored(values: Vector, storage: str) -> NDArray[Any]:
    """Round numbers to a storage type, by torch."""
    tensor = torch.from_numpy(np.array(values, np.float64)).to(STORAGES[storage])
    return (tensor.view(torch.int16) if storage == "uint16" else tensor).numpy().view(storage)  # numpy has no bfloat16


def widened(block: NDArray[Any]) -> Vector:
    """Read stored elements as float64, by numpy."""
    if block.dtype == np.uint16:
        block = (block.astype(np.uint32) << 16).view(np.float32)
    elif block.dtype == np.int16:
        block = block.view(np.float16)
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes quiet
        return block.astype(np.float64)


def ulp(values: Vector, storage: str) -> Vector:
    """Return the distance between neighbours of a storage type around each value."""
    bits, least = PRECISION[storage]
    exponents = np.maximum(np.frexp(np.abs(values))[1] - 1, least)
    return np.ldexp(1.0, exponents - (bits - 1))


# ---- the properties -------------------------------------------------------------------------------------------------


def counts(method: Method) -> Iterator[int]:
    """Yield numbers of models that a method takes, up to five."""
    yield from range(method.fewest, 6)


def assert_returns_float64_per_model_and_keeps_its_arguments(method: Method) -> None:
    for count in counts(method):
        vectors = siblings(np.random.default_rng(count), count)
        gram, shares = gram_of(vectors), equal_shares(count)
        before = gram.copy(), shares.copy()
        found = method.solve(gram, shares)
        assert found.shape == (count,)
        assert found.dtype == np.float64
        assert not np.shares_memory(found, shares)
        np.testing.assert_array_equal(gram, before[0])
        np.testing.assert_array_equal(shares, before[1])


def assert_end_points_return_inputs(method: Method) -> None:
    for count in counts(method):
        vectors = siblings(np.random.default_rng(count), count)
        for place, whole in enumerate(np.eye(count)):
            found = settle(method.solve(gram_of(vectors), whole))
            np.testing.assert_array_equal(found, whole, err_msg=f"model {place + 1} of {count}")


def assert_identical_inputs_are_a_fixed_point(method: Method) -> None:
    rng = np.random.default_rng(0)
    for count in counts(method):
        vector = rng.normal(size=7)
        found = merged_vector(method, np.tile(vector, (count, 1)), any_shares(method, rng, count))
        np.testing.assert_allclose(found, vector, rtol=1e-11)


def assert_models_equal_to_the_init_return_it(method: Method) -> None:
    init = np.random.default_rng(0).normal(size=7)
    for count in counts(method):
        found = merge(method, init, np.tile(init, (count, 1)), equal_shares(count))
        np.testing.assert_allclose(found, init, rtol=1e-11)


def assert_finite_on_awkward_vectors(method: Method) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 7))
    awkward = {
        "parallel": [one, 2 * one, 0.5 * one],
        "nearly parallel": [one, one + 1e-9 * other, one - 1e-9 * other],
        "one zero": [one, 0 * one, other],
        "first zero": [0 * one, one, other],
        "two zero": [0 * one, 0 * one, other],
        "all zero": [0 * one, 0 * one, 0 * one],
        "tiny": [1e-30 * one, 1e-30 * other, 1e-30 * (one + other)],
        "huge": [1e30 * one, 1e30 * other, 1e30 * (one + other)],
        "tiny beside huge": [1e-30 * one, 1e30 * other, one],
    }
    for name, vectors in awkward.items():
        for shares in ([1 / 3, 1 / 3, 1 / 3], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.98, 0.01, 0.01]):
            with np.errstate(divide="raise", invalid="raise", over="raise"):
                found = method.solve(gram_of(np.array(vectors)), np.array(shares))
            assert np.isfinite(found).all(), name


def assert_scale_of_all_vectors_does_not_matter(method: Method) -> None:
    for count in counts(method):
        rng = np.random.default_rng(count)
        vectors, shares = siblings(rng, count), any_shares(method, rng, count)
        expected = method.solve(gram_of(vectors), shares)
        for scale in (1e-30, 1e-3, 1e30):
            np.testing.assert_allclose(method.solve(gram_of(scale * vectors), shares), expected, rtol=1e-9, atol=1e-12)


def assert_a_share_of_zero_leaves_a_model_out(method: Method) -> None:
    for count in range(2, 5):
        rng = np.random.default_rng(count)
        vectors, shares = siblings(rng, count + 1), random_shares(rng, count)
        expected = method.solve(gram_of(vectors[1:]), shares)
        found = method.solve(gram_of(vectors), np.concatenate([[0.0], shares]))
        assert found[0] == 0
        np.testing.assert_allclose(found[1:], expected, rtol=1e-12)


def assert_parallel_vectors_give_their_mean(method: Method) -> None:
    for count in counts(method):
        rng = np.random.default_rng(count)
        vectors = np.outer(rng.uniform(0.5, 2, count), rng.normal(size=7))
        shares = any_shares(method, rng, count)
        np.testing.assert_allclose(merged_vector(method, vectors, shares), shares @ vectors, rtol=1e-10)


def assert_order_of_models_does_not_matter(method: Method) -> None:
    for count in counts(method):
        rng = np.random.default_rng(count)
        vectors, shares, order = siblings(rng, count), any_shares(method, rng, count), rng.permutation(count)
        expected = method.solve(gram_of(vectors), shares)
        np.testing.assert_allclose(method.solve(gram_of(vectors[order]), shares[order]), expected[order], rtol=1e-9)


def assert_eta_scales_the_task_vector(method: Method) -> None:
    for count in counts(method):
        rng = np.random.default_rng(count)
        init, shares = rng.normal(size=7), any_shares(method, rng, count)
        models = init + siblings(rng, count)
        whole = merge(method, init, models, shares) - init
        for eta in (0.0, 0.3, 1.0, 1.7):
            np.testing.assert_allclose(merge(method, init, models, shares, eta) - init, eta * whole, rtol=1e-9, atol=1e-12)


Property: TypeAlias = Callable[[Method], None]
ARE_ORDERED = {"slerp", "slerp-weights"}
WEIGH_ALIKE = {"uniform", "model-stock"}
GO_BEYOND = {"expo", "relex"}

# Every property, and the methods for which it does not hold. A new method meets them all.
PROPERTIES: dict[Property, set[str]] = {
    assert_returns_float64_per_model_and_keeps_its_arguments: set(),
    assert_end_points_return_inputs: WEIGH_ALIKE | GO_BEYOND,
    assert_identical_inputs_are_a_fixed_point: {"expo"},
    assert_models_equal_to_the_init_return_it: set(),
    assert_finite_on_awkward_vectors: set(),
    assert_scale_of_all_vectors_does_not_matter: set(),
    assert_a_share_of_zero_leaves_a_model_out: WEIGH_ALIKE | {"relex"},
    assert_parallel_vectors_give_their_mean: GO_BEYOND,
    assert_order_of_models_does_not_matter: ARE_ORDERED | {"relex"},
    assert_eta_scales_the_task_vector: set(),
}


def assert_streams_to_rounding(method: Method, reference: Reference, eta: float = 0.3) -> None:
    """Take a merge through the kernels, in every storage type, and compare with a float64 formula on the same inputs."""
    kernels = NumbaKernels()
    for storage in STORAGES:
        for count in counts(method):
            rng = np.random.default_rng(count)
            init = rng.normal(size=300)
            rows = stored(np.vstack([init, init + 0.3 * siblings(rng, count, 300)]), storage)
            shares, values = any_shares(method, rng, count), widened(rows)
            expected = (1 - eta) * values[0] + eta * reference(values[0], values[1:], shares)
            gram = kernels.gram(rows, method.space if method.space != "none" else "task vectors")
            gram = gram[1:, 1:] if method.space == "weights" else gram
            coefficients = liti(settle(method.solve(gram, shares)), eta)
            if method.space == "weights":
                coefficients[0] = 1 - eta
            output = np.empty(300, storage)
            assert kernels.combine(coefficients, rows, output)
            slack = np.abs(values).sum(axis=0) * (2.0**-24 if storage.endswith("16") else 0) + 1e-11
            assert np.all(np.abs(widened(output) - expected) <= ulp(expected, storage) / 2 + slack), (storage, count)
