"""Ranking of the models to average: the best first, a random order, a greedy soup; and checkpoints of one run.

Source: WARM (Ramé et al., 2024), appendix C.3, figure 6, and C.3.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warmkit.evaluation.ranking_pairs import halves
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.reward_accuracies import PROBE, Point, difference, flat, mean, percent
from warmkit.evidence.claims.warm_connectivity import HELD_OUT, checkpoints, order_runs
from warmkit.pipelines.warm import random_orders
from warmkit.pipelines.warm_choice import accuracy, greedy_members
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evaluation.averaging import Contest
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        models: To choose from.
        orders: Random ones.
        runs: Whose checkpoints are averaged.
    """

    models: int = number_in(2, default=10)
    orders: int = number_in(1, default=4)
    runs: int = number_in(2, default=4)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Choose among the models of the WARM pool on half of the validation pairs (the paper: on OOD); measure on the other."""
    found = Measurements()
    pool = bed.pool("flips", how.models)
    (choosing, contest), names = divided(bed.contest(pool, only=HELD_OUT)), list(pool.runs)
    ranked = {data: ranking(choosing, names, data) for data in HELD_OUT}
    best = ranked["validation"]
    lines = {
        "best first": averages(contest, best),
        "best first, ranked on OOD": averages(contest, ranked["ood"]),
        "random order": _random(contest, names, how.orders, bed.seed),
        "greedy": [{"at": m, **percent(contest.average(greedy_members(choosing, best[:m])))} for m in range(1, len(best) + 1)],
        "only probed": flat(contest, PROBE, range(1, len(best) + 1)),
    }
    alone = mean([percent(contest.individual(name)) for name in names])
    lines["mean of the single models"] = [{"at": m, **alone} for m in range(1, len(best) + 1)]
    found.draw_lines("count", lines)
    over = {  # without the last M, at which all orders are one model
        line: mean([difference(a, b) for a, b in zip(lines[line][:-1], lines["random order"])])
        for line in ("best first", "best first, ranked on OOD")
    }
    greedy = difference(lines["greedy"][-1], lines["best first"][-1])
    found.state(
        ranked_minus_random_validation=over["best first"]["validation"],
        ranked_minus_random_ood=over["best first"]["ood"],
        ood_ranked_minus_random_ood=over["best first, ranked on OOD"]["ood"],
        greedy_minus_all_ood=greedy["ood"],
    )
    _moving_average(bed, how.runs, found)
    return found


def divided(contest: Contest) -> tuple[Contest, Contest]:
    """Return the same models on two halves of every data set: what is chosen on one is measured on the other."""
    places = {name: halves(each.pairs) for name, each in contest.data.items()}
    one, other = ({name: each.only(places[name][side]) for name, each in contest.data.items()} for side in (0, 1))
    first, second = (type(contest)(contest.model, each, contest.members, contest.cache) for each in (one, other))
    return first, second


def ranking(contest: Contest, names: Sequence[str], data: str) -> list[str]:
    """Return models by their accuracy on a data set, the best first; ties stay in order."""
    return sorted(names, key=lambda name: -accuracy(contest, [name], data))


def averages(contest: Contest, order: Sequence[str]) -> list[Point]:
    """Return WA of the first M models, by M."""
    return [{"at": m, **percent(contest.average(order[:m]))} for m in range(1, len(order) + 1)]


def _random(contest: Contest, names: Sequence[str], count: int, seed: int) -> list[Point]:
    lines = [averages(contest, order) for order in random_orders(names, count, seed)]
    return [{**mean(points), "at": m} for m, points in enumerate(zip(*lines), 1)]


def _moving_average(bed: Testbed, runs: int, found: Measurements) -> None:
    """Average checkpoints of the second half of a run, and the ends of two runs; the mean over runs, and over pairs of them."""
    pool = order_runs(bed, runs)
    names = list(pool.runs)
    kept = {name: checkpoints(bed, pool, name) for name in names}
    others = {f"{name}-{place}": path for name in names for place, path in enumerate(kept[name])}
    contest = bed.contest(pool, only=HELD_OUT, **others)
    along = [contest.average([f"{name}-{place}" for place in range(len(kept[name]))]) for name in names]
    drawn = {
        "last checkpoint": mean([percent(contest.individual(name)) for name in names]),
        "moving average": mean([percent(each) for each in along]),
        "WA of two runs": mean([percent(contest.average(pair)) for pair in itertools.combinations(names, 2)]),
    }
    for line, point in drawn.items():
        found.draw("moving", line, [{"at": data, "accuracy": value} for data, value in point.items()])
    two, moving, last = drawn["WA of two runs"], drawn["moving average"], drawn["last checkpoint"]
    found.state(
        two_runs_minus_moving_validation=difference(two, moving)["validation"],
        two_runs_minus_moving_ood=difference(two, moving)["ood"],
        moving_minus_last_ood=difference(moving, last)["ood"],
    )
