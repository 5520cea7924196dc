"""Validation pairs in two halves: one ranks and chooses, the other says what the chosen is worth.

A model that is picked for its accuracy on some pairs is worse on others: its accuracy there is flattered by the choice.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import xxhash

from warmkit.data.preferences import Pair
from warmkit.errors import DataError
from warmkit.evaluation.comparisons import Comparisons

RANKING, VALIDATION = "ranking", "validation"
FEW = 50
"""Of ranking pairs: with fewer, a run has to be 15 points better than another before that is more than chance."""
WHOLE = 10  # a prompt's pairs stay together, unless it has more than one in `WHOLE` of all


def with_ranking(data: Mapping[str, Comparisons]) -> dict[str, Comparisons]:
    """Return the data sets with `validation` split into `ranking` and `validation`, one after the other."""
    result: dict[str, Comparisons] = {}
    for name, each in data.items():
        if name == VALIDATION:
            ranking, rest = halves(each.pairs)
            result |= {RANKING: each.only(ranking), VALIDATION: each.only(rest)}
        else:
            result[name] = each
    return result


def halves(pairs: Sequence[Pair]) -> tuple[list[int], list[int]]:
    """Divide pairs into those that rank and those that are left, by places, about half and half.

    The pairs of one prompt, which often share an answer, go to the same side. Sides follow from hashes of the texts alone: they
    are the same whatever the order of the rows and whatever the seed.

    Raises:
        DataError: If there are fewer than two different pairs.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        groups[_hash(pair.prompt)].append(place)
    if max(map(len, groups.values())) * WHOLE > len(pairs):
        groups = defaultdict(list)
        for place, pair in enumerate(pairs):
            groups[_hash(pair.prompt, *sorted((json.dumps(pair.chosen), json.dumps(pair.rejected))))].append(place)
    if len(groups) < 2:
        raise DataError(
            f"data.validation: expected at least 2 different pairs, half to rank the runs and half to say what they are worth; "
            f"found {len(groups)}"
        )
    ranking: list[int] = []
    for key in sorted(groups):
        if 2 * len(ranking) < len(pairs) and len(ranking) + len(groups[key]) < len(pairs):
            ranking += groups[key]
    left = set(range(len(pairs))) - set(ranking)
    return sorted(ranking), sorted(left)


def sampled(pairs: Sequence[Pair], most: int) -> list[int]:
    """Return the places of at most so many pairs, which ones depends on the texts alone."""
    if len(pairs) <= most:
        return list(range(len(pairs)))
    keys = [_hash(pair.prompt, json.dumps([pair.chosen, pair.rejected])) for pair in pairs]
    return sorted(sorted(range(len(keys)), key=lambda place: keys[place])[:most])


def _hash(prompt: object, *answers: str) -> bytes:
    return xxhash.xxh3_128(json.dumps([RANKING, prompt, *answers]).encode()).digest()
