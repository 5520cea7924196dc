"""Linear mode connectivity of reward models, by what makes two of them differ; WA against ENS.

Source: WARM (Ramé et al., 2024), sections 3.2, 3.3 and 4.1, observations 1 and 2, figure 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.evidence.claims.measurements import Measurements, Point
from warmkit.evidence.claims.reward_accuracies import PROBE, Lines, along_count, along_lambda, difference, flat, mean
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evaluation.averaging import Contest
    from warmkit.evidence.testbed.bed import Pool, Testbed

HELD_OUT = ("validation", "ood")
SOURCES = ("same run", "order", "order and rate", "order, rate and init")
"""What two models differ in, more and more, as in figures 2a to 2d."""
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of a run at which its checkpoints are kept; its end is one more."""
EARLIER = 0.8
"""Of the run, where the first of two checkpoints lies: 8k of 10k steps in the paper."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        pairs: Of models, for every source of diversity.
        models: Most that are averaged, M.
        slower: Learning rate of the second model over that of the first, where they differ; 4e-5 over 1e-4 in the paper.
        lambdas: Places between two models.
    """

    pairs: int = number_in(1, default=2)
    models: int = number_in(2, default=6)
    slower: float = number_in(0, 1, default=0.4)
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Interpolate between models that differ in more and more; average M of two WARM pools, swapped and clean labels."""
    found, (contest, pairs) = Measurements(), _pairs(bed, how)
    lines = {source: along_lambda(contest, each, how.lambdas) for source, each in pairs.items()}
    for source, each in lines.items():
        found.draw_lines(source, {**each, "only probed": flat(contest, PROBE, how.lambdas)})
        found.draw("gain", source, [difference(wa, diag) for wa, diag in zip(each["WA"], each["Diag"])])
    _state(lines, how.lambdas.index(0.5), found)
    _average(bed, how, found)
    return found


def order_runs(bed: Testbed, count: int) -> Pool:
    """Train reward models that differ in the order of the data alone; checkpoints are kept on the way."""
    keep = sorted({_step(bed, share) for share in SHARES})
    return bed.pool("orders", count, lr=bed.settings.reward_models.lr[:1], inits=[bed.sft], keep=keep)


def checkpoints(bed: Testbed, pool: Pool, run: str) -> list[Path]:
    """Return what `order_runs` kept of a run, and its end."""
    kept = sorted(pool.runs[run].parent.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return [*kept, pool.runs[run]]


def _pairs(bed: Testbed, how: Settings) -> tuple[Contest, dict[str, list[tuple[str, str]]]]:
    """Return the models of all pairs, and the pairs; a pair's later model is run 1, 2, ... of `order_runs`, or its partner."""
    orders = order_runs(bed, how.pairs + 1)
    rates = _partners(bed, "orders-rates", how, bed.sft)
    inits = _partners(bed, "orders-rates-inits", how, bed.inits[0])
    others: dict[str, Path] = {}
    pairs: dict[str, list[tuple[str, str]]] = {source: [] for source in SOURCES}
    names = list(orders.runs)
    for place, name in enumerate(names[: how.pairs]):
        early, rate, init = f"early-{name}", f"rate-{name}", f"init-{name}"
        others[early] = orders.runs[name].parent / f"step-{_step(bed, EARLIER)}"
        others[rate], others[init] = rates[place], inits[place]
        models = [(early, name), (name, names[place + 1]), (name, rate), (name, init)]
        for source, pair in zip(SOURCES, models):
            pairs[source].append(pair)
    return bed.contest(orders, only=HELD_OUT, **others), pairs


def _partners(bed: Testbed, name: str, how: Settings, init: Path) -> list[Path]:
    """Train models that see the data in the orders of run 2 and on of `order_runs`, at the slower rate."""
    rate = how.slower * bed.settings.reward_models.lr[0]
    return bed.pool(name, how.pairs, lr=[rate], inits=[init], skip=1).paths


def _step(bed: Testbed, share: float) -> int:
    return max(1, round(share * bed.settings.reward_models.steps))


def _state(lines: dict[str, Lines], middle: int, found: Measurements) -> None:
    """State what lies in the middle; the mean over all sources where two runs are compared."""
    over = {
        line: {source: difference(each["WA"][middle], each[line][middle]) for source, each in lines.items()}
        for line in ("Diag", "ENS")
    }
    gain, runs = over["Diag"], SOURCES[1:]
    over_diag, over_ens = (mean([over[line][source] for source in runs]) for line in ("Diag", "ENS"))
    found.state(
        wa_minus_diag_validation=over_diag["validation"],
        wa_minus_diag_ood=over_diag["ood"],
        wa_minus_ens_validation=over_ens["validation"],
        wa_minus_ens_ood=over_ens["ood"],
        runs_minus_checkpoints_ood=over_diag["ood"] - gain[SOURCES[0]]["ood"],
        diversity_validation=gain[SOURCES[-1]]["validation"] - gain[SOURCES[0]]["validation"],
        diversity_ood=gain[SOURCES[-1]]["ood"] - gain[SOURCES[0]]["ood"],
    )


def _average(bed: Testbed, how: Settings, found: Measurements) -> None:
    """Average the M models of both pools; the main one learned from swapped labels too."""
    swapped = _over_members(bed.pool("flips", how.models), "count", bed, found)
    clean = _over_members(bed.pool("clean", how.models, corrupt=0.0), "count, clean labels", bed, found)
    found.state(
        wa_minus_members_validation=swapped["WA"]["validation"],
        wa_minus_members_ood=swapped["WA"]["ood"],
        wa_minus_probe_validation=swapped["WA"]["validation"] - swapped["only probed"]["validation"],
        clean_wa_minus_members_validation=clean["WA"]["validation"],
        clean_wa_minus_members_ood=clean["WA"]["ood"],
        clean_wa_minus_ens_validation=clean["WA"]["validation"] - clean["ENS"]["validation"],
    )


def _over_members(pool: Pool, part: str, bed: Testbed, found: Measurements) -> dict[str, Point]:
    """Draw the lines of a pool over M; return how far each is above the mean of its members at the largest M."""
    lines = along_count(bed.contest(pool, only=HELD_OUT), list(pool.runs))
    found.draw_lines(part, lines)
    return {line: difference(points[-1], lines["mean of the single models"][-1]) for line, points in lines.items()}
