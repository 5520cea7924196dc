"""Swapped labels: what WA and ENS remember of them, and what that costs or brings elsewhere.

Source: WARM (Ramé et al., 2024), section 4.2, observation 3, figures 3 and 8-12.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.reward_accuracies import along_count, along_lambda, difference, percent
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Pool, Testbed

SUBSETS = {"train_corrupt": "train, swapped", "train_clean": "train, clean", "validation": "validation", "ood": "OOD"}


@dataclass(frozen=True)
class Settings:
    """A pool of reward models that learn few pairs by heart.

    Attributes:
        models: Most that are averaged, M.
        judged: M at which statements are judged.
        pairs: To learn from.
        corrupt: Share whose labels are swapped.
        steps: Of a run.
        batch_size: Pairs in an update.
        lr: Learning rate, the same for all.
        lambdas: Places between the first two models.
    """

    models: int = number_in(2, default=6)
    judged: int = number_in(2, default=4)
    pairs: int = number_in(1, default=400)
    corrupt: float = number_in(0, 1, default=0.25)
    steps: int = number_in(1, default=400)
    batch_size: int = number_in(1, default=8)
    lr: float = number_in(0, default=1.5e-3)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Compare WA and ENS of models of one configuration that differ in order, on four data sets."""
    found, pool = Measurements(), memorising(bed, how)
    contest, names = bed.contest(pool), list(pool.runs)
    found.draw_lines("count", along_count(contest, names))
    found.draw_lines("lambda", along_lambda(contest, [(names[0], names[1])], how.lambdas))
    for pair in itertools.combinations(names, 2):
        gain = difference(percent(contest.average(pair)), percent(contest.ensemble(pair)))
        for name, subset in SUBSETS.items():
            point = {"at": f"seed {bed.seed}, {' and '.join(pair)}", "wa_minus_ens": gain[name]}
            found.draw("pairs", subset, [point])
    judged = names[: how.judged]
    gain = difference(percent(contest.average(judged)), percent(contest.ensemble(judged)))
    found.state(
        memorised_ens_minus_wa=-gain["train_corrupt"],
        clean_ens_minus_wa=-gain["train_clean"],
        validation_wa_minus_ens=gain["validation"],
        ood_wa_minus_ens=gain["ood"],
        away_from_training=gain["ood"] - gain["train_clean"],
    )
    return found


def memorising(bed: Testbed, how: Settings) -> Pool:
    """Train the models; `bed.pool` swaps the labels, the same ones for all."""
    return bed.pool(
        "memorising",
        how.models,
        train=bed.preferences("memorised", how.pairs),
        corrupt=how.corrupt,
        inits=[bed.sft],
        lr=[how.lr],
        steps=how.steps,
        batch_size=how.batch_size,
    )
