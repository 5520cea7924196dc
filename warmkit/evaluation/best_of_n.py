"""Best-of-N for many N from one pool of K samples, exactly: the mean over all subsets of size N."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import NonFiniteError, UsageError
from warmkit.evaluation.accuracy import Estimate, interval

Array = NDArray[np.float64]


def kl_of_best_of(n: int) -> float:
    """Return log N - (N-1)/N, in nats: how far best-of-N is from the policy that it samples from.

    It is exact where no two completions are the same or tie, and an upper bound otherwise. N = 1 is the policy itself, 0.

    Source: Hilton (2023), "KL divergence of max-of-n"; Beirami et al. (2024); WARM (Ramé et al., 2024), appendix D.2.

    Examples:
        >>> round(kl_of_best_of(4), 4)
        0.6363
    """
    return math.log(n) - (n - 1) / n


def choice_probabilities(proxy: Array, n: int) -> Array:
    """Return how often each sample is the best of N that are drawn from its K without replacement, [N, K].

    The sample of rank i, counted from the worst, is chosen in C(i-1, N-1) of C(K, N) subsets. Samples that tie share what
    their ranks have together, as if one of the tied were taken at random.

    Args:
        proxy: Scores that choose, [N, K]; finite.
        n: Size of the subsets, from 1 to K.

    Raises:
        NonFiniteError: If a score is not finite.
        UsageError: If there are fewer than N samples.

    Source: Nakano et al. (2021, WebGPT), appendix I; there without ties.

    Examples:
        >>> choice_probabilities(np.array([[3.0, 1.0, 2.0, 3.0]]), 2)
        array([[0.41666667, 0.        , 0.16666667, 0.41666667]])
    """
    samples = proxy.shape[1]
    if not 1 <= n <= samples:
        raise UsageError(f"best of {n}: expected 1 to {samples}, the samples of every prompt")
    if not np.isfinite(proxy).all():
        raise NonFiniteError("best of N: expected finite scores, found NaN or infinity")
    below = np.array([math.comb(i, n) / math.comb(samples, n) for i in range(samples + 1)])  # P(all N among the i worst)
    return np.stack([_shares(row, below) for row in proxy])


def _shares(row: Array, below: Array) -> Array:
    _, group, count = np.unique(row, return_inverse=True, return_counts=True)
    end = count.cumsum()
    return ((below[end] - below[end - count]) / count)[group]


def best_of_n(proxy: Array, scores: Array, n: int) -> Array:
    """Return the expected score of the completion that a proxy chooses among N, for every prompt, [N].

    The expectation is over all subsets of size N of the K samples, so it is an unbiased estimate of best-of-N for any N up
    to K. N = 1 is the mean of the scores; N = K the score of the best.

    Args:
        proxy: Scores that choose, [N, K].
        scores: Scores that count, of the same completions, [N, K].
        n: Completions to choose from, from 1 to K.

    Raises:
        NonFiniteError: If a score of the proxy is not finite.
        UsageError: If there are fewer than N samples, or the shapes differ.

    Source: Nakano et al. (2021, WebGPT), appendix I; WARM (Ramé et al., 2024), appendix D.2, figure 13.

    Examples:
        >>> gold = np.array([[0.0, 6.0, 3.0]])
        >>> best_of_n(np.array([[1.0, 2.0, 3.0]]), gold, 2)  # the third of two subsets, the second of one
        array([4.])
    """
    if proxy.shape != scores.shape:
        raise UsageError(f"expected scores of the same completions, found shapes {proxy.shape} and {scores.shape}")
    return (choice_probabilities(proxy, n) * scores).sum(1)


@dataclass(frozen=True)
class BestOf:
    """What one proxy's choice among N is worth to one control.

    Attributes:
        chooser: Name of the proxy.
        control: Name of the control.
        n: Completions to choose from.
        kl: `kl_of_best_of(n)`.
        proxy: What the chooser itself says of its choice, the mean over prompts.
        score: What the control says of it, with the bootstrap interval over prompts.
        gain: The same less the mean completion (N = 1), paired by prompt.
        lead: The same less the choice of the first chooser, paired by prompt.
    """

    chooser: str
    control: str
    n: int
    kl: float
    proxy: float
    score: Estimate
    gain: Estimate
    lead: Estimate


def best_of_curves(choosers: Mapping[str, Array], controls: Mapping[str, Array], sizes: Sequence[int]) -> list[BestOf]:
    """Return every chooser's curve over N for every control, from the same samples.

    Args:
        choosers: Scores that choose, [N, K], by name.
        controls: Scores that count, [N, K], by name.
        sizes: The N's.

    Source: WARM (Ramé et al., 2024), appendix D.2, figure 13, whose y-axis is `lead` over the best individual model.
    """
    first = next(iter(choosers.values()))
    points: list[BestOf] = []
    for control, scores in controls.items():
        for chooser, proxy in choosers.items():
            for n in sizes:
                chosen = best_of_n(proxy, scores, n)
                kl, own = kl_of_best_of(n), float(best_of_n(proxy, proxy, n).mean())
                gain, lead = interval(chosen - scores.mean(1)), interval(chosen - best_of_n(first, scores, n))
                points.append(BestOf(chooser, control, n, kl, own, interval(chosen), gain, lead))
    return points


def default_sizes(samples: int) -> list[int]:
    """Return 1, 2, 4, ... and K.

    Examples:
        >>> default_sizes(12)
        [1, 2, 4, 8, 12]
    """
    return [*(1 << power for power in range((samples - 1).bit_length())), samples]
