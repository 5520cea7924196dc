"""The header of a GGUF file: what it says of a model, and where its tensors lie. Lists are passed over."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from warmkit.errors import FormatError

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
LONGEST = 1 << 16  # bytes of a text that is read
DIMENSIONS = 4


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        name: Its key.
        shape: The longest dimension of memory last.
        kind: Number of gguf's type.
        offset: First byte, from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def read_header(path: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Return what a file says of its model, without lists, and its tensors.

    Raises:
        FormatError: If it is malformed or cut.
    """
    with path.open("rb", buffering=1 << 20) as file:
        header = _Header(path, file)
        magic, version = header.take("4sI")
        if magic != MAGIC or version not in VERSIONS:
            raise FormatError(f"{path}: expected GGUF of version 2 or 3, little-endian; found {magic!r}, version {version}")
        tensors, keys = header.take("QQ")
        said = dict(header.key() for _ in range(keys))
        found = [header.tensor() for _ in range(tensors)]
        alignment = said.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment < 1 << 31:
            raise header.malformed("an alignment that is none")
        start = -(-file.tell() // alignment) * alignment
    if len({each.name for each in found}) < len(found):
        raise FormatError(f"{path}: two tensors have one name")
    return said, [Entry(each.name, each.shape, each.kind, start + each.offset) for each in found]


class _Header:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._size = path, file, os.fstat(file.fileno()).st_size

    def malformed(self, what: str) -> FormatError:
        return FormatError(f"{self._path}: {what} in the header of GGUF, at byte {self._file.tell():,}; copy the file again")

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{form}")
        raw = self._file.read(size)
        if len(raw) < size:
            raise self.malformed("the end of the file")
        return struct.unpack(f"<{form}", raw)

    def _skip(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise self.malformed("the end of the file")
        self._file.seek(size, os.SEEK_CUR)

    def _text(self) -> str:
        (size,) = self.take("Q")
        if size > LONGEST:
            self._skip(size)
            return ""
        try:
            return bytes(self.take(f"{size}s")[0]).decode()
        except UnicodeDecodeError:
            raise self.malformed("a text that is none") from None

    def key(self) -> tuple[str, Any]:
        name, (kind,) = self._text(), self.take("I")
        return name, self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind in NUMBERS:
            return self.take(NUMBERS[kind])[0]
        if kind == TEXT:
            return self._text()
        if kind != LIST:
            raise self.malformed(f"type {kind}")
        inner, count = self.take("IQ")
        if inner in NUMBERS:
            self._skip(count * struct.calcsize(f"<{NUMBERS[inner]}"))
        elif inner == TEXT:
            for _ in range(count):
                self._skip(self.take("Q")[0])
        else:
            raise self.malformed(f"a list of type {inner}")
        return None

    def tensor(self) -> Entry:
        name, (count,) = self._text(), self.take("I")
        if not 0 < count <= DIMENSIONS:
            raise self.malformed(f"a tensor of {count} dimensions")
        shape = self.take(f"{count}Q")
        kind, offset = self.take("IQ")
        if not 0 < math.prod(shape) < 1 << 48 or offset > self._size:
            raise self.malformed(f"a tensor of shape {list(shape)} at {offset}")
        return Entry(name, tuple(reversed(shape)), kind, offset)
