"""Whether rounding explains what a tensor lacks of a claim: sums worked out by hand, and changes near a step of the type."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.engine.residuals import PIECE, Answer, Mixture, Tally, Values, judge, rounded, scale_of, tally, total
from warmkit.formats.dtypes import BY_TORCH_NAME, DType

BF16, F16, F32, F64 = (BY_TORCH_NAME[name] for name in ("bfloat16", "float16", "float32", "float64"))
PLAIN = Mixture(None)
STEP = 2.0**-7  # of bfloat16 between 1 and 2


def compared(stored: Values, claim: Values, base: Values, dtype: DType = BF16) -> Tally:
    return tally(stored, claim, np.stack([base]), PLAIN, dtype)


def answer(stored: Values, claim: Values, base: Values, dtype: DType = BF16) -> Answer:
    return judge(compared(stored, claim, base, dtype), PLAIN, dtype)


def ones(size: int) -> tuple[Values, Values]:
    """Return bfloat16 numbers from 1 to 2, and changes of up to one step, both with a fixed seed."""
    draw = np.random.default_rng(7)
    return rounded(draw.uniform(1, 2, size), BF16), draw.uniform(-STEP, STEP, size)


def test_the_sums_are_those_of_two_elements_worked_out_by_hand() -> None:
    base, claim = np.array([1.0, -2.0]), np.array([1.5, -2.0])
    found = compared(np.array([1.25, -2.0]), claim, base)
    assert (found.elements, found.differs, found.residual, found.change) == (2, 1, 0.0625, 0.25)
    assert (found.moved, found.along) == (0.0625, 0.125)
    assert found.stored.tolist() == [1, -0.125, 0.015625, 0.0625, 0.00390625]
    assert found.base.tolist() == [1, -0.25, 0.0625, 0.25, 0.0625]
    assert found.products.tolist() == [0.5]
    assert found.others.tolist() == [1]
    assert scale_of(found) == 0.5
    assert scale_of(found, found) == 0.5


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_scale_is_the_factor_that_was_merged(factor: float) -> None:
    base, change = ones(4096)
    change *= 4
    for dtype, close in ((F64, 1e-12), (F32, 1e-6), (F16, 1e-3), (BF16, 0.02)):
        stored = rounded(base + factor * change, dtype)
        scale = scale_of(compared(stored, base + change, base, dtype))
        assert scale == pytest.approx(factor, abs=0 if factor in (0.0, 1.0) else close)


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0, -1.0])
def test_a_change_of_less_than_a_step_that_is_missing_or_scaled_is_found_over_many_elements(factor: float) -> None:
    base, change = ones(4096)
    stored = rounded(base + factor * change, BF16)
    assert answer(stored, base + change, base) == "does not contain"
    assert answer(rounded(base + change, BF16), base + change, base) == "contains"


def test_a_change_that_the_type_cannot_hold_cannot_be_told() -> None:
    base, change = ones(4096)
    for stored in (base, rounded(base + change / 100, BF16)):
        assert answer(stored, base + change / 100, base) == "cannot tell"
    assert answer(base, base, base) == "contains"
    assert answer(rounded(base + change, BF16), base + change / 100, base) == "does not contain"


def test_sums_rounded_at_every_step_contain_the_mixture_and_another_share_does_not() -> None:
    draw = np.random.default_rng(3)
    base = draw.standard_normal(4096)
    rows = np.stack([rounded(base + 0.1 * draw.standard_normal(4096), BF16) for _ in range(3)])
    factors = np.array([0.0, 0.3, 0.7])
    mixture = Mixture(factors)

    def mixed(a: float, b: float) -> Values:
        return rounded(rounded(rounded(np.array([a]), BF16) * rows[1], BF16) + rounded(b * rows[2], BF16), BF16)

    for shares, expected in (((0.3, 0.7), "contains"), ((0.4, 0.6), "does not contain")):
        found = tally(mixed(*shares), factors @ rows, rows, mixture, BF16)
        assert judge(found, mixture, BF16) == expected


def test_what_is_not_finite_is_off_unless_it_is_the_same() -> None:
    base = np.ones(100)
    stored, claim = base.copy(), base.copy()
    stored[:2], claim[1:3] = np.nan, np.nan
    found = compared(stored, claim, base)
    assert (found.elements, found.stored[0]) == (100, 2)
    assert judge(found, PLAIN, BF16) == "does not contain"


def test_numbers_below_the_smallest_normal_one_are_held_to_its_steps() -> None:
    base, change = np.full(4096, 2.0**-20), np.full(4096, 2.0**-25)  # float16 has steps of 2^-24 there
    assert answer(rounded(base + change, F16), base + change, base, F16) == "cannot tell"
    assert answer(base + 2.0**-20, base + change, base, F16) == "does not contain"


def test_pieces_add_up_to_the_whole() -> None:
    base, change = ones(PIECE + 100)
    stored, claim = rounded(base + change, BF16), base + change
    whole = compared(stored, claim, base)
    parts = total([compared(stored[i], claim[i], base[i]) for i in (slice(PIECE), slice(PIECE, None))])
    for one, two in zip(whole[:-1], parts[:-1]):
        np.testing.assert_allclose(one, two, rtol=1e-12)
    assert total([]).elements == 0
    assert judge(total([]), PLAIN, BF16) == "contains"
