"""Trajectory of a run: how far it moved, how it turned, and in how many directions, read off a Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from warmkit.merging.geometry import cosines, norms
from warmkit.merging.types import Coefficients, Gram


@dataclass(frozen=True)
class Trajectory:
    """Shape of a run in weight space, over all weights.

    Attributes:
        distances: ||x_t - x_0||, [T].
        moves: ||x_t - x_(t-1)||, [T]; the first from the init.
        turns: Angle between a move and the one before it, degrees, [T]; nan for the first, and beside no move.
        participation: (sum l)^2 / sum l^2 of the eigenvalues l of the Gram matrix: in how many directions the run moved.
        first_share: Share of the largest eigenvalue: what one direction explains of the task vectors.
        linearity: R^2 of a line through the coordinates along that direction, over the steps; nan for fewer than three.
    """

    distances: Coefficients
    moves: Coefficients
    turns: Coefficients
    participation: float
    first_share: float
    linearity: float


def trajectory(gram: Gram, steps: Sequence[float]) -> Trajectory:
    """Return the shape of a run from the products of its checkpoints' task vectors.

    Args:
        gram: [T, T], <x_s - x_0, x_t - x_0>, in the order of the run.
        steps: [T], increasing.

    Source: RELEX (Wei et al., 2026) for the share of one direction and its linearity.

    Examples:
        >>> import numpy as np
        >>> straight = trajectory(np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), [1, 2, 3])
        >>> straight.distances.tolist(), straight.moves.round(6).tolist()
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
        >>> round(straight.participation, 6), round(straight.first_share, 6), round(straight.linearity, 6)
        (1.0, 1.0, 1.0)
    """
    count = len(gram)
    before = np.eye(count) - np.eye(count, k=-1)
    moved = before @ gram @ before.T
    turned = np.clip(np.diag(cosines(moved), k=-1), -1.0, 1.0)
    squares, vectors = np.linalg.eigh(gram)
    squares = np.maximum(squares, 0.0)
    total = float(squares.sum())
    return Trajectory(
        norms(gram),
        norms(moved),
        np.concatenate([[np.nan], np.degrees(np.arccos(turned))]),
        total**2 / float((squares**2).sum()) if total else float("nan"),
        float(squares[-1]) / total if total else float("nan"),
        _linearity(vectors[:, -1], np.asarray(steps, dtype=np.float64)) if total else float("nan"),
    )


def _linearity(values: Coefficients, steps: Coefficients) -> float:
    """Return R^2 of a straight line through values over steps."""
    if len(values) < 3:
        return float("nan")
    x, y = steps - steps.mean(), values - values.mean()
    spread = float(x @ x) * float(y @ y)
    return float(x @ y) ** 2 / spread if spread else float("nan")
