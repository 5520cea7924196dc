"""Fronts of policies: merges at many etas and mixes, each evaluated in memory on the same prompts; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator
from warmkit.common.records import dict_of, having, is_natural, is_number, list_of, maybe, read_lines
from warmkit.errors import DataError, UsageError
from warmkit.evaluation.accuracy import FEW, Array, interval
from warmkit.evaluation.few_values import Estimate, is_estimate
from warmkit.evaluation.policies import Candidate
from warmkit.verbs.merger import Merger

Mix = Sequence[float] | None
"""Shares of the policies; None lets the method weigh them alike."""


@dataclass(frozen=True)
class FrontPoint:
    """One merge and what it is worth.

    Attributes:
        eta: LITI's update rate: 0 is the init, 1 the merge.
        coefficients: Shares of the policies; None where the method weighs them alike.
        values: Means over the answers, with bootstrap intervals over prompts: see `policy_evaluator.rollout_values`. Every
            point draws the same prompts again, so that intervals of one sweep are of the same samples.
    """

    eta: float
    coefficients: list[float] | None
    values: dict[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


POINT = having(eta=is_number, coefficients=maybe(list_of(is_number)), values=dict_of(is_estimate))
"""What `FrontPoint.to_dict` returns."""


def open_mergers(init: str, policies: Sequence[str], methods: Sequence[str], **parameters: Any) -> dict[str, Merger]:
    """Compare policies with their init from the headers, and return what merges them in memory, by method.

    Args:
        init: What the policies were fine-tuned from.
        policies: Directories or Hub repositories.
        methods: Names in `warmkit.METHODS`.
        **parameters: `granularity` and `antiparallel`, as for `merge`.

    Raises:
        MismatchError: If architectures, shapes or vocabularies differ.
        UsageError: If a method is unknown, given twice, or needs more policies.
    """
    if twice := {name for name in methods if list(methods).count(name) > 1}:
        raise UsageError(f"expected different methods, found {twice.pop()} twice")
    return {name: Merger(policies, init=init, method=name, **parameters) for name in methods}


def sweep(
    candidate: Candidate,
    merger: Merger,
    etas: Sequence[float],
    mixes: Sequence[Mix] = (None,),
    advance: Advance | None = None,
) -> list[FrontPoint]:
    """Evaluate the merge at every eta of every mix; the candidate keeps the last one's weights.

    Every point costs one evaluation, and eta = 0, which is the init whatever the mix, one for all mixes together.

    Args:
        candidate: Of the policies' architecture.
        merger: Of the policies, with their init where an eta is not 1.
        etas: LITI's update rates.
        mixes: Shares of the policies, [M] each, such as those of `simplex`.
        advance: Called after every evaluation.

    Returns:
        The points, the etas of the first mix first.

    Raises:
        UsageError: If an eta or a mix does not fit the method, before anything is sampled.

    Source: WARP (Ramé et al., 2024), figures 3, 4 and 8-10; Rewarded soups (Ramé et al., 2023) for mixes of rewards.
    """
    check_sweep(merger, etas, mixes)
    places = [(eta, mix) for mix in mixes for eta in etas]
    start, tick = places.index((0, mixes[0])) if 0 in etas else None, advance or (lambda done, total: None)
    total = count_evaluations(etas, mixes)
    means: list[dict[str, Array]] = []
    weights: dict[str, torch.Tensor] | None = None
    for place, (eta, mix) in enumerate(places):
        if eta == 0 and start is not None and start < place:
            means.append(means[start])
            continue
        weights = merger.state_dict(eta=eta, coefficients=mix, out=weights)
        candidate.load_weights(weights)
        means.append({name: each.mean(1) for name, each in candidate.answers().values.items()})
        tick(1, total)
    return [
        FrontPoint(eta, None if mix is None else list(mix), values) for (eta, mix), values in zip(places, _estimates(means))
    ]


def check_sweep(merger: Merger, etas: Sequence[float], mixes: Sequence[Mix] = (None,)) -> None:
    """Refuse etas and mixes that the method cannot follow, before anything is read.

    Raises:
        UsageError: If one is out of range, or there twice.
    """
    for kind, given in (("etas", etas), ("mixes", mixes)):
        if not given or any(a == b for a, b in combinations(given, 2)):
            raise UsageError(f"expected different {kind}, found {[*given]}")
    for mix in mixes:
        for eta in etas:
            merger.spec(eta=eta, coefficients=mix)


def count_evaluations(etas: Sequence[float], mixes: Sequence[Mix]) -> int:
    """Return what a sweep costs: one evaluation a point, the init once."""
    return len(etas) * len(mixes) - (len(mixes) - 1) * (0 in etas)


def simplex(models: int, steps: int) -> list[list[float]]:
    """Return the grid of shares that sum to 1, multiples of 1 / steps, the first model alone first.

    Args:
        models: How many there are, at least 2.
        steps: Steps from one model alone to another; there are (steps + models - 1 choose models - 1) points.

    Raises:
        UsageError: If there is nothing to mix.

    Examples:
        >>> simplex(2, 4)
        [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]]
        >>> len(simplex(3, 4))
        15
    """
    if models < 2 or steps < 1:
        raise UsageError(f"a grid of shares needs at least 2 models and 1 step, found {models} and {steps}")
    bars = combinations(range(steps + models - 1), models - 1)  # where the stars of each model end
    ends = [(-1, *each, steps + models - 1) for each in bars]
    return [[(right - left - 1) / steps for left, right in pairwise(each)] for each in reversed(ends)]


def best(points: Sequence[FrontPoint]) -> FrontPoint:
    """Return the point of the highest mean reward, the first of equals."""
    return max(points, key=lambda point: point.values["reward"].value)


# ---- what training passed through -----------------------------------------------------------------------------------


def trajectory(run: Path) -> list[dict[str, float]]:
    """Return where a training run was, step by step: its evaluations on the way, or else its training batches.

    The names are those of a `FrontPoint`'s values (`reward`, `control_LABEL`, `kl_sft`, `length`), beside `step`. Evaluations
    are better: their prompts are the same at every step.

    Raises:
        DataError: If the directory holds no metrics.
        FormatError: If they are not those of a policy.
    """
    return evaluations(run) or [_numbers(line, "") for line in _metrics(run)]


def evaluations(run: Path) -> list[dict[str, float]]:
    """Return the evaluations that a run made on the way (`policy.evaluate_every`); none where there were none.

    Raises:
        DataError: If the directory holds no metrics.
        FormatError: If they are not those of a policy.
    """
    return [_numbers(line, "validation_") for line in _metrics(run) if "validation_reward" in line]


def _metrics(run: Path) -> list[dict[str, Any]]:
    if not (run / "metrics.jsonl").is_file():
        raise DataError(f"{run}: expected the directory of a run, with metrics.jsonl")
    wanted = "expected step, reward and kl_sft on every line, as `warmkit train policy` writes them"
    if not (lines := read_lines(run / "metrics.jsonl", {"step": is_natural, "reward": is_number, "kl_sft": is_number}, wanted)):
        raise DataError(f"{run / 'metrics.jsonl'}: {wanted}")
    return lines


def _numbers(line: Mapping[str, Any], prefix: str) -> dict[str, float]:
    known = {name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)}
    numbers = {"step": line["step"], **known}
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and not name.startswith("validation_")
    }


# ---- means and intervals --------------------------------------------------------------------------------------------


def _estimates(means: Sequence[Mapping[str, Array]], level: float = 0.95, draws: int = 2000) -> list[dict[str, Estimate]]:
    """Return what `accuracy.interval` says of each [n], from one bootstrap for all of them where they are many."""
    if len(next(iter(means[0].values()))) < FEW:
        return [{name: interval(each, level=level) for name, each in point.items()} for point in means]
    rows = np.stack([each for point in means for each in point.values()])
    draw, n = generator("bootstrap", 0), rows.shape[1]
    drawn = np.empty((draws, len(rows)))
    for place in range(draws):
        drawn[place] = rows @ np.bincount(draw.integers(n, size=n), minlength=n) / n
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    found = iter([Estimate(*map(float, each)) for each in zip(rows.mean(1), low, high)])
    return [{name: next(found) for name in point} for point in means]
