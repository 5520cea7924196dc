"""Norms and angles of task vectors and of full weights: what WARP's figure 11 shows."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance, progress
from warmkit.engine.devices import cores, find_kernels
from warmkit.engine.inputs import FileSource
from warmkit.engine.job import Job
from warmkit.engine.merge_options import check_models
from warmkit.engine.stream import Stream
from warmkit.layouts.compatibility import align
from warmkit.layouts.groups import group
from warmkit.layouts.opening import open_inputs
from warmkit.merging.geometry import angles, cosines, norms
from warmkit.merging.types import Coefficients, Gram
from warmkit.sources.files import Files


@dataclass(frozen=True, repr=False)
class Pair(Displayed):
    """Angles between two models in one group, in degrees; None beside a zero vector.

    Attributes:
        first: Source of the first model.
        second: Source of the second.
        first_index: Its place among the models.
        second_index: Its place among the models.
        task_vector_angle: Angle between x_i - x0 and x_j - x0.
        weight_angle: Angle between x_i and x_j.
        task_vector_cosine: Cosine of the former.
        weight_cosine: Cosine of the latter.
        task_vector_norm_ratio: ||x_i - x0|| / ||x_j - x0||.
        weight_norm_ratio: ||x_i|| / ||x_j||.
    """

    first: str
    second: str
    first_index: int
    second_index: int
    task_vector_angle: float | None
    weight_angle: float | None
    task_vector_cosine: float | None
    weight_cosine: float | None
    task_vector_norm_ratio: float | None
    weight_norm_ratio: float | None


@dataclass(frozen=True, repr=False)
class GroupComparison(Displayed):
    """Norms and angles in one group of tensors.

    Attributes:
        name: The group.
        parameters: How many numbers it has.
        init_norm: ||x0||.
        weight_norms: ||x_m||, one per model.
        task_vector_norms: ||x_m - x0||, one per model.
        pairs: Every two models.
    """

    name: str
    parameters: int
    init_norm: float
    weight_norms: list[float]
    task_vector_norms: list[float]
    pairs: list[Pair]

    def _facts(self) -> Mapping[str, object]:
        return {**super()._facts(), "pairs": len(self.pairs)}

    def _rows(self) -> Sequence[Displayed]:
        return self.pairs


@dataclass(frozen=True, repr=False)
class Comparison(Displayed):
    """Norms and angles of models, as `compare` measured them.

    Attributes:
        init: Source of the initialisation.
        models: Sources of the models.
        granularity: What a group is: `layer`, `tensor` or `model`.
        groups: In the order of the checkpoint.
        notes: Harmless differences between the models.
    """

    init: str
    models: list[str]
    granularity: str
    groups: list[GroupComparison]
    notes: list[str]

    def as_document(self) -> dict[str, Any]:
        """Return everything as plain JSON values, with the means over groups weighted by parameters."""
        return {**dataclasses.asdict(self), "mean_angles": self.mean_angles()}

    def mean_angles(self) -> list[dict[str, Any]]:
        """Return, for every pair of models, its mean angles over the groups, weighted by parameters."""
        pairs = self.groups[0].pairs if self.groups else []
        return [
            {
                "first": pair.first,
                "second": pair.second,
                "task_vectors": self._mean([(g.pairs[place].task_vector_angle, g.parameters) for g in self.groups]),
                "weights": self._mean([(g.pairs[place].weight_angle, g.parameters) for g in self.groups]),
            }
            for place, pair in enumerate(pairs)
        ]

    @staticmethod
    def _mean(values: list[tuple[float | None, int]]) -> float | None:
        kept = [(value, weight) for value, weight in values if value is not None and weight]
        if not kept:
            return None
        return float(np.average([value for value, _ in kept], weights=[weight for _, weight in kept]))

    def _facts(self) -> Mapping[str, object]:
        return {
            "init": self.init,
            "models": self.models,
            "groups": len(self.groups),
            "granularity": self.granularity,
            "mean angles of task vectors in degrees": [each["task_vectors"] for each in self.mean_angles()] or None,
        }

    def _rows(self) -> Sequence[Mapping[str, object]]:
        return [
            {"first": each["first"], "second": each["second"]}
            | {f"angle of {what} in degrees": each[what.replace(" ", "_")] for what in ("task vectors", "weights")}
            for each in self.mean_angles()
        ]

    def summary(self) -> str:
        """Return one line per pair of models."""

        def degrees(value: float | None) -> str:
            return "undefined" if value is None else f"{value:.2f} degrees"

        return "\n".join(
            f"{mean['first']} / {mean['second']}: mean angle of task vectors {degrees(mean['task_vectors'])}, "
            f"of weights {degrees(mean['weights'])}"
            for mean in self.mean_angles()
        )


def compare(
    models: Sequence[str | os.PathLike[str]],
    *,
    init: str | os.PathLike[str],
    granularity: str = "layer",
    threads: int | None = None,
    device: str = "cpu",
    allow_pickle: bool = False,
    stream: bool = False,
    state_dict: str | None = None,
    advance: Advance | bool | None = None,
) -> Comparison:
    """Measure norms of models and angles between them, group by group, in one pass.

    Both come from the Gram matrix of (x0, d_1, ..., d_M): <x_i, x_j> = <x0 + d_i, x0 + d_j> loses no digits, where
    recovering small task vectors from the products of large weights would.

    Args:
        models: Checkpoints, as `open_checkpoint` takes them; one alone has norms and no angles.
        init: What they were fine-tuned from, x0.
        granularity: What shares one angle: `layer`, `tensor` or `model`.
        threads: Worker threads; by default one per core.
        device: `cpu`, or `cuda` for the sums.
        allow_pickle: Also read what torch saved, as `open_checkpoint` says.
        stream: Read Hub repositories by byte ranges.
        state_dict: Which to read of several in a file, as `open_checkpoint` says.
        advance: Called with the bytes read since the last call and the total; True draws a bar, False none; by default there
            is one in a notebook.

    Raises:
        WarmkitError: If the checkpoints cannot be read or do not fit together.

    Source: WARP (Ramé et al., 2024), appendix C.2 and figure 11; Jang et al., 2024.
    """
    check_models(models)
    how = {"allow_pickle": allow_pickle, "stream": stream, "state_dict": state_dict}
    checkpoints = open_inputs((init, *models), how)
    aligned = align(checkpoints)
    files = Files({file: known for each in checkpoints for file, known in each.identities.items()})
    rows = [FileSource(each.source, entries, files) for each, entries in zip(checkpoints, aligned.entries)]
    floats = [name for name, entry in checkpoints[0].entries.items() if entry.dtype.kind == "float"]
    job = Job(
        rows=rows,
        groups=group(floats, granularity),
        exact=[],
        dtypes={name: rows[0].dtype(name) for name in floats},
        outputs=0,
        space="init and task vectors",
        solve=_no_outputs,
    )
    total = sum(map(job.bytes_read, floats))
    try:
        with progress(advance, "comparing") as report:
            measured = Stream(job, find_kernels(device), None, advance=lambda size: report(size, total))
            measured.run(threads or cores())
        for checkpoint in checkpoints:
            checkpoint.check()
    finally:
        for row in rows:
            row.close()
    names = [each.source for each in checkpoints[1:]]
    groups = [
        _describe(name, sum(map(job.elements, tensors)), measured.grams[name], names) for name, tensors in job.groups.items()
    ]
    return Comparison(checkpoints[0].source, names, granularity, groups, list(aligned.notes))


def _no_outputs(group_name: str, gram: Gram | None) -> Coefficients:
    return np.empty((0, 0))


def _describe(name: str, parameters: int, gram: Gram, models: list[str]) -> GroupComparison:
    tasks = gram[1:, 1:]
    with_init = gram[0, 1:]
    weights = gram[0, 0] + with_init[:, None] + with_init[None, :] + tasks
    task_norms, weight_norms = norms(tasks), norms(weights)
    measures = (angles(tasks), angles(weights), cosines(tasks), cosines(weights))
    pairs = [
        Pair(
            models[i],
            models[j],
            i,
            j,
            *(_number(measure[i, j]) for measure in measures),
            *(_number(length[i] / length[j]) if length[j] else None for length in (task_norms, weight_norms)),
        )
        for i in range(len(models))
        for j in range(i + 1, len(models))
    ]
    return GroupComparison(name, parameters, float(np.sqrt(gram[0, 0])), weight_norms.tolist(), task_norms.tolist(), pairs)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
