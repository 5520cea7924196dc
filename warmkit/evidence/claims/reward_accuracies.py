"""Accuracies of WA, ENS and single models in percent, one column a data set, as the claims draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from warmkit.evaluation.accuracy import Scores, pairwise_accuracy
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.connectivity import connectivity

PROBE = "probe"
Point = dict[str, Any]
Lines = dict[str, list[Point]]
"""Points of several lines, each with `at` and a column for every data set."""
METHODS = {"WA": "wa", "ENS": "ens", "Diag": "diag"}


def column(data: str) -> str:
    """Name the column of a data set, `train corrupt` for instance."""
    return data.replace(" ", "_")


def percent(scores: Mapping[str, Scores]) -> Point:
    """Return the accuracy on every data set, in percent."""
    return {column(data): 100 * pairwise_accuracy(each) for data, each in scores.items()}


def mean(points: Sequence[Point]) -> Point:
    """Return the mean of every column."""
    return {name: float(np.mean([point[name] for point in points])) for name in points[0]}


def extreme(points: Sequence[Point], which: Callable[[Iterable[float]], float]) -> Point:
    """Return the highest or the lowest of every column."""
    return {name: which(point[name] for point in points) for name in points[0]}


def difference(ours: Point, theirs: Point) -> Point:
    """Return ours less theirs, column by column, at our place."""
    return {name: value if name == "at" else value - theirs[name] for name, value in ours.items()}


def along_lambda(contest: Contest, pairs: Sequence[tuple[str, str]], lambdas: Sequence[float]) -> Lines:
    """Interpolate between two models; return WA, ENS and Diag (the mixed accuracies), the mean over the pairs.

    Source: WARM (Ramé et al., 2024), figures 2, 3 and 22.
    """
    each = [connectivity(contest, a, b, lambdas) for a, b in pairs]
    return {
        line: [
            {
                "at": place,
                **mean([{column(p.data): 100 * getattr(p, name) for p in points if p.lambda_ == place} for points in each]),
            }
            for place in lambdas
        ]
        for line, name in METHODS.items()
    }


def along_count(contest: Contest, names: Sequence[str]) -> Lines:
    """Return WA and ENS of the first M models, these alone, and the model that was only probed, by M."""
    counts = range(1, len(names) + 1)
    alone = [percent(contest.individual(name)) for name in names]
    probe = percent(contest.individual(PROBE))
    return {
        "WA": [{"at": m, **percent(contest.average(names[:m]))} for m in counts],
        "ENS": [{"at": m, **percent(contest.ensemble(names[:m]))} for m in counts],
        "mean of the single models": [{"at": m, **mean(alone[:m])} for m in counts],
        "best single model": [{"at": m, **extreme(alone[:m], max)} for m in counts],
        "worst single model": [{"at": m, **extreme(alone[:m], min)} for m in counts],
        "only probed": [{"at": m, **probe} for m in counts],
    }


def flat(contest: Contest, name: str, places: Sequence[float]) -> list[Point]:
    """Return one model as a line that does not change."""
    return [{"at": place, **percent(contest.individual(name))} for place in places]
