"""An independent reference: every method in float64, on whole vectors, from the papers' formulas and not from Gram matrices."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

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


def slerp_pair(a: Vector, b: Vector, share: float) -> Vector:
    if not a.any() or not b.any():  # no direction: a straight line
        return (1 - share) * a + share * b
    omega = angle(a, b)
    return (np.sin((1 - share) * omega) * a + np.sin(share * omega) * b) / np.sin(omega)


def slerp(tasks: list[Vector], shares: list[float]) -> Vector:
    running, total = tasks[0], shares[0]
    for task, share in zip(tasks[1:], shares[1:]):
        total += share
        running = slerp_pair(running, task, share / total)
    return running


def karcher(tasks: list[Vector], shares: list[float]) -> Vector:
    if not any(task.any() for task in tasks):
        return tasks[0]
    units = [task / np.linalg.norm(task) for task in tasks]
    mean = sum(share * unit for share, unit in zip(shares, units))
    for _ in range(200):
        mean = mean / np.linalg.norm(mean)
        step = np.zeros_like(mean)
        for share, unit in zip(shares, units):
            tangent = unit - (unit @ mean) * mean
            if (length := np.linalg.norm(tangent)) > 0:
                step += share * angle(mean, unit) * tangent / length
        if (size := np.linalg.norm(step)) < 1e-15:
            break
        mean = np.cos(size) * mean + np.sin(size) * step / size
    return mean * sum(share * np.linalg.norm(task) for share, task in zip(shares, tasks))


def model_stock(tasks: list[Vector], shares: list[float]) -> Vector:
    count = len(tasks)
    cosines = [np.cos(angle(a, b)) for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
    cosine = max(float(np.mean(cosines)), 0.0)
    return count * cosine / (1 + (count - 1) * cosine) * sum(tasks) / count


def relex(tasks: list[Vector]) -> Vector:
    """Continue evenly spaced tasks to twice the last step: by a singular value decomposition and numpy's own fit of a line."""
    if not any(task.any() for task in tasks):
        return tasks[0]
    left, values, right = np.linalg.svd(np.array(tasks), full_matrices=False)
    line = np.polynomial.Polynomial.fit(np.arange(1.0, len(tasks) + 1), left[:, 0] * values[0], 1)
    return line(2.0 * len(tasks)) * right[0]


TASKS: dict[str, Callable[[list[Vector], list[float]], Vector]] = {
    "lerp": lambda tasks, shares: sum(s * t for s, t in zip(shares, tasks)),
    "uniform": lambda tasks, shares: sum(tasks) / len(tasks),
    "task-arithmetic": lambda tasks, shares: sum(tasks),
    "slerp": slerp,
    "karcher": karcher,
    "model-stock": model_stock,
    "expo": lambda tasks, shares: 1.3 * sum(s * t for s, t in zip(shares, tasks)),
    "relex": lambda tasks, shares: relex(tasks),
}


def merged(
    method: str,
    init: dict[str, torch.Tensor],
    models: list[dict[str, torch.Tensor]],
    shares: list[float],
    eta: float,
    groups: dict[str, list[str]],
) -> dict[str, Vector]:
    """Return the exact merge of every tensor, flattened, in float64."""
    result: dict[str, Vector] = {}
    for names in groups.values():
        zero = _flat(init, names)
        full = [_flat(model, names) for model in models]
        if method == "slerp-weights":
            value = zero + eta * (slerp(full, shares) - zero)
        else:
            value = zero + eta * TASKS[method]([each - zero for each in full], shares)
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
