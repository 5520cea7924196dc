"""Rows of a matrix whose columns lie apart in memory: a transpose, or columns of several put together, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code

BYTES = 16  # of a square's side: what every processor turns with few instructions


def turn(raw: NDArray[Any], columns: NDArray[np.int64], step: int, start: int, out: NDArray[Any]) -> None:
    """Write the elements from `start` on, in row-major order, of a matrix whose element (r, c) is raw[columns[c] + r step].

    Args:
        raw: [n], `BYTES` longer than what is read where step is 2.
        columns: [C], where every column begins.
        step: Elements from one of a column to the next.
        start: Place of the first element in the matrix.
        out: [m] of the same type, overwritten.
    """
    bits = f"u{raw.itemsize}"
    machine_code.turns.turn(raw.view(bits), columns, step, start, BYTES // raw.itemsize, out.view(bits))
