"""Iterations of WARP: is each front above the one before, above the runs it was made of, and above one long run of equal cost?

Source: WARP (Ramé et al., 2024), sections 3.4 and 4.4, figures 1b, 4c and 12; figure 17 is in `warp-liti`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.evidence.claims.measurements import Line, Measurements, lead
from warmkit.evidence.claims.warp_policies import Family, iteration, policies
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

RUNS = 2
"""Policies of every iteration, M."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        iterations: Of WARP, with two policies each.
        eta: Of LITI between iterations.
        etas: Of the fronts, ascending, with 1.
    """

    iterations: int = number_in(2, default=5)
    eta: float = number_in(0, default=0.3)
    etas: list[float] = field(default_factory=lambda: [0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Run WARP, and a single policy for as many steps as all of its runs have together."""
    found = Measurements()
    families = [iteration(bed, number, how.eta, RUNS) for number in range(1, how.iterations + 1)]
    judge = families[0].judge
    fronts = [
        found.draw("fronts", f"iteration {number}", judge.sweep(each.models, how.etas, each.init))
        for number, each in enumerate(families, 1)
    ]
    trajectories = [_trajectories(found, bed, place, *each) for place, each in enumerate(zip(families, fronts))]
    to_sft = [
        found.draw(
            "fronts", f"iteration {number}, towards SFT", judge.sweep([_merged(bed, number, how, each)], how.etas, bed.sft)
        )
        for number, each in enumerate(families, 1)
    ]
    _state_gains(found, fronts, trajectories, to_sft)
    _equal_cost(found, bed, how, families[0], fronts, to_sft[-1])
    return found


def _state_gains(found: Measurements, fronts: Sequence[Line], runs: Sequence[list[Line]], to_sft: Sequence[Line]) -> None:
    several = len(fronts) > 2
    for number in ("proxy", "gold"):
        gains = [lead(after, before, number) for before, after in pairwise(fronts)]
        above = [lead(front, lines, number) for front, lines in zip(fronts, runs)]
        numbers = {
            "second_minus_first": gains[0],
            "third_minus_second": gains[1] if several else math.nan,
            "first_gain_minus_last_gain": gains[0] - gains[-1] if several else math.nan,
            "last_minus_first": lead(to_sft[-1], to_sft[0], number),
            "fronts_minus_trajectories": sum(above) / len(above),
            "reach_of_last_minus_first": fronts[-1][-1][number] - fronts[0][-1][number],
        }
        found.state(**{f"{name}_{number}": each for name, each in numbers.items()})
    found.state(kl_of_last_minus_first=fronts[-1][-1]["kl"] - fronts[0][-1]["kl"])


def _equal_cost(found: Measurements, bed: Testbed, how: Settings, first: Family, fronts: Sequence[Line], to_sft: Line) -> None:
    """Compare all iterations with one run of 2 I T steps, and two iterations with four policies merged once: 4 T both."""
    judge, length = first.judge, RUNS * how.iterations
    run = bed.policy(f"long-{length}", [first.proxy], bed.settings.warp_policies, runs=length)
    alone = found.draw("fronts", "one long run", judge.trajectory(run))
    found.draw("steps", "one long run", alone)
    litied = found.draw("fronts", "LITI of the long run", judge.sweep([run.path], how.etas, bed.sft))
    models = policies(bed, 2 * RUNS).models
    four = found.draw("fronts", "one iteration of four policies", judge.sweep(models, how.etas, bed.sft))
    for number in ("proxy", "gold"):
        found.state(
            **{
                f"last_minus_long_run_{number}": lead(to_sft, alone, number),
                f"last_minus_liti_of_long_run_{number}": lead(to_sft, litied, number),
                f"second_minus_four_policies_{number}": lead(fronts[1], four, number),
            }
        )


def _trajectories(found: Measurements, bed: Testbed, place: int, family: Family, front: Line) -> list[Line]:
    """Evaluate the runs of an iteration from their init on, where the front has eta 0; steps go on through all iterations."""
    before, lines = place * bed.settings.warp_policies.steps, list[Line]()
    for run, result in enumerate(family.runs, 1):
        kept: list[dict[str, Any]] = [{**front[0], "at": 0.0}, *family.judge.trajectory(result)[1:]]
        points = [{**point, "at": before + point["at"]} for point in kept]
        found.draw("steps", f"WARP, run {run}", points[place > 0 :])
        lines.append(found.draw("fronts", f"iteration {place + 1}, run {run}", points))
    return lines


def _merged(bed: Testbed, number: int, how: Settings, family: Family) -> Path:
    """Return the merge of an iteration's policies, on disk, as LITI towards another model than their init needs it."""
    name = f"warp-it{number}-eta{how.eta:g}-m{RUNS}-merged"
    return bed.average(name, family.models, init=str(family.init), method="slerp")
