"""Claims that all methods share that edit task vectors: blocks do not matter, references agree, signs and scales carry over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.errors import UsageError
from warmkit.merging.edits import stream_key

from .edits import EDITS, HARMLESS, SPECTRAL, merged_vector, reference, splitmix, uniform_numbers
from .golden_edits import GOLDEN_EDITS, GoldenEdit
from .properties import Vector, deterministic, seeds

every = pytest.mark.parametrize("method", EDITS)
RANDOM = {name for name, method in EDITS.items() if any(each.name == "seed" for each in method.parameters)}
SHAPE = (30, 10)


def tolerance(method: str) -> float:
    """Return what may differ from the reference: eigenvectors of products magnify rounding by the squared condition."""
    return 1e-9 if method in SPECTRAL else 1e-12


def coarse(seed: int, count: int = 3, size: int = 300) -> Vector:
    """Return task vectors of few different values, as those of 16-bit weights are: many ties, zeros and cancellations."""
    return np.random.default_rng(seed).integers(-6, 7, size=(count, size)) / 64


def smooth(seed: int, count: int = 3, size: int = 300) -> Vector:
    """Return task vectors without ties, exact in float32."""
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("row", GOLDEN_EDITS, ids=lambda row: f"{row.method}: {row.case}")
def test_golden_values(row: GoldenEdit) -> None:
    vectors = np.array(row.vectors, np.float64)
    shape = row.shape or vectors.shape[1:]
    found = merged_vector(row.method, vectors, row.scales, shape, **row.parameters)
    np.testing.assert_allclose(found, row.expected, rtol=1e-12, atol=1e-15)


@every
@deterministic
@given(seed=seeds, cuts=st.sets(st.integers(1, 299), max_size=5), ties=st.booleans(), count=st.integers(1, 4))
def test_blocks_do_not_matter_and_the_reference_agrees(method: str, seed: int, cuts: set[int], ties: bool, count: int) -> None:
    vectors = (coarse if ties else smooth)(seed, count)
    whole = merged_vector(method, vectors, shape=SHAPE)
    np.testing.assert_array_equal(merged_vector(method, vectors, shape=SHAPE, cuts=sorted(cuts)), whole)
    np.testing.assert_allclose(whole, reference(method, vectors, shape=SHAPE), rtol=1e-12, atol=tolerance(method))


@pytest.mark.parametrize("method", [name for name in EDITS if EDITS[name].mix == "scales"])
@deterministic
@given(seed=seeds, scales=st.lists(st.sampled_from([-0.5, 0.25, 1.0, 2.0]), min_size=3, max_size=3))
def test_coefficients_weigh_as_in_the_reference(method: str, seed: int, scales: list[float]) -> None:
    vectors = coarse(seed)
    expected = reference(method, vectors, scales, SHAPE)
    np.testing.assert_allclose(merged_vector(method, vectors, scales, SHAPE), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", HARMLESS)
def test_without_its_mask_one_model_is_returned_as_it_is(method: str) -> None:
    vectors = smooth(0, 1)
    np.testing.assert_allclose(merged_vector(method, vectors, shape=SHAPE, **HARMLESS[method]), vectors[0], rtol=1e-14)


@every
def test_models_equal_to_the_init_return_it(method: str) -> None:
    np.testing.assert_array_equal(merged_vector(method, np.zeros((3, 300)), shape=SHAPE), 0)


@pytest.mark.parametrize("method", [name for name in EDITS if name not in SPECTRAL])
def test_what_no_model_changed_stays(method: str) -> None:
    vectors = smooth(0)
    vectors[:, ::3] = 0
    np.testing.assert_array_equal(merged_vector(method, vectors, shape=SHAPE)[::3], 0)


@pytest.mark.parametrize("method", [name for name in EDITS if name != "arcee-fusion"])  # a softmax knows signs
def test_opposite_task_vectors_give_the_opposite(method: str) -> None:
    vectors = coarse(1)
    np.testing.assert_array_equal(merged_vector(method, -vectors, shape=SHAPE), -merged_vector(method, vectors, shape=SHAPE))


@every
def test_the_order_of_models_matters_to_random_masks_alone(method: str) -> None:
    vectors = smooth(2)
    same = np.allclose(merged_vector(method, vectors[::-1], shape=SHAPE), merged_vector(method, vectors, shape=SHAPE))
    assert same is (method not in RANDOM)


@every
def test_finite_on_awkward_vectors(method: str) -> None:
    one, other = smooth(3, 2)
    for vectors in ([one, -one], [one, 0 * one], [0 * one, other], [1e-30 * one, 1e30 * other], [1e-42 * one, 1e-44 * other]):
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            assert np.isfinite(merged_vector(method, np.array(vectors), shape=SHAPE)).all()


@pytest.mark.parametrize("method", sorted(RANDOM))
def test_masks_differ_by_seed_tensor_and_model_and_by_nothing_else(method: str) -> None:
    vectors = np.ones((2, 300))
    first = merged_vector(method, vectors, shape=SHAPE)
    np.testing.assert_array_equal(merged_vector(method, vectors, shape=SHAPE, seed=0), first)
    assert not np.array_equal(merged_vector(method, vectors, shape=SHAPE, seed=1), first)
    assert not np.array_equal(merged_vector(method, vectors, shape=SHAPE, tensor="layers.1.w"), first)
    alone = [merged_vector(method, vectors * row, shape=SHAPE) for row in ([[1], [0]], [[0], [1]])]
    assert not np.array_equal(*alone)


def test_random_numbers_are_splitmix64() -> None:
    assert splitmix(0, 2).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # the generator's published values for seed 0


def test_random_numbers_are_uniform_and_independent_between_neighbours_and_streams() -> None:
    first, second = uniform_numbers(0, 0, "w", 100_000), uniform_numbers(0, 1, "w", 100_000)
    assert stream_key(0, "w", 1) != stream_key(1, "w", 0)
    for values in (first, second):
        counts = np.histogram(values, 50, (0, 1))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 95  # chi-square of 49 degrees: exceeded once in 10^4
    for a, b in ((first[1:], first[:-1]), (first, second), (first[2:], first[:-2])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


# ---- parameters ------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("slerp", {"density": 0.5}, "slerp has no density; it is a parameter of ties"),
    ("ties", {"seed": 1}, "ties has no seed; it is a parameter of dare-linear"),
    ("dare-linear", {"normalize": True}, "dare-linear has no normalize"),
    ("ties", {"densty": 1}, "unknown parameter 'densty'; did you mean 'density'"),
    ("ties", {"density": 0.0}, "density must be a finite number above 0 and at most 1, found 0.0"),
    ("ties", {"density": 1.5}, "density must be"),
    ("ties", {"density": float("nan")}, "density must be"),
    ("ties", {"density": "half"}, "density must be a finite number above 0 and at most 1, found 'half'"),
    ("ties", {"density": [0.5, 0.2]}, "density: expected one number, or 3, one per model; found 2"),
    ("ties", {"normalize": 1}, "normalize must be true or false, found 1"),
    ("ties", {"scale": float("inf")}, "scale must be a finite number"),
    ("dare-ties", {"seed": 0.5}, "seed must be a whole number at least 0, found 0.5"),
    ("dare-ties", {"granularity": "layer"}, "dare-ties works tensor by tensor"),
]


@pytest.mark.parametrize(("method", "given", "said"), REFUSED)
def test_a_parameter_that_does_not_fit_is_refused(method: str, given: dict[str, Any], said: str) -> None:
    from warmkit.engine.spec import merge_spec

    with pytest.raises(UsageError) as error:
        merge_spec(method, 3, **given)
    assert said in str(error.value)


def test_a_parameter_can_be_a_list_with_one_number_for_each_model() -> None:
    vectors = smooth(4)
    found = merged_vector("ties", vectors, density=[0.1, 0.5, 1.0])
    np.testing.assert_allclose(found, reference("ties", vectors, density=[0.1, 0.5, 1.0]), rtol=1e-12)
    assert not np.allclose(found, merged_vector("ties", vectors, density=0.5))
