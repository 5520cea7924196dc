"""The safetensors container: read and check a header, and build one.

A file is an 8-byte little-endian header length, a JSON header, and the tensors' bytes without gaps. The header is
trusted for nothing: every length and offset is checked against the file before it is used.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.json_files import parse_json
from warmkit.errors import CheckpointError, FormatError, OutputError, UnsupportedError, nearest
from warmkit.formats.dtypes import DTYPES, QUANTISED, DType
from warmkit.formats.tensors import StoredTensor
from warmkit.sources.files import WeightFile, refuse_irregular

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
SHARDING = "DCP_SHARDING_INFO"  # metadata of torch's HuggingFaceStorageWriter: which part of each tensor a file holds
MAX_DIMENSIONS = 64  # that of numpy; a header of a million dimensions is an attack


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    entries: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def read_header(path: WeightFile, types: Mapping[str, DType] = DTYPES) -> Header:
    """Read and check the header of a safetensors file.

    Args:
        path: The file.
        types: Those that may be in it, by their names there.

    Returns:
        Its tensors in the order of their bytes, and its metadata.

    Raises:
        FormatError: If lengths, types, shapes or offsets contradict each other or the file.
        UnsupportedError: If a tensor is of a quantised type.
    """
    if isinstance(path, Path):
        refuse_irregular(path)
        try:
            with path.open("rb") as file:
                raw, size = _raw_header(path, os.fstat(file.fileno()).st_size, file.read)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    else:
        raw, size = _raw_header(path, path.size, path.open().read)
    if not raw.startswith(b"{"):
        raise FormatError(f"{path}: expected a JSON header, found {raw[:12]!r}")
    return _check(parse_json(raw, path), path, types, 8 + len(raw), size)


def _raw_header(path: WeightFile, size: int, read: Callable[[int], bytes]) -> tuple[bytes, int]:
    """Return the JSON of a header, and the size of its file, which it is compared with before it is read."""
    if size < 8:
        raise FormatError(f"{path}: expected a safetensors file, found {size} bytes (truncated?)")
    length = int.from_bytes(start := read(8), "little")
    if start == b"version ":
        raise FormatError(f"{path}: a pointer of Git LFS, not the file itself; fetch it: git lfs pull")
    if length > MAX_HEADER_BYTES or length > size - 8:
        raise FormatError(
            f"{path}: its header claims {length:,} bytes, the file has {size - 8:,} after the length "
            "(truncated, or not a safetensors file)"
        )
    return read(length), size


def _check(header: Any, path: WeightFile, types: Mapping[str, DType], start: int, size: int) -> Header:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{path}: __metadata__ must map strings to strings")
    entries = sorted((_entry(name, value, path, types, start) for name, value in header.items()), key=_place)
    end = start
    for entry in entries:
        if entry.offset != end:
            what = "overlaps the one before it" if entry.offset < end else "leaves a gap before it"
            raise FormatError(f"{path}: tensor {entry.name!r} {what} (offset {entry.offset - start:,})")
        end += entry.nbytes
    if end != size:
        what = "truncated" if size < end else "longer than its header says"
        raise FormatError(f"{path}: {what}: expected {end:,} bytes, found {size:,}; download or copy it again")
    return Header(tuple(entries), dict(metadata))


def _place(entry: StoredTensor) -> tuple[int, int]:
    return entry.offset, entry.nbytes


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _entry(name: str, value: Any, path: WeightFile, types: Mapping[str, DType], start: int) -> StoredTensor:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{path}: tensor {name!r}: expected the keys dtype, shape and data_offsets")
    dtype_name, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if str(dtype_name) not in types:
        if str(dtype_name) in QUANTISED:
            raise UnsupportedError(
                f"{path}: tensor {name!r} is {dtype_name}, a quantised type that cannot be averaged; "
                "merge the bfloat16 or float32 checkpoints and quantise the result"
            )
        raise FormatError(f"{path}: tensor {name!r}: unknown dtype {dtype_name!r}{nearest(str(dtype_name), DTYPES)}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS or not _naturals(offsets) or len(offsets) != 2:
        raise FormatError(f"{path}: tensor {name!r}: shape and data_offsets must be short lists of natural numbers")
    entry = StoredTensor(name, types[str(dtype_name)], tuple(shape), path, start + offsets[0])
    if offsets[1] - offsets[0] != entry.nbytes:
        raise FormatError(
            f"{path}: tensor {name!r}: {dtype_name} of shape {list(shape)} takes {entry.nbytes:,} bytes, "
            f"its offsets give {offsets[1] - offsets[0]:,}"
        )
    return entry


def build_header(tensors: Iterable[tuple[str, DType, tuple[int, ...]]], metadata: dict[str, str]) -> bytes:
    """Build the length and header of a file that holds `tensors` in the given order, without gaps.

    Returns:
        The first bytes of the file, padded with spaces to a multiple of 8, so that data start aligned.

    Raises:
        OutputError: If no reader of safetensors would take it: too long, or with names that it cannot hold.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, dtype, shape in tensors:
        if name == "__metadata__":
            raise OutputError(
                "a tensor is called '__metadata__', which safetensors keep for themselves; rename it in the input"
            )
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": dtype.name, "shape": list(shape), "data_offsets": [begin, end]}
    try:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = ascii(error.object[max(0, error.start - 20) : error.end + 20])
        raise OutputError(f"a name is no text that UTF-8 can hold ({near}); rename it in the input") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise OutputError(
            f"the header of {len(header):,} tensors takes {len(text):,} bytes, and safetensors allow {MAX_HEADER_BYTES:,}; "
            "choose a smaller --max-shard-size"
        )
    return len(text).to_bytes(8, "little") + text
