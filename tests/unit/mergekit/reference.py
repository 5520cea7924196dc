"""mergekit's methods in float64, tensor by tensor, from their description and not from Gram matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Vector = np.ndarray


def arc(a: Vector, b: Vector, t: float) -> Vector:
    """Return the point at t on the arc from a to b."""
    cosine = float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def karcher(models: Sequence[Vector]) -> Vector:
    """Return the mean direction at the mean length, by steps in the tangent space."""
    units = [each / np.linalg.norm(each) for each in models]
    mean = sum(units) / np.linalg.norm(sum(units))
    for _ in range(100):
        pulls = []
        for unit in units:
            angle = np.arccos(np.clip(np.sum(mean * unit), -1, 1))
            pulls.append(angle / np.sin(angle) * (unit - np.cos(angle) * mean))
        step = sum(pulls) / len(units)
        if (size := np.linalg.norm(step)) < 1e-15:
            break
        mean = np.cos(size) * mean + np.sin(size) * step / size
    return mean * np.mean([np.linalg.norm(each) for each in models])


def directions(models: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Return the mean direction at the mean length."""
    lengths, shares = [np.linalg.norm(each) for each in models], np.array(weights) / sum(weights)
    mean = sum(share * each / length for share, each, length in zip(shares, models, lengths))
    return mean / np.linalg.norm(mean) * float(shares @ lengths)


def fused(base: Vector, model: Vector) -> Vector:
    """Take what is important: large in a row whose softmax moved, beyond the quartiles."""
    p, q = (np.exp(each) / np.exp(each).sum(axis=-1, keepdims=True) + 1e-8 for each in (model, base))
    importance = np.abs(model - base) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    low, middle, high = (np.sort(importance.ravel())[int(share * (importance.size - 1))] for share in (0.25, 0.5, 0.75))
    return np.where(importance >= middle + 1.5 * (high - low), model, base)


def model_stock(base: Vector, models: Sequence[Vector]) -> Vector:
    """Return the pull towards the base; a mean cosine below zero, where mergekit steps away, gives the base as it does here."""
    tasks = [(each - base).ravel() for each in models]
    pairs = [(a, b) for place, a in enumerate(tasks) for b in tasks[place + 1 :]]
    cosine = max(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]), 0)
    t = len(models) * cosine / (1 + (len(models) - 1) * cosine)
    return t * sum(models) / len(models) + (1 - t) * base


def ties(base: Vector, models: Sequence[Vector], weights: Sequence[float], densities: Sequence[float]) -> Vector:
    """Trim to the largest changes, elect a sign by their weighted sum, average what has it."""
    kept = []
    for model, weight, density in zip(models, weights, densities):
        task = (model - base).ravel()
        order = np.argsort(-np.abs(task), kind="stable")[: max(1, int(density * task.size))]
        trimmed = np.zeros_like(task)
        trimmed[order] = task[order]
        kept.append(weight * trimmed)
    agrees = [np.sign(each) == np.where(sum(kept) >= 0, 1, -1) for each in kept]
    divisor = sum(weight * agree for weight, agree in zip(weights, agrees))
    merged = sum(each * agree for each, agree in zip(kept, agrees)) / np.where(divisor == 0, 1, divisor)
    return base + merged.reshape(base.shape)


def breadcrumbs(task: Vector, density: float, gamma: float) -> Vector:
    """Leave out the share gamma of the largest changes, and the smallest until the density is reached."""
    order = np.argsort(np.abs(task).ravel(), kind="stable")
    count, top = int(density * task.size), int(gamma * task.size)
    low = max(0, task.size - count - top)
    kept = np.zeros(task.size)
    kept[order[low : low + count]] = 1
    return task * kept.reshape(task.shape)


def gradient(points: Sequence[float], depth: float) -> float:
    return float(np.interp(depth, np.linspace(0, 1, len(points)), points))


Merge = Callable[[str, float, dict[str, Vector]], Vector]
"""From a tensor's name, its depth and its values in every model (base, a, b, c) to the merge."""
