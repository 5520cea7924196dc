"""Individuals, WA and ENS side by side; weights are averaged in memory, predictions from scores that are kept."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from warmkit.engine.contents import contents, digest_of, recorded_contents
from warmkit.errors import FormatError
from warmkit.evaluation.accuracy import Scores, ensemble
from warmkit.evaluation.comparisons import Comparisons, score
from warmkit.modeling.precision import autocast
from warmkit.modeling.reward_model import RewardModel
from warmkit.verbs.merger import merged_state_dict

MOST_CHARACTERS = 120  # of a file's name, which ends at 255 bytes
ByData = dict[str, Scores]
"""Scores of one model on every data set."""


class Contest:
    """Scores reward models of one architecture, and averages of them, on the same data.

    Args:
        model: Whose weights are replaced by those of each contender.
        data: The data sets.
        members: Directories of the individual models, by name.
        cache: Directory where scores are kept, with digests of the models, so that nothing is scored twice; None to keep none.
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
        self._digests: dict[str, str] = {}

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
        return self._cached(label, names, lambda: self._weights(names, coefficients), only or list(self.data))

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

    def _cached(
        self, label: str, names: Sequence[str], weights: Callable[[], dict[str, torch.Tensor]], wanted: Sequence[str]
    ) -> ByData:
        stem = label if len(label) < MOST_CHARACTERS else hashlib.sha256(label.encode()).hexdigest()
        files = {name: self.cache and self.cache / f"{stem} {name} {self.data[name].digest}.npz" for name in wanted}
        of = "" if self.cache is None else " ".join(map(self._digest, names))
        result = ByData()
        for name, file in files.items():
            if file is not None and file.exists() and (kept := load_scores(file, of, len(self.data[name]))) is not None:
                result[name] = kept
        if len(result) < len(wanted):
            self.model.load_weights(weights())
        with autocast(self.precision, self.model.device):
            for name in wanted:
                if name not in result:
                    result[name] = score(self.model, self.data[name])
                    _store(files[name], result[name], of)
        return {name: result[name] for name in wanted}

    def _digest(self, name: str) -> str:
        """Return what tells a member's content: another model may have taken its place since it was scored."""
        if name not in self._digests:
            path = Path(self.members[name])
            self._digests[name] = digest_of(contents(str(path), recorded_contents(path)))
        return self._digests[name]


def load_scores(file: Path, of: str, pairs: int) -> Scores | None:
    """Read scores that were kept; None where they are of other models than `of`.

    Raises:
        FormatError: If the file is of another form.
    """
    try:
        with np.load(io.BytesIO(file.read_bytes())) as stored:  # numpy leaves a file open that is no archive
            if "of" in stored and str(stored["of"]) != of:  # older versions did not say
                return None
            scores = Scores(np.asarray(stored["chosen"], np.float64), np.asarray(stored["rejected"], np.float64))
    except (ArithmeticError, AttributeError, EOFError, LookupError, SyntaxError, TypeError, ValueError, BadZipFile, zlib.error):
        raise FormatError(f"{file}: expected scores that warmkit kept, found something else; delete it") from None
    if scores.chosen.shape != (pairs,) or scores.rejected.shape != (pairs,):
        raise FormatError(f"{file}: expected scores of {pairs} pairs, found {scores.chosen.shape}; delete it")
    return scores


def _store(file: Path | None, scores: Scores, of: str) -> None:
    """Keep scores; the file is there whole or not at all, whichever processes write it."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    np.savez(partial, chosen=scores.chosen, rejected=scores.rejected, of=np.array(of))
    partial.replace(file)
