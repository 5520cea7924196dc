"""Order of checkpoints by the numbers in their names."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence

from warmkit.errors import UsageError, nearest

ORDERS = ("given", "natural")


def in_order(names: Sequence[str | os.PathLike[str]], sort: str) -> list[str | os.PathLike[str]]:
    """Return names as they are given, or with numbers in them compared as numbers.

    Raises:
        UsageError: If `sort` is neither `given` nor `natural`.

    Examples:
        >>> in_order(["step-1000", "step-200"], "natural")
        ['step-200', 'step-1000']
    """
    if sort not in ORDERS:
        raise UsageError(f"unknown order {sort!r}{nearest(sort, ORDERS)}")
    return sorted(names, key=_natural) if sort == "natural" else list(names)


def doubts_of_order(names: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return a line if names stand in a shell's order, character by character, and their numbers do not."""
    ordered, given = in_order(names, "natural"), list(map(str, names))
    if given != sorted(given) or list(map(str, ordered)) == given:
        return []
    later, earlier = next(pair for pair in itertools.pairwise(given) if _natural(pair[0]) > _natural(pair[1]))
    return [f"{later} counts as older than {earlier}, a shell's order; --sort natural orders checkpoints by their numbers"]


def _natural(name: str | os.PathLike[str]) -> list[tuple[int, int, str]]:
    parts = re.findall(r"[0-9]+|[^0-9]+", str(name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
