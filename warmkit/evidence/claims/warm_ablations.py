"""Ablations of RL towards WARM: alpha, clean labels, and a flaw of the data that all members share.

Source: WARM (Ramé et al., 2024), figures 4c and 18 to 20 for alpha, 1b and 4a for clean labels, section 6 for limitations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from warmkit.evidence.claims.measurements import Measurements, over_steps
from warmkit.evidence.claims.warm_policies import Track, compare, probe_only, single, towards_average
from warmkit.evidence.claims.warm_pools import Ranking, ranking

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Pool, Testbed

SINGLE, PROBE = "single models", "probe only"


def alpha(bed: Testbed, found: Measurements, ranked: Ranking, betas: Sequence[float], warm: Track, best: Track) -> None:
    """Compare WARM with the single model that validation picks at several weights of the KL, the paper's alpha.

    Args:
        bed: The testbed.
        found: Where it goes.
        ranked: The pool.
        betas: Further weights, rising; the testbed's is the weakest.
        warm: The run towards WA of all with the testbed's weight.
        best: That towards the single model.
    """
    most, runs = len(ranked.names), {bed.settings.warm_policies.beta: (warm, best)}
    for beta in betas:
        alone = single(bed, ranked.pool, ranked.names[0], beta=beta)
        runs[beta] = (towards_average(bed, ranked, most, beta=beta), alone)
    for beta, (ours, theirs) in runs.items():
        found.draw("alpha", f"WA M={most}, {beta:g}", ours.points)
        found.draw("alpha", f"single, {beta:g}", theirs.points)
    gold = [[over_steps(track.points, "gold") for track in both] for both in runs.values()]
    leads, (weak, strong) = [ours - theirs for ours, theirs in gold], (gold[0], gold[-1])
    found.state(
        lead_at_stronger_alphas=float(np.mean(leads[1:])),
        single_gains_more_from_alpha=(strong[1] - weak[1]) - (strong[0] - weak[0]),
        alpha_lowers_kl=warm.points[-1]["kl"] - runs[max(runs)][0].points[-1]["kl"],
    )


def control(bed: Testbed, found: Measurements, pool: Pool, count: int) -> float:
    """Compare WARM with single models of another pool, whose name the numbers begin with.

    Args:
        bed: The testbed.
        found: Where it goes.
        pool: Which.
        count: Runs towards single models.

    Returns:
        What WARM gains in gold, the mean over training.
    """
    most, part = len(pool.runs), pool.name
    warm = towards_average(bed, ranking(bed, pool), most)
    singles = [single(bed, pool, name) for name in list(pool.runs)[:count]]
    alone = [*((SINGLE, track) for track in singles), *((f"single {place}", track) for place, track in enumerate(singles, 1))]
    for line, track in [*alone, (f"WA M={most}", warm), (PROBE, probe_only(bed, pool))]:
        found.draw(part, line, track.points)
    cues, others = _cues_gained(warm), float(np.mean([_cues_gained(each) for each in singles]))
    numbers = compare(f"{part}_warm_minus_single", warm, singles)
    found.state(**numbers, **{f"{part}_cues_of_warm": cues, f"{part}_cues_of_single": others})
    found.state(**{f"{part}_cues_warm_over_single": cues / others if others > 0 else np.nan})
    return numbers[f"{part}_warm_minus_single_mean"]


def _cues_gained(track: Track) -> float:
    """Return how many more of the flawed pool's cue the last policy writes than the first."""
    return track.points[-1]["first_cue_words"] - track.points[0]["first_cue_words"]
