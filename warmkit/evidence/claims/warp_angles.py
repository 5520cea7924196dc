"""Angles and norms of task vectors and of weights, layer by layer, and what the angle does to SLERP and LERP.

Source: WARP (Ramé et al., 2024), observation 4, appendices B.1 and C.2, figure 11.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warp_policies import Family, policies
from warmkit.training.recipe_sections import number_in
from warmkit.verbs.compare import Comparison, compare

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """Which policies are compared.

    Attributes:
        policies: That differ in the order of their prompts.
        early: Earlier steps at which the first two of them are merged as well.
        batch_sizes: Of further pairs of policies: small batches wander, which makes angles larger.
        lr: Of further policies with the order of the first, which makes angles smaller.
    """

    policies: int = number_in(2, default=5)
    early: int = number_in(0, default=4)
    batch_sizes: list[int] = field(default_factory=lambda: [1, 16])
    lr: list[float] = field(default_factory=lambda: [5e-4])


@dataclass(frozen=True)
class Pair:
    """Two policies whose merges are compared.

    Attributes:
        name: Of the pair.
        models: The two.
        kind: What they differ in; the line in the figure.
    """

    name: str
    models: list[Path]
    kind: str


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Measure angles, and SLERP and LERP of pairs of policies at different angles."""
    found, family = Measurements(), policies(bed, how.policies)
    layers = layer_points(compare(family.models, init=family.init, threads=1), bed.seed)
    found.draw("layers", "policies", layers)
    found.state(**layer_numbers(layers))
    points = [
        found.draw("gaps", pair.kind, [{"at": f"seed {bed.seed}, {pair.name}", **_gap(family, pair)}])[0]
        for pair in pairs(bed, family, how)
    ]
    found.state(**gap_numbers(points))
    return found


def layer_points(comparison: Comparison, seed: int) -> list[dict[str, Any]]:
    """Return a point for every layer and pair of policies: angles in degrees, and norms of one as a share of the other's.

    Points are named after their seed, so that figures show every one, and no means over seeds.
    """
    return [
        {
            "at": f"seed {seed}, {group.name}, {pair.first_index + 1} and {pair.second_index + 1}",
            "parameters": group.parameters,
            "task_vector_angle": pair.task_vector_angle,
            "weight_angle": pair.weight_angle,
            "task_vector_cosine": pair.task_vector_cosine,
            "weight_cosine": pair.weight_cosine,
            "task_vector_norm_ratio": pair.task_vector_norm_ratio,
            "weight_norm_ratio": pair.weight_norm_ratio,
        }
        for group in comparison.groups
        for pair in group.pairs
    ]


def layer_numbers(points: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return means over layers and pairs, weighted by parameters: angles, and by how much the longer of two norms is longer."""
    shares = np.array([point["parameters"] for point in points]) / sum(point["parameters"] for point in points)
    angles, weights, norms, weight_norms = (
        np.array([point[name] for point in points], dtype=float)
        for name in ("task_vector_angle", "weight_angle", "task_vector_norm_ratio", "weight_norm_ratio")
    )
    return {
        "task_vector_angle": float(shares @ angles),
        "task_vector_angle_minus_90": float(shares @ angles) - 90,
        "weight_angle": float(shares @ weights),
        "longer_task_vector": float(shares @ (np.maximum(norms, 1 / norms) - 1)),
        "longer_weights": float(shares @ (np.maximum(weight_norms, 1 / weight_norms) - 1)),
    }


def pairs(bed: Testbed, family: Family, how: Settings) -> list[Pair]:
    """Return pairs of policies whose task vectors meet at different angles."""
    first, second = family.runs[:2]
    found = [Pair(f"{a + 1} and {a + 2}", family.models[a : a + 2], "order of prompts") for a in range(len(family.models) - 1)]
    steps = sorted(first.kept)[:-1]
    found += [
        Pair(f"step {step}", [first.kept[step], second.kept[step]], "order of prompts, earlier")
        for step in _spread(steps, how.early)
    ]
    for rate in how.lr:
        other = _policy(bed, family, f"angles-lr-{rate:g}", lr=rate)
        found.append(Pair(f"lr {rate:g}", [first.path, other], "learning rate, same order"))
    for size in how.batch_sizes:
        two = [_policy(bed, family, f"angles-batch-{size}-{order}", order=order, batch_size=size) for order in (1, 2)]
        found.append(Pair(f"batch {size}", two, "order of prompts, other batch size"))
    return found


def gap_numbers(points: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return rank correlations of the angle with SLERP - LERP, in reward, as a share of the reward, and in KL."""
    angles = [point["angle"] for point in points]
    columns = {"gap": "gap_over_angle", "relative_gap": "relative_gap_over_angle", "relative_kl_gap": "kl_gap_over_angle"}
    return {number: rank_correlation(angles, [point[name] for point in points]) for name, number in columns.items()}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; ties, which measured numbers hardly have, are ranked as they come.

    Example:
        >>> round(rank_correlation([1.0, 2.0, 5.0], [0.1, 0.3, 0.2]), 6)
        0.5
    """
    ranks = [np.argsort(np.argsort(each)).tolist() for each in (first, second)]
    return statistics.correlation(*ranks)


def _gap(family: Family, pair: Pair) -> dict[str, Any]:
    """Evaluate SLERP and LERP of a pair at lambda 0.5."""
    angle = compare(pair.models, init=family.init, threads=1).mean_angles()[0]["task_vectors"]
    slerp, lerp = (family.judge.slide(pair.models, [0.5], family.init, method)[0] for method in ("slerp", "lerp"))
    return {
        "angle": angle,
        "gap": slerp["proxy"] - lerp["proxy"],
        "relative_gap": 1 - lerp["proxy"] / slerp["proxy"],
        "kl_gap": slerp["kl"] - lerp["kl"],
        "relative_kl_gap": 1 - lerp["kl"] / slerp["kl"],
    }


def _policy(bed: Testbed, family: Family, name: str, **how: Any) -> Path:
    return bed.policy(name, [family.proxy], bed.settings.warp_policies, keep=[], **how).path


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """Return some of the steps, evenly spread, the last among them."""
    return sorted({steps[max(1, round(len(steps) * each / count)) - 1] for each in range(1, count + 1)})
