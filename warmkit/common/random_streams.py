"""Random streams: every generator of the package is made here, from a purpose, a seed and counters.

numpy pads seeds with zeros, so that `default_rng(s)` and `default_rng((s, 0))` are one stream, and two uses of a seed may meet.
Here the purpose is part of the seed: streams of two purposes never meet, whatever seeds a user picks.

Delays between retries, and the sample from which a time is estimated, must differ from call to call: Python's `random` draws
them, and no result depends on them. Masks of DARE and DELLA follow from seed, model and tensor (`merging.edits.stream_key`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import numpy as np

from warmkit.errors import UsageError

RUNS = 1000  # of one pipeline, at most

Purpose = Literal[
    "bootstrap",  # resamples behind an interval
    "data order",  # permutation of an epoch
    "docstring pairs",  # which docstrings meet
    "docstring windows",  # where the text of a tiny model is cut
    "dropout",  # of a training step
    "evaluation samples",  # completions, the same random numbers for every policy, judged (`eval policy`) or pooled (`bon`)
    "grid order",  # of the runs of WARM
    "held-out prompts",  # of the testbed
    "initial weights",  # of what a checkpoint lacks, or of a new model
    "label noise",  # which pairs are swapped
    "lora weights",  # the random half of new adapters
    "low-rank start",  # of a randomised singular value decomposition
    "merge orders",  # of policies, for a claim about SLERP
    "policy rollouts",  # completions that a policy learns from
    "pretraining texts",  # of the testbed
    "random soups",  # orders that a ranking is held against
    "searched candidates",  # of `search`
    "sampled preferences",  # of the testbed, out of distribution: who is asked what
    "sampled responses",  # what is answered
    "synthetic preferences",  # of the testbed's language
    "theory",  # simulated feature weights
    "validation samples",  # completions while a policy learns
]
"""What a stream is for; no two places with different uses share one."""


def generator(purpose: Purpose, *key: int | str) -> np.random.Generator:
    """Return the generator of a purpose, a seed and counters; the same for the same arguments, on any machine.

    Args:
        purpose: What the numbers are for.
        key: Seed and counters, such as epoch or step. `1`, `"1"` and `(1, 0)` are three streams.

    Examples:
        >>> generator("data order", 0).permutation(5).tolist() == generator("label noise", 0).permutation(5).tolist()
        False
    """
    return np.random.Generator(np.random.PCG64(_entropy(purpose, key)))


def seed_torch(purpose: Purpose, *key: int | str) -> None:
    """Seed what torch draws by itself, such as dropout and the weights of new layers, on every device.

    torch's generator on a CPU takes 32 bits of a seed, so two of its streams meet by chance once in four thousand million.
    """
    import torch

    torch.manual_seed(_entropy(purpose, key) >> 193)  # 63 bits


def run_seed(seed: int, number: int) -> int:
    """Return the seed of one run of a pipeline: 1000 seed + number, so that pipelines of two seeds share no run.

    Args:
        seed: Of the pipeline.
        number: Of the run, from 0 to 999.

    Raises:
        UsageError: If the pipeline has more runs.

    Examples:
        >>> run_seed(0, 3), run_seed(1, 3)
        (3, 1003)
    """
    if number >= RUNS:
        raise UsageError(f"expected at most {RUNS} runs in a pipeline, found {number + 1}")
    return RUNS * seed + number


def _entropy(purpose: str, key: tuple[int | str, ...]) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps([purpose, *key]).encode()).digest(), "big")
