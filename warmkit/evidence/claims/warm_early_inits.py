"""Baklava with inits taken too early: how late on the SFT run must a checkpoint lie?

Source: WARM (Ramé et al., 2024), section 3.3, appendices C.3.1 and C.3.2, figure 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.reward_accuracies import Lines, mean, percent
from warmkit.evidence.claims.warm_connectivity import HELD_OUT, order_runs
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evaluation.averaging import Contest
    from warmkit.evidence.testbed.bed import Testbed

BAKLAVA = 0.8
"""Of the SFT run, where the earliest of the usual inits lies: 8k of 12k steps in the paper are two thirds."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        pairs: Of models, for every init.
    """

    pairs: int = number_in(1, default=1)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Fine-tune from earlier and earlier checkpoints, and average with a model of the SFT model itself."""
    found, pool = Measurements(), order_runs(bed, how.pairs + 1)
    names = list(pool.runs)
    inits = {share: init for share, init in bed.trajectory.items() if share < 1}
    models: dict[float, list[str]] = {1.0: names[1:]}
    others: dict[str, Path] = {}
    for share, init in inits.items():
        models[share] = [f"init-{100 * share:g}-{name}" for name in names[1:]]
        for place, name in zip(models[share], names[1:]):
            others[place] = bed.variant(pool, name, f"init-{100 * share:g}", init=init)
    lines = _lines(bed.contest(pool, only=HELD_OUT, **others), names[:-1], models)
    found.draw_lines("share", lines)
    _state(lines, found)
    return found


def _lines(contest: Contest, partners: list[str], models: dict[float, list[str]]) -> Lines:
    """Return accuracies by the share of the SFT run at which the second model's init lies."""
    lines: Lines = {"the model of this init": [], "WA with a model of the SFT model": [], "ENS of the two": []}
    for share in sorted(models):
        pairs = list(zip(partners, models[share], strict=True))
        rows = (
            [contest.individual(name) for _, name in pairs],
            [contest.average(pair) for pair in pairs],
            [contest.ensemble(pair) for pair in pairs],
        )
        for line, row in zip(lines.values(), rows):
            line.append({"at": share, **mean([percent(each) for each in row])})
    return lines


def _state(lines: Lines, found: Measurements) -> None:
    by_share = [{point["at"]: point for point in points} for points in lines.values()]
    earliest = min(by_share[0])
    alone, averaged = by_share[:2]
    for data in HELD_OUT:
        found.state(
            **{
                f"latest_minus_earliest_{data}": alone[1.0][data] - alone[earliest][data],
                f"baklava_minus_earliest_{data}": alone[BAKLAVA][data] - alone[earliest][data],
                f"latest_minus_baklava_{data}": alone[1.0][data] - alone[BAKLAVA][data],
                f"wa_with_baklava_minus_wa_with_earliest_{data}": averaged[BAKLAVA][data] - averaged[earliest][data],
                f"wa_with_baklava_minus_wa_with_latest_{data}": averaged[BAKLAVA][data] - averaged[1.0][data],
            }
        )
