"""Update rate eta of WARP's LITI: how far an iteration goes before the next one starts.

Source: WARP (Ramé et al., 2024), section 3.4, appendix D.3, figure 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from warmkit.evidence.claims.measurements import Line, Measurements, lead
from warmkit.evidence.claims.warp_policies import iteration, policies
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

RUNS = 2
"""Policies of every iteration, M."""
NUMBERS = ("proxy", "gold")


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        main: The eta of the paper.
        others: Other ones.
        etas: Of the fronts, ascending, with 1.
    """

    main: float = number_in(0, default=0.3)
    others: list[float] = field(default_factory=lambda: [0.1, 0.5, 1.0])
    etas: list[float] = field(default_factory=lambda: [0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Start the second iteration from inits of several eta; draw its fronts towards its own init."""
    found, first = Measurements(), policies(bed, RUNS)
    before = found.draw("fronts", "iteration 1", first.judge.sweep(first.models, how.etas, first.init))
    fronts: dict[float, Line] = {}
    for rate in sorted({how.main, *how.others}):
        family = iteration(bed, 2, rate, RUNS)
        points = family.judge.sweep(family.models, how.etas, family.init)
        fronts[rate] = found.draw("fronts", f"iteration 2 from eta {rate:g}", points)
    for number in NUMBERS:
        leads = {rate: lead(front, before, number) for rate, front in fronts.items()}
        found.draw("gain", number, [{"at": rate, "lead": each} for rate, each in leads.items() if math.isfinite(each)])
    ends = found.draw("reach", "merge of iteration 2", [{**fronts[rate][-1], "at": rate} for rate in fronts])
    least, most = ends[0], ends[-1]
    for number in NUMBERS:
        over_others = [lead(fronts[how.main], fronts[rate], number) for rate in how.others]
        found.state(
            **{
                f"main_minus_before_{number}": lead(fronts[how.main], before, number),
                f"main_minus_others_{number}": _known_mean(over_others),
                f"main_minus_full_{number}": lead(fronts[how.main], fronts[max(fronts)], number),
                f"reach_of_most_minus_least_{number}": most[number] - least[number],
            }
        )
    found.state(kl_of_most_minus_least=most["kl"] - least["kl"])
    return found


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
