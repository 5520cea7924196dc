"""Diversity against KL: how alike a policy's generations become, along RL and along LITI back towards the SFT model.

Source: WARP (Ramé et al., 2024), appendix F, figure 19.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from warmkit.evaluation.answers import Answers
from warmkit.evaluation.diversity import similarity
from warmkit.evidence.claims.measurements import Line, Measurements, lead
from warmkit.evidence.claims.warp_policies import policies
from warmkit.evidence.testbed.gold_judge import Judge, Numbers
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evaluation.reward_term import RewardTerm
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        policies: That are merged, M.
        etas: Of the fronts.
        compared: Completions of each prompt, out of those that are evaluated, whose neighbours are compared.
    """

    policies: int = number_in(2, default=2)
    etas: list[float] = field(default_factory=lambda: [0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0])
    compared: int = number_in(2, default=64)


class DiversityJudge(Judge):
    """Reports `similarity` too, in percent of chrF1; the testbed samples at temperature 1, the paper at 0.9.

    Args:
        bed: The testbed.
        proxy: What policies learned from.
        compared: Completions of each prompt whose neighbours are compared.
    """

    def __init__(self, bed: Testbed, proxy: RewardTerm, compared: int) -> None:
        self._compared = compared
        super().__init__(bed, proxy)

    def numbers(self, answers: Answers) -> Numbers:
        few = [texts[: self._compared] for texts in answers.texts]
        return {**super().numbers(answers), "similarity": float(similarity(few).mean())}


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Compare generations with each other, along runs and along LITI of one policy and of the merge of several."""
    found, family = Measurements(), policies(bed, how.policies)
    judge = DiversityJudge(bed, family.proxy, how.compared)
    runs = [found.draw("diversity", f"RL, run {number}", judge.trajectory(run)) for number, run in enumerate(family.runs, 1)]
    single, merged = (
        found.draw("diversity", f"LITI, M={count}", judge.sweep(family.models[:count], how.etas, bed.sft))
        for count in (1, how.policies)
    )
    found.state(
        correlation_along_rl=float(np.mean([correlation(line) for line in runs])),
        correlation_along_liti=float(np.mean([correlation(line) for line in (single, merged)])),
        similarity_of_rl_minus_sft=float(np.mean([line[-1]["similarity"] for line in runs])) - judge.sft["similarity"],
        similarity_of_liti_minus_rl=lead(merged, runs, "similarity"),
        similarity_of_merge_minus_one=lead(merged, single, "similarity"),
        entropy_of_liti_minus_rl=lead(merged, runs, "entropy"),
    )
    return found


def correlation(line: Line) -> float:
    """Return Pearson's correlation of KL and similarity over the points of a line; NaN where one of them is constant."""
    kl, alike = ([point[number] for point in line] for number in ("kl", "similarity"))
    if np.ptp(kl) == 0 or np.ptp(alike) == 0:
        return float("nan")
    return float(np.corrcoef(kl, alike)[0, 1])
