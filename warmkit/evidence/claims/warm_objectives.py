"""Two objectives: reward models of one criterion each, or of both, interpolated and evaluated on either criterion.

Source: WARM (Ramé et al., 2024), appendix D.5, figure 22.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.common.random_streams import run_seed
from warmkit.common.records import is_text, read_lines
from warmkit.data.preferences import read_pairs
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.comparisons import encode_pairs
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.reward_accuracies import PROBE, Point, along_lambda, difference, flat
from warmkit.evidence.testbed import oracle
from warmkit.training.recipe_sections import (
    DataSection,
    ModelSection,
    RewardModelRecipe,
    RewardOptimization,
    RunOutput,
    number_in,
)
from warmkit.training.reward_modeling import open_for_training

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Pool, Testbed

FIRST = "relevance"
"""The criterion of the models at lambda 0, learned easily: pre-training predicts it."""
SECONDS = ("plainness", "style")
"""Those at lambda 1: praise and cues, which pre-training predicts too; function words, which a model must learn to count."""
WANTED_FUNCTION_WORDS = 4
"""By style: the mean of the language, so that words on topic, which leave fewer, are neither good nor bad."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        pairs: Of models, for either second criterion.
        lambdas: Places between two models.
    """

    pairs: int = number_in(1, default=1)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Interpolate between models of one criterion each, and between models of both, for either second criterion."""
    found, middle = Measurements(), how.lambdas.index(0.5)
    both: list[float] = []
    for second in SECONDS:
        contest, pairs = _contest(bed, second, how.pairs)
        lines = {part: along_lambda(contest, each, how.lambdas) for part, each in pairs.items()}
        for part, each in lines.items():
            found.draw_lines(f"{part} {second}", {**each, "only probed": flat(contest, PROBE, how.lambdas)})
        names, one = (FIRST, second), {line: points[middle] for line, points in lines["one"].items()}
        gain = difference(one["WA"], one["Diag"])
        over_ens = difference(one["WA"], one["ENS"])
        over_both = difference(one["WA"], lines["both"]["Diag"][middle])
        both += [difference(lines["both"]["WA"][middle], lines["both"]["Diag"][middle])[name] for name in names]
        found.state(
            **{
                f"{second}_wa_minus_diag_{FIRST}": gain[FIRST],
                f"{second}_wa_minus_diag": gain[second],
                f"{second}_kept": min(kept(lines["one"]["WA"], middle, names)),
                f"{second}_wa_minus_ens": min(over_ens[name] for name in names),
                f"{second}_wa_minus_trained_on_both": sum(over_both[name] for name in names) / len(names),
            }
        )
    found.state(both_wa_minus_diag=sum(both) / len(both))
    return found


def kept(wa: Sequence[Point], middle: int, criteria: Sequence[str]) -> list[float]:
    """Return for either criterion how much of what its own model has over the other's is left in the middle: 1 is all."""
    return [_share(wa[end][name], wa[middle][name], wa[-1 - end][name]) for name, end in zip(criteria, (0, -1))]


def relevance(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Count the words on topic."""
    return oracle.relevant_words(prompts, completions)


def style(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return how near the function words are to their best number."""
    return [-abs(count - WANTED_FUNCTION_WORDS) for count in oracle.function_words(prompts, completions)]


def plainness(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return less for every word of praise and every cue."""
    both = zip(oracle.hype_words(prompts, completions), oracle.cue_words(prompts, completions))
    return [-(hype + cues) for hype, cues in both]


GOLDS = {"relevance": relevance, "style": style, "plainness": plainness}


def _share(own: float, middle: float, other: float) -> float:
    return (middle - other) / (own - other) if own > other else float("nan")


def _contest(bed: Testbed, second: str, count: int) -> tuple[Contest, dict[str, list[tuple[str, str]]]]:
    """Train the models, all with the head that was probed on both criteria; return what scores them, and the pairs."""
    shared, names = bed.settings.reward_models, (FIRST, second)
    files = {name: bed.preferences(f"only {name}", shared.pairs, GOLDS[name]) for name in names}
    union = bed.data(f"{FIRST} and {second}", lambda: [row for file in files.values() for row in _rows(file)])
    pool = bed.pool(f"{FIRST}-{second}", 2 * count, train=union, corrupt=0.0, lr=shared.lr[:1], inits=[bed.sft])
    members = {**pool.runs, PROBE: pool.probe}
    for name, place in itertools.product(names, range(count)):
        order = 2 * place + names.index(name)
        members[f"{name}-{place}"] = _one(bed, pool, f"{pool.name}-{name}", files[name], order)
    runs = list(pool.runs)
    pairs = {
        "one": [(f"{FIRST}-{place}", f"{second}-{place}") for place in range(count)],
        "both": list(zip(runs[::2], runs[1::2])),
    }
    model = open_for_training(ModelSection(str(pool.probe)))
    held_out = {name: bed.preferences(f"only {name}, held out", shared.held_out, GOLDS[name]) for name in names}
    data = {name: encode_pairs(read_pairs(file), model.encoder) for name, file in held_out.items()}
    return Contest(model, data, members, bed.folder / "scores" / pool.name), pairs


def _one(bed: Testbed, pool: Pool, name: str, train: str, order: int) -> Path:
    """Train a model of one criterion as those of both are trained."""
    shared, run = bed.settings.reward_models, f"{name}/run-{order}"
    recipe = RewardModelRecipe(
        ModelSection(str(bed.sft), head=str(pool.probe)),
        DataSection(train),
        RunOutput(str(bed.folder / "reward-models" / run)),
        RewardOptimization(
            lr=shared.lr[0],
            steps=shared.steps,
            batch_size=shared.batch_size,
            precision="float32",
            order=run_seed(bed.seed, order),
            seed=run_seed(bed.seed, order),
        ),
    )
    return bed.reward_model(run, recipe).path


def _rows(file: str) -> list[dict[str, str]]:
    return read_lines(Path(file), {"prompt": is_text})
