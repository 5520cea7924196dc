"""Individuals, WA and ENS side by side; weights are averaged in memory, predictions from scores that are kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from warmkit.checkpoints.merger import merged_state_dict
from warmkit.evaluation.accuracy import Scores, ensemble
from warmkit.evaluation.comparisons import Comparisons, score
from warmkit.modeling.precision import autocast
from warmkit.modeling.reward_model import RewardModel

MOST_CHARACTERS = 120  # of a file's name, which ends at 255 bytes
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

    def average(
        self, names: Sequence[str], coefficients: Sequence[float] | None = None, only: Sequence[str] | None = None
    ) -> ByData:
        """Return the scores of WA: one model, the mean of the members' weights (or another linear combination).

        Args:
            names: Of members.
            coefficients: Of the members; by default the mean.
            only: Data sets to score; by default all.
        """
        names, coefficients = list(names), None if coefficients is None else list(coefficients)
        if coefficients is None:
            names = sorted(names)  # the mean of a set, whatever its order
        label = "+".join(names if coefficients is None else [f"{c:g}x{name}" for c, name in zip(coefficients, names)])
        return self._cached(label, lambda: self._weights(names, coefficients), only or list(self.data))

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

    def _cached(self, label: str, weights: Callable[[], dict[str, torch.Tensor]], wanted: Sequence[str]) -> ByData:
        stem = label if len(label) < MOST_CHARACTERS else hashlib.sha256(label.encode()).hexdigest()
        files = {name: self.cache and self.cache / f"{stem} {name} {self.data[name].digest}.npz" for name in wanted}
        result = {name: _load(file) for name, file in files.items() if file is not None and file.exists()}
        if len(result) < len(wanted):
            self.model.load_weights(weights())
        with autocast(self.precision, self.model.device):
            for name in wanted:
                if name not in result:
                    result[name] = score(self.model, self.data[name])
                    _store(files[name], result[name])
        return {name: result[name] for name in wanted}


def _load(file: Path) -> Scores:
    with np.load(file) as stored:
        return Scores(stored["chosen"], stored["rejected"])


def _store(file: Path | None, scores: Scores) -> None:
    """Keep scores; the file is there whole or not at all, whichever processes write it."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    np.savez(partial, chosen=scores.chosen, rejected=scores.rejected)
    partial.replace(file)
