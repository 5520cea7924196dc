"""Zip that `torch.save` writes: a pickle that says what there is, and every storage as it is, at a fixed place.

The pickle is read by a reader of our own that knows a dozen names, all of them functions and classes of warmkit: whatever a
file asks for, nothing else is imported, built or called. No storage is read. So a tensor of such a file is, like one of a
safetensors file, a type, a shape and a place, and torch is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats.pickle_reader import Inert, Names, Refused, counter, ordered, plain_set, unpickle
from warmkit.formats.stored_zip import MAGIC, StoredZip
from warmkit.sources.files import refuse_irregular

MAX_PICKLE_BYTES = 100_000_000  # as for a safetensors header
MAX_DIMENSIONS = 64
MOST_REPEATED = 16  # a tensor may repeat its storage (strides of 0), to this multiple of the file's length


@dataclass(frozen=True)
class TorchTensor:
    """A tensor as a torch file describes it.

    Attributes:
        file: Where it lies.
        type_name: Attribute of `torch`: `float32`.
        offset: First byte of its first element, from the start of the file.
        shape: Sizes.
        strides: Elements between neighbours, one number a dimension.
    """

    file: Path
    type_name: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    type_name: str | None  # None where only the tensor knows
    offset: int
    nbytes: int


class _Archive:
    """One zip of torch, in a file or a part of it."""

    def __init__(self, path: Path, start: int, length: int, most: int, more: Names) -> None:
        self.path, self._length, self._more = path, length, more
        self._kinds: dict[str, str | None] = {}  # types of the storages that were asked for
        with StoredZip(path, start, length, "torch.save") as self._zip:
            roots = [name.removesuffix("data.pkl") for name in self._zip.records if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise FormatError(f"{path}: a zip, but not one that torch.save wrote")
            self._root = roots[0]
            order = self._root + "byteorder"
            if order in self._zip.records and self._zip.content(order, 16) != b"little":
                raise UnsupportedError(f"{path}: written on a big-endian machine; save it again on another")
            content = self._zip.content(self._root + "data.pkl", most)
            self.tree = unpickle(content, str(path), self._names(), self._storage)
        self._zip.check_apart()

    def _names(self) -> Names:
        return {**_NAMES, **self._more, **{("torch._utils", name): getattr(self, name) for name in _REBUILDERS}}

    def _storage(self, identity: Any) -> _Storage:
        """Find a storage, ("storage", type, key, device, elements), in the file."""
        kind, key = (identity[1], identity[2]) if isinstance(identity, tuple) and len(identity) == 5 else (None, None)
        if not isinstance(key, str) or not isinstance(kind, str | None):
            raise FormatError(f"{self.path}: a storage that is none")
        if (record := f"{self._root}data/{key}") not in self._zip.records:
            raise FormatError(f"{self.path}: storage {key[:60]!r} is not in the zip")
        place = self._zip.place(record)
        if self._kinds.setdefault(key, kind) != kind:
            raise FormatError(f"{self.path}: storage {key[:60]!r} has two types")
        return _Storage(kind, *place)

    def _tensor(self, storage: Any, type_name: Any, first: Any, shape: Any, strides: Any) -> TorchTensor:
        plain = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MAX_DIMENSIONS
        natural = plain and all(type(number) is int and 0 <= number < 1 << 63 for number in (first, *shape, *strides))
        if not isinstance(storage, _Storage) or not isinstance(type_name, str) or not natural:
            raise FormatError(f"{self.path}: a tensor that is none")
        itemsize = _ITEMSIZES.get(type_name, 1)
        last, elements = first + sum((size - 1) * stride for size, stride in zip(shape, strides)), math.prod(shape)
        if elements and (last + 1) * itemsize > storage.nbytes:
            raise FormatError(
                f"{self.path}: a tensor of shape {list(shape)} ends at byte {(last + 1) * itemsize:,} of its storage, which "
                f"has {storage.nbytes:,}"
            )
        if elements * itemsize > MOST_REPEATED * max(self._length, 1 << 20):
            raise FormatError(
                f"{self.path}: a tensor of shape {list(shape)} stands for {elements * itemsize:,} bytes, in a file of "
                f"{self._length:,}"
            )
        return TorchTensor(self.path, type_name, storage.offset + first * itemsize, tuple(shape), tuple(strides))

    # ---- what a pickle may call; the names are torch's ----

    def _rebuild_tensor(self, storage: Any, first: Any, shape: Any, strides: Any) -> TorchTensor:
        return self._tensor(storage, storage.type_name, first, shape, strides)

    def _rebuild_tensor_v2(
        self, storage: Any, first: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, bits: Any = None
    ) -> TorchTensor:
        if bits:
            raise Refused("a tensor with a conjugate or negative bit")
        return self._tensor(storage, storage.type_name, first, shape, strides)

    def _rebuild_tensor_v3(
        self, storage: Any, first: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, dtype: Any, bits: Any = None
    ) -> TorchTensor:
        if bits:
            raise Refused("a tensor with a conjugate or negative bit")
        return self._tensor(storage, dtype, first, shape, strides)

    def _rebuild_parameter(self, data: TorchTensor, gradient: Any, hooks: Any) -> TorchTensor:
        return data

    def _rebuild_parameter_with_state(self, data: TorchTensor, gradient: Any, hooks: Any, state: Any) -> TorchTensor:
        return data


class PlainTensor(Inert):
    """Stands for `torch.Tensor`, which is named where a tensor has attributes: FSDP marks what it cloned."""


def rebuilt_with_attributes(function: Any, kind: Any, arguments: Any, attributes: Any) -> TorchTensor:
    """Stand for `torch._tensor._rebuild_from_type_v2` of a plain tensor; its attributes are passed over."""
    if kind is not PlainTensor or getattr(function, "__name__", None) not in _REBUILDERS:
        raise Refused("a tensor of a class of its own")
    return function(*arguments)


_REBUILDERS = (
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
)
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_ITEMSIZES = {
    "complex128": 16,
    "complex64": 8,
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("bool", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"), 1),
}
DTYPE_NAMES: Names = {("torch", name): name for name in _ITEMSIZES}
_NAMES: Names = {
    **DTYPE_NAMES,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): None,
    ("torch", "UntypedStorage"): None,
    ("torch", "Size"): tuple,
    ("torch", "Tensor"): PlainTensor,
    ("torch._tensor", "_rebuild_from_type_v2"): rebuilt_with_attributes,
    ("torch", "device"): Inert,
    ("argparse", "Namespace"): Inert,  # options of a run, which timm and others save beside the weights
    ("torch.serialization", "_get_layout"): Inert,
    ("collections", "OrderedDict"): ordered,
    ("collections", "Counter"): counter,
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
    ("_codecs", "encode"): Inert,
}


def read_torch_zip(
    path: Path, start: int = 0, length: int | None = None, most: int = MAX_PICKLE_BYTES, more: Names = MappingProxyType({})
) -> Any:
    """Read what a torch file holds, its tensors as `TorchTensor`.

    Args:
        path: The file.
        start: First byte of the zip in it.
        length: Bytes of the zip; by default to the end of the file.
        most: Bytes of the pickle in it, which says what there is; a longer one is an error.
        more: What the pickle may name beside tensors and plain values, and what stands for that here.

    Raises:
        FormatError: If it is truncated, or something else than a zip of torch.
        UnsupportedError: If it is older than torch 1.6, or holds more than tensors and plain values.
    """
    refuse_irregular(path)
    try:
        length = path.stat().st_size - start if length is None else length
        return _Archive(path, start, length, most, more).tree
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a broken zip raises anything
        raise _no_zip(path, start, f"{type(error).__name__}: {str(error)[:60]}") from None


def _no_zip(path: Path, start: int, said: str) -> CheckpointError:
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(4)
    if head == MAGIC:
        return FormatError(f"{path}: a torch file that was truncated or damaged ({said})")
    if head[:1] == b"\x80":
        return UnsupportedError(
            f"{path}: written by torch before 1.6, or without its zip format, so it cannot be read in parts; convert it once: "
            "torch.save(torch.load(FILE, weights_only=True), NEW)"
        )
    return FormatError(f"{path}: expected what torch.save writes, found {head!r}")
