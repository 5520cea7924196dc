"""Proxy rewards: single models, WA and ENS of a WARM pool, each in units of its own deviation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from warmkit.data.preferences import read_pairs
from warmkit.evaluation.accuracy import Scores, ensemble
from warmkit.evaluation.comparisons import encode_pairs, score
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evidence.testbed.bed import Testbed
from warmkit.modeling.reward_model import load_reward_model

MEASURED = 500
"""Pairs of the validation set that say how far rewards lie apart."""


def proxy(bed: Testbed, models: Sequence[Path]) -> RewardTerm:
    """Return a reward model, or an ensemble (ENS), divided by its deviation, so that one beta means the same for all."""
    pairs = read_pairs(bed.validation)[:MEASURED]
    scores: list[Scores] = []
    for path in models:
        model = load_reward_model(str(path))
        scores.append(score(model, encode_pairs(pairs, model.encoder, "refuse")))
    both = ensemble(scores)
    deviation = float(np.concatenate([both.chosen, both.rejected]).std())
    paths = [str(path) for path in models]
    return RewardTerm(name="proxy", model=paths[0] if len(paths) == 1 else paths, weight=1 / deviation)
