"""LITI: the front from a merge towards the init, against the trajectories of RL, and beyond the merge.

Source: WARP (Ramé et al., 2024), section 4.3, appendices B.2, C.1, D.1 and D.4, figures 4a, 7, 9, 13 and 17.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.evidence.claims.measurements import Line, Measurements, lead, mean_line
from warmkit.evidence.claims.warp_policies import Family, iteration, policies
from warmkit.evidence.claims.warp_slerp import front
from warmkit.training.policy import PolicyResult

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """How fronts are measured.

    Attributes:
        etas: Of every front, above 0 and up to 1.
        beyond: Etas that extrapolate the fronts after T steps.
        averaged: Share of a run after which its checkpoints enter the moving average of figure 13.
    """

    etas: list[float] = field(default_factory=lambda: [0.15, 0.3, 0.45, 0.6, 0.8, 1.0])
    beyond: list[float] = field(default_factory=lambda: [1.3, 1.6, 2.0])
    averaged: float = 0.6


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Interpolate policies towards the SFT model, after T/2 and T steps, and those of a second iteration towards both inits."""
    found, family = Measurements(), policies(bed, 2)
    steps = bed.settings.warp_policies.steps
    trajectories = [family.judge.trajectory(run) for run in family.runs]
    found.draw("liti", "trajectories of RL", mean_line(trajectories))
    halfway = min(family.runs[0].kept, key=lambda step: abs(step - steps / 2))
    _, earlier = _draw(found, "T/2", *fronts(family, halfway, how.etas))
    alone, both = _draw(found, "T", *fronts(family, steps, how.etas))
    extrapolate(found, family, how.beyond)
    averages = [front(family, later(run, how.averaged), how.etas, "uniform") for run in family.runs]
    for name, lines in (("one checkpoint", alone), ("moving average", averages)):
        found.draw("averages", name, mean_line(lines))
    episode, sft = towards(bed, how.etas)
    found.draw("inits", "towards the init of the iteration", episode)
    found.draw("inits", "towards the SFT model", sft)
    found.state(
        liti_minus_trajectory_proxy=lead(both, trajectories, "proxy"),
        liti_minus_trajectory_gold=lead(both, trajectories, "gold"),
        liti_of_one_minus_trajectory_proxy=lead(alone, trajectories, "proxy"),
        two_minus_one_proxy=lead(both, alone, "proxy"),
        later_minus_earlier_proxy=lead(both, earlier, "proxy"),
        average_minus_checkpoint_proxy=lead(averages, alone, "proxy"),
        episode_minus_sft_proxy=lead(episode, sft, "proxy"),
        episode_minus_sft_gold=lead(episode, sft, "gold"),
        kl_below_chord=-above_chord(both, "kl"),
        proxy_above_chord=above_chord(both, "proxy"),
    )
    return found


def fronts(family: Family, step: int, etas: Sequence[float]) -> tuple[list[Line], Line]:
    """Return the fronts of either policy alone and of both, after some step."""
    models = [run.kept[step] for run in family.runs]
    return [front(family, [each], etas) for each in models], front(family, models, etas)


def extrapolate(found: Measurements, family: Family, etas: Sequence[float]) -> None:
    """Draw what lies beyond eta 1, after T steps."""
    sweeps = [
        family.judge.sweep(models, etas, family.init) for models in ([family.models[0]], [family.models[1]], family.models)
    ]
    found.draw("eta", "LITI M = 1, T", mean_line(sweeps[:2]))
    found.draw("eta", "LITI M = 2, T", sweeps[2])


def later(run: PolicyResult, share: float) -> list[Path]:
    """Return the policies kept after a share of a run's steps: those of the moving average."""
    return [path for step, path in sorted(run.kept.items()) if step >= share * max(run.kept)]


def towards(bed: Testbed, etas: Sequence[float]) -> tuple[Line, Line]:
    """Return LITI of the second iteration of WARP towards the init of that iteration, and towards the SFT model."""
    second = iteration(bed, 2)
    merged = bed.average("liti-it2", second.models, init=str(second.init), method="slerp")
    episode = second.judge.sweep([merged], [0.0, *etas], second.init)
    return episode, [{"at": 0.0, **second.judge.sft}, *second.judge.sweep([merged], etas, bed.sft)]


def above_chord(line: Line, number: str) -> float:
    """Return how far a number is above the straight line from eta 0 to 1: the mean over etas between, as a share of its rise.

    Positive where it is concave in eta, negative where it is convex.
    """
    first, last = line[0][number], line[-1][number]
    between = [point for point in line if 0 < point["at"] < 1]
    above = [point[number] - first - point["at"] * (last - first) for point in between]
    return sum(above) / len(above) / abs(last - first)


def _draw(found: Measurements, when: str, alone: list[Line], both: Line) -> tuple[list[Line], Line]:
    for name, line in ((f"LITI M = 1, {when}", mean_line(alone)), (f"LITI M = 2, {when}", both)):
        found.draw("liti", name, line)
        found.draw("eta", name, line)
    return alone, both
