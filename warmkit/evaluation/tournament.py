"""Several policies on the same prompts, every two of them compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance
from warmkit.common.whole_files import write_rows
from warmkit.evaluation.pool import Array, Pool, check_comparable
from warmkit.evaluation.rewards import Term
from warmkit.evaluation.win_rates import THRESHOLDS, Match, match_by_scores

Pair = tuple[str, str]


@dataclass(frozen=True, repr=False)
class Tournament(Displayed):
    """Answers and verdicts.

    Attributes:
        pools: Answers by policy, all to the same prompts.
        matches: By the names of two policies, each two once.
        rewards: What the judge gave each answer, [N, K], by policy; empty where it compares only.
    """

    pools: dict[str, Pool]
    matches: dict[Pair, Match]
    rewards: dict[str, Array] = field(default_factory=lambda: {})

    def win_rates(self) -> dict[str, dict[str, float]]:
        """Return the win rate of every policy against every other."""
        both = {pair: match.win_rate.value for pair, match in self.matches.items()}
        both |= {(b, a): 1 - rate for (a, b), rate in both.items()}
        return {a: {b: both[a, b] for b in self.pools if b != a} for a in self.pools}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for every prompt and sample: `prompt`, `answers`, `rewards` and `verdicts`."""
        first = next(iter(self.pools.values()))
        for n, prompt in enumerate(first.prompts):
            for k in range(first.samples):
                row: dict[str, Any] = {"prompt": prompt.content}
                row["answers"] = {name: pool.texts[n][k] for name, pool in self.pools.items()}
                if self.rewards:
                    row["rewards"] = {name: float(each[n, k]) for name, each in self.rewards.items()}
                row["verdicts"] = [_verdict(pair, match, n, k) for pair, match in self.matches.items()]
                yield row

    def write(self, path: Path) -> None:
        """Write the rows as JSON lines."""
        write_rows(path, self.rows())


def _verdict(pair: Pair, match: Match, n: int, k: int) -> dict[str, Any]:
    numbers = {"outcome": float(match.outcomes[n, k]), "score": float(match.steps[n, k])}
    return {"a": pair[0], "b": pair[1], **{name: None if math.isnan(each) else each for name, each in numbers.items()}}


def play_by_rewards(
    pools: Mapping[str, Pool],
    terms: Sequence[Term],
    tie_margin: float = 0.0,
    thresholds: Sequence[float] = THRESHOLDS,
    advance: Advance | None = None,
) -> Tournament:
    """Compare every two policies by the weighted sum of rewards.

    Args:
        pools: Answers by policy.
        terms: Of the sum.
        tie_margin: See `match_by_scores`.
        thresholds: See `seven_steps`.
        advance: Called after every policy, with 1 and their number.

    Raises:
        MismatchError: If the policies did not answer the same prompts.
        ScoreError: If a reward fails, or gives numbers that cannot be used.
    """
    check_comparable(pools)
    rewards: dict[str, Array] = {}
    tick = advance or (lambda done, total: None)
    tick(0, len(pools))
    for name, pool in pools.items():
        rewards[name] = np.sum([term.weight * pool.score(term) for term in terms], axis=0)
        tick(1, len(pools))
    matches = {(a, b): match_by_scores(rewards[a], rewards[b], tie_margin, thresholds) for a, b in combinations(pools, 2)}
    return Tournament(dict(pools), matches, rewards)


def summary(match: Match) -> dict[str, Any]:
    """Return what is known about a match, for a document."""
    return {
        "wins": match.wins,
        "ties": match.ties,
        "losses": match.losses,
        "win_rate": asdict(match.win_rate),
        "score": asdict(match.score),
        "consistency": match.consistency,
    }
