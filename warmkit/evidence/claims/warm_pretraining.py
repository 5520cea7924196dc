"""Pre-training and probing, which averaging presumes: with both, and without either.

Source: WARM (Ramé et al., 2024), section 3.2, remark 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from warmkit.common.random_streams import generator
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.reward_accuracies import Lines, along_lambda, difference
from warmkit.evidence.claims.warm_connectivity import HELD_OUT, order_runs
from warmkit.training.recipe_sections import ModelSection, number_in
from warmkit.training.reward_modeling import open_for_training, save_reward_model

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Pool, Testbed

PROBED, RANDOM, APART = "one pre-training, probed head", "one pre-training, random head", "two pre-trainings"
DEVIATION = 0.02
"""Of the weights of a random head: transformers' own."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        pairs: Of models, for every kind.
        lambdas: Places between two models, with 0.5.
    """

    pairs: int = number_in(1, default=2)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Interpolate between models that see the data in two orders and share a head and a pre-training, or not."""
    found, pool = Measurements(), order_runs(bed, how.pairs + 1)
    names, head, apart = list(pool.runs), random_head(bed, pool), bed.with_ending().sft
    others: dict[str, Path] = {f"random-{name}": bed.variant(pool, name, "random-head", head=head) for name in names}
    others |= {f"apart-{name}": bed.variant(pool, name, "apart", init=apart, head="probed") for name in names[1:]}
    contest = bed.contest(pool, only=HELD_OUT, **others)
    pairs: dict[str, list[tuple[str, str]]] = {PROBED: [], RANDOM: [], APART: []}
    for first, second in pairwise(names):
        pairs[PROBED].append((first, second))
        pairs[RANDOM].append((f"random-{first}", f"random-{second}"))
        pairs[APART].append((first, f"apart-{second}"))
    lines = {kind: along_lambda(contest, each, how.lambdas) for kind, each in pairs.items()}
    for kind, each in lines.items():
        found.draw_lines(kind, each)
        found.draw("WA", kind, each["WA"])
        found.draw("gain", kind, [difference(wa, diag) for wa, diag in zip(each["WA"], each["Diag"])])
    _state(lines, how.lambdas.index(0.5), found)
    return found


def random_head(bed: Testbed, pool: Pool) -> Path:
    """Return the SFT model with a random head, the same for all runs, as a reward model on disk."""
    target = bed.folder / "reward-models" / "random-head" / "init"

    def work() -> Path:
        if not target.exists():
            model = open_for_training(ModelSection(str(pool.probe)))
            weight = generator("initial weights", bed.seed, "head").normal(0.0, DEVIATION, size=model.head.weight.shape)
            with torch.no_grad():
                model.head.weight.copy_(torch.from_numpy(weight))
            save_reward_model(model, target)
        return target

    return bed.products.once("random-head", work)


def _state(lines: dict[str, Lines], middle: int, found: Measurements) -> None:
    wa = {kind: each["WA"][middle] for kind, each in lines.items()}
    alone = {kind: each["Diag"][middle] for kind, each in lines.items()}
    gain = {kind: difference(wa[kind], alone[kind]) for kind in lines}
    for data in HELD_OUT:
        found.state(
            **{
                f"apart_wa_minus_diag_{data}": gain[APART][data],
                f"shared_gain_minus_apart_gain_{data}": gain[PROBED][data] - gain[APART][data],
                f"probed_wa_minus_random_wa_{data}": wa[PROBED][data] - wa[RANDOM][data],
                f"probed_minus_random_alone_{data}": alone[PROBED][data] - alone[RANDOM][data],
                f"probed_gain_minus_random_gain_{data}": gain[PROBED][data] - gain[RANDOM][data],
            }
        )
