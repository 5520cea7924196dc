"""Scales of one byte each, FP8 numbers or exponents, read as float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.held import read_whole
from warmkit.formats.tensors import Counted, Tensor
from warmkit.sources.files import Files, WeightFile


@dataclass(frozen=True, eq=False)
class ByteScales(Counted):
    """Scales that a table says, divided by one number where there is one for all of them.

    Attributes:
        stored: A byte a scale.
        table: [256] float32.
        over: The number, F32.
    """

    stored: Tensor
    table: NDArray[np.float32]
    over: Tensor | None = None

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def dtype(self) -> DType:
        return DTYPES["F32"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def file(self) -> WeightFile:
        return self.stored.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out = np.frombuffer(view, np.float32)
        raw = np.empty(out.size, np.uint8)
        self.stored.read(files, start, raw.data)
        out[:] = self.table[raw]
        if self.over is not None:
            out /= read_whole(files, self.over, self.dtype).item()

    def ahead(self, files: Files, start: int, elements: int) -> None:
        self.stored.ahead(files, start, elements)
