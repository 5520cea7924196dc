"""Inputs of a merge, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from warmkit.engine.adapter_products import known_products
from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import StoredTensor, Tensor, is_sum, result_dtype
from warmkit.merging.types import Gram
from warmkit.sources.files import Files

if TYPE_CHECKING:
    from warmkit.merging.low_rank import LowRank


class Source(Protocol):
    """One checkpoint, read block by block from any thread.

    Attributes:
        name: What the user calls it.
        far: Whether reads cross a network, so that every one must be announced, in order and in time.
    """

    name: str
    far: bool

    def dtype(self, tensor: str) -> DType: ...

    def result_dtype(self, tensor: str) -> DType:
        """Return the type that a result has by default."""
        ...

    def shape(self, tensor: str) -> tuple[int, ...]: ...

    def read(self, tensor: str, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes from element `start` on."""
        ...

    def apart(self, tensor: str) -> Apart | None:
        """Return a tensor of 16 bits and what is to be added to it, apart; None where that cannot be."""
        ...

    def ahead(self, tensor: str, start: int, elements: int) -> None:
        """Announce a coming read, so that it overlaps the work before it."""
        ...

    def stop(self) -> None:
        """Let reads that wait for a network fail: the run is over."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Apart:
    """A tensor of 16 bits and the products that are to be added to its matrices.

    Attributes:
        base: The tensor.
        files: Where it is read from.
        product: Returns the product of a matrix; None where nothing is added.
        matrices: How many the tensor is, one after another.
    """

    base: Tensor
    files: Files
    product: Callable[[int], LowRank] | None = None
    matrices: int = 1

    @cached_property
    def place(self) -> object:
        """Where the base lies: two of the same place are the same bytes."""
        if isinstance(self.base, StoredTensor) and isinstance(self.base.file, Path):
            return self.base.file.resolve(), self.base.offset
        return self.base

    @property
    def finite(self) -> bool:
        """Whether all factors of the products are."""
        return self.product is None or all(self.product(number).finite for number in range(self.matrices))

    def read(self, start: int, view: memoryview) -> None:
        """Fill `view` with the base's bytes from element `start` on."""
        self.base.read(self.files, start, view)


class FileSource:
    """A checkpoint, read from its files.

    Args:
        name: What the user calls it.
        entries: Its tensors.
        files: Shared by all sources of a run, so that remote ones share their connections and memory; closed with each.
    """

    def __init__(self, name: str, entries: Mapping[str, Tensor], files: Files | None = None) -> None:
        self.name = name
        self.far = any(not isinstance(entry.file, Path) for entry in entries.values())
        self._entries = entries
        self._files = files or Files()

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def known_products(self, tensor: str, models: Sequence[FileSource]) -> Callable[[], Gram] | None:
        """Return how to find the products of task vectors from this init without reading it, None if that cannot be."""
        products = known_products(self._entries[tensor], [model._entries[tensor] for model in models])
        return None if products is None else lambda: products(self._files)

    def dtype(self, tensor: str) -> DType:
        return self._entries[tensor].dtype

    def result_dtype(self, tensor: str) -> DType:
        return result_dtype(self._entries[tensor])

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self._entries[tensor].shape

    def read(self, tensor: str, start: int, view: memoryview) -> None:
        self._entries[tensor].read(self._files, start, view)

    def apart(self, tensor: str) -> Apart | None:
        entry, files = self._entries[tensor], self._files
        if not is_sum(entry):
            return Apart(entry, files) if entry.dtype.itemsize == 2 else None
        base = entry.summed_onto
        if base is None or base.dtype.itemsize != 2:
            return None
        return Apart(base, files, lambda number: entry.product(files, number), entry.matrices)

    def ahead(self, tensor: str, start: int, elements: int) -> None:
        self._entries[tensor].ahead(self._files, start, elements)

    def stop(self) -> None:
        self._files.stop()

    def close(self) -> None:
        self._files.close()
