"""Residuals of a stored tensor against the value that a claim gives: does rounding explain them?

    M  stored value                     C  claim, in float64         x0  what the claim starts from
    E = R(C), B = R(x0)                 R  rounding to the type of M, u its unit roundoff (2^-8 for bfloat16)
    change D = C - x0                   S = sum_v |c_v x_v| over the n rows that are mixed, |C| where nothing is mixed

A candidate X (M itself, or B) departs from E by r = X - E. It fits the claim if all of these hold:

    |X - C| <= (1 + k) e + 8 u max|D|                           for every element; e = u S + smallest subnormal
    |sum r D| <= 5 sqrt(sum (r D)^2) + 2 u (P + 2 sum D^2)      it does not lean along the change
    sum r^2 <= V + 5 sqrt(sum r^4)                              it is no larger than rounding makes it

k = n + 2 where n rows are mixed, for coefficients and products rounded to the type of M, their sum, and its division; k = 0
where the claim is one row as it is, or a method's edit of task vectors. P = sum_v |c_v sum x_v D|: what rounded coefficients
can shift. V = sum of (k + 2) e^2 / 3 (where rows are mixed) + 32 e u |D| + 64 (u D)^2: as many independent roundings, and a
change that was rounded before it was added. max|D| is of a few thousand elements.

The second and third rule decide where changes are about as small as a step of the type: each element alone is within its
rounding then, but a change that is missing leans against D in all of them.

A tensor contains the claim if M fits it. It cannot be told if B nearly fits it too (with 10 in place of 5, and a few elements
off); or if M fits but for its lean, and that is no more than L, the sum of 2 e |D| over the elements of a mixture with
|D| < 2 n e: sums in the type of M lose changes of less than a step, all in one direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DType
from warmkit.merging import machine_code
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.types import Coefficients

Answer: TypeAlias = Literal["contains", "does not contain", "cannot tell"]
Values: TypeAlias = NDArray[np.float64]

ROUNDOFF = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}
SUBNORMAL = {"BF16": 2.0**-133, "F16": 2.0**-24, "F32": 2.0**-149, "F64": 5e-324}
SIGMAS = 5.0  # of sums whose terms have either sign: by chance once in a million tensors
EXACT = 2.0**-50  # what float64 sums lose: rows that are equal have a mean that is theirs
FEW = 8  # elements, or one in so many, that the base may be off without being told from the claim
PIECE = 1 << 12  # elements whose changes stay in the first-level cache; the largest of them bounds their rounding


@dataclass(frozen=True)
class Mixture:
    """How the claim comes from its rows.

    Attributes:
        coefficients: [V] of the rows; None where the claim is no sum of them.
        from_zero: The claim starts from zero, else from row 0.
    """

    coefficients: Coefficients | None
    from_zero: bool = False

    def factors(self, rows: int) -> Values:
        """Return c, [V]; zeros where nothing is mixed, the claim being one row as it is, or no sum of them."""
        found = np.zeros(rows) if self.coefficients is None else np.asarray(self.coefficients, np.float64)
        used = found[found != 0]
        return np.zeros(rows) if used.tolist() == [1.0] else found


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
        others: [V] how many of the calls found M to be another than row v.
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
    expected, size, wrong = rounded(claim, dtype), claim.size, 0
    if not np.isfinite(stored.sum() + expected.sum() + rows.sum()):  # or the sum is beyond the largest number
        usable, wrong = _usable(stored, expected, rows)
        stored, claim, expected, rows = stored[usable], claim[usable], expected[usable], rows[:, usable].copy()
    start = np.zeros_like(claim) if mixture.from_zero else rows[0].copy()
    factors, sums, products = mixture.factors(len(rows)), np.zeros(17), np.zeros(len(rows))
    limits = np.array([ROUNDOFF[dtype.name], SUBNORMAL[dtype.name], EXACT, np.count_nonzero(factors)], np.float64)
    scratch = np.empty((2, PIECE))
    machine_code.residuals.compare(
        stored, claim, expected, rounded(start, dtype), start, rows, factors, limits, scratch[0], scratch[1], sums, products
    )
    own, base = sums[7:12], sums[12:]
    own[0] += wrong
    others = np.array([float(wrong > 0 or _differ(row, stored, dtype)) for row in rows])
    return Tally._make([size, int(sums[0]) + wrong, *sums[1:7].tolist(), own, base, products, others])


def _usable(stored: Values, expected: Values, rows: Values) -> tuple[NDArray[np.bool_], int]:
    """Return which elements are finite everywhere, and how many others are not the same in M and E."""
    usable = np.isfinite(stored) & np.isfinite(expected) & np.isfinite(rows).all(axis=0)
    same = usable | (stored == expected) | (np.isnan(stored) & np.isnan(expected))
    return usable, stored.size - int(np.count_nonzero(same))


def _differ(row: Values, stored: Values, dtype: DType) -> bool:
    """Say whether M is another tensor than a row; most differ in the first elements already."""
    return any((rounded(row[part].copy(), dtype) != stored[part]).any() for part in (slice(64), slice(64, None)))


def judge(found: Tally, mixture: Mixture, dtype: DType) -> Answer:
    """Say whether a tensor contains the claim; it cannot be told where what the claim starts from would pass for it, too."""
    factors = mixture.factors(len(found.products))
    products = float(np.abs(factors * found.products).sum())
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
