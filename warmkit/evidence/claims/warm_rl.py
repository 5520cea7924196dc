"""RL towards WA, ENS and single reward models: how much gold reward, and for how long.

Source: WARM (Ramé et al., 2024), section 5, figures 1b, 4 and 5, and appendix D.3, figures 17 to 20; the control in which all
members share a flaw: section 6, limitations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from warmkit.evidence.claims.measurements import Measurements, highest, over_steps
from warmkit.evidence.claims.proxies import proxy
from warmkit.evidence.claims.warm_ablations import PROBE, SINGLE, alpha, control
from warmkit.evidence.claims.warm_policies import (
    Track,
    collapse_step,
    compare,
    follow,
    probe_only,
    single,
    towards_average,
    win_rate,
)
from warmkit.evidence.claims.warm_pools import ranking
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        members: The M's of WA; the last is how many models a pool has.
        ensembles: The M's of ENS.
        singles: Runs of RL towards single models of the pool with swapped labels.
        betas: Further weights of the KL, the paper's alpha, weak to strong.
        control_singles: Runs towards single models of the two other pools, clean and flawed.
        shared_cue: Share of the flawed pool's pairs in which a cue gives the chosen response away.
    """

    members: list[int] = field(default_factory=lambda: [2, 4, 6])
    ensembles: list[int] = field(default_factory=lambda: [2, 6])
    singles: int = number_in(1, default=6)
    betas: list[float] = field(default_factory=lambda: [0.05, 0.2])
    control_singles: int = number_in(1, default=2)
    shared_cue: float = number_in(0, 1, default=0.5)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Run RL towards rewards of the pool with swapped labels, then with other alphas, then towards those of other pools."""
    found, most = Measurements(), how.members[-1]
    ranked = ranking(bed, bed.pool("flips", most))
    singles = {name: single(bed, ranked.pool, name) for name in list(ranked.pool.runs)[: how.singles]}
    best = singles.get(ranked.names[0]) or single(bed, ranked.pool, ranked.names[0])
    averages = {m: towards_average(bed, ranked, m) for m in how.members}
    ensembles = {m: follow(bed, f"rl-ens-{m}", proxy(bed, ranked.best(m))) for m in how.ensembles}
    probe = probe_only(bed, ranked.pool)
    _draw(found, list(singles.values()), best, {**_named("WA", averages), **_named("ENS", ensembles), PROBE: probe})
    _state(found, list(singles.values()), best, averages, ensembles, probe)
    alpha(bed, found, ranked, how.betas, averages[most], best)
    for line, track in [*((SINGLE, track) for track in singles.values()), (PROBE, probe)]:
        found.draw("alpha", line, track.points)
    flawed = bed.preferences("train-cue", bed.settings.reward_models.pairs, shared_cue=how.shared_cue)
    pools = {"clean": bed.pool("clean", most, corrupt=0.0), "cue": bed.pool("cue", most, train=flawed, corrupt=0.0)}
    gains = {part: control(bed, found, pool, how.control_singles) for part, pool in pools.items()}
    found.state(gain_lost_to_flaw=gains["clean"] - gains["cue"])
    return found


def _named(method: str, tracks: dict[int, Track]) -> dict[str, Track]:
    return {f"{method} M={m}": track for m, track in tracks.items()}


def _draw(found: Measurements, singles: Sequence[Track], best: Track, others: dict[str, Track]) -> None:
    """Draw all runs, with win rates against the SFT model and the best step of the single model that validation picks."""
    by_gold = sorted(singles, key=lambda track: over_steps(track.points, "gold"))
    lines = [
        *((SINGLE, track) for track in singles),
        ("worst single (hindsight)", by_gold[0]),
        ("best single (hindsight)", by_gold[-1]),
        ("best single (validation)", best),
        *others.items(),
    ]
    for line, track in lines:
        wins = [
            {"win_sft": 100 * win_rate(gold, track.gold[0]), "win_single": 100 * win_rate(gold, best.best)}
            for gold in track.gold
        ]
        found.draw("training", line, [{**point, **win} for point, win in zip(track.points, wins)])


def _state(
    found: Measurements,
    singles: Sequence[Track],
    best: Track,
    averages: dict[int, Track],
    ensembles: dict[int, Track],
    probe: Track,
) -> None:
    warm, few = averages[max(averages)], averages[min(averages)]
    found.state(**compare("warm_minus_single", warm, singles), **compare("warm_minus_best_single", warm, [best]))
    found.state(**compare("two_minus_single", few, singles))
    found.state(**compare("more_members", warm, [few]), **compare("warm_minus_probe", warm, [probe]))
    found.state(**compare("wa_minus_ens_few", averages[min(ensembles)], [ensembles[min(ensembles)]]))
    found.state(**compare("wa_minus_ens_most", averages[max(ensembles)], [ensembles[max(ensembles)]]))
    points = [track.points for track in singles]
    found.state(
        peak_higher=highest(warm.points)["gold"] - float(np.mean([highest(each)["gold"] for each in points])),
        peak_later=highest(warm.points)["at"] - float(np.mean([highest(each)["at"] for each in points])),
        collapse_later=collapse_step(warm.points) - float(np.mean([collapse_step(each) for each in points])),
        wins_at_end=100 * float(np.mean([win_rate(warm.gold[-1], each.gold[-1]) for each in singles])),
        best_wins_against_best=100 * float(np.mean([win_rate(warm.best, each.best) for each in singles])),
        best_wins_against_sft=100 * win_rate(warm.best, warm.gold[0]),
    )
