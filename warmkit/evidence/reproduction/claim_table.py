"""Every claim of the papers that warmkit reproduces: its settings, and what measures it on one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from warmkit.errors import UsageError, nearest
from warmkit.evidence.claims import (
    hacking,
    rewarded_soups,
    warm_best_of_n,
    warm_connectivity,
    warm_corruption,
    warm_distillation,
    warm_dropout,
    warm_early_inits,
    warm_objectives,
    warm_pretraining,
    warm_ranking,
    warm_rl,
    warm_theory,
    warp_anchor,
    warp_angles,
    warp_diversity,
    warp_eta,
    warp_iterations,
    warp_length,
    warp_liti,
    warp_slerp,
)
from warmkit.evidence.claims.measurements import Measurements


@dataclass(frozen=True)
class Claim:
    """One recipe's code.

    Attributes:
        name: Of the recipe.
        settings: Dataclass of what its sizes set.
        measure: From a `Testbed` and the settings to what was measured.
    """

    name: str
    settings: type[Any]
    measure: Callable[[Any, Any], Measurements]


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim("warm-connectivity", warm_connectivity.Settings, warm_connectivity.measure),
        Claim("warm-pretraining", warm_pretraining.Settings, warm_pretraining.measure),
        Claim("warm-early-inits", warm_early_inits.Settings, warm_early_inits.measure),
        Claim("warm-dropout", warm_dropout.Settings, warm_dropout.measure),
        Claim("warm-corruption", warm_corruption.Settings, warm_corruption.measure),
        Claim("warm-ranking", warm_ranking.Settings, warm_ranking.measure),
        Claim("warm-objectives", warm_objectives.Settings, warm_objectives.measure),
        Claim("warm-theory", warm_theory.Settings, warm_theory.measure),
        Claim("hacking", hacking.Settings, hacking.measure),
        Claim("warm-best-of-n", warm_best_of_n.Settings, warm_best_of_n.measure),
        Claim("warm-rl", warm_rl.Settings, warm_rl.measure),
        Claim("warm-distillation", warm_distillation.Settings, warm_distillation.measure),
        Claim("warp-anchor", warp_anchor.Settings, warp_anchor.measure),
        Claim("warp-slerp", warp_slerp.Settings, warp_slerp.measure),
        Claim("warp-angles", warp_angles.Settings, warp_angles.measure),
        Claim("warp-liti", warp_liti.Settings, warp_liti.measure),
        Claim("warp-iterations", warp_iterations.Settings, warp_iterations.measure),
        Claim("warp-eta", warp_eta.Settings, warp_eta.measure),
        Claim("warp-length", warp_length.Settings, warp_length.measure),
        Claim("warp-diversity", warp_diversity.Settings, warp_diversity.measure),
        Claim("rewarded-soups", rewarded_soups.Settings, rewarded_soups.measure),
    )
}


def find_claims(names: list[str]) -> list[str]:
    """Return the claims that a user names; `all` is all of them.

    Raises:
        UsageError: If one is unknown.
    """
    for name in names:
        if name not in CLAIMS and name != "all":
            raise UsageError(f"unknown claim {name!r}{nearest(name, CLAIMS)}; there are {', '.join(CLAIMS)}, and all")
    return list(CLAIMS) if "all" in names else list(dict.fromkeys(names))
