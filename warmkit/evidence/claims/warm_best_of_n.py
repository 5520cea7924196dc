"""Best-of-N with single reward models, WA and ENS: what the gold reward says of the chosen.

Source: WARM (Ramé et al., 2024), appendix D.2, figures 13, 14 and 16b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.evaluation.pool import Pool, read_pool, sample_pool
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evaluation.rewards import open_terms
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.picked_answers import BEST, PROBE, SINGLE, choices, draw, state, with_spread
from warmkit.evidence.claims.warm_pools import Ranking, ranking
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

Array = NDArray[np.float64]
ORACLE = "the oracle"


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        samples: Completions of each of 16 prompts, K.
        sizes: The N's; far below K, so that the mean over subsets is over different ones.
        members: The M's of WA and ENS, two; the second is how many models a pool has.
    """

    samples: int = number_in(1, default=1024)
    sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64, 128, 256])
    members: list[int] = field(default_factory=lambda: [2, 6])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Choose from the same samples by reward models that learned from swapped labels, and from clean ones."""
    from warmkit.evidence.testbed.gold_judge import oracle

    found, answers = Measurements(), samples(bed, how.samples)
    (gold,) = [answers.score(term) for term in open_terms([oracle(bed.oracle)])]
    for part, corrupt in {"flips": None, "clean": 0.0}.items():
        ranked = ranking(bed, bed.pool(part, how.members[-1], corrupt=corrupt))
        choosers = with_spread({**proxies(bed, ranked, answers, how.members), ORACLE: [gold]}, gold, how.sizes[-1])
        lines = draw(found, part, choices(choosers, how.sizes), gold, how.members)
        state(found, part, lines, how.members)
    return found


def samples(bed: Testbed, count: int) -> Pool:
    """Let the SFT model answer the held-out prompts, once for all claims."""

    def rows() -> list[dict[str, object]]:
        trial = PolicyTrial(
            EvaluationSettings(
                bed.held_out_prompts,
                [],
                samples=count,
                temperature=1.0,
                max_new_tokens=bed.longest,
                banned=bed.unspoken,
                batch_size=1024,
            )
        )
        return sample_pool(trial.open(str(bed.sft))).rows()

    return read_pool(bed.data(f"samples-{count}", rows))


def proxies(bed: Testbed, ranked: Ranking, answers: Pool, members: Sequence[int]) -> dict[str, list[Array]]:
    """Return the scores of what chooses, [N, K] each, by line; several single models are one line."""
    alone = {name: _score(answers, path) for name, path in ranked.pool.runs.items()}
    found = {SINGLE: list(alone.values()), BEST: [alone[ranked.names[0]]], PROBE: [_score(answers, ranked.pool.probe)]}
    for m in members:
        found[f"WA M={m}"] = [_score(answers, ranked.average(bed, m))]
        found[f"ENS M={m}"] = [np.mean([alone[name] for name in ranked.names[:m]], axis=0)]
    return found


def _score(answers: Pool, path: Path) -> Array:
    (term,) = open_terms([RewardTerm(model=str(path))])
    return answers.score(term)
