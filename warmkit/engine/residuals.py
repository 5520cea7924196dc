"""Residuals of a stored tensor against the value that a claim gives: does rounding explain them?

    M  stored value                     C  claim, in float64         x0  what the claim starts from
    E = R(C), B = R(x0)                 R  rounding to the type of M, u its unit roundoff (2^-8 for bfloat16)
    change D = C - x0                   S = sum_v |c_v x_v| over the n rows that are mixed, |C| where nothing is mixed

A candidate X (M itself, or B) departs from E by r = X - E. It fits the claim if all of these hold:

    |X - C| <= (1 + k) e + 8 u max|D|                           for every element; e = u S + smallest subnormal
    |sum r D| <= 5 sqrt(sum (r D)^2) + 2 u (P + 2 sum D^2)      it does not lean along the change
    sum r^2 <= V + 5 sqrt(sum r^4)                              it is no larger than rounding makes it

k = n + 2 if n > 1 rows are mixed, or one with a coefficient, else 0: coefficients and products rounded to the type of M, their
sum, its division. P = sum_v |c_v sum x_v D|: what rounded coefficients can shift. V = sum of (k + 2) e^2 / 3 (where k > 0) +
32 e u |D| + 64 (u D)^2: as many independent roundings, and a change that was rounded before it was added.

The second and third rule decide where changes are about as small as a step of the type: each element alone is within its
rounding then, but a change that is missing leans against D in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DType
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.types import Coefficients

Answer: TypeAlias = Literal["contains", "does not contain", "cannot tell"]
Values: TypeAlias = NDArray[np.float64]

ROUNDOFF = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}
SUBNORMAL = {"BF16": 2.0**-133, "F16": 2.0**-24, "F32": 2.0**-149, "F64": 5e-324}
SIGMAS = 5.0  # of sums whose terms have either sign: by chance once in a million tensors
EXACT = 2.0**-50  # what float64 sums lose: rows that are equal have a mean that is theirs
FEW = 8  # elements, or one in so many, that the base may be off without being told from the claim
PIECE = 1 << 16  # elements whose dozen float64 copies stay in the second-level cache


@dataclass(frozen=True)
class Mixture:
    """How the claim comes from its rows.

    Attributes:
        coefficients: [V] of the rows; None where the claim is no sum of them.
        from_zero: The claim starts from zero, else from row 0.
    """

    coefficients: Coefficients | None
    from_zero: bool = False

    @property
    def used(self) -> list[tuple[int, float]]:
        """Return place and coefficient of the rows that are mixed; none where the claim is one row as it is."""
        factors = [] if self.coefficients is None else self.coefficients.tolist()
        used = [(place, factor) for place, factor in enumerate(factors) if factor]
        return [] if [factor for _, factor in used] == [1.0] else used

    def sizes(self, claim: Values, rows: Values) -> Values:
        """Return S, [n]."""
        sizes = np.zeros_like(claim) if self.used else np.abs(claim)
        for place, factor in self.used:
            sizes += np.abs(factor * rows[place])
        return sizes


class Tally(NamedTuple):
    """Sums over the elements of a tensor, or of a piece of it; all of them add up.

    Attributes:
        elements: How many.
        differs: How many of M are not E.
        residual: Sum of (M - C)^2.
        change: Sum of D^2.
        moved: Sum of (M - B)^2.
        along: Sum of (M - B) D.
        explained: V.
        lost: L.
        stored: Departure of M from E: elements off, sum r D, sum (r D)^2, sum r^2, sum r^4.
        base: The same of B.
        products: [V] sum x_v D.
        others: [V] how many elements of M are not those of row v.
    """

    elements: int
    differs: int
    residual: float
    change: float
    moved: float
    along: float
    explained: float
    lost: float
    stored: Values
    base: Values
    products: Values
    others: Values


NOTHING = Tally(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.zeros(5), np.zeros(5), np.zeros(1), np.zeros(1))


def total(pieces: Sequence[Tally]) -> Tally:
    """Return the sums of all pieces, in their order."""
    return Tally._make(map(sum, zip(*(pieces or [NOTHING]))))


def rounded(values: Values, dtype: DType) -> Values:
    """Return float64 numbers rounded to the nearest ones of a type."""
    if dtype.name == "F64":
        return values
    kernels, stored, back = NumbaKernels(), np.empty(values.size, dtype.storage), np.empty(values.size)
    kernels.convert(values, stored)
    kernels.convert(stored, back)
    return back


def tally(stored: Values, claim: Values, rows: Values, mixture: Mixture, dtype: DType) -> Tally:
    """Compare some elements.

    Args:
        stored: [n], M.
        claim: [n], C.
        rows: [V, n], the inputs; row 0 is what the claim starts from.
        mixture: What makes the claim of them.
        dtype: Type of M, whose rounding counts.

    Returns:
        The sums; elements that are not finite on either side are off unless they are the same, and are in no other sum.
    """
    pieces = [slice(first, first + PIECE) for first in range(0, claim.size, PIECE)]
    return total([_piece(stored[each], claim[each], rows[:, each], mixture, dtype) for each in pieces])


def _piece(stored: Values, claim: Values, rows: Values, mixture: Mixture, dtype: DType) -> Tally:
    expected, size = rounded(claim, dtype), claim.size
    usable = np.isfinite(stored) & np.isfinite(expected) & np.isfinite(rows).all(axis=0)
    same = usable | (stored == expected) | (np.isnan(stored) & np.isnan(expected))
    wrong = size - int(same.sum())
    stored, claim, expected, rows = stored[usable], claim[usable], expected[usable], rows[:, usable]
    start = np.zeros_like(claim) if mixture.from_zero else rows[0]
    base, sizes = rounded(start, dtype), mixture.sizes(claim, rows)
    change = np.where(np.abs(claim - start) > EXACT * sizes, claim - start, 0.0)
    bound, explained, lost = _rounding(sizes, change, len(mixture.used), dtype)
    own, missing = (_departure(each, claim, expected, change, bound) for each in (stored, base))
    own[0] += wrong
    return Tally(
        elements=size,
        differs=int((stored != expected).sum()) + wrong,
        residual=_squares(stored - claim),
        change=_squares(change),
        moved=_squares(stored - base),
        along=float((stored - base) @ change),
        explained=explained,
        lost=lost,
        stored=own,
        base=missing,
        products=rows @ change,
        others=np.array([(rounded(row.copy(), dtype) != stored).sum() + wrong for row in rows]),
    )


def _rounding(sizes: Values, change: Values, mixed: int, dtype: DType) -> tuple[Values, float, float]:
    """Return how far each element may be from the claim; V; and L."""
    unit, roundings = ROUNDOFF[dtype.name], mixed + 2 if mixed else 0
    step, moved = unit * sizes + SUBNORMAL[dtype.name], np.abs(change)
    bound = (1 + roundings) * step + 8 * unit * moved.max(initial=0.0)
    independent = (roundings + 2) / 3 * _squares(step) if mixed else 0.0
    small = moved < 2 * mixed * step
    return (
        bound,
        independent + 32 * unit * float(step @ moved) + 64 * unit**2 * _squares(moved),
        2 * float(step[small] @ moved[small]),
    )


def _departure(values: Values, claim: Values, expected: Values, change: Values, bound: Values) -> Values:
    rest = values - expected
    lean, squares = rest * change, rest * rest
    off = int((np.abs(values - claim) > bound).sum())
    return np.array([off, lean.sum(), _squares(lean), squares.sum(), _squares(squares)])


def _squares(values: Values) -> float:
    return float(values @ values)


def judge(found: Tally, mixture: Mixture, dtype: DType) -> Answer:
    """Say whether a tensor contains the claim; it cannot be told where what the claim starts from would pass for it, too."""
    factors = dict(mixture.used)
    products = sum(abs(factors[place] * found.products[place]) for place in factors) if found.elements else 0.0
    systematic = 2 * ROUNDOFF[dtype.name] * (products + 2 * found.change)
    if _fits(found.stored, systematic, found.explained):
        few = min(FEW, found.elements // FEW)
        told = not found.change or not _fits(found.base, systematic, found.explained, 2 * SIGMAS, few)
        return "contains" if told else "cannot tell"
    return "cannot tell" if _fits(found.stored, systematic + found.lost, found.explained) else "does not contain"


def _fits(departure: Values, systematic: float, explained: float, sigmas: float = SIGMAS, few: int = 0) -> bool:
    off, lean, leans, squares, fourth = departure.tolist()
    return (
        off <= few and abs(lean) <= sigmas * math.sqrt(leans) + systematic and squares <= sigmas * math.sqrt(fourth) + explained
    )


def scale_of(*found: Tally) -> float | None:
    """Return the least-squares factor of M - x0 on D, with what rounding takes from the claim itself given back.

        sum (M - B) D / sum (E - B) D

    It is 1 where M = E, 0 where M = B, and the plain factor where rounding is small; None where E = B.
    """
    missing = -sum(float(each.base[1]) for each in found)
    return 1.0 + sum(float(each.stored[1]) for each in found) / missing if missing > 0 else None
