"""Responses grow under RL and under WARP; a length penalty shortens them, and merging with such a policy pays.

Source: WARP (Ramé et al., 2024), appendix E, figure 18.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.evidence.claims.measurements import Line, Measurements, lead
from warmkit.evidence.claims.warp_policies import Family, iteration, policies
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        penalty: Taken off the proxy for every token, in deviations of the proxy, where there is a length penalty.
        iterations: Of WARP, without a penalty.
        eta: Of LITI between iterations.
        lambdas: Between the policy without a penalty, 0, and the one with it, 1.
        etas: Of the fronts.
    """

    penalty: float = number_in(0, default=0.15)
    iterations: int = number_in(2, default=3)
    eta: float = number_in(0, default=0.3)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    etas: list[float] = field(default_factory=lambda: [0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Compare lengths and fronts with and without a penalty, in the language whose responses end."""
    found, bed = Measurements(), bed.with_ending()
    first = policies(bed, 2)
    shared = bed.settings.warp_policies
    short = bed.policy("length-penalty", [first.proxy], shared, order=2, length_penalty=how.penalty)
    runs = {"no penalty, 1": first.runs[0], "no penalty, 2": first.runs[1], "length penalty": short}
    lines = {name: found.draw("trajectories", name, first.judge.trajectory(run)) for name, run in runs.items()}
    grown = [lines[name][-1]["length"] - lines[name][0]["length"] for name in runs]
    found.state(length_of_rl_minus_sft=(grown[0] + grown[1]) / 2, length_with_penalty_minus_sft=grown[2])
    _over_iterations(found, bed, first, how)
    _merged(found, bed, first, short.path, how)
    return found


def _over_iterations(found: Measurements, bed: Testbed, first: Family, how: Settings) -> None:
    fronts: list[Line] = []
    for number in range(1, how.iterations + 1):
        family = first if number == 1 else iteration(bed, number, how.eta)
        points = first.judge.sweep(family.models, how.etas, family.init)
        fronts.append(found.draw("iterations", f"iteration {number}", points))
    found.state(
        length_of_last_iteration_minus_first=lead(fronts[-1], fronts[0], "length"),
        length_of_last_merge_minus_first=fronts[-1][-1]["length"] - fronts[0][-1]["length"],
    )


def _merged(found: Measurements, bed: Testbed, first: Family, short: Path, how: Settings) -> None:
    """Merge a policy without a penalty with the one that has it, and with its twin that differs from that in nothing else."""
    judge, (one, twin) = first.judge, first.models
    arc = found.draw("lambda", "SLERP", judge.slide([one, short], how.lambdas, bed.sft, "slerp"))
    lengths = [_at(arc, share)["length"] for share in (0.0, 0.5, 1.0)]
    pairs = {"no penalty and no penalty": [one, twin], "no penalty and length penalty": [one, short]}
    same, diverse = (found.draw("fronts", name, judge.sweep(models, how.etas, bed.sft)) for name, models in pairs.items())
    found.state(
        length_between=between(*lengths),
        diverse_front_proxy=lead(diverse, same, "proxy"),
        diverse_front_gold=lead(diverse, same, "gold"),
    )


def between(first: float, middle: float, last: float) -> float:
    """Return how far a number is inside two others, to the nearer one; negative outside.

    Example:
        >>> between(10.0, 9.0, 6.0), between(6.0, 11.0, 10.0)
        (1.0, -1.0)
    """
    return min(max(first, last) - middle, middle - min(first, last))


def _at(line: Line, place: float) -> Any:
    return next(point for point in line if point["at"] == place)
