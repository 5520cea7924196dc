"""Cost of WA and ENS at inference: one forward pass against M, one model in memory against M."""

from __future__ import annotations

import statistics
import time
from typing import Any

from warmkit.evaluation.comparisons import Comparisons, score
from warmkit.modeling.precision import autocast
from warmkit.modeling.reward_model import RewardModel

PAIRS, REPEATS = 64, 3


def inference_cost(model: RewardModel, data: Comparisons, m: int, precision: str = "float32") -> dict[str, Any]:
    """Time the scoring of some pairs with WA and with ENS of M models, and count the bytes of weights that each holds.

    The M passes of ENS are run one after another with the same weights in place: time depends on shapes, not on values, and
    M models need not fit into memory to be timed.

    Args:
        model: Of the architecture.
        data: Pairs, of which the first 64 are scored.
        m: Models of the ensemble.
        precision: `bfloat16` scores as `Contest` does.
    """
    sample = data.only(range(min(PAIRS, len(data))))
    with autocast(precision, model.device):
        score(model, sample)  # a first pass pays for what later ones find ready
        one = statistics.median(_passes(model, sample, 1) for _ in range(REPEATS))
        many = _passes(model, sample, m)
    size = sum(each.nbytes for each in model.model.state_dict().values())
    return {
        "pairs": len(sample),
        "device": model.device.type,
        "wa": {"passes": 1, "seconds": one, "weight_bytes": size},
        "ens": {"passes": m, "seconds": many, "weight_bytes": m * size},
    }


def _passes(model: RewardModel, data: Comparisons, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        score(model, data)  # returns when the scores are on the CPU
    return time.perf_counter() - began
