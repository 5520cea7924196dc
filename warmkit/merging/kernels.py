"""The two kernels of every merge, on the CPU: `combine` and `gram`.

A block is a [V, n] array: the same n elements of V checkpoints, the initialisation first where there is one, in the
storage type of its elements (`checkpoints.dtypes`: bfloat16 as uint16, float16 as int16). Sums run in the order of the
rows, in float64, or in float32 from 16-bit types to 16-bit types, whose own rounding is thousands of times coarser. Any
machine, the torch kernels included, writes the same bytes. `docs/performance.md` has the measurements that chose numba.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.types import Coefficients, Gram

Block: TypeAlias = NDArray[Any]
Space: TypeAlias = Literal["weights", "task vectors", "init and task vectors"]

CHUNK = 2048  # elements whose float64 copies of a few models stay in the first-level cache
STRIP = 256  # the same of twenty models
TOGETHER, FEW = 6, 4  # sums that registers hold at once; so few of them are faster one after another
GRAM_DOUBLES = 8192  # float64 values of all rows at a time; fewer cost more calls, more leave the cache

# The first magnitude that is not finite, by storage type.
INFINITY = {"uint16": 0x7F80, "int16": 0x7C00, "float32": 0x7F800000, "float64": 0x7FF0000000000000}


def precision(inputs: Block, output: Block) -> type[np.floating[Any]]:
    """Return the type that sums run in."""
    return np.float32 if inputs.itemsize == output.itemsize == 2 else np.float64


def _alike(coefficients: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield which rows take part in some sums, and the numbers of those sums, at most TOGETHER."""
    kinds: dict[bytes, list[int]] = {}
    for number, used in enumerate(coefficients != 0):
        kinds.setdefault(used.tobytes(), []).append(number)
    for numbers in kinds.values():
        for first in range(0, len(numbers), TOGETHER):
            yield np.flatnonzero(coefficients[numbers[0]]), np.array(numbers[first : first + TOGETHER])


def combine_scratch(factors: NDArray[Any]) -> NDArray[Any]:
    """Return what `combine` of neither two nor three rows writes sums to."""
    return np.empty(0 if factors.size in (2, 3) else CHUNK, factors.dtype)


def gram_scratch(rows: int, columns: int) -> tuple[Gram, Gram, Gram, Gram]:
    """Return what `gram` needs: rows and init as float64, sums of an even number of rows; and its result."""
    even = rows + rows % 2  # an odd last row is paired with zeros
    width = min(max(64, GRAM_DOUBLES // even // 64 * 64), -(-columns // 64) * 64)
    return np.zeros((even, width)), np.empty(width), np.empty((even, even)), np.empty((rows, rows))


class NumbaKernels:
    """The kernels on the CPU."""

    device = "cpu"

    def empty(self, shape: tuple[int, ...], storage: str) -> Block:
        """Return an uninitialised block that these kernels read and write fastest."""
        return np.empty(shape, storage)

    def combine(self, coefficients: Coefficients, inputs: Block, output: Block) -> bool:
        """Write sum_v c_v x_v, rounded to the type of `output`.

        Rows whose coefficient is 0 take no part, so that end points return an input bit for bit, -0.0 included.

        Args:
            coefficients: [V] float64.
            inputs: [V, n], n at least 1.
            output: [n], overwritten.

        Returns:
            Whether every element used and written is finite.
        """
        rows = np.flatnonzero(coefficients)
        if rows.size == 0:
            output[:] = 0
            return self.finite(inputs)
        if rows.size == 1 and coefficients[rows[0]] == 1.0 and inputs.dtype == output.dtype:
            output[:] = inputs[rows[0]]
            return self.finite(inputs)
        factors = coefficients[rows].astype(precision(inputs, output))
        top = machine_code.elements.combine(factors, inputs, rows, combine_scratch(factors), output)
        finite = top < INFINITY[output.dtype.name]
        return finite and self._rest_finite(inputs, rows)

    def combine_all(self, coefficients: NDArray[np.float64], inputs: Block, outputs: Block) -> bool:
        """Write several sums of the same rows, the bytes of each as `combine` writes them.

        Args:
            coefficients: [K, V] float64.
            inputs: [V, n], n at least 1.
            outputs: [K, n], overwritten.

        Returns:
            Whether every element used and written is finite.
        """
        if len(coefficients) == 1:
            return self.combine(coefficients[0], inputs, outputs[0])
        finite, alone = True, list[int]()
        for rows, places in _alike(coefficients):
            if rows.size > 1 and places.size > FEW:
                finite = self._combine_together(coefficients, inputs, outputs, rows, places) and finite
            else:
                alone += places.tolist()
        for place in alone:
            finite = self.combine(coefficients[place], inputs, outputs[place]) and finite
        return finite and (bool(alone) or self._rest_finite(inputs, np.flatnonzero(coefficients.any(axis=0))))

    def _combine_together(
        self,
        coefficients: NDArray[np.float64],
        inputs: Block,
        outputs: Block,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> bool:
        """Write up to TOGETHER sums of the same rows."""
        kind = precision(inputs, outputs)
        factors = np.zeros((TOGETHER, rows.size), kind)
        factors[: places.size] = coefficients[np.ix_(places, rows)]
        wide, total = np.empty((len(inputs), STRIP), kind), np.empty((TOGETHER, STRIP), kind)
        top = machine_code.elements.combine_together(factors, inputs, rows, wide, total, outputs, places)
        return top < INFINITY[outputs.dtype.name]

    def _rest_finite(self, inputs: Block, rows: NDArray[np.int64]) -> bool:
        """Return whether the rows of [V, n] that took no part are finite."""
        return rows.size == len(inputs) or self.finite(np.delete(inputs, rows, axis=0))

    def add(self, init: Block, factor: float, vector: Block, output: Block) -> bool:
        """Write x0 + factor d, rounded to the type of `output`; where d is 0, or the factor, the init's own value.

        Args:
            init: [n].
            factor: Of the task vector.
            vector: [n], d, in the type that the sum runs in: float32 from 16-bit types to 16-bit types, else float64.
            output: [n], overwritten.

        Returns:
            Whether every element written is finite.
        """
        if factor == 0:
            return self.combine(np.ones(1), init.reshape(1, -1), output)
        top = machine_code.edits.add(init, precision(init, output)(factor), vector, output)
        return top < INFINITY[output.dtype.name]

    def finite(self, inputs: Block) -> bool:
        """Return whether every element of [V, n] is finite."""
        return all(machine_code.elements.peak(row) < INFINITY[inputs.dtype.name] for row in inputs)

    def gram(self, inputs: Block, space: Space) -> Gram:
        """Return the float64 inner products of the rows of one block.

        Args:
            inputs: [V, n].
            space: `weights`: of all rows, [V, V]. `task vectors`: of rows 1.. less row 0, [V-1, V-1].
                `init and task vectors`: of row 0 and the task vectors, [V, V].
        """
        first = int(space == "task vectors")
        scratch = gram_scratch(len(inputs) - first, inputs.shape[1])
        machine_code.elements.gram(inputs, space != "weights", first, *scratch)
        return scratch[-1]

    def convert(self, source: Block, target: Block) -> None:
        """Write `source` to `target`, two blocks [n] of any storage types, rounding where `target` is narrower."""
        machine_code.elements.convert(source, target)
