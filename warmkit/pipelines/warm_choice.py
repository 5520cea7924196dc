"""Choice of the runs that WARM averages, on the ranking pairs, and what the average is worth on all others.

Source: WARM (Ramé et al., 2024), appendix C.3.1 and figure 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmkit.evaluation.accuracy import agreement, report
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.cost import inference_cost
from warmkit.evaluation.partners import Partners, partners
from warmkit.evaluation.ranking_pairs import FEW, RANKING, VALIDATION
from warmkit.evaluation.side_by_side import PROBE, averages_row
from warmkit.training.recipe_sections import ChoiceSection


@dataclass(frozen=True)
class Choice:
    """What the ranking pairs say about a pool.

    Attributes:
        ranked: All runs, best first.
        partners: How well they average, two by two.
        greedy: Members of the greedy soup.
        members: Of the final model.
        final: The key that chose them.
        pairs: That ranked.
    """

    ranked: list[str]
    partners: Partners
    greedy: list[str]
    members: list[str]
    final: str
    pairs: int

    @property
    def left_out(self) -> list[str]:
        """Runs that are not in the final model, best first."""
        return [name for name in self.ranked if name not in self.members]

    @property
    def notes(self) -> list[str]:
        """What a user has to know, a sentence or two each."""
        few = [_few(self.pairs)] if self.pairs < FEW else []
        return [*few, *map(self._bad, self.partners.bad()), *self._connected()]

    def _bad(self, name: str) -> str:
        where = "It is in the final model: leave" if name in self.members else "The final model is without it; elsewhere leave"
        told = self.partners.told(name, "ranking pairs")
        return f"{told} {where} it out (warm.final: connected, or warm.exclude), or train anew with a lower rate"

    def _connected(self) -> list[str]:
        if self.final != "connected":
            return []
        if not self.partners.enough:
            return ["warm.final: connected left nothing out, since nothing can be told with so few pairs"]
        names = ", ".join(self.left_out)
        return [f"warm.final: connected left out {names}" if names else "warm.final: connected left nothing out"]


def choose(contest: Contest, names: Sequence[str], warm: ChoiceSection, tick: Callable[[], None] = lambda: None) -> Choice:
    """Rank runs on the ranking pairs, find those that do not average, and choose what becomes the final model.

    Args:
        contest: Of the runs, whose data has `ranking`.
        names: Of at least two runs.
        warm: Says what is chosen, by `final` and `m`.
        tick: Called after every average of two runs; these take most of the time.
    """
    ranked = sorted(names, key=lambda name: -accuracy(contest, [name], RANKING))
    averages = [ranked[:count] for count in range(1, len(ranked) + 1)]
    found, greedy = partners(contest, ranked, RANKING, tick=tick), greedy_members(contest, ranked, RANKING)
    members = {
        "all": lambda: ranked,
        "best": lambda: max(averages, key=lambda chosen: accuracy(contest, chosen, RANKING)),
        "connected": lambda: found.connected(ranked),
        "greedy": lambda: greedy,
        "top": lambda: ranked[: warm.top(len(ranked))],
    }[warm.final]()
    return Choice(ranked, found, greedy, members, warm.final, len(contest.data[RANKING]))


def accuracy(contest: Contest, names: Sequence[str], data: str) -> float:
    """Return the accuracy of the average of some runs on one data set, ties counted half: they must not choose a model."""
    return float(contest.average(names, only=[data])[data].won.mean())


def greedy_members(contest: Contest, ranked: Sequence[str], data: str = VALIDATION) -> list[str]:
    """Return the greedy soup's members: a model stays if the soup with it is no worse on the data set.

    Source: Wortsman et al. (2022), recipe 1.
    """
    members, best = list(ranked[:1]), accuracy(contest, [ranked[0]], data)
    for name in ranked[1:]:
        value = accuracy(contest, [*members, name], data)
        if value >= best:
            members, best = [*members, name], value
    return members


def findings(contest: Contest, choice: Choice, orders: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what was found about the runs and their averages, for `summary.json`.

    Everything is measured on every data set; what is told of `ranking` is flattered by the choice.

    Args:
        contest: Of the runs, and of the probe if there is one.
        choice: Of the ranking pairs.
        orders: Random ones, to hold the ranking against.
    """
    ranked = choice.ranked
    averages = [ranked[:count] for count in range(1, len(ranked) + 1)]
    return {
        "accuracy": [row for chosen in averages for row in _rows(contest, chosen)],
        "individuals": {name: _reports(contest, [name]) for name in [*ranked, *_probe(contest)]},
        "final": {
            "choice": choice.final,
            "members": choice.members,
            "left_out": choice.left_out,
            "method": "uniform",
            **_reports(contest, choice.members),
        },
        "greedy": {
            "members": choice.greedy,
            **{name: accuracy(contest, choice.greedy, name) for name in (RANKING, VALIDATION)},
        },
        "partners": choice.partners.document(),
        "notes": choice.notes,
        "orders": {"ranked": _along(contest, ranked), "random": [_along(contest, order) for order in orders]},
        "agreement": _agreements(contest, ranked),
        "cost": inference_cost(contest.model, contest.data[VALIDATION], len(choice.members), contest.precision),
    }


def _rows(contest: Contest, chosen: Sequence[str]) -> list[dict[str, Any]]:
    wa, ens = contest.average(chosen), contest.ensemble(chosen)
    last = contest.individual(chosen[-1])
    probe = contest.individual(PROBE) if _probe(contest) else None
    return [averages_row(name, len(chosen), wa[name], ens[name], last[name], probe) for name in contest.data]


def _probe(contest: Contest) -> list[str]:
    return [name for name in (PROBE,) if name in contest.members]


def _along(contest: Contest, order: Sequence[str]) -> list[float]:
    return [accuracy(contest, order[:m], VALIDATION) for m in range(1, len(order) + 1)]


def _reports(contest: Contest, names: Sequence[str]) -> dict[str, Any]:
    scores = contest.average(names)
    return {name: report(scores[name], data.answer_lengths) for name, data in contest.data.items()}


def _agreements(contest: Contest, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return how often each run prefers the same answer as each other one, on the validation set."""
    scores = {name: contest.individual(name)[VALIDATION] for name in names}
    return {a: {b: agreement(scores[a], scores[b]) for b in names} for a in names}


def _few(pairs: int) -> str:
    half = 100 * 1.96 * float(np.sqrt(0.3 / pairs))
    return (
        f"{pairs} pairs rank the runs, too few: two runs that disagree on 30% of the pairs have to be {half:.0f} points apart "
        "before their order is more than chance, and whether they average cannot be told; give data.validation more pairs"
    )
