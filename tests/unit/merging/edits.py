"""What holds for methods that edit task vectors whatever their formula, and plain numpy references of them.

Vectors are [M, n] float64. References hold whole vectors, sort them, and never look at blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from warmkit.engine.spec import merge_spec
from warmkit.merging.edits import Place, Reading, Writing
from warmkit.merging.methods import METHODS, Method

from .properties import Vector

EDITS: dict[str, Method] = {name: method for name, method in METHODS.items() if method.edits}
TENSOR = "layers.0.w"
SPECTRAL = ("tsv-m", "iso-c")  # they mix all elements of a matrix
HARMLESS: dict[str, dict[str, Any]] = {
    "ties": {"density": 1.0},
    "dare-linear": {"density": 1.0},
    "dare-ties": {"density": 1.0},
    "breadcrumbs": {"density": 1.0},
    "breadcrumbs-ties": {"density": 1.0, "gamma": 0.3},
    "della": {"density": 1.0},
    "della-linear": {"density": 1.0, "epsilon": 0.4},
    "nearswap": {"limit": 1000.0},
    "sce": {},
    "ram": {"epsilon": 0.0},
    "ram-plus": {"epsilon": 0.0},
}
"""Parameters that switch a method's mask off, for those that have one."""


def merged_vector(
    method: str,
    vectors: NDArray[Any],
    scales: Sequence[float] | None = None,
    shape: tuple[int, ...] | None = None,
    cuts: Sequence[int] = (),
    tensor: str = TENSOR,
    **parameters: Any,
) -> Vector:
    """Return what a method makes of task vectors [M, n] of one tensor, read in blocks that end at `cuts`."""
    count, size = vectors.shape
    edit = merge_spec(method, count, coefficients=scales, **parameters).edit(tensor)
    rows = np.vstack([np.zeros(size, vectors.dtype), vectors])
    edges = [0, *cuts, size]
    shape = shape or (size,)
    places = [Place(number, tensor, shape, a, b) for number, (a, b) in enumerate(itertools.pairwise(edges))]
    stage = edit(size)
    while isinstance(stage, Reading):
        stage = stage.then([stage.measure(place, lambda a, b: rows[:, a:b].copy()) for place in reversed(places)][::-1])
    assert isinstance(stage, Writing)
    result = np.full(size, np.nan)
    for place in places:
        out = np.empty(place.stop - place.start)
        stage.task_vector(place, rows[:, place.start : place.stop].copy(), lambda a, b: rows[:, a:b].copy(), out)
        result[place.start : place.stop] = out
    return result


# ---- references ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What a reference sees: task vectors of one tensor, and the method's parameters, each per model where it can be."""

    vectors: Vector
    scales: Vector
    parameters: dict[str, Any]
    shape: tuple[int, ...]
    tensor: str = TENSOR
    init: Vector | float = 0.0

    def each(self, name: str) -> list[float]:
        value = self.parameters[name]
        return list(value) if isinstance(value, list) else [value] * len(self.vectors)


def largest(values: Vector, keep: int) -> NDArray[np.bool_]:
    """Mark the `keep` largest magnitudes, the first of equal ones; magnitudes are compared in float32."""
    order = np.argsort(-np.abs(values.astype(np.float32)), kind="stable")
    mask = np.zeros(values.size, bool)
    mask[order[:keep]] = True
    return mask


def uniform_numbers(seed: int, model: int, tensor: str, count: int) -> Vector:
    """Return SplitMix64 of the key of a tensor and the place of an element, in [0, 1), by numpy."""
    return (splitmix(xxhash.xxh3_64_intdigest(f"{seed}/{model}/{tensor}".encode()), count) >> np.uint64(11)) * 2.0**-53


def splitmix(key: int, count: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def elected(vectors: Vector, votes: Vector, weights: Vector, normalize: bool) -> Vector:
    sign = np.sign(votes @ vectors)
    agrees = (np.sign(votes[:, None] * vectors) == sign) & (sign != 0)
    merged = (weights[:, None] * vectors * agrees).sum(axis=0)
    share = (np.abs(weights)[:, None] * agrees).sum(axis=0)
    return merged / np.where(share > 0, share, 1) if normalize else merged


def trimmed(case: Case) -> Vector:
    size = case.vectors.shape[1]
    masks = [largest(d, max(1, int(density * size))) for d, density in zip(case.vectors, case.each("density"))]
    return case.vectors * masks


def dropped(case: Case) -> Vector:
    size = case.vectors.shape[1]
    return np.array(
        [
            np.where(uniform_numbers(case.parameters["seed"], m, case.tensor, size) < chance, d / chance, 0)
            for m, (d, chance) in enumerate(zip(case.vectors, case.each("density")))
        ]
    )


def crumbs(case: Case) -> Vector:
    """Sort from the largest down; leave out the first, keep the next."""
    size, result = case.vectors.shape[1], np.zeros_like(case.vectors)
    for m, (density, gamma) in enumerate(zip(case.each("density"), case.each("gamma"))):
        order = np.argsort(-np.abs(case.vectors[m].astype(np.float32)), kind="stable")
        kept = int(density * size)
        top = min(int(gamma * size), size - kept)
        places = order[top : top + kept]
        result[m, places] = case.vectors[m, places]
    return result


def ranked_drop(case: Case) -> Vector:
    """Drop by ranks in rows, from two sorts."""
    size, result = case.vectors.shape[1], case.vectors.copy()
    rows = (1, size) if len(case.shape) < 2 else (case.shape[0], size // case.shape[0])
    for m, (density, epsilon) in enumerate(zip(case.each("density"), case.each("epsilon"))):
        if density == 1:
            continue
        magnitudes = np.abs(case.vectors[m].astype(np.float32)).reshape(rows)
        ranks = magnitudes.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable").ravel()
        chances = np.full(size, density)
        if rows[1] > 1:
            chances = density - epsilon + 2 * epsilon * ranks / (rows[1] - 1)
        numbers = uniform_numbers(case.parameters["seed"], m, case.tensor, size)
        result[m] = np.where(numbers < chances, case.vectors[m] / chances, 0)
    return result


def select_calculate_erase(case: Case) -> Vector:
    vectors = case.vectors
    if case.parameters["select_topk"] < 1:
        apart = vectors - vectors[0]
        spread = np.sqrt(((apart - apart.mean(axis=0)) ** 2).mean(axis=0))
        vary = np.count_nonzero(spread.astype(np.float32))
        vectors = vectors * largest(spread, int(case.parameters["select_topk"] * vary))
    squares = (vectors**2).sum(axis=1)
    weights = squares / squares.sum() if squares.sum() > 0 else np.full(len(vectors), 1 / len(vectors))
    weights = np.round(weights * 2.0**40) / 2.0**40
    return elected(vectors, np.ones(len(vectors)), weights, normalize=True)


def fused(case: Case) -> Vector:
    """Keep what is important, by the softmaxes of the weights."""
    rows = case.vectors.reshape(len(case.vectors), -1, case.shape[-1])
    weights = np.vstack([0 * case.vectors[:1], case.vectors]) + case.init
    weights = weights.reshape(len(weights), -1, case.shape[-1])
    powers = np.exp(weights - weights.max(axis=2, keepdims=True))
    q, p = np.split(powers / powers.sum(axis=2, keepdims=True) + 1e-8, [1])
    divergence = (p * np.log(p / q)).sum(axis=2, keepdims=True).astype(np.float32).astype(np.float64)
    importance = (np.abs(rows) * divergence).astype(np.float32).reshape(len(rows), -1)
    ordered = np.sort(importance.astype(np.float64), axis=1)
    low, middle, high = (ordered[:, [int(share * (ordered.shape[1] - 1))]] for share in (0.25, 0.5, 0.75))
    return case.vectors * (importance >= middle + 1.5 * (high - low))


def reinforced(case: Case, plus: bool) -> Vector:
    changed = np.abs(case.vectors) > np.array(case.each("epsilon"))[:, None]
    count = changed.sum(axis=0)
    own = np.ones(len(case.vectors))
    if plus:
        shared, alone = (changed & (count > 1)).sum(axis=1), (changed & (count == 1)).sum(axis=1)
        own += case.parameters["r"] * np.minimum(shared / np.maximum(alone, 1), case.parameters["alpha"])
    mean = (case.vectors * changed).sum(axis=0) / np.maximum(count, 1)
    return np.where(count == 1, own @ (case.vectors * changed), mean)


def decomposed(matrix: Vector) -> tuple[Vector, Vector, Vector]:
    """Return the singular value decomposition without null directions."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    kept = s > 1e-6 * s[0]
    return u[:, kept], s[kept], v[kept]


def isotropic(case: Case) -> Vector:
    if len(case.shape) < 2:
        return case.vectors.mean(axis=0)
    u, s, v = decomposed(case.vectors.sum(axis=0).reshape(case.shape))
    return (s.sum() / min(case.shape) * u @ v).ravel()


def singular_vectors(case: Case) -> Vector:
    if len(case.shape) < 2:
        return case.vectors.mean(axis=0)
    most = max(1, min(case.shape) // len(case.vectors))
    parts = [decomposed(vector.reshape(case.shape)) for vector in case.vectors]
    u, s, v = np.hstack([u[:, :most] for u, _, _ in parts]), [s[:most] for _, s, _ in parts], [v[:most] for _, _, v in parts]
    if u.size == 0:
        return np.zeros(case.vectors.shape[1])
    (left, _, left_v), (right, _, right_v) = decomposed(u), decomposed(np.vstack(v))
    return (left @ left_v * np.concatenate(s) @ right @ right_v).ravel()


REFERENCES: dict[str, Callable[[Case], Vector]] = {
    "ties": lambda case: elected(trimmed(case), case.scales, case.scales, case.parameters["normalize"]),
    "dare-linear": lambda case: case.scales @ dropped(case),
    "dare-ties": lambda case: elected(dropped(case), case.scales, case.scales, case.parameters["normalize"]),
    "breadcrumbs": lambda case: case.scales @ crumbs(case),
    "breadcrumbs-ties": lambda case: elected(crumbs(case), case.scales, case.scales, case.parameters["normalize"]),
    "della": lambda case: elected(ranked_drop(case), case.scales, case.scales, case.parameters["normalize"]),
    "della-linear": lambda case: case.scales @ ranked_drop(case),
    "nearswap": lambda case: case.scales @ np.clip(case.vectors, *(np.array(case.each("limit"))[:, None] * [[[-1]], [[1]]])),
    "arcee-fusion": lambda case: case.scales @ fused(case),
    "sce": select_calculate_erase,
    "ram": lambda case: reinforced(case, plus=False),
    "ram-plus": lambda case: reinforced(case, plus=True),
    "tsv-m": singular_vectors,
    "iso-c": isotropic,
}


def reference(
    method: str, vectors: Vector, scales: Sequence[float] | None = None, shape: tuple[int, ...] | None = None, **given: Any
) -> Vector:
    """Return what the reference of a method makes of task vectors, with the method's defaults."""
    parameters = {each.name: each.default for each in EDITS[method].parameters} | given
    weights = np.ones(len(vectors)) if scales is None else np.array(scales)
    tensor, init = parameters.pop("tensor", TENSOR), parameters.pop("init", 0.0)
    return REFERENCES[method](Case(vectors, weights, parameters, shape or vectors.shape[1:], tensor, init))
