"""Dropout as a source of diversity: models that differ in it, beside the order of the data.

Source: WARM (Ramé et al., 2024), section 3.3, appendix C.3.1. The testbed's decoders are Llamas, which drop attention alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.reward_accuracies import Lines, along_lambda, difference
from warmkit.evidence.claims.warm_connectivity import HELD_OUT, order_runs
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

ORDER, DROPOUT = "order", "order and dropout"


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        pairs: Of models, for every kind.
        dropout: Probability in the second model, where they differ; 0 in the first.
        lambdas: Places between two models, with 0.5.
    """

    pairs: int = number_in(1, default=2)
    dropout: float = number_in(0, 0.99, default=0.1)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Interpolate between models that differ in the order of the data, and between such that differ in dropout too."""
    found, pool = Measurements(), order_runs(bed, how.pairs + 1)
    names = list(pool.runs)
    dropped = [bed.variant(pool, name, "dropout", dropout=how.dropout) for name in names[1:]]
    others: dict[str, Path] = {f"dropout-{name}": path for name, path in zip(names[1:], dropped)}
    contest = bed.contest(pool, only=HELD_OUT, **others)
    pairs = {ORDER: list(pairwise(names)), DROPOUT: list(zip(names, others))}
    lines = {kind: along_lambda(contest, each, how.lambdas) for kind, each in pairs.items()}
    for kind, each in lines.items():
        found.draw_lines(kind, each)
        found.draw("gain", kind, [difference(wa, diag) for wa, diag in zip(each["WA"], each["Diag"])])
    _state(lines, how.lambdas.index(0.5), found)
    return found


def _state(lines: dict[str, Lines], middle: int, found: Measurements) -> None:
    gain = {kind: difference(each["WA"][middle], each["Diag"][middle]) for kind, each in lines.items()}
    for data in HELD_OUT:
        found.state(
            **{
                f"wa_minus_diag_{data}": gain[DROPOUT][data],
                f"dropout_minus_order_{data}": gain[DROPOUT][data] - gain[ORDER][data],
            }
        )
