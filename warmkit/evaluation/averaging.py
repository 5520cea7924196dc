"""Individuals, WA and ENS side by side; weights are averaged in memory, predictions from scores that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from warmkit.checkpoints.merge import merged_state_dict
from warmkit.evaluation.accuracy import Scores, ensemble
from warmkit.evaluation.comparisons import Comparisons, score
from warmkit.modeling.reward_model import RewardModel

ByData = dict[str, Scores]
"""Scores of one model on every data set."""


class Contest:
    """Scores reward models of one architecture, and averages of them, on the same data.

    Args:
        model: Whose weights are replaced by those of each contender.
        data: The data sets.
        members: Directories of the individual models, by name.
        cache: Directory where scores are kept, so that nothing is scored twice; None to keep none.
        precision: `bfloat16` scores faster and a little less exactly.
    """

    def __init__(
        self,
        model: RewardModel,
        data: Mapping[str, Comparisons],
        members: Mapping[str, str | Path],
        cache: Path | None = None,
        precision: str = "float32",
    ) -> None:
        self.model, self.data, self.members, self.cache, self.precision = model, data, members, cache, precision

    def individual(self, name: str) -> ByData:
        """Return the scores of one member."""
        return self.average([name])

    def average(self, names: Sequence[str], coefficients: Sequence[float] | None = None) -> ByData:
        """Return the scores of WA: one model, the mean of the members' weights (or another linear combination)."""
        names, coefficients = list(names), None if coefficients is None else list(coefficients)
        if coefficients is None:
            names = sorted(names)  # the mean of a set, whatever its order
        label = "+".join(names if coefficients is None else [f"{c:g}x{name}" for c, name in zip(coefficients, names)])
        return self._cached(label, lambda: self._weights(names, coefficients))

    def ensemble(self, names: Sequence[str]) -> ByData:
        """Return the scores of ENS: the mean of the members' rewards, M models at inference."""
        members = [self.individual(name) for name in names]
        return {data: ensemble([each[data] for each in members]) for data in self.data}

    def _weights(self, names: Sequence[str], coefficients: Sequence[float] | None) -> dict[str, torch.Tensor]:
        paths = [str(self.members[name]) for name in names]
        if len(paths) == 1:
            paths = paths * 2  # the mean of a model with itself is that model, bit for bit
        if coefficients is None:
            return merged_state_dict(paths, method="uniform")
        return merged_state_dict(paths, method="lerp", coefficients=coefficients)

    def _cached(self, label: str, weights: Callable[[], dict[str, torch.Tensor]]) -> ByData:
        file = None if self.cache is None else self.cache / f"{label}.npz"
        if file is not None and file.exists():
            with np.load(file) as stored:
                if all(f"{name} chosen" in stored for name in self.data):
                    return {name: Scores(stored[f"{name} chosen"], stored[f"{name} rejected"]) for name in self.data}
        self.model.load_weights(weights())
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            result = {name: score(self.model, data) for name, data in self.data.items()}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            arrays = {
                f"{name} {side}": getattr(scores, side) for name, scores in result.items() for side in ("chosen", "rejected")
            }
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, **arrays)
            partial.replace(file)
        return result
