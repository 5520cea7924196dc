"""Best-of-N by different scores among the same samples, and what the chosen are worth.

Source: WARM (Ramé et al., 2024), appendix D.2, figures 13 and 14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from warmkit.evaluation.best_of_n import best_of_n, choice_probabilities, kl_of_best_of
from warmkit.evidence.claims.measurements import Measurements, Point

Array = NDArray[np.float64]
Lines = dict[str, list[Point]]
SINGLE, BEST, PROBE = "single models", "best single (validation)", "probe only"
WORST, TOP = "worst single (hindsight)", "best single (hindsight)"


def with_spread(choosers: Mapping[str, list[Array]], judged: Array, n: int) -> dict[str, list[Array]]:
    """Add lines of the single models whose choice among N is worth least and most."""
    ordered = sorted(choosers[SINGLE], key=lambda scores: float(best_of_n(scores, judged, n).mean()))
    return {**choosers, WORST: [ordered[0]], TOP: [ordered[-1]]}


def choices(choosers: Mapping[str, Sequence[Array]], sizes: Sequence[int]) -> dict[str, dict[int, Array]]:
    """Return how often each completion is chosen, [N, K], by line and by the N of best-of-N; of several choosers the mean.

    Args:
        choosers: Scores that choose, [N, K] each, by line.
        sizes: The N's.
    """
    lines = [line for line, scores in choosers.items() for _ in scores]
    stacked = np.concatenate([score for scores in choosers.values() for score in scores])
    found: dict[str, dict[int, Array]] = {line: {} for line in choosers}
    for n in sizes:
        parts = np.split(choice_probabilities(stacked, n), len(lines))
        for line in choosers:
            found[line][n] = np.mean([part for name, part in zip(lines, parts) if name == line], axis=0)
    return found


def draw(
    found: Measurements, part: str, chosen: Mapping[str, Mapping[int, Array]], judged: Array, members: Sequence[int]
) -> Lines:
    """Draw what the chosen are worth, the lead over the best single model's (figure 13), and win rates in percent (figure 14).

    Args:
        found: Where the points go.
        part: Of the points.
        chosen: Of `choices`.
        judged: What each completion is worth, [N, K].
        members: The M's; the second is the reference of `win_warm`.
    """
    random, warm, lines = np.full_like(judged, 1 / judged.shape[1]), chosen[f"WA M={members[-1]}"], Lines()
    for line, by_size in chosen.items():
        lines[line] = [
            {
                "at": n,
                "kl": kl_of_best_of(n),
                "gold": worth(chances, judged),
                "lead": worth(chances, judged) - worth(chosen[BEST][n], judged),
                "win_sft": 100 * chance_to_win(chances, random, judged),
                "win_warm": 100 * chance_to_win(chances, warm[n], judged),
            }
            for n, chances in by_size.items()
        ]
        found.draw(part, line, lines[line])
    return lines


def worth(chances: Array, judged: Array) -> float:
    """Return what the chosen are worth, the mean over prompts."""
    return float((chances * judged).sum(1).mean())


def chance_to_win(ours: Array, theirs: Array, judged: Array) -> float:
    """Return how often a completion that we draw is worth more than one that they draw, ties half, the mean over prompts.

    Args:
        ours: How often each completion is drawn, [N, K].
        theirs: The same.
        judged: What each completion is worth, [N, K].

    Example:
        >>> chance_to_win(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]), np.array([[1.0, 2.0]]))
        0.75
    """
    rates: list[float] = []
    for p, q, values in zip(ours, theirs, judged):
        _, place = np.unique(values, return_inverse=True)
        at = np.bincount(place, q)
        rates.append(float(np.bincount(place, p) @ (at.cumsum() - at / 2)))
    return float(np.mean(rates))


def state(found: Measurements, part: str, lines: Lines, members: Sequence[int]) -> None:
    """State what the lines are worth at the largest N, and who still gains in the last two doublings."""
    few, most = members
    last = {line: points[-1] for line, points in lines.items()}
    gold = {line: point["gold"] for line, point in last.items()}
    warm, two = f"WA M={most}", f"WA M={few}"
    numbers = {
        "warm_minus_best_single": gold[warm] - gold[BEST],
        "warm_minus_single": gold[warm] - gold[SINGLE],
        "warm_minus_ens": gold[warm] - gold[f"ENS M={most}"],
        "warm_minus_probe": gold[warm] - gold[PROBE],
        "two_minus_ens": gold[two] - gold[f"ENS M={few}"],
        "more_members": gold[warm] - gold[two],
        "still_grows": gold[warm] - lines[warm][-3]["gold"],
        "single_still_grows": gold[SINGLE] - lines[SINGLE][-3]["gold"],
        "fewest_wins_against_sft": min(point["win_sft"] for point in last.values()),
        "warm_wins_against_sft": last[warm]["win_sft"],
        "best_single_wins_against_warm": last[BEST]["win_warm"],
        "ens_wins_against_warm": last[f"ENS M={few}"]["win_warm"],
    }
    found.state(**{f"{part}_{name}": value for name, value in numbers.items()})
