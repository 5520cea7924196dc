"""Digests of tensors, taken block by block as they stream past.

The digest of a tensor is XXH3-128 over the XXH3-128 digests (16 bytes each, canonical order) of its blocks of 2^20
elements in its own type, written as hexadecimal. Blocks may be hashed in any order, so threads do not wait for each
other; the cost is a few per cent of a merge, where SHA-256 would cost more than the merge.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import xxhash

BLOCK = 1 << 20
"""Elements per block. Part of the digest's definition."""

ALGORITHM = "xxh3-128 over xxh3-128 of blocks of 1048576 elements"


@dataclass(frozen=True)
class Digests:
    """Digests of one tensor: one for each input row and one for each output."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def block_digests(data: memoryview, itemsize: int) -> list[bytes]:
    """Return the digests of successive blocks of elements of `itemsize` bytes."""
    size = BLOCK * itemsize
    return [xxhash.xxh3_128_digest(data[start : start + size]) for start in range(0, data.nbytes, size)]


def tensor_digest(blocks: list[bytes]) -> str:
    return xxhash.xxh3_128_hexdigest(b"".join(blocks))


def file_digest(path: Path, algorithm: str = "xxh3-128") -> str:
    """Return the digest of a whole file: `xxh3-128` or `sha256`."""
    state = xxhash.xxh3_128() if algorithm == "xxh3-128" else hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            state.update(chunk)
    return state.hexdigest()
