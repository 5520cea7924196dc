"""What `torch.save` writes: a zip with a pickle that says what there is, and every storage as it is, at a fixed place.

The pickle is read by an unpickler that knows a dozen names, all of them functions and classes of this file: whatever a file
asks for, nothing else is imported, built or called. No storage is read. So a tensor of such a file is, like one of a
safetensors file, a type, a shape and a place, and torch is not needed.
"""

from __future__ import annotations

import io
import math
import pickle
import types
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from warmkit.errors import CheckpointError, FormatError, UnsupportedError

MAX_PICKLE_BYTES = 100_000_000  # as for a safetensors header
MAGIC = b"PK\x03\x04"
Names: TypeAlias = "Mapping[tuple[str, str], Any]"


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


class Refused(Exception):
    """A pickle asks for something that is not on the list; the message is its name."""


class Inert:
    """Stands for an object whose content says nothing of weights, or is looked at with distrust: its state is kept."""

    state: Any = types.MappingProxyType({})

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Unpickler(pickle.Unpickler):
    """Reads a pickle whose names are all in a table."""

    def __init__(self, content: bytes, names: Names, persistent: Callable[[Any], Any] | None = None) -> None:
        super().__init__(io.BytesIO(content))
        self._names, self._persistent = names, persistent

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._names:
            raise Refused(f"{module_name}.{global_name}")
        return self._names[module_name, global_name]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise Refused("a storage outside of the file")
        return self._persistent(pid)


def unpickle(content: bytes, where: str, names: Names, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read a pickle that may hold anything.

    Raises:
        UnsupportedError: If it asks for a name that is not in `names`.
        FormatError: If it is broken; `where` starts the message.
    """
    try:
        return Unpickler(content, names, persistent).load()
    except Refused as error:
        raise UnsupportedError(
            f"{where}: holds {str(error)[:120]!r}, and only tensors, numbers, texts and containers of them are read from a "
            "pickle; save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except CheckpointError:
        raise
    except Exception as error:  # a broken pickle raises anything
        raise FormatError(f"{where}: no pickle of torch, or a broken one ({type(error).__name__}: {str(error)[:80]})") from None


# ---- the zip --------------------------------------------------------------------------------------------------------


class _Window(io.RawIOBase):
    """A part of a file that looks like a file."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = path.open("rb"), start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class _Storage:
    type_name: str | None  # None where only the tensor knows
    offset: int
    nbytes: int


class _Archive:
    """One zip of torch, in a file or a part of it."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        self.path, self._start, self._length = path, start, length
        self._window = _Window(path, start, length)
        with self._window:
            archive = zipfile.ZipFile(self._window)
            self._records = {info.filename: info for info in archive.infolist()}
            roots = [name.removesuffix("data.pkl") for name in self._records if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise FormatError(f"{path}: a zip, but not one that torch.save wrote")
            self._root = roots[0]
            if self._records[self._root + "data.pkl"].file_size > MAX_PICKLE_BYTES:
                raise FormatError(f"{path}: its pickle claims more than {MAX_PICKLE_BYTES:,} bytes")
            if self._root + "byteorder" in self._records and archive.read(self._root + "byteorder") != b"little":
                raise UnsupportedError(f"{path}: written on a big-endian machine; save it again on another")
            content = archive.read(self._root + "data.pkl")
            self.tree = unpickle(content, str(path), self._names(), self._storage)

    def _names(self) -> Names:
        return {**_NAMES, **{("torch._utils", name): getattr(self, name) for name in _REBUILDERS}}

    def _storage(self, identity: Any) -> _Storage:
        """Find a storage, ("storage", type, key, device, elements), in the file."""
        _, kind, key, _, _ = identity
        info = self._records.get(f"{self._root}data/{key}")
        if info is None:
            raise FormatError(f"{self.path}: storage {key!r} is not in the zip")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise UnsupportedError(
                f"{self.path}: a compressed zip, which cannot be read in parts; save it again with torch.save"
            )
        self._window.seek(info.header_offset)
        header = self._window.read(30) or b""
        if header[:4] != MAGIC:
            raise FormatError(f"{self.path}: storage {key!r} is not where the zip says")
        begin = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if begin + info.file_size > self._length:
            raise FormatError(f"{self.path}: truncated: storage {key!r} ends past the end")
        return _Storage(kind, self._start + begin, info.file_size)

    def _tensor(self, storage: Any, type_name: Any, first: Any, shape: Any, strides: Any) -> TorchTensor:
        sizes = [first, *shape, *strides]
        natural = all(type(number) is int and 0 <= number < 1 << 63 for number in sizes) and len(shape) == len(strides)
        if not isinstance(storage, _Storage) or not isinstance(type_name, str) or not natural:
            raise FormatError(f"{self.path}: a tensor that is none ({str(shape)[:60]})")
        itemsize = _ITEMSIZES.get(type_name, 1)
        last = first + sum((size - 1) * stride for size, stride in zip(shape, strides))
        if math.prod(shape) and (last + 1) * itemsize > storage.nbytes:
            raise FormatError(
                f"{self.path}: a tensor of shape {list(shape)} ends at byte {(last + 1) * itemsize:,} of its storage, which "
                f"has {storage.nbytes:,}"
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
    ("torch", "device"): Inert,
    ("torch.serialization", "_get_layout"): Inert,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): Inert,
}


def read_torch_zip(path: Path, start: int = 0, length: int | None = None) -> Any:
    """Read what a torch file holds, its tensors as `TorchTensor`.

    Args:
        path: The file.
        start: First byte of the zip in it.
        length: Bytes of the zip; by default to the end of the file.

    Raises:
        FormatError: If it is truncated, or something else than a zip of torch.
        UnsupportedError: If it is older than torch 1.6, or holds more than tensors and plain values.
    """
    try:
        length = path.stat().st_size - start if length is None else length
        return _Archive(path, start, length).tree
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
