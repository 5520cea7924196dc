"""Gram matrices of task vectors that are products of factors: known without reading a weight.

Where every model is the init with an adapter, d_m = L_m R_m, and <d_m, d_n> is the sum of (L_m' L_n) * (R_m R_n'), two
matrices of a few rows. It is the same number as the product of the dense differences, without their rounding, and saves the
first of two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import NonFiniteError
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.merging.types import Gram
from warmkit.sources.files import Files

Products: TypeAlias = Callable[[Files], Gram]
_Pair: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"


def known_products(init: Tensor, models: Sequence[Tensor]) -> Products | None:
    """Return how to find the Gram matrix of the models' task vectors in one tensor from factors alone, None where it cannot be.

    Args:
        init: The tensor of the initialisation.
        models: The same tensor of every model: known are those of the init itself, and those with factors on it.
    """
    if not all(_on(init, each) for each in models):
        return None
    return lambda files: _gram(init.name, [_factors(files, each) for each in models])


def _on(init: Tensor, tensor: Tensor) -> bool:
    """Say whether a tensor is the init's own, or factors without magnitudes on it."""
    from warmkit.layouts.adapted import AdaptedStack, AdaptedTensor

    if isinstance(tensor, AdaptedTensor | AdaptedStack):
        return (isinstance(tensor, AdaptedStack) or tensor.factors.magnitude is None) and _same_place(init, tensor.base)
    return _same_place(init, tensor)


def _same_place(one: Tensor, two: Tensor) -> bool:
    if not isinstance(one, StoredTensor) or not isinstance(two, StoredTensor) or one.offset != two.offset:
        return False
    if not isinstance(one.file, Path) or not isinstance(two.file, Path):
        return one.file == two.file
    return one.file.samefile(two.file)


def _factors(files: Files, tensor: Tensor) -> list[_Pair]:
    """Return the factors of every matrix in a tensor: several where it is a stack of experts, none where it is the init's."""
    from warmkit.layouts.adapted import AdaptedStack, AdaptedTensor

    return tensor.unpacked(files) if isinstance(tensor, AdaptedTensor | AdaptedStack) else []


def _gram(name: str, models: Sequence[list[_Pair]]) -> Gram:
    gram = np.zeros((len(models), len(models)))
    for i, ours in enumerate(models):
        for j, theirs in enumerate(models[: i + 1]):
            products = (np.sum((one[0].T @ two[0]) * (one[1] @ two[1].T)) for one, two in zip(ours, theirs))
            gram[i, j] = gram[j, i] = sum(map(float, products))
    if not np.isfinite(gram).all():
        raise NonFiniteError(f"tensor {name!r}: the factors of an adapter hold NaN or infinity")
    return gram
