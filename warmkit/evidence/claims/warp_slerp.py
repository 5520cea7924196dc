"""SLERP against LERP: along lambda, in M, with LITI and beyond, and SLERP of full weights.

Source: WARP (Ramé et al., 2024), section 4.2 and 4.3, appendices B.3 and C.1, figures 3c, 4b, 8 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from warmkit.common.random_streams import generator
from warmkit.evidence.claims.measurements import Line, Measurements, highest, lead, mean_line
from warmkit.evidence.claims.warp_policies import Family, policies
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        policies: Most that are merged, M.
        pairs: Of policies, between which lambda slides.
        lambdas: Places between two policies; 0, 0.5 and 1 among them.
        etas: Of the fronts, above 0 and up to 1.
        beyond: Etas that extrapolate the fronts of the most policies.
        orders: In which the most policies are merged.
    """

    policies: int = number_in(2, default=5)
    pairs: int = number_in(1, default=2)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    etas: list[float] = field(default_factory=lambda: [0.2, 0.4, 0.6, 0.8, 1.0])
    beyond: list[float] = field(default_factory=lambda: [1.3, 1.6, 2.0])
    orders: int = number_in(2, default=5)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Merge policies that differ in the order of their prompts."""
    found, family = Measurements(), policies(bed, how.policies)
    slides = {method: found.draw("lambda", method.upper(), slide(family, how, method)) for method in ("slerp", "lerp")}
    found.state(**slide_numbers(slides["slerp"], slides["lerp"]))
    singles = [front(family, [model], how.etas) for model in family.models]
    fronts, highest_reward = dict[str, list[Line]](), dict[str, float]()
    for method in ("slerp", "lerp"):
        merges = [front(family, family.models[:m], how.etas, method) for m in range(2, how.policies + 1)]
        fronts[method] = [mean_line(singles), *merges]
        for m, line in enumerate(fronts[method], 1):
            found.draw(f"fronts-{method}", f"M = {m}", line)
        beyond = family.judge.sweep(family.models, how.beyond, family.init, method)
        whole = found.draw("extrapolation", f"{method.upper()} M = {how.policies}", [*merges[-1], *beyond])
        highest_reward[method] = highest(whole, "proxy")["proxy"]
    lerp, weights = fronts["lerp"][1], front(family, family.models[:2], how.etas, "slerp-weights")
    for name, line in (("SLERP", fronts["slerp"][1]), ("LERP", lerp), ("SLERP of full weights", weights)):
        found.draw("weights", name, line)
    found.state(
        **front_numbers(fronts["slerp"], fronts["lerp"], singles),
        slerp_highest_minus_lerp_highest=highest_reward["slerp"] - highest_reward["lerp"],
        weights_minus_lerp_proxy=weights[-1]["proxy"] - lerp[-1]["proxy"],
        weights_minus_lerp_kl=weights[-1]["kl"] - lerp[-1]["kl"],
        spread_over_orders=_spread(family, how, found),
    )
    return found


def front(family: Family, models: Sequence[Path], etas: Sequence[float], method: str = "slerp") -> Line:
    """Return LITI from the SFT model, which needs no evaluation again, to the merge of policies that started there."""
    return [{"at": 0.0, **family.judge.sft}, *family.judge.sweep(models, etas, family.init, method)]


def slide(family: Family, how: Settings, method: str) -> Line:
    """Return the line (or arc) between two policies, the mean over pairs that have no policy in common."""
    pairs = [family.models[2 * each : 2 * each + 2] for each in range(min(how.pairs, len(family.models) // 2))]
    return mean_line([family.judge.slide(pair, how.lambdas, family.init, method) for pair in pairs])


def slide_numbers(slerp: Line, lerp: Line) -> dict[str, float]:
    """Compare SLERP, LERP and the policies themselves at lambda 0.5."""
    ends = {name: (place(slerp, 0.0)[name] + place(slerp, 1.0)[name]) / 2 for name in ("proxy", "kl")}
    arc, chord = place(slerp, 0.5), place(lerp, 0.5)
    return {
        "slerp_minus_lerp_proxy": arc["proxy"] - chord["proxy"],
        "slerp_minus_lerp_kl": arc["kl"] - chord["kl"],
        "slerp_minus_lerp_gold": arc["gold"] - chord["gold"],
        "slerp_minus_policies_proxy": arc["proxy"] - ends["proxy"],
        "slerp_minus_policies_kl": arc["kl"] - ends["kl"],
        "policies_minus_lerp_kl": ends["kl"] - chord["kl"],
    }


def front_numbers(slerp: Sequence[Line], lerp: Sequence[Line], singles: Sequence[Line]) -> dict[str, float]:
    """Compare fronts of M = 1, 2, ... policies, up to eta 1."""
    return {
        "more_policies_proxy": lead(slerp[-1], singles, "proxy"),
        "more_policies_gold": lead(slerp[-1], singles, "gold"),
        "more_policies_end_proxy": slerp[-1][-1]["proxy"] - slerp[0][-1]["proxy"],
        "more_policies_less_kl_with_lerp": lerp[0][-1]["kl"] - lerp[-1][-1]["kl"],
        "slerp_front_minus_lerp_front": lead(slerp[-1], lerp[-1], "proxy"),
    }


def _spread(family: Family, how: Settings, found: Measurements) -> float:
    """Return the deviation of the reward over orders of the same policies, as a share of the reward."""
    orders = generator("merge orders", 0)
    merges = [
        {
            **family.judge.sweep([family.models[each] for each in orders.permutation(how.policies)], [1.0], family.init)[0],
            "at": n,
        }
        for n in range(how.orders)
    ]
    found.draw("orders", f"SLERP M = {how.policies}", merges)
    rewards = [each["proxy"] for each in merges]
    return float(np.std(rewards, ddof=1) / abs(np.mean(rewards)))


def place(line: Line, where: float) -> Mapping[str, float]:
    """Return the point of a line at a lambda."""
    return next(point for point in line if point["at"] == where)
