"""Best-of-N where a control reward model labels the preferences and judges the choices: distillation.

Source: WARM (Ramé et al., 2024), appendix D.4, figure 21; Gao et al. (2023). Their control is a larger model; here it has the
same size and learns longer, from other pairs, with clean labels. It is a trained model and not the oracle because labels and
judge are to be one learned function; labels of the oracle are the clean half of `warm-best-of-n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.data.preferences import read_pairs
from warmkit.evaluation.accuracy import pairwise_accuracy
from warmkit.evaluation.comparisons import encode_pairs, score
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evaluation.rewards import open_terms
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.picked_answers import choices, draw, state, with_spread
from warmkit.evidence.claims.warm_best_of_n import proxies, samples
from warmkit.evidence.claims.warm_pools import ranking
from warmkit.modeling.reward_model import load_reward_model
from warmkit.training.recipe_sections import (
    DataSection,
    ModelSection,
    RewardModelRecipe,
    RewardOptimization,
    RunOutput,
    number_in,
)

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

CEILING = "the control"


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        samples: Completions of each of 16 prompts, K.
        sizes: The N's; far below K, so that the mean over subsets is over different ones.
        members: The M's of WA and ENS, two; the second is how many models the pool has.
        control_steps: Updates of the control model, in multiples of the members'.
        control_batch: Pairs in an update of the control model.
    """

    samples: int = number_in(1, default=1024)
    sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64, 128, 256])
    members: list[int] = field(default_factory=lambda: [2, 6])
    control_steps: int = number_in(1, default=3)
    control_batch: int = number_in(1, default=32)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Train the control model, let it label, train members on its labels, and let it judge what they choose."""
    found, answers = Measurements(), samples(bed, how.samples)
    control = control_model(bed, how)
    labelled = {
        name: relabelled(bed, name, file, control) for name, file in (("train", bed.train), ("held-out", bed.validation))
    }
    ranked = ranking(bed, bed.pool("distilled", how.members[-1], train=labelled["train"], corrupt=0.0), labelled["held-out"])
    (judged,) = [answers.score(term) for term in open_terms([RewardTerm(model=str(control))])]
    judged = (judged - judged.mean()) / judged.std()
    choosers = with_spread({**proxies(bed, ranked, answers, how.members), CEILING: [judged]}, judged, how.sizes[-1])
    chosen = choices(choosers, how.sizes)
    state(found, "distilled", draw(found, "distilled", chosen, judged, how.members), how.members)
    model, pairs = load_reward_model(str(control)), read_pairs(bed.validation)
    found.state(control_accuracy=100 * pairwise_accuracy(score(model, encode_pairs(pairs, model.encoder, "refuse"))))
    return found


def control_model(bed: Testbed, how: Settings) -> Path:
    """Train the control on clean labels of pairs that no member sees."""
    shared = bed.settings.reward_models
    recipe = RewardModelRecipe(
        ModelSection(str(bed.sft)),
        DataSection(bed.preferences("control", 2 * shared.pairs)),
        RunOutput(str(bed.folder / "reward-models" / "control")),
        RewardOptimization(
            lr=shared.lr[0],
            steps=how.control_steps * shared.steps,
            batch_size=how.control_batch,
            schedule="linear",
            precision="float32",
            order=bed.seed,
            seed=bed.seed,
        ),
    )
    return bed.reward_model("control", recipe).path


def relabelled(bed: Testbed, name: str, file: str, control: Path) -> str:
    """Return preferences with the labels that a reward model gives them."""

    def rows() -> Sequence[dict[str, object]]:
        model, pairs = load_reward_model(str(control)), read_pairs(file)
        margins = score(model, encode_pairs(pairs, model.encoder, "refuse")).margins
        answers = [(p.chosen, p.rejected) if margin >= 0 else (p.rejected, p.chosen) for p, margin in zip(pairs, margins)]
        return [{"prompt": p.prompt, "chosen": better, "rejected": worse} for p, (better, worse) in zip(pairs, answers)]

    return bed.data(f"{name}-by-control", rows)
