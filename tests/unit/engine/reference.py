"""An independent reference: every method in float64, on whole vectors, from the papers' formulas and not from Gram matrices.

The formulas are `reference` of `tests/unit/merging/test_<name>.py`, one a method.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence

import numpy as np
import torch

Vector = np.ndarray


def layers(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        found = re.match(r"model\.layers\.\d+", name)
        groups.setdefault(found.group() if found else name, []).append(name)
    return groups


def angle(a: Vector, b: Vector) -> float:
    """Return the angle by atan2 of unit vectors, which is accurate at every angle."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def merged(
    method: str,
    init: dict[str, torch.Tensor],
    models: list[dict[str, torch.Tensor]],
    shares: list[float],
    eta: float,
    groups: dict[str, list[str]],
) -> dict[str, Vector]:
    """Return the exact merge of every tensor, flattened, in float64."""
    formula = importlib.import_module(f"tests.unit.merging.test_{method.replace('-', '_')}").reference
    result: dict[str, Vector] = {}
    for names in groups.values():
        zero, full = _flat(init, names), np.array([_flat(model, names) for model in models])
        moved = bool((full != zero).any())
        value = zero + eta * (formula(zero, full, np.array(shares)) - zero) if moved else zero
        start = 0
        for name in names:
            size = init[name].numel()
            result[name] = value[start : start + size]
            start += size
    return result


def magnitude(init: dict[str, torch.Tensor], models: list[dict[str, torch.Tensor]], name: str) -> Vector:
    """Return the size of the terms that are summed, an upper bound: what float32 rounding errors are relative to."""
    return sum(np.abs(_flat(each, [name])) for each in (init, *models)) * 2


def _flat(tensors: dict[str, torch.Tensor], names: list[str]) -> Vector:
    return np.concatenate([tensors[name].double().numpy().ravel() for name in names])


def half_ulp(exact: Vector, dtype: torch.dtype) -> Vector:
    """Return half the distance between neighbours of `dtype` at each value."""
    digits = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24}[dtype]
    smallest = {torch.bfloat16: -126, torch.float16: -14, torch.float32: -126}[dtype]
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-1000))), smallest)
    return 2.0 ** (exponent - digits)
