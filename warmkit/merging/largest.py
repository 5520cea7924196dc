"""The exact k largest magnitudes of a group, without holding it.

The bits of a float32 without its sign order as its magnitude does. So the k-th largest is found in two passes: one counts
the upper halves of the bits, the next the lower halves inside the half that the k-th falls into. Elements that tie with it
(task vectors of 16-bit weights have many) are kept in the order of their places, so that exactly k are kept: a third pass
counts them by place where not all of them fit. Counts are integers, so their sum does not depend on the order of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.edits import Mask, Place, Read, Reading, Stage, Vectors, chunks

NOTHING = 1 << 31  # above the bits of every magnitude
Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Target:
    """One threshold to find: `keep` largest magnitudes of a row of values; if not `exact`, all that tie with the last too."""

    row: int
    keep: int
    exact: bool = True


@dataclass(frozen=True)
class Threshold:
    """Where the kept magnitudes of a row end.

    Attributes:
        row: Which values.
        key: Bits of the smallest kept magnitude; NOTHING if none is kept.
        ties: [places], how many of the elements with exactly this magnitude are kept in each place; None for all of them.
    """

    row: int
    key: int
    ties: Counts | None = None

    def cut(self, place: Place, first: int, values: NDArray[np.float64], seen: int) -> tuple[int, int]:
        """Return the element of a chunk where ties stop being kept, and how many ties of the place were seen by then."""
        if self.ties is None:
            return values.size, 0
        if self.ties[place.number] <= seen:
            return 0, seen
        found = np.array([seen])
        cut = machine_code.edits.place_of_equal(values, np.uint32(self.key), self.ties[place.number] - seen, found)
        return cut, int(found[0])


class Band:
    """Marks, chunk after chunk of one place, what lies between two thresholds; `high` itself and above are left out."""

    def __init__(self, low: Threshold, high: Threshold | None, place: Place) -> None:
        self._low, self._high, self._place = low, high or Threshold(low.row, NOTHING), place
        self._seen = [0, 0]

    def mark(self, first: int, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which elements are kept; chunks must come in order."""
        low, self._seen[0] = self._low.cut(self._place, first, values, self._seen[0])
        high, self._seen[1] = self._high.cut(self._place, first, values, self._seen[1])
        keep = np.empty(values.size, np.bool_)
        keys = np.uint32(self._low.key), np.uint32(self._high.key)
        machine_code.edits.keep_between(values, keys[0], low, keys[1], high, keep)
        return keep


def largest(thresholds: Sequence[tuple[Threshold, Threshold | None]]) -> Callable[[Place, Read], Mask]:
    """Return the mask that keeps of task vector m what lies between the m-th pair of thresholds."""

    def mask(place: Place, read: Read) -> Mask:
        bands = [Band(low, high, place) for low, high in thresholds]

        def erase(first: int, vectors: Vectors) -> None:
            for band, vector in zip(bands, vectors):
                machine_code.edits.erase(vector, band.mark(first, vector))

        return erase

    return mask


Values: TypeAlias = Callable[[Place, int, Vectors], Vectors]
"""From a chunk of task vectors, its place and its first element there, to the rows whose magnitudes are ranked."""

Targets: TypeAlias = Callable[[Counts], Sequence[Target]]
"""From how many values of each row are zero to what is to be found."""

Finish: TypeAlias = Callable[[Sequence[Threshold]], Stage]


class UpperHalves(Reading):
    """First pass: which half of the bits each threshold falls into.

    Args:
        rows: How many rows of values there are.
        values: What is ranked.
        targets: What is to be found.
        finish: The stage that uses the thresholds, in the order of the targets.
    """

    def __init__(self, rows: int, values: Values, targets: Targets, finish: Finish) -> None:
        self._values, self._targets, self._finish = values, targets, finish
        self._counts, self._lock = np.zeros((rows, 1 << 15), np.int64), threading.Lock()

    def measure(self, place: Place, read: Read) -> Counts:
        counts, zeros = np.zeros(self._counts.shape, np.uint32), np.zeros(len(self._counts), np.int64)
        for first, vectors in chunks(read(place.start, place.stop)):
            for row, values in enumerate(self._values(place, first, vectors)):
                zeros[row] += machine_code.edits.count_upper(values, counts[row])
        with self._lock:
            self._counts += counts
        return zeros

    def then(self, parts: Sequence[Any]) -> Stage:
        found: list[_Found] = []
        for target in self._targets(np.sum(parts, axis=0)):
            upper, need = _find(self._counts[target.row], target.keep)
            found.append(_Found(target.row, upper, need, target.exact))
        return _LowerHalves(self._values, found, self._finish)


@dataclass(frozen=True)
class _Found:
    row: int
    upper: int  # half of the bits, or NOTHING
    need: int  # how many of the values with these bits are kept
    exact: bool


def _find(counts: Counts, keep: int) -> tuple[int, int]:
    """Return the bin that holds the keep-th largest value, and how many of that bin are among the keep largest."""
    if keep <= 0:
        return NOTHING, 0
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, keep))
    before = int(above[place - 1]) if place else 0
    return len(counts) - 1 - place, keep - before


class _LowerHalves(Reading):
    """Second pass: the whole of each threshold's bits."""

    def __init__(self, values: Values, found: Sequence[_Found], finish: Finish) -> None:
        self._values, self._found, self._finish = values, found, finish
        self._counts, self._lock = np.zeros((len(found), 1 << 16), np.int64), threading.Lock()

    def measure(self, place: Place, read: Read) -> None:
        counts = np.zeros(self._counts.shape, np.uint32)
        for first, vectors in chunks(read(place.start, place.stop)):
            rows = self._values(place, first, vectors)
            for each, count in zip(self._found, counts):
                machine_code.edits.count_lower(rows[each.row], np.uint32(each.upper), count)
        with self._lock:
            self._counts += counts

    def then(self, parts: Sequence[Any]) -> Stage:
        thresholds, need, all_fit = list[Threshold](), list[int](), True
        for each, counts in zip(self._found, self._counts):
            lower, left = _find(counts, each.need)
            key = NOTHING if NOTHING in (each.upper, lower) else each.upper << 16 | lower
            thresholds.append(Threshold(each.row, key))
            need.append(left)
            all_fit = all_fit and (not each.exact or key == NOTHING or left == counts[lower])
        return self._finish(thresholds) if all_fit else _Ties(self._values, thresholds, need, self._finish)


class _Ties(Reading):
    """Third pass: how many elements of each place tie with a threshold."""

    def __init__(self, values: Values, thresholds: Sequence[Threshold], need: Sequence[int], finish: Finish) -> None:
        self._values, self._thresholds, self._need, self._finish = values, thresholds, need, finish

    def measure(self, place: Place, read: Read) -> Counts:
        counts = np.zeros(len(self._thresholds), np.int64)
        for first, vectors in chunks(read(place.start, place.stop)):
            rows = self._values(place, first, vectors)
            counts += [machine_code.edits.count_equal(rows[each.row], np.uint32(each.key)) for each in self._thresholds]
        return counts

    def then(self, parts: Sequence[Any]) -> Stage:
        counts = np.array(parts)
        before = np.cumsum(counts, axis=0) - counts
        left = np.clip(np.array(self._need) - before, 0, counts)
        return self._finish([Threshold(each.row, each.key, left[:, n]) for n, each in enumerate(self._thresholds)])
