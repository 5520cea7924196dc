"""A tensor that an adapter changes, formed block by block from the base's bytes and two small factors.

    W + s B A                       LoRA
    m / |W + s B A| (W + s B A)     DoRA, a norm for every output
    W_e + s B_e A_e                 the experts of a layer, one matrix after another

The dense difference is never held: memory is a few megabytes of factors, whatever the size of the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats import held
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.tensors import Counted, Derived, Tensor, result_dtype
from warmkit.merging import low_rank
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.low_rank import LowRank
from warmkit.sources.files import Files, WeightFile

Edit: TypeAlias = Callable[[int, NDArray[Any]], None]
PIECE = 1 << 19  # elements at a time: the base's bytes and the sum are still in the second-level cache for the next step


@dataclass(frozen=True)
class Factors:
    """Where the two factors of a tensor's difference are, and how they are used.

    Attributes:
        a: lora_A [rank, in], or lora_embedding_A [rank, vocabulary]; None where the difference is `b` itself.
        b: lora_B [out, rank], or lora_embedding_B [width, rank]; [out] beside no `a`.
        scale: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        transposed: Whether the base stores [in, out]: GPT-2's Conv1D, and embeddings.
        magnitude: DoRA's, one number per output; None without it.
    """

    a: Tensor | None
    b: Tensor
    scale: float
    transposed: bool = False
    magnitude: Tensor | None = None

    @property
    def file(self) -> WeightFile:
        return self.b.file

    @property
    def shape(self) -> tuple[int, ...]:
        if self.a is None:
            return self.b.shape
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)

    def load(self, files: Files, dtype: DType) -> LowRank:
        """Read and pack both."""
        b = read_whole(files, self.b, dtype)
        if self.a is None:
            return low_rank.pack(self._scaled(b.reshape(-1, 1)), np.ones((1, 1), dtype.storage))
        a = read_whole(files, self.a, dtype)
        return low_rank.pack(self._scaled(a.T), b.T) if self.transposed else low_rank.pack(self._scaled(b), a)

    def _scaled(self, left: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # what is not finite is found in the output, and named
            return left * left.dtype.type(self.scale)


@dataclass(frozen=True, eq=False)
class Cut(Derived):
    """A part of a small matrix, which stays in memory whole while its parts are asked for.

    Attributes:
        own: The matrix.
        part: Its rows and its columns.
        cache: Matrices in use, by their names.
    """

    part: tuple[slice, slice]
    cache: Recent[NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(range(*part.indices(size))) for part, size in zip(self.part, self.own.shape))

    def read(self, files: Files, start: int, view: memoryview) -> None:
        own = self.cache.get(self.name, lambda: read_whole(files, self.own, self.dtype))
        out = np.frombuffer(view, self.dtype.storage)
        out[:] = own[self.part].reshape(-1)[start : start + out.size]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Nothing to announce: it is read at once."""


class Product(Protocol):
    """A difference that is a product of thin matrices.

    Attributes:
        shape: Of the tensor that it is added to.
        transposed: Whether that stores [in, out].
        magnitude: DoRA's, one number per output; None without it.
        file: Where it is from.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def transposed(self) -> bool: ...

    @property
    def magnitude(self) -> Tensor | None: ...

    @property
    def file(self) -> WeightFile: ...

    def load(self, files: Files, dtype: DType) -> LowRank: ...


@dataclass(frozen=True, eq=False)
class Changed(Counted):
    """A tensor of the base that an adapter changes where it stands.

    It reads as float32 (float64 where the base is), so that a difference smaller than a bfloat16's own steps is not lost; a
    result has the base's type unless another is asked for.
    """

    base: Tensor

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def dtype(self) -> DType:
        return DTYPES["F64" if self.base.dtype.name == "F64" else "F32"]

    @property
    def stands_for(self) -> DType:
        return result_dtype(self.base)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def ahead(self, files: Files, start: int, elements: int) -> None:
        self.base.ahead(files, start, elements)

    def stored(self, files: Files, start: int, elements: int) -> NDArray[Any]:
        """Return the base's elements as they are stored, at most PIECE, in this thread's buffer."""
        raw = held.buffer(PIECE, self.base.dtype.storage)[:elements]
        self.base.read(files, start, raw.data.cast("B"))
        return raw


@dataclass(frozen=True, eq=False)
class AdaptedTensor(Changed):
    """A tensor of the base with its difference added."""

    factors: Product
    cache: Recent[LowRank]
    _dora: dict[str, NDArray[Any]] = field(default_factory=lambda: {})
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def file(self) -> WeightFile:
        return self.factors.file

    @property
    def summed_onto(self) -> Tensor | None:
        return self.base if self.factors.magnitude is None else None

    @property
    def matrices(self) -> int:
        return 1

    def product(self, files: Files, number: int = 0) -> LowRank:
        """Return the factors of the difference."""
        return self.cache.get(self.name, lambda: self.factors.load(files, self.dtype))

    def unpacked(self, files: Files) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return the factors of the difference in float64, [rows, rank] and [rank, columns], the scale in the first."""
        return [low_rank.unpack(self.product(files))]

    def read(self, files: Files, start: int, view: memoryview) -> None:
        if not view.nbytes:
            return
        out = np.frombuffer(view, self.dtype.storage)
        product = self.product(files)
        scales = None if self.factors.magnitude is None else self._scales(files, product, self.factors.magnitude)
        for low in range(0, out.size, PIECE):
            piece = out[low : low + PIECE]
            self._add(files, start + low, product, piece)
            if scales is not None:
                low_rank.scale(piece, start + low, product.columns, self.factors.transposed, scales)

    def _add(self, files: Files, start: int, product: LowRank, out: NDArray[Any]) -> None:
        low_rank.add(self.stored(files, start, out.size), start, product, out)

    def _scales(self, files: Files, product: LowRank, magnitude: Tensor) -> NDArray[Any]:
        """Return DoRA's factor of every output, from one pass over the tensor, the first time it is asked for.

        Source: Liu et al., 2024, "DoRA: weight-decomposed low-rank adaptation", equation 5.
        """
        with self._lock:
            if "scales" not in self._dora:
                sums = np.zeros(product.columns if self.factors.transposed else product.rows)
                out = np.empty(min(PIECE, self.elements), self.dtype.storage)
                for start in range(0, self.elements, PIECE):
                    piece = out[: self.elements - start]
                    self._add(files, start, product, piece)
                    low_rank.add_squares(piece, start, product.columns, self.factors.transposed, sums)
                lengths = read_whole(files, magnitude, DTYPES["F64"]).ravel()
                with np.errstate(divide="ignore", invalid="ignore"):  # an output of zeros gives NaN, which is found and named
                    self._dora["scales"] = (lengths / np.sqrt(sums)).astype(self.dtype.storage)
            return self._dora["scales"]


@dataclass(frozen=True, eq=False)
class AdaptedStack(Changed):
    """A tensor of matrices, one after another, each with a difference of its own added: the experts of a layer."""

    factors: tuple[Factors, ...]
    cache: Recent[LowRank]

    @property
    def file(self) -> WeightFile:
        return self.factors[0].file

    @property
    def summed_onto(self) -> Tensor:
        return self.base

    @property
    def matrices(self) -> int:
        return len(self.factors)

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, size = np.frombuffer(view, self.dtype.storage), self.elements // len(self.factors)
        done = 0
        while done < out.size:
            number, inside = divmod(start + done, size)
            piece = out[done : done + min(PIECE, size - inside)]
            low_rank.add(self.stored(files, start + done, piece.size), inside, self.product(files, number), piece)
            done += piece.size

    def unpacked(self, files: Files) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return the factors of every matrix, as those of `AdaptedTensor`."""
        return [low_rank.unpack(self.product(files, number)) for number in range(len(self.factors))]

    def product(self, files: Files, number: int) -> LowRank:
        """Return the factors of a matrix's difference."""
        return self.cache.get(f"{self.name} {number}", partial(self.factors[number].load, files, self.dtype))


@dataclass(frozen=True, eq=False)
class Edited(Changed):
    """A tensor of the base that is changed otherwise than by a product: scaled, or row by row.

    Attributes:
        own: A tensor of the adapter that says how.
        load: Reads it, and returns what changes a piece in place, given the place of its first element.
        cache: Of what was loaded.
        unit: Elements that are changed together, a row for instance; pieces begin and end with one.
    """

    own: Tensor
    load: Callable[[Files, DType], Edit]
    cache: Recent[Edit]
    unit: int = 1

    @property
    def file(self) -> WeightFile:
        return self.own.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        if not view.nbytes:
            return
        out, edit = np.frombuffer(view, self.dtype.storage), self.cache.get(self.name, partial(self.load, files, self.dtype))
        for low in range(0, out.size, PIECE):
            self._changed(files, start + low, edit, out[low : low + PIECE])

    def _changed(self, files: Files, start: int, edit: Edit, piece: NDArray[Any]) -> None:
        first, end = start // self.unit * self.unit, -(-(start + piece.size) // self.unit) * self.unit
        cut = end - first > piece.size
        whole = held.buffer(end - first, self.dtype.storage, "units") if cut else piece
        for low in range(0, whole.size, PIECE):
            raw, part = self.stored(files, first + low, min(PIECE, whole.size - low)), whole[low : low + PIECE]
            if raw.dtype == part.dtype:
                part[:] = raw
            else:
                NumbaKernels().convert(raw, part)
        edit(first, whole)
        if cut:
            piece[:] = whole[start - first :][: piece.size]


@dataclass(frozen=True)
class ReplacedTensor(Counted):
    """A tensor that the adapter holds whole (modules_to_save, biases), under the base's name."""

    base: Tensor
    own: Tensor

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def dtype(self) -> DType:
        return self.own.dtype

    @property
    def stands_for(self) -> DType:
        return result_dtype(self.base)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.own.shape

    @property
    def file(self) -> WeightFile:
        return self.own.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        self.own.read(files, start, view)

    def ahead(self, files: Files, start: int, elements: int) -> None:
        self.own.ahead(files, start, elements)
