"""Inputs of a merge, row by row: files, or tensors in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from warmkit.engine.adapter_products import known_products
from warmkit.errors import MismatchError, UnsupportedError
from warmkit.formats.dtypes import BY_TORCH_NAME, DType
from warmkit.formats.tensors import StoredTensor, Tensor, is_sum, result_dtype
from warmkit.merging.types import Gram
from warmkit.sources.files import Files

if TYPE_CHECKING:
    import torch

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


class MemorySource:
    """A state dict. Tensors on a GPU, or not contiguous, are copied once."""

    far = False

    def __init__(self, name: str, state_dict: Mapping[str, torch.Tensor]) -> None:
        self.name = name
        self._tensors: dict[str, tuple[DType, tuple[int, ...], NDArray[np.uint8]]] = {}
        for key, tensor in state_dict.items():
            torch_name = str(tensor.dtype).removeprefix("torch.")
            if torch_name not in BY_TORCH_NAME:
                raise UnsupportedError(f"{name}: tensor {key!r} is {torch_name}, which cannot be averaged")
            self._tensors[key] = (BY_TORCH_NAME[torch_name], tuple(tensor.shape), _bytes_of(tensor))

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def dtype(self, tensor: str) -> DType:
        return self._tensors[tensor][0]

    def result_dtype(self, tensor: str) -> DType:
        return self.dtype(tensor)

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self._tensors[tensor][1]

    def read(self, tensor: str, start: int, view: memoryview) -> None:
        dtype, _, data = self._tensors[tensor]
        first = start * dtype.itemsize
        view[:] = data.data[first : first + view.nbytes]

    def apart(self, tensor: str) -> None:
        """Say that nothing here is a sum."""

    def ahead(self, tensor: str, start: int, elements: int) -> None:
        """Nothing to announce: it is in memory."""

    def stop(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self._tensors.clear()


def _bytes_of(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def check_state_dicts(sources: Sequence[MemorySource | FileSource]) -> None:
    """Check that all hold the same names with the same shapes and kinds.

    Raises:
        MismatchError: Naming the first difference.
    """
    reference, *others = sources
    for other in others:
        if different := set(reference.names) ^ set(other.names):
            raise MismatchError(f"{other.name} and {reference.name} do not both hold {sorted(different)[:6]}")
        for name in reference.names:
            if reference.shape(name) != other.shape(name):
                raise MismatchError(f"{name!r}: {list(other.shape(name))} in {other.name}, not {list(reference.shape(name))}")
            kinds = {reference.dtype(name), other.dtype(name)}
            if len(kinds) > 1 and any(dtype.kind == "exact" for dtype in kinds):
                raise MismatchError(f"{name!r}: {other.name} and {reference.name} hold different kinds of numbers")
