"""Tensors that every input stores twice, a head that is the embedding: merged once and written twice, so that they stay equal.

Masks are drawn by name, and what ties at a threshold is kept by place, so two copies that were merged apart would differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from warmkit.engine.inputs import Source
from warmkit.layouts.compatibility import EMBEDDINGS

PIECE = 1 << 22  # bytes


def find_twins(rows: Sequence[Source], names: Sequence[str]) -> dict[str, str]:
    """Return which tensors are, in every row, the same as another one: of an embedding, or of the bias of its head.

    Only tensors of a shape that has a row for every token are compared; of two that differ, one piece is read.
    """
    embedding = next((name for name in names if name.endswith(EMBEDDINGS)), None)
    if embedding is None or not rows[0].shape(embedding):
        return {}
    shapes = (rows[0].shape(embedding), rows[0].shape(embedding)[:1])
    twins: dict[str, str] = {}
    for shape in shapes:
        originals: list[str] = []
        alike = [name for name in names if rows[0].shape(name) == shape]
        for name in sorted(alike, key=lambda name: (not name.endswith(EMBEDDINGS), name)):  # whatever the order of a file
            same = next((first for first in originals if all(_equal(row, first, name) for row in rows)), None)
            if same is None:
                originals.append(name)
            else:
                twins[name] = same
    return twins


def _equal(row: Source, first: str, second: str) -> bool:
    if (row.dtype(first), row.shape(first)) != (row.dtype(second), row.shape(second)):
        return False
    elements, size = 1, row.dtype(first).itemsize
    for length in row.shape(first):
        elements *= length
    one, two = bytearray(PIECE), bytearray(PIECE)
    for start in range(0, elements, PIECE // size):
        count = min(PIECE // size, elements - start) * size
        row.read(first, start, memoryview(one)[:count])
        row.read(second, start, memoryview(two)[:count])
        if one[:count] != two[:count]:
            return False
    return True
