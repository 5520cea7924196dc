"""Shape of a run: `compare` over the checkpoints of a training directory, and what their Gram matrix says of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmkit.common.addresses import shown
from warmkit.common.display import Displayed
from warmkit.engine.merge_options import PathLike
from warmkit.errors import UsageError
from warmkit.merging.trajectory import trajectory
from warmkit.sources.runs import find_run
from warmkit.verbs.compare import Comparison, compare


@dataclass(frozen=True, repr=False)
class RunShape(Displayed):
    """Shape of a run in weight space, over all weights.

    Attributes:
        init: What distances are measured from.
        checkpoints: Sources, the oldest first.
        steps: Their steps; their numbers where names have none.
        distances: ||x_t - x_0||.
        moves: ||x_t - x_(t-1)||, the first from the init.
        turns: Angle between a move and the one before it, degrees; None for the first, and beside no move.
        participation: In how many directions the run moved: (sum l)^2 / sum l^2 over the eigenvalues l of the Gram matrix.
        first_share: What one direction explains of the task vectors, 0 to 1.
        linearity: R^2 of a line through the coordinates along that direction, over the steps; None for fewer than three.
        comparison: Norms and angles, group by group.
    """

    init: str
    checkpoints: list[str]
    steps: list[float]
    distances: list[float]
    moves: list[float]
    turns: list[float | None]
    participation: float | None
    first_share: float | None
    linearity: float | None
    comparison: Comparison

    def as_document(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {**self.comparison.as_document(), "run": {name: each for name, each in vars(self).items() if name in _OWN}}

    def summary(self) -> str:
        """Return one line: in how many directions the run moved, and how straight."""
        if self.participation is None or self.first_share is None:
            return "no checkpoint differs from the init"
        line = f"the run moved in {self.participation:.1f} directions; one explains {100 * self.first_share:.0f}% of it"
        return line if self.linearity is None else f"{line}, along a line with R^2 = {self.linearity:.3f} over the steps"

    def _facts(self) -> Mapping[str, object]:
        return {"init": self.init, "participation": self.participation, "share of one direction": self.first_share}

    def _rows(self) -> Sequence[Mapping[str, object]]:
        columns = zip(self.steps, self.distances, self.moves, self.turns)
        return [{"step": step, "distance": far, "moved": moved, "turn": turn} for step, far, moved, turn in columns]


_OWN = ("checkpoints", "steps", "distances", "moves", "turns", "participation", "first_share", "linearity")


def run_shape(run: PathLike | Sequence[PathLike], *, init: PathLike | None = None, **how: Any) -> RunShape:
    """Measure how far a run moved, how it turned, and in how many directions.

    Args:
        run: A training directory, a pattern or checkpoints, as `average` takes them.
        init: What the run started from; by default its first checkpoint.
        **how: What `compare` takes.

    Raises:
        WarmkitError: If the checkpoints cannot be read, do not fit together, or are fewer than two.

    Source: WARP (Ramé et al., 2024), figure 11, for angles; RELEX (Wei et al., 2026) for one direction and its linearity.
    """
    found = find_run([run] if isinstance(run, str) or not isinstance(run, Sequence) else run)
    start, later = (init, found) if init is not None else (found[0].path, found[1:])
    if len(later) < 2:
        raise UsageError(f"a run's shape needs two checkpoints beside {shown(start)}, where it started; found {len(later)}")
    comparison = compare([each.path for each in later], init=start, **how)
    known = [each.step for each in later]
    steps = [float(place if step is None else step) for place, step in enumerate(known, start=1)]
    shape = trajectory(whole_gram(comparison), steps)
    return RunShape(
        init=comparison.init,
        checkpoints=comparison.models,
        steps=steps,
        distances=shape.distances.tolist(),
        moves=shape.moves.tolist(),
        turns=[_known(each) for each in shape.turns],
        participation=_known(shape.participation),
        first_share=_known(shape.first_share),
        linearity=_known(shape.linearity),
        comparison=comparison,
    )


def whole_gram(comparison: Comparison) -> Any:
    """Return the products of task vectors over all groups, [M, M], from norms and cosines of each."""
    total = np.zeros((len(comparison.models),) * 2)
    for each in comparison.groups:
        lengths = np.array(each.task_vector_norms)
        total += np.diag(lengths**2)
        for pair in each.pairs:
            i, j = pair.first_index, pair.second_index
            product = (pair.task_vector_cosine or 0.0) * lengths[i] * lengths[j]
            total[i, j] += product
            total[j, i] += product
    return total


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
