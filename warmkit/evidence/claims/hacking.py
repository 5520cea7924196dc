"""The precondition of WARM's claims: under RL the gold reward rises, then falls, unless it is itself what is learned from.

Source: WARM (Ramé et al., 2024), section 1, figure 1b, and section 5, figure 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmkit.evidence.claims.measurements import Line, Measurements, highest
from warmkit.evidence.claims.warm_policies import follow, oracle_proxy, probe_only, single
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

MARGIN = 0.1
"""Gold that a rise or fall is at least: several times what 2,048 completions are uncertain by."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        singles: Runs of RL, each towards another reward model.
    """

    singles: int = number_in(1, default=3)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Run RL towards single reward models, towards the oracle, and towards the model that was only probed."""
    found, pool = Measurements(), bed.pool("flips", how.singles)
    lines = [single(bed, pool, name).points for name in pool.runs]
    control = found.draw("training", "the oracle", follow(bed, "rl-oracle", oracle_proxy(bed)).points)
    for line in lines:
        found.draw("training", "single models", line)
    for number, line in enumerate(lines, 1):
        found.draw("training", f"single {number}", line)
    found.draw("training", "probe only", probe_only(bed, pool).points)
    found.state(
        peak_minus_start=float(np.mean([_peak(line) - _start(line) for line in lines])),
        end_minus_peak=float(np.mean([_end(line) - _peak(line) for line in lines])),
        end_minus_start=float(np.mean([_end(line) - _start(line) for line in lines])),
        proxy_after_peak=float(np.mean([line[-1]["proxy"] - highest(line)["proxy"] for line in lines])),
        share_that_collapses=float(np.mean([rises_and_falls(line) for line in lines])),
        oracle_end_minus_peak=_end(control) - _peak(control),
        oracle_end_minus_start=_end(control) - _start(control),
    )
    return found


def rises_and_falls(line: Line, margin: float = MARGIN) -> bool:
    """Say whether gold rises above its start and ends below its peak, by more than a margin each.

    Example:
        >>> rises_and_falls([{"gold": 1.0}, {"gold": 2.0}, {"gold": 1.5}])
        True
    """
    return _peak(line) - _start(line) > margin and _peak(line) - _end(line) > margin


def _start(line: Line) -> float:
    return line[0]["gold"]


def _peak(line: Line) -> float:
    return highest(line)["gold"]


def _end(line: Line) -> float:
    return line[-1]["gold"]
