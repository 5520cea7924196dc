"""Linear mode connectivity: what lies on the line between two fine-tuned models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from warmkit.evaluation.accuracy import Estimate, Scores, interval, pairwise_accuracy
from warmkit.evaluation.averaging import Contest


@dataclass(frozen=True)
class ConnectivityPoint:
    """One place on the line, on one data set.

    Attributes:
        data: Name of the data set.
        lambda_: Share of the second model.
        wa: Accuracy of the model with weights (1 - lambda) phi_1 + lambda phi_2.
        ens: Accuracy of the mixed predictions (1 - lambda) r_1 + lambda r_2.
        diag: The mixed accuracies (1 - lambda) Acc_1 + lambda Acc_2.
        gain: WA less the diagonal, with the bootstrap interval over the comparisons.
    """

    data: str
    lambda_: float
    wa: float
    ens: float
    diag: float
    gain: Estimate


def connectivity(
    contest: Contest, a: str, b: str, lambdas: Sequence[float], advance: Callable[[int, int], None] = lambda done, total: None
) -> list[ConnectivityPoint]:
    """Slide lambda from one model to the other; `advance` counts the places.

    Source: WARM (Ramé et al., 2024), section 3.2, observations 1 and 2, figure 2.
    """
    first, second = contest.individual(a), contest.individual(b)
    points: list[ConnectivityPoint] = []
    advance(0, len(lambdas))
    for lambda_ in lambdas:
        averaged = {0.0: first, 1.0: second}.get(lambda_) or contest.average([a, b], [1 - lambda_, lambda_])
        points += [_point(name, lambda_, averaged[name], first[name], second[name]) for name in contest.data]
        advance(1, len(lambdas))
    return points


def _point(name: str, lambda_: float, averaged: Scores, first: Scores, second: Scores) -> ConnectivityPoint:
    mixed = Scores(
        (1 - lambda_) * first.chosen + lambda_ * second.chosen, (1 - lambda_) * first.rejected + lambda_ * second.rejected
    )
    diagonal = (1 - lambda_) * first.correct + lambda_ * second.correct
    gain = interval(averaged.correct - diagonal)
    return ConnectivityPoint(
        name, lambda_, pairwise_accuracy(averaged), pairwise_accuracy(mixed), float(np.mean(diagonal)), gain
    )
