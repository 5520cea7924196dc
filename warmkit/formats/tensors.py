"""Tensors that can be read in parts, wherever their numbers come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeGuard

from warmkit.formats.dtypes import DType
from warmkit.sources.files import Files, WeightFile

if TYPE_CHECKING:
    from warmkit.merging.low_rank import LowRank


class Shaped(Protocol):
    """What has a type and a shape.

    Attributes:
        dtype: Element type.
        shape: Dimensions; `()` is a scalar.
    """

    @property
    def dtype(self) -> DType: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class Tensor(Shaped, Protocol):
    """A tensor of a checkpoint, not read yet.

    Attributes:
        name: Its key.
        file: Where it is from, for messages.
        elements: How many.
        nbytes: All together.
    """

    @property
    def name(self) -> str: ...

    @property
    def file(self) -> WeightFile: ...

    @property
    def elements(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def read(self, files: Files, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes of the elements from `start` on."""
        ...

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce a coming read."""
        ...


class Sum(Protocol):
    """A tensor that is another one with products of thin matrices added: what a merge can add on the way.

    Attributes:
        summed_onto: The other one; None where the products are not all that is done to it.
        matrices: How many it is, one after another; each has a product.
    """

    @property
    def summed_onto(self) -> Tensor | None: ...

    @property
    def matrices(self) -> int: ...

    def product(self, files: Files, number: int) -> LowRank: ...


def is_sum(tensor: Tensor) -> TypeGuard[Sum]:
    """Say whether a tensor is a `Sum`; a protocol's own check takes a hundred times as long."""
    return hasattr(tensor, "summed_onto")


def result_dtype(tensor: Tensor) -> DType:
    """Return the type that a result of this tensor has unless another is asked for.

    A tensor that reads wider than what it stands for says so in `stands_for`: an adapter's sum is float32, its base bfloat16.
    """
    return getattr(tensor, "stands_for", tensor.dtype)


class Counted:
    """Base of what has a type and a shape, and so a size.

    Attributes:
        elements: How many.
        nbytes: All together.
    """

    @property
    def elements(self: Shaped) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self: Shaped) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Derived(Counted):
    """Base of a tensor that is made of another one, whose name, type and file it has.

    Attributes:
        own: The other one.
    """

    own: Tensor

    @property
    def name(self) -> str:
        return self.own.name

    @property
    def dtype(self) -> DType:
        return self.own.dtype

    @property
    def file(self) -> WeightFile:
        return self.own.file


@dataclass(frozen=True)
class StoredTensor(Counted):
    """A tensor that lies in a file as it is, element after element.

    Attributes:
        offset: First byte, counted from the start of the file.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    file: WeightFile
    offset: int

    def read(self, files: Files, start: int, view: memoryview) -> None:
        files.read(self.file, self.offset + start * self.dtype.itemsize, view)

    def ahead(self, files: Files, start: int, elements: int) -> None:
        size = self.dtype.itemsize
        if start < self.elements:
            files.ahead(self.file, self.offset + start * size, min(elements, self.elements - start) * size)
