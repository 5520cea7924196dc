"""Label noise on purpose: WARM's test of what averaging does against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from warmkit.common.random_streams import generator
from warmkit.data.preferences import Pair
from warmkit.errors import UsageError


def corrupt(pairs: Sequence[Pair], rate: float, seed: int) -> list[Pair]:
    """Swap chosen and rejected in round(rate * n) of n pairs, drawn without replacement.

    One seed draws nested sets: what a rate swaps, every larger rate swaps too. Swapping again restores a pair.

    Args:
        pairs: In order, which is kept.
        rate: Share to swap, from 0 to 1.
        seed: Of the draw, at least 0.

    Returns:
        All pairs. `corrupt` is turned over on those that were swapped, so that it tells which labels are wrong.

    Raises:
        UsageError: If the rate or the seed is out of range.

    Source: WARM (Ramé et al., 2024), whose corruption experiments swap a quarter of the labels.

    Examples:
        >>> corrupt([Pair("2 + 2", "4", "5")], rate=1, seed=0)
        [<Pair prompt: 2 + 2, chosen: 5, rejected: 4, corrupt: yes>]
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"rate: expected a share from 0 to 1, found {rate:g}")
    if seed < 0:
        raise UsageError(f"seed: expected 0 or more, found {seed}")
    drawn = generator("label noise", seed).permutation(len(pairs))[: round(rate * len(pairs))]
    swapped = set(drawn.tolist())
    return [_swap(pair) if place in swapped else pair for place, pair in enumerate(pairs)]


def _swap(pair: Pair) -> Pair:
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, corrupt=not pair.corrupt)
